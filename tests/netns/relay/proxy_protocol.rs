//! `sticky.proxy_protocol`: a backend is told who is relayed to it.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use anyhow::Context;
use sticky_tests::topology::NODE;

use super::{CLIENT_V6, NODE_V6, add_ipv6};
use crate::fixture::{FileNode, service};

const PORT: u16 = 7070;

#[test]
fn an_ipv4_backend_is_told_of_its_ipv6_client() -> anyhow::Result<()> {
    let node = FileNode::demo(1, 1)?;
    let backend = node.file.addresses[0];
    let listener = node.backends.enter(|| TcpListener::bind((backend, PORT)))??;
    listener.set_nonblocking(true)?;
    let of = |version| {
        service(
            "told",
            &["7070:7070/tcp"],
            &[backend],
            &[
                ("com.docker.lb.ip_hash", "true"),
                ("sticky.proxy_protocol", version),
                ("sticky.health.interval", "1h"),
            ],
        )
    };
    node.file.write(&of("v2"))?;
    node.sticky.wait_up("told", 1, Duration::from_secs(10))?;
    add_ipv6(&node, "told")?;

    let to: SocketAddr = (NODE_V6, PORT).into();
    let (client, from) = node.net.clients.enter(|| call(to))??;
    let told = first_bytes(&listener, b"hello")?;
    let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\0\x24".to_vec();
    expected.extend(CLIENT_V6.octets());
    expected.extend(NODE_V6.octets());
    expected.extend(from.port().to_be_bytes());
    expected.extend(PORT.to_be_bytes());
    expected.extend(b"hello");
    assert_eq!(told, expected);
    drop(client);

    // A client on the host itself is told of as well, by the other version.
    node.file.write(&of("v1"))?;
    std::thread::sleep(Duration::from_millis(500));
    let (_client, from) = node.net.node.enter(|| call((NODE, PORT).into()))??;
    let expected = format!("PROXY TCP4 {NODE} {NODE} {} {PORT}\r\nhello", from.port());
    assert_eq!(String::from_utf8(first_bytes(&listener, b"hello")?)?, expected);
    Ok(())
}

fn call(to: SocketAddr) -> anyhow::Result<(TcpStream, SocketAddr)> {
    let mut stream = TcpStream::connect(to)?;
    stream.write_all(b"hello")?;
    let from = stream.local_addr()?;
    Ok((stream, from))
}

/// What the next connection says until `end`; those of the checks say nothing, or speak for themselves.
fn first_bytes(listener: &TcpListener, end: &[u8]) -> anyhow::Result<Vec<u8>> {
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(5) {
        let Ok((mut stream, _)) = listener.accept() else {
            std::thread::sleep(Duration::from_millis(5));
            continue;
        };
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 256];
        while !bytes.ends_with(end) {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => break,
                Ok(length) => bytes.extend(&buffer[..length]),
            }
        }
        if bytes.ends_with(end) {
            return Ok(bytes);
        }
    }
    None.context("nobody called")
}

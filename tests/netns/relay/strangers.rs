//! What is not for a frontend does not come to the relay.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use sticky_tests::demo::LINE_PORT;
use sticky_tests::netns::Netns;
use sticky_tests::topology::{NODE, NODE_OTHER, vip};

use super::lines;
use crate::fixture::{FileNode, service};

const TAKEN: u16 = 7071;

/// A process of the host that says its name.
fn greeter(netns: &Netns, at: SocketAddr, name: &'static str) -> anyhow::Result<()> {
    let listener = netns.enter(|| TcpListener::bind(at))??;
    // Ends with the test's process; it waits for nothing else.
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            // Who does not listen is none of our clients.
            let _ = stream.write_all(name.as_bytes());
        }
    });
    Ok(())
}

fn greeting(from: &Netns, to: SocketAddr) -> anyhow::Result<String> {
    from.enter(|| {
        let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })?
}

#[test]
fn other_processes_keep_their_ports_and_the_relay_has_no_open_door() -> anyhow::Result<()> {
    let node = FileNode::demo(2, 2)?;
    let host = &node.net.node;
    // Docker's port on loopback, and on an address that is none of ours.
    greeter(host, (Ipv4Addr::LOCALHOST, LINE_PORT).into(), "loopback")?;
    greeter(host, (NODE_OTHER, LINE_PORT).into(), "other")?;
    // Of a process that was there before a service asked for its port.
    greeter(host, (NODE, TAKEN).into(), "taken")?;
    let addresses = &node.file.addresses;
    let labels = [("com.docker.lb.ip_hash", "true")];
    let ports = ["9090:9090/tcp", "7071:9090/tcp"];
    // One service has a frontend of itself as its backend.
    let loops: [IpAddr; 1] = [NODE.into()];
    let text = [
        service("demo", &ports, addresses, &labels),
        service("loop", &["8080:8080/tcp"], &loops, &labels),
    ];
    node.file.write(&text.concat())?;
    node.sticky.wait_service("demo", "a port that is taken", Duration::from_secs(10), |entry| {
        entry["errors"].to_string().contains("is in use by")
    })?;

    assert_eq!(greeting(host, (Ipv4Addr::LOCALHOST, LINE_PORT).into())?, "loopback");
    assert_eq!(greeting(host, (NODE_OTHER, LINE_PORT).into())?, "other");
    assert_eq!(greeting(host, vip(TAKEN))?, "taken");
    lines(host, NODE.into(), vip(LINE_PORT))?.ask("ours")?;

    // The relay's own port is closed to those who were not sent there.
    let log = node.sticky.log();
    let line = log.iter().find(|line| line.text.contains("the relay listens")).context("a port")?;
    let port: u16 = line.text.rsplit("port=").next().context("a port")?.trim().parse()?;
    for from in [&node.net.clients, host] {
        let refused = from
            .enter(|| TcpStream::connect_timeout(&vip(port), Duration::from_secs(2)).map(|_| ()))?;
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));
    }

    let looped = greeting(host, vip(8080)).expect_err("nothing is behind it but itself");
    println!("{looped:#}");
    let metrics = host.run("curl", &["--silent", "http://127.0.0.1:9880/metrics"])?;
    // Not a single round: a backend that is a frontend is none.
    let carried = "sticky_relay_connections_total{service=\"loop\",backend=\"loop.1\"} 0";
    assert!(metrics.lines().any(|line| line == carried), "{metrics}");
    Ok(())
}

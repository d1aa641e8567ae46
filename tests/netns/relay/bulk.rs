//! A hundred megabytes each way at the same time, and a connection that is closed on one side only.

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use sticky_tests::process::Process;
use sticky_tests::topology::NODE;

use super::{NODE_V6, add_ipv6};
use crate::fixture::{FileNode, service};

const PORT: u16 = 7070;
const LENGTH: usize = 100 << 20;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn a_hundred_megabytes_each_way_and_a_half_closed_connection() -> anyhow::Result<()> {
    let node = FileNode::demo(1, 1)?;
    let backend = node.file.addresses[0];
    let listener = node.backends.enter(|| TcpListener::bind((backend, PORT)))??;
    // Ends with the test's process; it waits for nothing else.
    thread::spawn(move || serve(&listener));
    node.file.write(&service(
        "bulk",
        &["7070:7070/tcp"],
        &[backend],
        &[("com.docker.lb.ip_hash", "true"), ("sticky.health.interval", "1h")],
    ))?;
    node.sticky.wait_up("bulk", 1, Duration::from_secs(10))?;
    add_ipv6(&node, "bulk")?;
    let cases: [(_, IpAddr); 2] =
        [(&node.net.node, NODE.into()), (&node.net.clients, NODE_V6.into())];
    for (from, to) in cases {
        from.enter(|| exchange((to, PORT).into()))?.with_context(|| format!("to {to}"))?;
    }

    // And while one sticky succeeds another.
    let provider = format!("file:{}", node.file.path().display());
    let run = ["run", "--takeover", "--iface", "eth0", "--provider", &provider];
    let from = &node.net.node;
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let exchanging = scope.spawn(|| {
            from.enter(|| {
                let mut count = 0;
                while !stop.load(Ordering::Relaxed) {
                    exchange((NODE, PORT).into())?;
                    count += 1;
                }
                anyhow::Ok(count)
            })?
        });
        let outcome = (|| {
            let mut successor = Process::spawn("successor", &node.sticky.command(&run))?;
            successor.wait_line(LIMIT, 0, |line| line.contains("carries on open connections"))?;
            anyhow::Ok(successor)
        })();
        stop.store(true, Ordering::Relaxed);
        let count = exchanging.join().expect("it asserts nothing")?;
        println!("{count} exchanges while one succeeded another");
        outcome.map(|_| ())
    })
}

/// Sends everything and closes; is told afterwards how much that was.
fn exchange(to: SocketAddr) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(LIMIT))?;
    let mut half = stream.try_clone()?;
    let sending = thread::spawn(move || -> std::io::Result<()> {
        send(&mut half, 1)?;
        half.shutdown(Shutdown::Write)
    });
    receive(&mut stream, 2)?;
    sending.join().expect("it asserts nothing")?;
    let mut counted = [0; 8];
    stream.read_exact(&mut counted).context("nothing came after this side had closed")?;
    anyhow::ensure!(usize::from_be_bytes(counted) == LENGTH);
    anyhow::ensure!(stream.read(&mut counted)? == 0, "an end");
    Ok(())
}

fn serve(listener: &TcpListener) {
    while let Ok((stream, _)) = listener.accept() {
        // What goes wrong here is seen at the other end. A check of our health says nothing.
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) -> anyhow::Result<()> {
    let mut first = [0];
    stream.peek(&mut first)?;
    let mut half = stream.try_clone()?;
    let sending = thread::spawn(move || send(&mut half, 2));
    receive(&mut stream, 1)?;
    anyhow::ensure!(stream.read(&mut first)? == 0, "an end");
    sending.join().expect("it asserts nothing")?;
    stream.write_all(&LENGTH.to_be_bytes())?;
    Ok(())
}

/// A block whose bytes tell where they belong; `LENGTH` is no multiple of it.
fn block(seed: u8) -> Vec<u8> {
    (0..65_521_u32).map(|i| (i / 251) as u8 ^ (i % 251) as u8 ^ seed).collect()
}

fn send(stream: &mut TcpStream, seed: u8) -> std::io::Result<()> {
    let block = block(seed);
    let mut left = LENGTH;
    while left > 0 {
        let now = left.min(block.len());
        stream.write_all(&block[..now])?;
        left -= now;
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, seed: u8) -> anyhow::Result<()> {
    let block = block(seed);
    let mut buffer = block.clone();
    let mut left = LENGTH;
    while left > 0 {
        let now = left.min(block.len());
        stream.read_exact(&mut buffer[..now])?;
        anyhow::ensure!(buffer[..now] == block[..now], "other bytes, {left} before the end");
        left -= now;
    }
    Ok(())
}

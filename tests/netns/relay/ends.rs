//! What ends a relayed connection, and what does not.

use std::io::ErrorKind;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use sticky_tests::demo::{LINE_PORT, backend_name};
use sticky_tests::lines::LineConnection;
use sticky_tests::process::Process;
use sticky_tests::topology::{NODE, client, vip};
use sticky_tests::wait;

use super::{lines, tables};
use crate::fixture::FileNode;

const LIMIT: Duration = Duration::from_secs(20);

/// Connections of as many clients on the host itself.
fn many(node: &FileNode, count: u32) -> anyhow::Result<Vec<LineConnection>> {
    (0..count)
        .map(|index| {
            let source = client(index);
            node.net.node.ip(&format!("addr add {source}/32 dev lo"))?;
            lines(&node.net.node, source, vip(LINE_PORT))
        })
        .collect()
}

#[test]
fn a_connection_ends_with_its_backend_and_others_stay() -> anyhow::Result<()> {
    let node = FileNode::demo(4, 4)?;
    let mut open = many(&node, 80)?;
    let gone = backend_name(&node.file.addresses[3]);
    node.scale(3)?;
    let mut ended = 0;
    for connection in &mut open {
        if connection.instance == gone {
            let error = connection.ask("still there?").expect_err("its backend is gone");
            let cause = error.root_cause().downcast_ref::<std::io::Error>().map(|e| e.kind());
            let reset = [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe];
            assert!(cause.is_some_and(|kind| reset.contains(&kind)), "{error:#}");
            ended += 1;
        } else {
            connection.ask("still there?")?;
        }
    }
    assert!(ended > 0, "80 clients and none was on one of four backends");
    let again = lines(&node.net.node, NODE.into(), vip(LINE_PORT))?;
    assert_ne!(again.instance, gone);
    Ok(())
}

#[test]
fn a_backend_that_refuses_costs_its_clients_nothing() -> anyhow::Result<()> {
    let mut node = FileNode::demo(3, 3)?;
    let first = lines(&node.net.node, NODE.into(), vip(LINE_PORT))?;
    let of = |instance: &str| {
        node.file.addresses.iter().position(|address| backend_name(address) == instance)
    };
    let index = of(&first.instance).context("one of ours")?;
    node.running.kill(index);
    // The checks have not noticed yet.
    let started = Instant::now();
    let second = lines(&node.net.node, NODE.into(), vip(LINE_PORT))?;
    assert!(started.elapsed() < Duration::from_secs(2), "after {:?}", started.elapsed());
    assert_ne!(second.instance, first.instance);
    Ok(())
}

#[test]
fn no_connection_fails_while_one_sticky_succeeds_another() -> anyhow::Result<()> {
    let mut node = FileNode::demo(3, 3)?;
    let mut open = many(&node, 20)?;
    let provider = format!("file:{}", node.file.path().display());
    let run = ["run", "--takeover", "--iface", "eth0", "--provider", &provider];
    let (host, stop) = (&node.net.node, AtomicBool::new(false));
    let first = lines(host, NODE.into(), vip(LINE_PORT))?.instance;
    let (count, _successor) = std::thread::scope(|scope| {
        let connecting = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let mut connection = lines(host, NODE.into(), vip(LINE_PORT))?;
                connection.ask("and you?")?;
                anyhow::ensure!(connection.instance == first, "another backend");
                count += 1;
            }
            Ok(count)
        });
        let outcome = (|| {
            let mut successor = Process::spawn("successor", &node.sticky.command(&run))?;
            successor.wait_line(LIMIT, 0, |line| line.contains("took over"))?;
            node.sticky.process()?.wait(LIMIT)?;
            std::thread::sleep(Duration::from_millis(200));
            anyhow::Ok(successor)
        })();
        stop.store(true, Ordering::Relaxed);
        let count = connecting.join().expect("it asserts nothing").unwrap();
        anyhow::Ok((count, outcome?))
    })?;
    println!("{count} new connections, {} open ones", open.len());
    open.iter_mut().try_for_each(|connection| connection.ask("still there?"))?;
    // They end with their backends there as here.
    let gone = backend_name(&node.file.addresses[2]);
    node.scale(2)?;
    for connection in &mut open {
        assert_eq!(connection.ask("still there?").is_err(), connection.instance == gone);
    }
    let tables = tables(host)?;
    assert_eq!(tables.matches("sticky-").count(), 1, "{tables}");
    Ok(())
}

#[test]
fn killed_it_leaves_no_rule_and_the_next_start_has_them_again() -> anyhow::Result<()> {
    let mut node = FileNode::demo(2, 2)?;
    let first = lines(&node.net.node, NODE.into(), vip(LINE_PORT))?;
    assert!(tables(&node.net.node)?.contains("table inet sticky-"), "no table of ours");
    node.sticky.kill();
    wait::until_true("the table to be gone", Duration::from_secs(5), || {
        Ok(!tables(&node.net.node)?.contains("sticky"))
    })?;
    // No Docker is here to answer in our place, so the host says at once that nobody listens.
    let refused = node.net.node.enter(|| {
        TcpStream::connect_timeout(&vip(LINE_PORT), Duration::from_secs(2)).map(|_| ())
    })?;
    assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::ConnectionRefused));

    node.sticky.run()?;
    let again = wait::until("the relay", Duration::from_secs(5), || {
        Ok(lines(&node.net.node, NODE.into(), vip(LINE_PORT)).map_err(|e| format!("{e:#}")))
    })?;
    assert_eq!(again.instance, first.instance, "the record outlived the process");

    // Asked to end, it carries on what is open.
    let mut again = again;
    node.sticky.process()?.signal(Signal::SIGTERM)?;
    std::thread::sleep(Duration::from_millis(500));
    again.ask("still there?")?;
    let refused = lines(&node.net.node, NODE.into(), vip(LINE_PORT));
    refused.expect_err("it takes no more");
    drop(again);
    node.sticky.process()?.wait(Duration::from_secs(5))?;
    assert!(!tables(&node.net.node)?.contains("sticky"), "a table of ours is left");
    Ok(())
}

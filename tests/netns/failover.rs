//! A client of datagrams notices the death of its backend by no more than the datagram that told of it.

use std::net::IpAddr;
use std::time::Duration;

use serde_json::Value;
use sticky_tests::datagrams::{DATAGRAM_PORT, Datagrams, Server};
use sticky_tests::demo::backend_name;
use sticky_tests::topology::{client, vip};
use sticky_tests::wait;

use crate::fixture::{FileNode, service};

const CLIENTS: u32 = 30;

fn text(addresses: &[IpAddr]) -> String {
    let labels = [("com.docker.lb.ip_hash", "true"), ("sticky.health.interval", "1s")];
    service("names", &["5353:5353/udp"], addresses, &labels)
}

/// Waits until the service is so, and the maps with it.
fn known(node: &FileNode, before: &Value, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<()> {
    wait::until_true("the death to be known", Duration::from_secs(10), || {
        let status = node.sticky.status()?;
        Ok(wanted(&status["services"][0]) && status["generation"] != before["generation"])
    })
}

/// One datagram of each client: who was with `dead` is served by another, the others by whom they were.
fn served(asking: &mut [(Datagrams, String)], dead: &str) -> anyhow::Result<usize> {
    let mut moved = 0;
    for (at, (datagrams, instance)) in asking.iter_mut().enumerate() {
        let answer = datagrams.ask(b"where?").map_err(|e| e.context(format!("client {at}")))?;
        if instance == dead {
            anyhow::ensure!(answer.instance != dead, "client {at}: the dead answers");
            moved += 1;
            *instance = answer.instance;
        } else {
            anyhow::ensure!(answer.instance == *instance, "client {at} moved");
        }
    }
    Ok(moved)
}

#[test]
fn the_next_datagram_goes_to_a_living_backend() -> anyhow::Result<()> {
    let node = FileNode::start(4, text)?;
    let addresses = &node.file.addresses;
    let start = |&address: &IpAddr| Server::start(&node.backends, address).map(Some);
    let mut servers = addresses.iter().map(start).collect::<anyhow::Result<Vec<_>>>()?;
    node.sticky.wait_up("names", 4, Duration::from_secs(10))?;
    let mut asking = node.net.clients.enter(|| {
        let ask = |index| {
            let datagrams = Datagrams::open(client(index), vip(DATAGRAM_PORT))?;
            let instance = datagrams.ask(b"first")?.instance;
            anyhow::ensure!(datagrams.ask(b"second")?.instance == instance);
            Ok((datagrams, instance))
        };
        (0..CLIENTS).map(ask).collect::<anyhow::Result<Vec<_>>>()
    })??;
    let position =
        |instance: &str| addresses.iter().position(|address| backend_name(address) == instance);

    // Its program ends: the port is closed.
    let dead = asking[0].1.clone();
    let at = position(&dead).expect("one of them");
    let before = node.sticky.status()?;
    servers[at] = None;
    known(&node, &before, |service| service["backends"][at]["state"] == "down")?;
    assert!(served(&mut asking, &dead)? > 0);

    // It is taken out of the file.
    let gone = asking[0].1.clone();
    let at = position(&gone).expect("one of them");
    let before = node.sticky.status()?;
    let mut left = addresses.clone();
    left.remove(at);
    node.file.write(&text(&left))?;
    known(&node, &before, |service| {
        service["backends"].as_array().is_some_and(|all| all.len() == 3)
    })?;
    assert!(served(&mut asking, &gone)? > 0);
    Ok(())
}

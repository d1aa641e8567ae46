//! Known clients stay; a hundred thousand new ones spread evenly, by real packets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use sticky_tests::datagrams::{DATAGRAM_PORT, Server};
use sticky_tests::demo::HTTP_PORT;
use sticky_tests::load;
use sticky_tests::spoof::{Kind, Spoof};
use sticky_tests::topology::{client, vip};
use sticky_tests::wait;

use crate::fixture::{FileNode, service};

const KNOWN: u32 = 1000;
const NEW: u32 = 100_000;
/// Datagrams on their way at once: fewer than a queue of a veth holds (256), which drops the others without a word.
const ON_THE_WAY: usize = 250;

fn text(addresses: &[std::net::IpAddr]) -> String {
    let labels = [("com.docker.lb.ip_hash", "true")];
    service("demo", &["8080:8080/tcp", "5353:5353/udp"], addresses, &labels)
}

#[test]
fn none_of_a_thousand_moves_and_a_hundred_thousand_spread() -> anyhow::Result<()> {
    let node = FileNode::start(10, |addresses| text(&addresses[..5]))?;
    node.sticky.wait_up("demo", 5, Duration::from_secs(10))?;
    let addresses = &node.file.addresses;
    let servers: Vec<Server> = addresses
        .iter()
        .map(|&address| Server::start(&node.backends, address))
        .collect::<Result<_, _>>()?;
    let clients = &node.net.clients;
    let known = load::visit(clients, 0..KNOWN, vip(HTTP_PORT))?;

    node.file.write(&text(addresses))?;
    node.sticky.wait_up("demo", 10, Duration::from_secs(10))?;
    let again = load::visit(clients, 0..KNOWN, vip(HTTP_PORT))?;
    let moved =
        known.iter().filter(|(index, visit)| again[*index].instance != visit.instance).count();
    assert_eq!(moved, 0, "of {KNOWN} known clients");

    let spoof = Spoof::new(clients, vip(DATAGRAM_PORT), Kind::Datagram)?;
    let all: Vec<u32> = (KNOWN..KNOWN + NEW).collect();
    for some in all.chunks(ON_THE_WAY) {
        let before: u64 = servers.iter().map(Server::answered).sum();
        spoof.send(some.iter().map(|&index| SocketAddr::new(client(index), 4000)))?;
        wait::until("the datagrams", Duration::from_secs(5), || {
            let now: u64 = servers.iter().map(Server::answered).sum();
            Ok(if now - before == some.len() as u64 { Ok(()) } else { Err(format!("{now}")) })
        })?;
    }
    let shares: BTreeMap<_, _> = addresses
        .iter()
        .zip(&servers)
        .map(|(address, server)| (address, server.answered()))
        .collect();
    let fair = f64::from(NEW) / 10.0;
    println!("clients: {shares:?}");
    let off = |share: f64, fair: f64| (share - fair).abs() / fair;
    assert!(shares.values().all(|&share| off(share as f64, fair) < 0.05), "{shares:?}");

    let entry = node.sticky.service("demo")?;
    let slots: Vec<f64> = entry["backends"]
        .as_array()
        .map(|all| all.iter().filter_map(|backend| backend["slots"].as_f64()).collect())
        .unwrap_or_default();
    let fair = slots.iter().sum::<f64>() / 10.0;
    println!("slots: {slots:?}");
    assert!(slots.len() == 10 && slots.iter().all(|&s| off(s, fair) < 0.01), "{slots:?}");
    Ok(())
}

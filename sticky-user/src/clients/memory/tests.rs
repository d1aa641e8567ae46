use std::net::Ipv4Addr;
use std::time::Duration;

use super::*;
use crate::model::{Backend as Task, DrainMode, IpPrefix, Service, ServiceConfig, State};

fn task(id: &str, state: State) -> Task {
    Task {
        id: id.to_owned(),
        name: id.to_owned(),
        addr: Some(([198, 51, 100, 1], 80).into()),
        addr_v6: None,
        layer4: true,
        node: String::new(),
        weight: 1,
        state,
        reason: None,
        outgoing: false,
    }
}

fn snapshot(ttl: Duration, tasks: &[(&str, State)]) -> Snapshot {
    Snapshot {
        services: vec![Arc::new(Service {
            id: "s".to_owned(),
            name: "s".to_owned(),
            config: ServiceConfig { affinity_ttl: ttl, ..ServiceConfig::default() },
            publish: Vec::new(),
            backends: tasks.iter().map(|(id, state)| task(id, *state)).collect(),
            errors: Vec::new(),
        })],
    }
}

const HOUR: Duration = Duration::from_secs(3600);

fn table() -> MemoryTable {
    MemoryTable::new(HashKey { k0: 1, k1: 2 }, 251, 10_000)
}

fn clients() -> impl Iterator<Item = IpAddr> {
    (0..200).map(|i| IpAddr::V4(Ipv4Addr::new(203, 0, 113, i)))
}

#[test]
fn known_clients_stay_through_scaling_and_leave_a_lost_backend() {
    let t = table();
    let up = State::Up;
    t.publish(&snapshot(HOUR, &[("a", up), ("b", up), ("c", up)]));
    let first: Vec<_> = clients().map(|c| t.choose("s", c).unwrap()).collect();
    assert!(first.iter().all(|c| c.reason == Outcome::New));
    t.publish(&snapshot(HOUR, &[("a", up), ("b", up), ("c", up), ("d", up), ("e", up)]));
    for (client, before) in clients().zip(&first) {
        let now = t.choose("s", client).unwrap();
        assert_eq!((now.backend.as_str(), now.reason), (before.backend.as_str(), Outcome::Pinned));
    }
    t.publish(&snapshot(HOUR, &[("b", up), ("c", up), ("d", up), ("e", up)]));
    for (client, before) in clients().zip(&first) {
        let now = t.choose("s", client).unwrap();
        if before.backend == "a" {
            assert_ne!(now.backend, "a");
            assert_eq!(now.reason, Outcome::Repinned);
        } else {
            assert_eq!(now.backend, before.backend);
        }
    }
    // The place of `a` goes to another task: no record may follow it there.
    t.publish(&snapshot(HOUR, &[("f", up), ("b", up), ("c", up), ("d", up), ("e", up)]));
    assert!(clients().all(|c| t.look("s", c).unwrap().backend != "f"));
}

#[test]
fn looking_leaves_no_record() {
    let t = table();
    t.publish(&snapshot(HOUR, &[("a", State::Up), ("b", State::Up)]));
    let client = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    let seen = t.look("s", client).unwrap();
    assert_eq!(t.clients(), 0);
    assert_eq!(t.choose("s", client).unwrap(), seen);
    assert_eq!(t.clients(), 1);
    assert_eq!(t.look("s", client).unwrap().reason, Outcome::Pinned);
    assert_eq!(t.look("unknown", client), None);
}

#[test]
fn draining_follows_its_mode() {
    let t = table();
    t.publish(&snapshot(HOUR, &[("a", State::Up)]));
    let known = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    t.choose("s", known).unwrap();
    let sessions = State::Draining(DrainMode::Sessions);
    t.publish(&snapshot(HOUR, &[("a", sessions), ("b", State::Up)]));
    assert_eq!(t.choose("s", known).unwrap().backend, "a");
    assert!(clients().filter(|c| *c != known).all(|c| t.look("s", c).unwrap().backend == "b"));
    let connections = State::Draining(DrainMode::Connections);
    t.publish(&snapshot(HOUR, &[("a", connections), ("b", State::Up)]));
    assert_eq!(t.choose("s", known).unwrap().backend, "b");
    t.publish(&snapshot(HOUR, &[("b", State::Down)]));
    assert_eq!(t.choose("s", known), None);
}

#[test]
fn ttl_zero_follows_the_hash_and_prefixes_join_clients() {
    let t = table();
    let mut s = snapshot(Duration::ZERO, &[("a", State::Up), ("b", State::Up), ("c", State::Up)]);
    Arc::make_mut(&mut s.services[0]).config.ip_prefix = IpPrefix { v4: 24, v6: 64 };
    t.publish(&s);
    let first = t.choose("s", IpAddr::V4(Ipv4Addr::new(203, 0, 113, 1))).unwrap().backend;
    assert!(clients().all(|c| t.choose("s", c).unwrap().backend == first));
    assert_eq!(t.clients(), 1);
    let mapped = "::ffff:203.0.113.77".parse().unwrap();
    assert_eq!(t.look("s", mapped).unwrap().backend, first);
}

#[test]
fn hashing_a_key_is_stable_and_spreads() {
    let t = table();
    t.publish(&snapshot(HOUR, &[("a", State::Up), ("b", State::Up), ("c", State::Up)]));
    let owners: std::collections::HashSet<_> = (0..50)
        .map(|i| {
            let key = format!("value-{i}");
            let owner = t.hashed("s", key.as_bytes()).unwrap().backend;
            assert_eq!(t.hashed("s", key.as_bytes()).unwrap().backend, owner);
            owner
        })
        .collect();
    assert_eq!(owners.len(), 3);
}

//! `sticky where` tells where packets go, and changes nothing by telling.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::Context;
use sticky_tests::demo::{HTTP_PORT, backend_name};
use sticky_tests::load;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::{client, vip};

use crate::fixture::FileNode;

const CLIENTS: u32 = 1000;

#[test]
fn where_agrees_with_the_packets_of_a_thousand_clients() -> anyhow::Result<()> {
    let node = FileNode::demo(8, 5)?;
    let start = u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() % 131_072)?;
    println!("clients {start} + 7919 i");
    // 7919 and 131072 have no common divisor, so no client comes twice.
    let clients: Vec<u32> = (0..2 * CLIENTS).map(|i| (start + i * 7919) % 131_072).collect();
    let (known, strangers) = clients.split_at(CLIENTS as usize);

    let counted = known_clients(&node.sticky)?;
    let told = tell_all(&node.sticky, known)?;
    assert_eq!(known_clients(&node.sticky)?, counted, "asking made clients known");
    let gone = load::visit(&node.net.clients, known.iter().copied(), vip(HTTP_PORT))?;
    compare(&told, &gone, &["new", "hash"]);
    assert_eq!(known_clients(&node.sticky)?, counted + u64::from(CLIENTS));

    // Three more backends: a known client keeps its own, whatever the table says now.
    node.scale(8)?;
    let (known, strangers) = (&known[..400], &strangers[..200]);
    let told = tell_all(&node.sticky, known)?;
    let again = load::visit(&node.net.clients, known.iter().copied(), vip(HTTP_PORT))?;
    compare(&told, &again, &["pinned", "hash"]);
    let moved =
        again.iter().filter(|(index, visit)| gone[*index].instance != visit.instance).count();
    assert_eq!(moved, 0, "known clients moved");

    let told = tell_all(&node.sticky, strangers)?;
    let gone = load::visit(&node.net.clients, strangers.iter().copied(), vip(HTTP_PORT))?;
    compare(&told, &gone, &["new", "hash"]);
    Ok(())
}

struct Told {
    instance: String,
    reason: String,
}

/// Asks `sticky where` for each client, two at a time.
fn tell_all(sticky: &Sticky, clients: &[u32]) -> anyhow::Result<BTreeMap<u32, Told>> {
    let tell = |index: u32| {
        let answer = sticky.where_is(&client(index).to_string(), "demo")?;
        let text = |value: &serde_json::Value| {
            value.as_str().map(str::to_owned).context(answer.to_string())
        };
        assert_eq!(answer["path"], "xdp", "{answer}");
        let address = text(&answer["backend"]["addr"])?.parse::<std::net::SocketAddr>()?.ip();
        Ok((index, Told { instance: backend_name(&address), reason: text(&answer["reason"])? }))
    };
    let (left, right) = clients.split_at(clients.len() / 2);
    std::thread::scope(|scope| {
        let halves = [left, right]
            .map(|half| scope.spawn(move || half.iter().map(|&index| tell(index)).collect()));
        let mut all = BTreeMap::new();
        for half in halves {
            let told: anyhow::Result<Vec<_>> = half.join().expect("no assertion failed");
            all.extend(told?);
        }
        Ok(all)
    })
}

fn compare(told: &BTreeMap<u32, Told>, gone: &BTreeMap<u32, load::Visit>, reasons: &[&str]) {
    assert_eq!(told.len(), gone.len());
    let wrong: Vec<_> =
        told.iter().filter(|(index, told)| gone[*index].instance != told.instance).collect();
    assert!(wrong.is_empty(), "{} of {} were told wrong", wrong.len(), told.len());
    let strange = told.values().find(|told| !reasons.contains(&told.reason.as_str()));
    assert!(
        strange.is_none(),
        "not one of {reasons:?}: {}",
        strange.map_or("", |told| &told.reason)
    );
}

fn known_clients(sticky: &Sticky) -> anyhow::Result<u64> {
    sticky.service("demo")?["clients"].as_u64().context("a number of clients")
}

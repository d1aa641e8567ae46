//! `sticky.slow_start` at layer 4: a newcomer's share grows in steps, and nobody moves for it.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use sticky_tests::demo::LINE_PORT;
use sticky_tests::lines::LineConnection;
use sticky_tests::topology::{client, vip};

use crate::fixture::{FileNode, service};

fn text(addresses: &[IpAddr]) -> String {
    let labels = [("com.docker.lb.ip_hash", "true"), ("sticky.slow_start", "4s")];
    service("demo", &["9090:9090/tcp"], addresses, &labels)
}

#[test]
fn a_newcomer_gets_its_share_in_steps() -> anyhow::Result<()> {
    let node = FileNode::start(3, |addresses| text(&addresses[..2]))?;
    node.sticky.wait_up("demo", 2, Duration::from_secs(10))?;
    let meet = |index| {
        let open = move || LineConnection::open(client(index), vip(LINE_PORT));
        node.net.clients.enter(open)?
    };
    let mut known = (0..60).map(meet).collect::<anyhow::Result<Vec<_>>>()?;

    node.file.write(&text(&node.file.addresses))?;
    node.sticky.wait_up("demo", 3, Duration::from_secs(10))?;
    let since = Instant::now();
    let mut shares = Vec::new();
    while since.elapsed() < Duration::from_secs(6) {
        let slots = node.sticky.service("demo")?["backends"][2]["slots"].as_u64().unwrap_or(0);
        if slots > 0 && shares.last() != Some(&slots) {
            shares.push(slots);
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    println!("slots of the newcomer: {shares:?}");
    assert!(shares.len() >= 5 && shares.is_sorted(), "{shares:?}");
    // An eighth beside two whole ones, and at last a third of all.
    assert!((900..3000).contains(&shares[0]), "{shares:?}");
    assert!(shares.last().is_some_and(|last| (5440..5480).contains(last)), "{shares:?}");
    for (index, line) in (0..).zip(&mut known) {
        line.ask("still there?")?;
        assert_eq!(meet(index)?.instance, line.instance, "client {index} moved");
    }
    Ok(())
}

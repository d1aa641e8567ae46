//! Links that take less than others: whoever sends too much is told, and sends less.
//!
//! ```text
//!   far ──1500── middle ──1400── clients (a router) ──1500── node ──1500 or 1400── backends
//! ```

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use sticky_tests::bulk::{self, BULK_PORT, Way};
use sticky_tests::datagrams::{Answer, DATAGRAM_PORT, Datagrams};
use sticky_tests::netns::Netns;
use sticky_tests::wait;

use crate::dual::{BOTH, Dual};

/// Two addresses of each family: an end that has learnt the way's size asks the other for no more, so each learns by itself.
const FAR: [[&str; 2]; 2] = [["192.0.2.2", "192.0.2.3"], ["2001:db8:f::2", "2001:db8:f::3"]];

/// The hosts beyond the clients, who are a router here.
struct Beyond {
    far: Netns,
    _middle: Netns,
}

fn beyond(node: &Dual) -> anyhow::Result<Beyond> {
    let (far, middle, router) = (Netns::new("far")?, Netns::new("middle")?, &node.net.clients);
    for netns in [&middle, router] {
        netns.sysctl("net.ipv4.ip_forward", "1")?;
        netns.sysctl("net.ipv6.conf.all.forwarding", "1")?;
    }
    far.link(("eth0", "192.0.2.2/25"), &middle, ("near", "192.0.2.1/25"))?;
    middle.link(("narrow", "192.0.2.129/25"), router, ("narrow", "192.0.2.130/25"))?;
    far.ip("addr add 192.0.2.3/25 dev eth0")?;
    far.ip("addr add 2001:db8:f::2/64 dev eth0 nodad")?;
    far.ip("addr add 2001:db8:f::3/64 dev eth0 nodad")?;
    middle.ip("addr add 2001:db8:f::1/64 dev near nodad")?;
    middle.ip("addr add 2001:db8:e::1/64 dev narrow nodad")?;
    router.ip("addr add 2001:db8:e::2/64 dev narrow nodad")?;
    middle.ip("link set narrow mtu 1400")?;
    router.ip("link set narrow mtu 1400")?;
    let routes = [
        (&far, "192.0.2.1", "2001:db8:f::1", "default", "default"),
        (&middle, "192.0.2.130", "2001:db8:e::2", "default", "default"),
        (router, "192.0.2.129", "2001:db8:e::1", "192.0.2.0/25", "2001:db8:f::/64"),
    ];
    for (netns, via4, via6, to4, to6) in routes {
        netns.ip(&format!("route add {to4} via {via4}"))?;
        netns.ip(&format!("-6 route add {to6} via {via6}"))?;
    }
    node.net.node.ip("-6 route add default via 2001:db8:1::2")?;
    Ok(Beyond { far, _middle: middle })
}

/// What a host knows of the way to `to`.
fn known_mtu(netns: &Netns, to: &str, from: IpAddr) -> anyhow::Result<bool> {
    Ok(netns.ip(&format!("route get {to} from {from}"))?.contains("mtu 1400"))
}

/// Asks until there is an answer: the first ones tell the sender, or the server, how much is too much.
fn ask(from: &Netns, source: IpAddr, to: SocketAddr, length: usize) -> anyhow::Result<Answer> {
    let payload = vec![7; length];
    from.enter(|| {
        let datagrams = Datagrams::open(source, to)?;
        datagrams.patience(Duration::from_millis(200))?;
        wait::until("an answer", Duration::from_secs(3), || {
            Ok(datagrams.ask(&payload).map_err(|error| format!("{error:#}")))
        })
    })?
}

fn errors(node: &Dual, outcome: &str) -> anyhow::Result<u64> {
    let metrics = node.net.node.run("curl", &["--silent", "http://127.0.0.1:9880/metrics"])?;
    let line = format!("sticky_packets_total{{outcome=\"{outcome}\"}} ");
    let count = metrics.lines().find_map(|text| text.strip_prefix(&line)?.parse().ok());
    Ok(count.unwrap_or_default())
}

fn a_narrow_link_beyond_a_router(mode: &str) -> anyhow::Result<()> {
    let node = Dual::start(1, mode, &[])?;
    let beyond = beyond(&node)?;
    for (family, [up, down]) in BOTH.into_iter().zip(FAR) {
        let (frontend, backend) =
            (family.frontend(BULK_PORT), node.file.addresses[family as usize]);
        let (from, reached) = (up.parse()?, frontend.ip().to_string());
        for (source, way) in [(down, Way::Down), (up, Way::Up)] {
            let source = source.parse()?;
            beyond.far.enter(|| bulk::transfer(source, frontend, way, 3_000_000))??;
        }
        assert!(known_mtu(&node.backends, down, backend)?, "{family:?}, backend");
        assert!(known_mtu(&beyond.far, &reached, from)?, "{family:?}, client");
        // The server learns it by the answer that is lost; a datagram goes in fragments then.
        let answer = ask(&beyond.far, from, family.frontend(DATAGRAM_PORT), 1400)?;
        assert_eq!(answer.seen.ip(), from);
    }
    assert!(errors(&node, "icmp_error")? >= 2, "the backends were told");
    Ok(())
}

#[test]
fn a_narrow_link_beyond_a_router_in_native_mode() -> anyhow::Result<()> {
    a_narrow_link_beyond_a_router("native")
}

#[test]
fn a_narrow_link_beyond_a_router_in_generic_mode() -> anyhow::Result<()> {
    a_narrow_link_beyond_a_router("generic")
}

/// The client's link takes more than the backend's: we are the router that says so.
fn a_narrow_link_to_the_backend(mode: &str) -> anyhow::Result<()> {
    let node = Dual::start(1, mode, &[])?;
    node.net.node.ip("link set eth2 mtu 1400")?;
    for family in BOTH {
        let source = family.client(3);
        let frontend = family.frontend(BULK_PORT);
        node.client(|| bulk::transfer(source, frontend, Way::Up, 3_000_000))?;
        let to = frontend.ip().to_string();
        assert!(known_mtu(&node.net.clients, &to, source)?, "{family:?}");
        // Another client, who has to learn it by a datagram; the answer is as large as the narrow link takes.
        let source = family.client(4);
        ask(&node.net.clients, source, family.frontend(DATAGRAM_PORT), 1300)?;
    }
    assert!(errors(&node, "too_big")? >= 2);
    Ok(())
}

#[test]
fn a_narrow_link_to_the_backend_in_native_mode() -> anyhow::Result<()> {
    a_narrow_link_to_the_backend("native")
}

#[test]
fn a_narrow_link_to_the_backend_in_generic_mode() -> anyhow::Result<()> {
    a_narrow_link_to_the_backend("generic")
}

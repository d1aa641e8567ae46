//! Backends and clients behind routers, which are replaced by others while connections are open.

use std::time::Duration;

use sticky_tests::demo::{Backends, LINE_PORT, demo_binary};
use sticky_tests::lines::LineConnection;
use sticky_tests::netns::Netns;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::{Topology, client, vip};

use crate::fixture::{ServiceFile, service};

const BACKEND: &str = "192.0.2.70";

/// Has the way to `to` lead by another address of the host at the other end of a link, which gives up its first one.
fn replace(
    node: &Netns,
    device: &str,
    to: &str,
    host: &Netns,
    [first, next]: [&str; 2],
) -> anyhow::Result<()> {
    host.sysctl("net.ipv4.conf.eth0.promote_secondaries", "1")?;
    host.ip(&format!("addr add {next} dev eth0"))?;
    let address = |with_prefix: &str| with_prefix.split('/').next().map(str::to_owned);
    let (gone, via) = (address(first).unwrap_or_default(), address(next).unwrap_or_default());
    node.ip(&format!("route replace {to} via {via}"))?;
    host.ip(&format!("addr del {first} dev eth0"))?;
    // Else it would go on to the link address that it had.
    node.ip(&format!("neigh del {gone} dev {device}")).map(drop)
}

#[test]
fn connections_go_on_when_a_router_is_replaced() -> anyhow::Result<()> {
    let net = Topology::new()?;
    let (backends, _) = net.backends(0)?;
    backends.ip(&format!("addr add {BACKEND}/32 dev lo"))?;
    net.node.ip("route add 192.0.2.64/26 via 203.0.113.130")?;
    let _demo = Backends::start(&backends, &demo_binary()?, &[BACKEND.parse()?])?;
    let file = ServiceFile::new(vec![BACKEND.parse()?])?;
    let labels = [("com.docker.lb.ip_hash", "true")];
    file.write(&service("demo", &["9090:9090/tcp"], &file.addresses, &labels))?;
    let provider = format!("file:{}", file.path().display());
    let arguments = ["--iface", "eth0", "--provider", &provider, "--http", "none"];
    let sticky = Sticky::start(&net.node, &arguments)?;
    sticky.wait_up("demo", 1, Duration::from_secs(10))?;

    let open = || LineConnection::open(client(7), vip(LINE_PORT));
    let mut line = net.clients.enter(open)??;
    line.ask("by the first routers")?;
    let routers = ["203.0.113.130/25", "203.0.113.140/25"];
    replace(&net.node, "eth2", "192.0.2.64/26", &backends, routers)?;
    line.ask("by another router of the backend")?;
    let routers = ["198.51.100.2/24", "198.51.100.3/24"];
    replace(&net.node, "eth0", "198.18.0.0/15", &net.clients, routers)?;
    line.ask("by another router of the client")?;
    assert_eq!(line.seen.ip(), client(7));
    net.clients.enter(open)??.ask("a connection that is new")
}

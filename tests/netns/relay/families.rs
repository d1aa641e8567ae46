//! IPv4 clients of backends that have only IPv6.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use anyhow::Context;
use sticky_tests::demo::{Backends, LINE_PORT, backend_name, demo_binary};
use sticky_tests::topology::{NODE, client, vip};

use super::lines;
use crate::fixture::{FileNode, service};

const GATEWAY: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
const BACKEND: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 2);

#[test]
fn ipv4_clients_reach_backends_that_have_only_ipv6() -> anyhow::Result<()> {
    let node = FileNode::demo(1, 1)?;
    node.net.node.ip(&format!("addr add {GATEWAY}/64 dev eth2 nodad"))?;
    node.backends.ip(&format!("addr add {BACKEND}/64 dev eth0 nodad"))?;
    node.backends.ip(&format!("-6 route add default via {GATEWAY}"))?;
    let addresses = [IpAddr::V6(BACKEND)];
    let _running = Backends::start(&node.backends, &demo_binary()?, &addresses)?;
    let ports = ["9090:9090/tcp"];
    node.file.write(&service("six", &ports, &addresses, &[("com.docker.lb.ip_hash", "true")]))?;
    node.sticky.wait_up("six", 1, Duration::from_secs(10))?;
    let entry = node.sticky.wait_service("six", "a relay", Duration::from_secs(5), |entry| {
        entry["frontends"][0]["path"] == "relay"
    })?;
    assert_eq!(entry["frontends"][0]["addr"], NODE.to_string(), "{entry}");
    for (from, source) in [(&node.net.clients, client(1)), (&node.net.node, IpAddr::from(NODE))] {
        let mut connection = lines(from, source, vip(LINE_PORT)).context(source.to_string())?;
        assert_eq!(connection.instance, backend_name(&addresses[0]));
        connection.ask("hello")?;
    }
    Ok(())
}

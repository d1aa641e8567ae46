//! Clients that XDP cannot serve: those on the host itself or behind an interface that XDP is not on, and IPv6 clients of
//! backends that have only IPv4.

mod bulk;
mod ends;
mod families;
mod proxy_protocol;
mod strangers;
mod udp;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use sticky_tests::demo::{HTTP_PORT, LINE_PORT, backend_name};
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::netns::Netns;
use sticky_tests::topology::{NODE, OTHER, client, vip};

use crate::fixture::FileNode;

const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);

/// Gives the node and its clients IPv6, and waits until `service` has a frontend there; its backends have none.
fn add_ipv6(node: &FileNode, service: &str) -> anyhow::Result<()> {
    node.net.node.ip(&format!("addr add {NODE_V6}/64 dev eth0 nodad"))?;
    node.net.clients.ip(&format!("addr add {CLIENT_V6}/64 dev eth0 nodad"))?;
    let entry =
        node.sticky.wait_service(service, "an IPv6 frontend", Duration::from_secs(5), |entry| {
            entry["frontends"].to_string().contains(&NODE_V6.to_string())
        })?;
    let frontends = entry["frontends"].as_array().context("frontends")?;
    for frontend in frontends {
        let path = if frontend["addr"] == NODE_V6.to_string() { "relay" } else { "xdp" };
        assert_eq!(frontend["path"], path, "{entry}");
    }
    Ok(())
}

fn tables(node: &Netns) -> anyhow::Result<String> {
    node.run("nft", &["list", "tables"])
}

fn lines(from: &Netns, source: IpAddr, to: SocketAddr) -> anyhow::Result<LineConnection> {
    from.enter(|| LineConnection::open(source, to))?
}

#[test]
fn whoever_xdp_does_not_see_has_the_backend_that_xdp_would_choose() -> anyhow::Result<()> {
    let node = FileNode::demo(5, 5)?;
    add_ipv6(&node, "demo")?;
    let (sticky, net) = (&node.sticky, &node.net);

    // These are known by XDP, and then turn up on the host itself.
    let known = load::visit(&net.clients, 0..20, vip(HTTP_PORT))?;
    for (index, visit) in &known {
        let source = client(*index);
        net.node.ip(&format!("addr add {source}/32 dev lo"))?;
        let mut connection = lines(&net.node, source, vip(LINE_PORT))?;
        assert_eq!(connection.instance, visit.instance, "client {source}");
        assert_eq!(connection.seen.ip(), source, "the backend sees who it is");
        connection.ask("hello")?;
        assert_eq!(sticky.where_is(&source.to_string(), "demo")?["path"], "relay");
        net.node.ip(&format!("addr del {source}/32 dev lo"))?;
    }

    let strangers: [(&Netns, IpAddr, IpAddr, &str); 4] = [
        (&net.node, NODE.into(), NODE.into(), "new"),
        (&net.other, OTHER.into(), NODE.into(), "new"),
        (&net.clients, CLIENT_V6.into(), NODE_V6.into(), "new"),
        // One client with the last, of the same /64.
        (&net.node, NODE_V6.into(), NODE_V6.into(), "pinned"),
    ];
    for (from, source, to, reason) in strangers {
        let told = sticky.where_is(&source.to_string(), "demo")?;
        assert_eq!((&told["path"], &told["reason"]), (&"relay".into(), &reason.into()), "{told}");
        let mut connection = lines(from, source, (to, LINE_PORT).into())?;
        let backend =
            told["backend"]["addr"].as_str().context("a backend")?.parse::<SocketAddr>()?;
        assert_eq!(connection.instance, backend_name(&backend.ip()), "{source}");
        connection.ask("hello")?;
        let told = sticky.where_is(&source.to_string(), "demo")?;
        assert_eq!(told["backend"]["addr"], backend.to_string());
    }

    let metrics = net.node.run("curl", &["--silent", "http://127.0.0.1:9880/metrics"])?;
    let carried: u64 = metrics
        .lines()
        .filter(|line| line.starts_with("sticky_relay_connections_total{service=\"demo\""))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum();
    assert_eq!(carried, 24, "{metrics}");
    Ok(())
}

//! Clients that XDP cannot serve: those on the host itself, or behind an interface that XDP is not on.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use sticky_tests::demo::{HTTP_PORT, LINE_PORT, backend_name};
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::netns::Netns;
use sticky_tests::topology::{NODE, OTHER, client, vip};

use crate::fixture::FileNode;

fn lines(from: &Netns, source: IpAddr, to: SocketAddr) -> anyhow::Result<LineConnection> {
    from.enter(|| LineConnection::open(source, to))?
}

#[test]
fn whoever_xdp_does_not_see_has_the_backend_that_xdp_would_choose() -> anyhow::Result<()> {
    let node = FileNode::demo(5, 5)?;
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

    // The host's own address, and one behind another interface.
    let strangers: [(&Netns, IpAddr, IpAddr, &str); 2] = [
        (&net.node, NODE.into(), NODE.into(), "new"),
        (&net.other, OTHER.into(), NODE.into(), "new"),
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
    assert_eq!(carried, 22, "{metrics}");
    Ok(())
}

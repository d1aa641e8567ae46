//! What this project began with: Interlock's documentation, "Use persistent sessions", command by command, and Apcera's.

use std::collections::BTreeSet;

use sticky_tests::curl::{header, ping};
use sticky_tests::demo::HTTP_PORT;
use sticky_tests::load;
use sticky_tests::names::TempDir;
use sticky_tests::topology::{client, vip};

use crate::apcera;
use crate::fixture::{COOKIE, IP_HASH, PUBLISH, SwarmNode};

#[test]
fn persistent_sessions_by_cookie_and_by_address() -> anyhow::Result<()> {
    let mut node = SwarmNode::start()?;
    cookie(&node)?;
    apcera::list(&node, "cookie", "session", 5)?;
    node.swarm.remove("demo")?;
    ip_hash(&node)?;
    apcera::mistakes(&node)?;
    node.swarm.remove("demo")?;
    apcera::walk_through(&mut node)?;
    apcera::the_rest_stays(&node)
}

fn upstreams(node: &SwarmNode, options: &[&str]) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for _ in 0..10 {
        let answer = ping(&node.net.node, options)?;
        assert!(answer.contains("< HTTP/1.1 200"), "{answer}");
        for name in [
            "x-request-id",
            "x-proxy-id",
            "x-server-info",
            "x-upstream-addr",
            "x-upstream-response-time",
        ] {
            assert!(
                header(&answer, name).is_some_and(|value| !value.is_empty()),
                "no {name}: {answer}"
            );
        }
        let id = header(&answer, "x-request-id").unwrap_or_default();
        assert!(
            answer.contains(&format!("\"request_id\":\"{id}\"")),
            "the application got the request id: {answer}"
        );
        assert!(answer.contains("\"metadata\":\"demo-sticky\""), "{answer}");
        all.extend(header(&answer, "x-upstream-addr").map(str::to_owned));
    }
    Ok(all)
}

fn cookie(node: &SwarmNode) -> anyhow::Result<()> {
    node.deploy("cookie", 5, &[&COOKIE])?;
    let dir = TempDir::new()?;
    let jar = dir.join("cookie.txt").display().to_string();
    let pinned = upstreams(node, &["-c", &jar, "-b", &jar])?;
    assert_eq!(pinned.len(), 1, "one x-upstream-addr with the cookies: {pinned:?}");
    let free = upstreams(node, &[])?;
    assert!(free.len() > 1, "several without them: {free:?}");
    Ok(())
}

fn ip_hash(node: &SwarmNode) -> anyhow::Result<()> {
    node.deploy("ip-hash", 5, &[&IP_HASH, &PUBLISH])?;
    let pinned = upstreams(node, &[])?;
    assert_eq!(pinned.len(), 1, "one x-upstream-addr without a cookie: {pinned:?}");

    // Through the published port, at layer 4: the application sees who is there.
    let sent = node.net.node.sent("docker_gwbridge")?;
    let packets = load::visit(&node.net.clients, 0..100, vip(HTTP_PORT))?;
    for (index, visit) in &packets {
        assert!(
            visit.peer.starts_with(&format!("{}:", client(*index))),
            "client {index} was seen as {}",
            visit.peer
        );
    }
    // Its tasks get them at their own end of their links. By the bridge go the health checks.
    let by_the_bridge = node.net.node.sent("docker_gwbridge")? - sent;
    assert!(by_the_bridge < 100, "{by_the_bridge} packets of 100 clients went by the bridge");
    let used: BTreeSet<_> = packets.values().map(|visit| &visit.instance).collect();
    assert_eq!(used.len(), 5, "100 clients use all replicas");

    // The same client, the same replica: again, and through the proxy.
    for port in [HTTP_PORT, 80] {
        let again = load::visit(&node.net.clients, 0..100, vip(port))?;
        let other: Vec<_> = again
            .iter()
            .filter(|(index, visit)| packets[*index].instance != visit.instance)
            .collect();
        assert!(other.is_empty(), "port {port}: {} clients have another replica", other.len());
    }
    Ok(())
}

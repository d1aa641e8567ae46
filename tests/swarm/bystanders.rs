//! While a service is balanced at layer 4, everybody else reaches the same containers as before.

use std::time::Duration;

use anyhow::Context;
use sticky_tests::http::{self, Answer};
use sticky_tests::load;
use sticky_tests::netns::Netns;
use sticky_tests::topology::{NODE_OTHER, OTHER, client, vip};

use crate::fixture::{IP_HASH, SwarmNode};

#[test]
fn proxy_docker_and_routed_clients_reach_the_containers_unchanged() -> anyhow::Result<()> {
    let node = SwarmNode::start()?;
    let options = ["--publish", "mode=host,target=8080,published=8081"];
    let task = node.deploy("ip-hash", 1, &[&IP_HASH, &options])?.remove(0);
    let local = node.swarm.addresses("docker_gwbridge")?;
    let (_, address) =
        local.iter().find(|(id, _)| *id == task.container).context("a local address")?;
    let container = format!("{address}:8080").parse()?;

    // Somebody is always there at layer 4, and stays well.
    let balanced = || -> anyhow::Result<()> {
        let visits = load::visit(&node.net.clients, 0..20, vip(8081))?;
        for (index, visit) in &visits {
            assert_eq!(visit.instance, task.instance());
            assert!(
                visit.peer.starts_with(&format!("{}:", client(*index))),
                "client {index} was seen as {}",
                visit.peer
            );
        }
        Ok(())
    };
    balanced()?;

    let reached = |what: &str, from: &Netns, to, peer: Option<String>| -> anyhow::Result<Answer> {
        let answer = from
            .block_on(|| http::get(None, to, "demo.local", "/ping", &[]))?
            .context(what.to_owned())?;
        let ping = answer.json()?;
        assert_eq!(ping["instance"], task.instance(), "{what}: {ping}");
        if let Some(peer) = peer {
            assert!(
                ping["client"].as_str().is_some_and(|seen| seen.starts_with(&format!("{peer}:"))),
                "{what}: {ping}"
            );
        }
        balanced()?;
        Ok(answer)
    };
    reached("the proxy", &node.net.clients, vip(80), None)?;
    reached("the node itself, as a health check does", &node.net.node, container, None)?;
    let docker = (NODE_OTHER, 8081).into();
    reached(
        "Docker's published port on another interface",
        &node.net.other,
        docker,
        Some(OTHER.to_string()),
    )?;
    reached(
        "Docker's published port on loopback",
        &node.net.node,
        "127.0.0.1:8081".parse()?,
        None,
    )?;

    // A neighbour that addresses the container itself meets Docker's FORWARD policy, on either interface.
    for (neighbour, device) in [(&node.net.clients, "eth0"), (&node.net.other, "eth1")] {
        let attempt = neighbour.block_on(|| async {
            tokio::time::timeout(
                Duration::from_secs(2),
                http::get(None, container, "demo.local", "/ping", &[]),
            )
            .await
        })?;
        assert!(
            !matches!(attempt, Ok(Ok(_))),
            "a frame from {device} straight to the container came through"
        );
        balanced()?;
        // With the administrator's leave it is routed, and comes and goes as it is.
        node.net
            .node
            .run("iptables", &["-I", "DOCKER-USER", "-i", device, "-d", address, "-j", "ACCEPT"])?;
        let peer = neighbour.run("ip", &["-o", "route", "get", address])?;
        let peer = peer
            .split(" src ")
            .nth(1)
            .and_then(|rest| rest.split_whitespace().next())
            .map(str::to_owned);
        reached(&format!("a routed client on {device}"), neighbour, container, peer)?;
    }
    let entry = node.wait("ip-hash", 1)?;
    assert_eq!(entry["backends"][0]["state"], "up", "{entry}");
    Ok(())
}

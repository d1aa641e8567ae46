//! While a service is balanced at layer 4, everybody else reaches the same containers as before.

use std::net::SocketAddr;

use anyhow::Context;
use sticky_tests::demo::LINE_PORT;
use sticky_tests::http::{self, Answer};
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::netns::Netns;
use sticky_tests::topology::{CLIENT, NODE_OTHER, OTHER, client, vip};

use crate::fixture::{IP_HASH, SwarmNode};

#[test]
fn proxy_docker_and_routed_clients_reach_the_containers_unchanged() -> anyhow::Result<()> {
    let node = SwarmNode::start()?;
    let options =
        ["--publish", "mode=host,target=8080,published=8081", "--env", "TCP=0.0.0.0:9090"];
    let task = node.deploy("ip-hash", 1, &[&IP_HASH, &options])?.remove(0);
    let local = node.swarm.addresses("docker_gwbridge")?;
    let (_, address) =
        local.iter().find(|(id, _)| *id == task.container).context("a local address")?;
    let container: SocketAddr = format!("{address}:8080").parse()?;

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

    // A neighbour that addresses the container itself. Docker accepts the published target port from anywhere, and has the
    // FORWARD policy drop what is for any other port of the container; on either interface.
    let sides = [(&node.net.clients, "eth0", CLIENT), (&node.net.other, "eth1", OTHER)];
    for (neighbour, device, source) in sides {
        reached(
            &format!("a routed client on {device}"),
            neighbour,
            container,
            Some(source.to_string()),
        )?;
        let lines = (container.ip(), LINE_PORT).into();
        let line = || neighbour.enter(|| LineConnection::open(source.into(), lines));
        assert!(line()?.is_err(), "a frame from {device} straight to the container came through");
        balanced()?;
        // With the administrator's leave it is routed, and comes and goes as it is.
        let leave = ["-I", "DOCKER-USER", "-i", device, "-d", address, "-j", "ACCEPT"];
        node.net.node.run("iptables", &leave)?;
        let line = line()??;
        assert_eq!((line.instance.as_str(), line.seen), (task.instance(), line.local));
        balanced()?;
    }
    let entry = node.wait("ip-hash", 1)?;
    assert_eq!(entry["backends"][0]["state"], "up", "{entry}");
    Ok(())
}

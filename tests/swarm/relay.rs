//! A `mode=host` port, which docker-proxy holds: clients on the host itself, and with IPv6.

use std::fs;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use sticky_tests::http;
use sticky_tests::netns::Netns;
use sticky_tests::topology::{NODE, OTHER};

use crate::fixture::{IP_HASH, SwarmNode};

const PORT: u16 = 8081;
const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2);

/// A command in the network namespace of a container.
fn inside(container: &str) -> anyhow::Result<Command> {
    let of = |pid: &PathBuf| {
        fs::read_to_string(pid.join("cgroup")).is_ok_and(|groups| groups.contains(container))
    };
    let processes = fs::read_dir("/proc")?.flatten().map(|entry| entry.path());
    let process = processes.into_iter().find(of).context("a process of the container")?;
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", process.join("ns/net").display())).arg("--");
    Ok(command)
}

/// Which instance answers, and whom it saw.
fn ping(from: &Netns, source: IpAddr, to: IpAddr) -> anyhow::Result<(String, String)> {
    let answer = from
        .block_on(|| http::get(Some(source), (to, PORT).into(), "demo.local", "/ping", &[]))?
        .with_context(|| format!("from {source} to {to}"))?;
    let ping = answer.json()?;
    let text = |key: &str| ping[key].as_str().map(str::to_owned).context(ping.to_string());
    let seen = text("client")?;
    let (seen, _) = seen.rsplit_once(':').context("address and port")?;
    Ok((text("instance")?, seen.to_owned()))
}

#[test]
fn the_host_itself_and_ipv6_clients_of_a_port_that_docker_proxy_holds() -> anyhow::Result<()> {
    let mut node = SwarmNode::start()?;
    let options = ["--publish", "mode=host,target=8080,published=8081"];
    let task = node.deploy("ip-hash", 1, &[&IP_HASH, &options])?.remove(0);
    node.net.node.ip(&format!("addr add {NODE_V6}/64 dev eth0 nodad"))?;
    node.net.clients.ip(&format!("addr add {CLIENT_V6}/64 dev eth0 nodad"))?;
    node.sticky.wait_service("demo", "an IPv6 frontend", Duration::from_secs(10), |entry| {
        let frontends = entry["frontends"].as_array().map(Vec::as_slice).unwrap_or_default();
        frontends.iter().any(|f| f["addr"] == NODE_V6.to_string() && f["path"] == "relay")
    })?;
    let held = node.net.node.run("ss", &["-Hltnp", "sport", "=", &format!(":{PORT}")])?;
    assert!(held.contains("docker-proxy"), "{held}");

    let clients: [(&Netns, IpAddr, IpAddr); 4] = [
        (&node.net.node, NODE.into(), NODE.into()),
        (&node.net.other, OTHER.into(), NODE.into()),
        (&node.net.clients, CLIENT_V6.into(), NODE_V6.into()),
        (&node.net.node, NODE_V6.into(), NODE_V6.into()),
    ];
    for (from, source, to) in clients {
        let (instance, seen) = ping(from, source, to)?;
        assert_eq!(instance, task.instance());
        if source == IpAddr::from(NODE) {
            // Docker would have put an address of its own there.
            assert_eq!(seen, NODE.to_string());
        }
        let told = node.sticky.where_is(&source.to_string(), "demo")?;
        let expected = ("relay".into(), "pinned".into(), task.id.as_str().into());
        assert_eq!(
            (&told["path"], &told["reason"], &told["backend"]["id"]),
            (&expected.0, &expected.1, &expected.2),
            "{told}"
        );
    }
    // A container behind Docker's bridge, here the task itself.
    let answer = inside(&task.container)?
        .args(["curl", "--silent", "--fail", &format!("http://{NODE}:{PORT}/ping")])
        .output()?;
    let answer = String::from_utf8_lossy(&answer.stdout);
    assert!(answer.contains(task.instance()), "{answer}");
    // Loopback stays Docker's.
    node.net.node.run("curl", &["--silent", "--fail", "http://127.0.0.1:8081/ping"])?;
    let metrics = node.net.node.run("curl", &["--silent", "http://127.0.0.1:9880/metrics"])?;
    let carried = "sticky_relay_connections_total{service=\"demo\",backend=\"demo.1\"} 5";
    assert!(metrics.lines().any(|line| line == carried), "{metrics}");

    // Killed, it is no hindrance: these clients have Docker's own way.
    node.sticky.kill();
    for (from, source, to) in clients {
        assert_eq!(ping(from, source, to)?.0, task.instance(), "{source} after kill -9");
    }
    Ok(())
}

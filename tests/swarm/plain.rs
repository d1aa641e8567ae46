//! sticky in front of a plain Docker, on a bridge of both families.

use std::time::Duration;

use serde_json::Value;
use sticky_tests::demo::{IMAGE, LINE_PORT, demo_image};
use sticky_tests::dockerd::Dockerd;
use sticky_tests::lines::LineConnection;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::{NODE_V6, Topology, client, client_v6, vip};

const LIMIT: Duration = Duration::from_secs(20);
const CLIENTS: u16 = 10;

fn run(docker: &Dockerd, name: &str, service: &str, options: &[&str]) -> anyhow::Result<String> {
    let compose = format!("--label=com.docker.compose.service={service}");
    let fixed = [
        "run",
        "--detach",
        "--network=both",
        "--label=com.docker.compose.project=shop",
        "--label=com.docker.lb.ip_hash=true",
        &compose,
        "--name",
        name,
    ];
    docker.docker(&[&fixed[..], options, &[IMAGE]].concat())
}

/// The paths of the IPv4 and the IPv6 frontends.
fn paths(entry: &Value) -> [Vec<&str>; 2] {
    let frontends = entry["frontends"].as_array().map(Vec::as_slice).unwrap_or_default();
    [false, true].map(|v6| {
        let of =
            frontends.iter().filter(|f| f["addr"].as_str().is_some_and(|a| a.contains(':')) == v6);
        of.filter_map(|f| f["path"].as_str()).collect()
    })
}

#[test]
fn clients_of_both_families_reach_containers_as_themselves() -> anyhow::Result<()> {
    let net = Topology::new()?;
    net.add_v6()?;
    let docker = Dockerd::start(&net.node)?;
    docker.docker(&["load", "--quiet", "--input", &demo_image()?.to_string_lossy()])?;
    docker.docker(&["network", "create", "--ipv6", "--subnet", "2001:db8:5::/64", "both"])?;
    let url = docker.url();
    let fixed = ["--iface", "eth0", "--http", "none", "--docker-host", &url];
    let mut sticky = Sticky::start(&net.node, &[&fixed[..], &["--provider", "docker"]].concat())?;
    let listen = format!("--label=sticky.l4.listen={LINE_PORT}/tcp");
    for name in ["web-1", "web-2"] {
        run(&docker, name, "web", &[&listen, "--env=LISTEN=[::]:8080", "--env=TCP=[::]:9090"])?;
    }
    run(
        &docker,
        "four-1",
        "four",
        &["--publish=9191:9191", "--env=LISTEN=0.0.0.0:8080", "--env=TCP=0.0.0.0:9191"],
    )?;
    let web = sticky.wait_up("shop_web", 2, LIMIT)?;
    assert_eq!(paths(&web), [["xdp"], ["xdp"]], "{web}");
    // Who listens on IPv4 alone is asked there.
    let four = sticky.wait_up("shop_four", 1, LIMIT)?;
    assert_eq!(paths(&four), [["xdp"], ["relay"]], "{four}");

    let mut lines = Vec::new();
    for index in 0..CLIENTS {
        for (source, to) in [
            (client(index.into()), vip(LINE_PORT)),
            (client_v6(index), (NODE_V6, LINE_PORT).into()),
        ] {
            let told = sticky.where_is(&source.to_string(), "shop_web")?;
            let mut line = net.clients.enter(|| LineConnection::open(source, to))??;
            // It listens on both families at once, and sees IPv4 mapped.
            let seen = (line.seen.ip().to_canonical(), line.seen.port());
            let own = (line.local.ip(), line.local.port());
            assert_eq!(seen, own, "the container sees who it is");
            let id = told["backend"]["id"].as_str().unwrap_or_default();
            assert!(id.starts_with(&line.instance), "{told}, and it is {}", line.instance);
            line.ask("hello")?;
            lines.push(line);
        }
        let mut line = net
            .clients
            .enter(|| LineConnection::open(client_v6(index), (NODE_V6, 9191).into()))??;
        line.ask("hello")?;
    }
    sticky.kill();
    lines.iter_mut().try_for_each(|line| line.ask("alone"))?;
    sticky.run()?;
    let web = sticky.wait_up("shop_web", 2, LIMIT)?;
    assert_eq!(paths(&web), [["xdp"], ["xdp"]], "{web}");
    lines.iter_mut().try_for_each(|line| line.ask("adopted"))
}

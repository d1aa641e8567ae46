//! `sticky doctor` tells a host that is fit from one that is not, and which rules of the host a frontend does not meet.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context;
use serde_json::Value;
use sticky_tests::command;
use sticky_tests::netns::Netns;
use sticky_tests::sticky::Sticky;

use crate::fixture::FileNode;

/// What it says for a configuration, whether it ended well, and its process id.
fn ask(node: &FileNode, config: &str) -> anyhow::Result<(Value, bool, u32)> {
    let file = node.file.path().with_file_name("sticky.toml");
    std::fs::write(&file, config)?;
    let mut command =
        node.sticky.command(&["doctor", "--json", "--config", &file.to_string_lossy()]);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let pid = child.id();
    let output = child.wait_with_output()?;
    let report = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    Ok((report, output.status.success(), pid))
}

fn check<'a>(report: &'a Value, name: &str) -> &'a Value {
    let checks = report["checks"].as_array().map(Vec::as_slice).unwrap_or_default();
    checks.iter().find(|check| check["name"] == name).unwrap_or(&Value::Null)
}

#[test]
fn a_host_that_is_fit_and_one_that_is_not() -> anyhow::Result<()> {
    let mut node = FileNode::demo(1, 1)?;
    let config = format!("iface = \"eth0\"\nprovider = \"file:{}\"\n", node.file.path().display());
    let (report, fit, _) = ask(&node, &config)?;
    assert!(fit && report["fit"] == true, "{report:#}");
    for (name, word) in [
        ("kernel", "."),
        ("programs", "takes"),
        ("permissions", "may"),
        ("eth0 XDP", "native"),
        ("eth0 MTU", "1500"),
        ("eth0 LRO", "off"),
        ("frontends", "2"),
        ("firewall", "no rule"),
    ] {
        let found = check(&report, name);
        assert!(
            found["level"] == "ok" && found["found"].to_string().contains(word),
            "{name}: {found}"
        );
    }

    // Without sticky the driver is asked, and whatever is wrong is told with what to do.
    node.sticky.kill();
    node.sticky.sticky(&["detach"])?;
    node.net.node.sysctl("net.ipv4.conf.eth0.rp_filter", "1")?;
    node.net.node.sysctl("net.ipv4.ip_forward", "0")?;
    node.net.node.ip("link add br0 mtu 1400 type bridge")?;
    node.net.node.ip("link set br0 up")?;
    let _busy = node.net.node.enter(|| std::net::TcpListener::bind("[::]:80"))??;
    let config = config.replace("\"eth0\"", "[\"eth0\", \"eth7\", \"br0\"]");
    let (report, fit, pid) = ask(&node, &config)?;
    assert!(!fit && report["fit"] == false, "{report:#}");
    for (name, level, word) in [
        ("eth0 XDP", "ok", "native"),
        ("br0 XDP", "warn", "generic"),
        ("eth7 link", "fail", "ip link"),
        ("eth0 MTU", "warn", "1400"),
        ("eth0 rp_filter", "warn", "rp_filter=2"),
        ("forwarding", "warn", "ip_forward=1"),
        ("port --http", "fail", "in use"),
    ] {
        let found = check(&report, name);
        assert!(found["level"] == level && found.to_string().contains(word), "{name}: {found}");
    }
    let left = format!("/sys/fs/bpf/sticky-doctor-{pid}");
    assert!(!Path::new(&left).exists(), "it leaves nothing: {left}");
    Ok(())
}

fn iptables(node: &Netns, rule: &str) -> anyhow::Result<()> {
    command::output(node.command("iptables").args(rule.split(' '))).map(drop)
}

#[test]
fn rules_that_do_not_hold_at_layer_4_are_listed_with_their_labels() -> anyhow::Result<()> {
    let node = FileNode::demo(1, 1)?;
    let host = &node.net.node;
    iptables(host, "-N DOCKER-USER")?;
    for rule in [
        "-A INPUT -s 203.0.113.0/24 -p tcp --dport 8080 -j DROP",
        "-A INPUT -p tcp --dport 22 -j DROP",
        "-A DOCKER-USER ! -s 198.51.100.0/24 -p tcp -m conntrack --ctorigdstport 9090 -j DROP",
    ] {
        iptables(host, rule)?;
    }
    let status = wait_for_rules(&node.sticky)?;
    let rules = status["firewall"].as_array().context("rules")?;
    let told: Vec<_> = rules
        .iter()
        .map(|r| {
            ["chain", "frontend", "instead", "service"].map(|key| r[key].as_str().unwrap_or(""))
        })
        .collect();
    assert_eq!(
        told,
        [
            ["INPUT", "198.51.100.1:8080/tcp", "sticky.deny=203.0.113.0/24", "demo"],
            ["DOCKER-USER", "198.51.100.1:9090/tcp", "sticky.allow=198.51.100.0/24", "demo"],
        ],
        "{status:#}"
    );
    assert!(node.sticky.sticky(&["status"])?.contains("not applied at layer 4"));
    let config = format!("iface = \"eth0\"\nprovider = \"file:{}\"\n", node.file.path().display());
    let (report, fit, _) = ask(&node, &config)?;
    assert!(fit, "a warning is no failure");
    let rule = check(&report, "firewall INPUT");
    assert!(
        rule["level"] == "warn"
            && rule["advice"].to_string().contains("sticky.deny=203.0.113.0/24"),
        "{rule}"
    );
    Ok(())
}

/// The rules are read when somebody asks, and then not again for some seconds: nobody has asked yet.
fn wait_for_rules(sticky: &Sticky) -> anyhow::Result<Value> {
    sticky_tests::wait::until("the rules in the status", std::time::Duration::from_secs(15), || {
        let status = sticky.status()?;
        let told = status["firewall"].as_array().is_some_and(|rules| !rules.is_empty());
        Ok(if told { Ok(status) } else { Err("none".to_owned()) })
    })
}

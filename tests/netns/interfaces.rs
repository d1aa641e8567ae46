//! Interfaces and bridges come, go and come again under a running sticky, which shares them with others and leaves nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use sticky_tests::demo::LINE_PORT;
use sticky_tests::netns::Netns;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::{client, vip};
use sticky_tests::wait;

use crate::bridged::{ADDRESS, SOON, answered, bridge, contained, file, run, serving};

const LATE: &str = "192.0.2.1";

fn interface(sticky: &Sticky, name: &str) -> anyhow::Result<Value> {
    let status = sticky.status()?;
    let all = status["datapath"]["interfaces"].as_array().cloned().unwrap_or_default();
    Ok(all.into_iter().find(|interface| interface["name"] == name).unwrap_or_default())
}

#[test]
fn an_interface_that_comes_late_vanishes_and_comes_again() -> anyhow::Result<()> {
    let (net, _container, _file, sticky) = serving(&["eth0", "late0"])?;
    let late = interface(&sticky, "late0")?;
    assert!(late["problem"].as_str().is_some_and(|p| p.contains("late0 is not there")), "{late}");
    assert_eq!((&late["mode"], &late["pinned"]), (&"none".into(), &false.into()));
    assert_eq!(interface(&sticky, "eth0")?["mode"], "native");
    assert!(
        sticky.log().iter().any(|line| line.text.contains("WARN") && line.text.contains("late0"))
    );

    let frontend: SocketAddr = format!("{LATE}:{LINE_PORT}").parse()?;
    for round in 0..2 {
        net.node.link(("late0", &format!("{LATE}/24")), &net.other, ("far0", "192.0.2.7/24"))?;
        net.other.ip("route replace default via 192.0.2.1")?;
        let took = answered(&net.other, frontend, "192.0.2.7")?;
        assert!(took < SOON, "round {round}: {took:?}");
        assert_eq!(interface(&sticky, "late0")?["mode"], "native");
        answered(&net.clients, vip(LINE_PORT), &client(round).to_string())?;
        net.node.ip("link del late0")?;
        wait::until_true("late0 to be missed", SOON, || {
            Ok(interface(&sticky, "late0")?["mode"] == "none")
        })?;
    }
    let said = |word: &str| sticky.log().iter().filter(|line| line.text.contains(word)).count();
    assert_eq!(said("nothing is balanced on this interface"), 3, "once each time it is not there");
    Ok(())
}

#[test]
fn a_container_with_a_new_link_and_a_bridge_made_anew_are_answered() -> anyhow::Result<()> {
    let (net, container, _file, _sticky) = serving(&["eth0"])?;
    answered(&net.clients, vip(LINE_PORT), &client(0).to_string())?;

    net.node.ip("link del port0")?;
    container.plug_in(&net.node, ADDRESS)?;
    let took = answered(&net.clients, vip(LINE_PORT), &client(1).to_string())?;
    assert!(took < SOON, "a new link of the container: {took:?}");

    net.node.ip("link del port0")?;
    net.node.ip("link del br0")?;
    bridge(&net.node)?;
    container.plug_in(&net.node, ADDRESS)?;
    let took = answered(&net.clients, vip(LINE_PORT), &client(2).to_string())?;
    assert!(took < SOON, "a new bridge: {took:?}");
    Ok(())
}

/// What a host looks like to those who share it.
fn traces(node: &Netns) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let mut add = |text: String| all.extend(text.lines().map(str::to_owned));
    // A bridge takes a moment to come up.
    add(node.run("ip", &["link", "show"])?.replace("state UNKNOWN", "state UP"));
    add(node.run("ip", &["rule"])?);
    add(node.run("ip", &["-4", "route", "show", "table", "all"])?);
    add(node.run("tc", &["qdisc", "show"])?);
    add(node.run("nft", &["list", "ruleset"])?);
    // Of this namespace; the rest is the whole machine's.
    add(node.run("sysctl", &["-a", "--pattern", r"^net\.ipv[46]\.(conf|ip_forward|icmp)"])?);
    Ok(all)
}

#[test]
fn filters_beside_ours_go_on_and_detach_leaves_nothing() -> anyhow::Result<()> {
    let (net, _container) = contained()?;
    // Somebody's own: whatever comes to port 7777 is mirrored.
    net.node.run("tc", &["qdisc", "add", "dev", "eth0", "clsact"])?;
    let filter = "filter add dev eth0 ingress protocol ip u32 match ip dport 7777 0xffff \
                  action mirred egress mirror dev eth1";
    net.node.run("tc", &filter.split_whitespace().collect::<Vec<_>>())?;
    let mirrored = || -> anyhow::Result<bool> {
        let port = SocketAddr::new(vip(7777).ip(), 7777);
        // Nobody listens: what counts is the packet.
        let _ = net.clients.enter(|| std::net::TcpStream::connect(port))?;
        let shown = net.node.run("tc", &["-s", "filter", "show", "dev", "eth0", "ingress"])?;
        Ok(!shown.contains("Sent 0 bytes"))
    };
    let before = traces(&net.node)?;
    assert!(before.iter().any(|line| line.contains("clsact")));

    let file = file()?;
    let mut sticky = run(&net, &file, &["eth0"])?;
    sticky.wait_up("demo", 1, Duration::from_secs(10))?;
    answered(&net.clients, vip(LINE_PORT), &client(0).to_string())?;
    assert!(mirrored()?, "the filter does not see its packets");
    assert_ne!(traces(&net.node)?, before);
    sticky.terminate(Duration::from_secs(40))?;
    answered(&net.clients, vip(LINE_PORT), &client(1).to_string())?;

    sticky.sticky(&["detach"])?;
    let after = traces(&net.node)?;
    let different: Vec<_> = before.symmetric_difference(&after).collect();
    assert!(different.is_empty(), "{different:#?}");
    assert!(!sticky.pin_dir().exists());
    assert!(mirrored()?);
    Ok(())
}

//! Packets for a container are handed to the other end of its link, as long as that is what has the address and nothing is in
//! between that would have to see them.

use std::time::Duration;

use sticky_tests::demo::{Backends, LINE_PORT, backend_name, demo_binary};
use sticky_tests::lines::LineConnection;
use sticky_tests::netns::Netns;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::{Topology, client, vip};
use sticky_tests::wait;

use crate::bridged::{self, ADDRESS, Container, SOON, answered, bridge, serving};
use crate::dual::{BOTH, Dual};
use crate::fixture::{ServiceFile, service};

/// Lines in a conversation.
const LINES: u64 = 100;

/// Packets that the node sends by `device` for each line that is asked and answered. Health checks are among them, but few.
fn for_each_line(
    node: &Netns,
    device: &str,
    connection: &mut LineConnection,
) -> anyhow::Result<f64> {
    let before = node.sent(device)?;
    (0..LINES).try_for_each(|line| connection.ask(&line.to_string()))?;
    Ok((node.sent(device)? - before) as f64 / LINES as f64)
}

#[test]
fn both_families_pass_the_link_by() -> anyhow::Result<()> {
    let node = Dual::start(2, "native", &[("sticky.health.interval", "10s")])?;
    for family in BOTH {
        let open = || LineConnection::open(family.client(1), family.frontend(LINE_PORT));
        let mut connection = node.net.clients.enter(open)??;
        let packets = for_each_line(&node.net.node, "eth2", &mut connection)?;
        assert!(packets < 0.5, "{family:?}: {packets} packets a line by the link");
    }
    Ok(())
}

#[test]
fn a_queue_on_the_way_is_not_passed_by() -> anyhow::Result<()> {
    let (net, _container, _file, _sticky) = serving(&["eth0"])?;
    let open = || LineConnection::open(client(1), vip(LINE_PORT));
    let mut connection = net.clients.enter(open)??;
    let mut through = |device: &str, expected: bool| {
        wait::until_true("packets by another way", Duration::from_secs(15), || {
            Ok((for_each_line(&net.node, device, &mut connection)? > 0.5) == expected)
        })
    };
    through("port0", false)?;
    for device in ["port0", "br0"] {
        net.node.run("tc", &["qdisc", "add", "dev", device, "root", "pfifo"])?;
        through(device, true)?;
        net.node.run("tc", &["qdisc", "del", "dev", device, "root"])?;
        through(device, false)?;
    }
    Ok(())
}

#[test]
fn an_address_that_goes_to_another_container_is_followed() -> anyhow::Result<()> {
    let (net, container, _file, _sticky) = serving(&["eth0"])?;
    let mut other = Container::on("port1")?;
    other.plug_in(&net.node, "203.0.113.132")?;
    other.serve()?;
    answered(&net.clients, vip(LINE_PORT), &client(0).to_string())?;

    let address = |from: &Container, to: &Container, index| -> anyhow::Result<()> {
        from.netns.ip(&format!("addr del {ADDRESS}/25 dev eth0"))?;
        to.netns.ip(&format!("addr add {ADDRESS}/25 dev eth0"))?;
        // It goes with the last address.
        to.netns.ip("route replace default via 203.0.113.129")?;
        // Else the node's own packets would go on to the link address that it had.
        net.node.ip("neigh flush dev br0")?;
        let took = answered(&net.clients, vip(LINE_PORT), &client(index).to_string())?;
        assert!(took < SOON, "{took:?}");
        let open = || LineConnection::open(client(index), vip(LINE_PORT));
        let mut connection = net.clients.enter(open)??;
        wait::until_true("packets to pass the bridge by", SOON, || {
            Ok(for_each_line(&net.node, "br0", &mut connection)? < 0.5)
        })
    };
    address(&container, &other, 1)?;
    address(&other, &container, 2)
}

/// XDP in the container sees only what comes in by the link.
#[test]
fn a_sticky_behind_a_sticky_chooses_too() -> anyhow::Result<()> {
    const INNER: [&str; 2] = ["192.0.2.2", "192.0.2.3"];
    let net = Topology::new()?;
    net.node.sysctl("net.ipv4.ip_forward", "1")?;
    bridge(&net.node)?;
    let container = Container::new()?;
    container.plug_in(&net.node, ADDRESS)?;
    container.netns.sysctl("net.ipv4.ip_forward", "1")?;
    let file = bridged::file()?;
    let outer = bridged::run(&net, &file, &["eth0"])?;

    let inside = Netns::new("inside")?;
    container.netns.link(("eth1", "192.0.2.1/24"), &inside, ("eth0", "192.0.2.2/24"))?;
    inside.ip("addr add 192.0.2.3/24 dev eth0")?;
    inside.ip("route add default via 192.0.2.1")?;
    let addresses: Vec<_> =
        INNER.iter().map(|address| address.parse()).collect::<Result<_, _>>()?;
    let _demo = Backends::start(&inside, &demo_binary()?, &addresses)?;
    let inner_file = ServiceFile::new(addresses)?;
    let labels = [("com.docker.lb.ip_hash", "true")];
    inner_file.write(&service("inner", &["9090:9090/tcp"], &inner_file.addresses, &labels))?;
    let provider = format!("file:{}", inner_file.path().display());
    let arguments = ["--iface", "eth0", "--provider", &provider, "--http", "none"];
    let inner = Sticky::start(&container.netns, &arguments)?;
    inner.wait_up("inner", 2, Duration::from_secs(10))?;
    outer.wait_up("demo", 1, Duration::from_secs(10))?;

    let mut seen: Vec<String> = Vec::new();
    for index in 0..40 {
        let open = || LineConnection::open(client(index), vip(LINE_PORT));
        let mut connection = net.clients.enter(open)??;
        connection.ask("who is it")?;
        assert_eq!(connection.seen.ip(), client(index));
        seen.push(connection.instance);
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen, inner_file.addresses.iter().map(backend_name).collect::<Vec<_>>());
    Ok(())
}

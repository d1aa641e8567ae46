//! Replies find their client wherever it is, and have the address that it asked.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use sticky_tests::demo::LINE_PORT;
use sticky_tests::lines::LineConnection;
use sticky_tests::netns::Netns;
use sticky_tests::topology::{CLIENT, NODE, OTHER, client, vip};

use crate::fixture::{FileNode, service};

fn talk(from: &Netns, source: IpAddr, to: SocketAddr) -> anyhow::Result<LineConnection> {
    let mut line = from.enter(|| LineConnection::open(source, to))??;
    assert_eq!(line.seen, line.local);
    line.ask("hello")?;
    Ok(line)
}

/// From a port of its own choice.
fn connect(from: SocketAddr, to: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.bind(&from.into())?;
    socket.connect_timeout(&to.into(), Duration::from_millis(500))?;
    Ok(socket)
}

#[test]
fn clients_on_the_link_behind_a_router_and_on_other_interfaces() -> anyhow::Result<()> {
    for more in [&[][..], &["--iface", "eth1"]] {
        let node = FileNode::start_with(more, 2, |addresses| {
            let labels = [("com.docker.lb.ip_hash", "true")];
            service("demo", &["9090:9090/tcp"], addresses, &labels)
        })?;
        node.sticky.wait_up("demo", 2, Duration::from_secs(10))?;
        let net = &node.net;
        talk(&net.clients, CLIENT.into(), vip(LINE_PORT))?;
        talk(&net.clients, client(5), vip(LINE_PORT))?;
        if more.is_empty() {
            // Its packets come in by eth0, and the route to it leaves by eth1.
            net.clients.link(("side", "192.0.2.1/24"), &net.other, ("side", "192.0.2.2/24"))?;
            net.clients.sysctl("net.ipv4.ip_forward", "1")?;
            net.other.ip(&format!("route add {NODE}/32 via 192.0.2.1"))?;
            for key in ["net.ipv4.conf.all.rp_filter", "net.ipv4.conf.eth0.rp_filter"] {
                net.other.sysctl(key, "0")?;
                net.clients.sysctl(key, "0")?;
            }
            net.clients.sysctl("net.ipv4.conf.side.rp_filter", "0")?;
        }
        let mut line = talk(&net.other, OTHER.into(), vip(LINE_PORT))?;
        line.ask("and again")?;
    }
    Ok(())
}

#[test]
fn several_addresses_and_ports_lead_to_one_port_of_the_backend() -> anyhow::Result<()> {
    const SECOND: &str = "198.51.100.9";
    let second: IpAddr = SECOND.parse()?;
    let node = FileNode::start(1, |addresses| {
        let labels = [("com.docker.lb.ip_hash", "true")];
        service("demo", &["9090:9090/tcp", "9191:9090/tcp", "81:9090/tcp"], addresses, &labels)
    })?;
    node.net.node.ip(&format!("addr add {SECOND}/24 dev eth0"))?;
    node.sticky.wait_up("demo", 1, Duration::from_secs(10))?;
    node.sticky.wait_service("demo", "six frontends", Duration::from_secs(10), |service| {
        service["frontends"].as_array().map_or(0, Vec::len) == 6
    })?;
    let clients = &node.net.clients;
    let frontends: Vec<SocketAddr> = [vip(0).ip(), second]
        .into_iter()
        .flat_map(|ip| [9090, 9191, 81].map(|port| SocketAddr::new(ip, port)))
        .collect();
    // All at once, and one after the other from the same port.
    let mut open = frontends
        .iter()
        .map(|&to| talk(clients, client(1), to))
        .collect::<anyhow::Result<Vec<_>>>()?;
    open.iter_mut().try_for_each(|line| line.ask("still"))?;
    let from = SocketAddr::new(client(2), 40_000);
    clients.enter(|| {
        for &to in &frontends {
            let socket = connect(from, to)?;
            // Ended by a reset, so that the port is free here.
            socket.set_linger(Some(Duration::ZERO))?;
        }
        anyhow::Ok(())
    })??;
    // Two live ones of one port would look the same to the backend: the second is not let through.
    let (held, error) = clients.enter(|| {
        let held = connect(from, frontends[0])?;
        anyhow::Ok((held, connect(from, frontends[1]).err().map(|e| e.kind())))
    })??;
    assert_eq!(error, Some(std::io::ErrorKind::TimedOut));
    let metrics = node.net.node.run("curl", &["--silent", "http://127.0.0.1:9880/metrics"])?;
    let counted = metrics
        .lines()
        .find_map(|line| line.strip_prefix("sticky_packets_total{outcome=\"collision\"} "));
    assert!(counted.is_some_and(|count| count != "0"), "{counted:?}");
    drop(held);
    Ok(())
}

//! A node whose backend is in a namespace of its own, on a bridge as a container is.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use sticky_tests::demo::{Backends, demo_binary};
use sticky_tests::lines::LineConnection;
use sticky_tests::netns::Netns;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::Topology;
use sticky_tests::wait;

use crate::fixture::{ServiceFile, service};

/// Long before the loop would look by itself.
pub const SOON: Duration = Duration::from_secs(2);
/// The first container's.
pub const ADDRESS: &str = "203.0.113.131";

/// Such a backend.
pub struct Container {
    pub netns: Netns,
    port: &'static str,
    _demo: Option<Backends>,
}

impl Container {
    /// The one that has [`ADDRESS`], with nothing in it.
    pub fn new() -> anyhow::Result<Self> {
        Self::on("port0")
    }

    /// One for this port of the bridge.
    pub fn on(port: &'static str) -> anyhow::Result<Self> {
        Ok(Self { netns: Netns::new("container")?, port, _demo: None })
    }

    /// Connects it to the bridge.
    pub fn plug_in(&self, node: &Netns, address: &str) -> anyhow::Result<()> {
        let (port, name) = (self.port, self.netns.name());
        node.ip(&format!("link add {port} type veth peer name eth0 netns {name}"))?;
        self.netns.ip(&format!("addr add {address}/25 dev eth0"))?;
        self.netns.ip("link set eth0 up")?;
        self.netns.ip("route add default via 203.0.113.129")?;
        node.ip(&format!("link set {port} master br0 up")).map(drop)
    }

    /// Starts the demo application in it, on [`ADDRESS`].
    pub fn serve(&mut self) -> anyhow::Result<()> {
        // Also before the address is here.
        self.netns.sysctl("net.ipv4.ip_nonlocal_bind", "1")?;
        self._demo = Some(Backends::start(&self.netns, &demo_binary()?, &[ADDRESS.parse()?])?);
        Ok(())
    }
}

pub fn bridge(node: &Netns) -> anyhow::Result<()> {
    node.ip("link add br0 type bridge")?;
    node.ip("addr add 203.0.113.129/25 dev br0")?;
    node.ip("link set br0 up").map(drop)
}

pub fn run(net: &Topology, file: &ServiceFile, interfaces: &[&str]) -> anyhow::Result<Sticky> {
    let provider = format!("file:{}", file.path().display());
    let mut args = vec!["--provider", &provider, "--http", "[::]:80"];
    interfaces.iter().for_each(|name| args.extend(["--iface", name]));
    Sticky::start(&net.node, &args)
}

/// A container that serves, on a bridge of the node.
pub fn contained() -> anyhow::Result<(Topology, Container)> {
    let net = Topology::new()?;
    bridge(&net.node)?;
    let mut container = Container::new()?;
    container.plug_in(&net.node, ADDRESS)?;
    container.serve()?;
    net.node.sysctl("net.ipv4.ip_forward", "1")?;
    Ok((net, container))
}

/// The same with sticky in front of it. What comes last ends first.
pub fn serving(interfaces: &[&str]) -> anyhow::Result<(Topology, Container, ServiceFile, Sticky)> {
    let (net, container) = contained()?;
    let file = file()?;
    let sticky = run(&net, &file, interfaces)?;
    sticky.wait_up("demo", 1, Duration::from_secs(10))?;
    Ok((net, container, file, sticky))
}

pub fn file() -> anyhow::Result<ServiceFile> {
    let file = ServiceFile::new(vec![ADDRESS.parse()?])?;
    let labels = [("com.docker.lb.ip_hash", "true")];
    file.write(&service("demo", &["9090:9090/tcp"], &file.addresses, &labels))?;
    Ok(file)
}

/// How long it took until a connection to `to` was answered.
pub fn answered(from: &Netns, to: SocketAddr, source: &str) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    wait::until("a connection", Duration::from_secs(20), || {
        let open = || LineConnection::open_within(source.parse()?, to, Duration::from_millis(100));
        Ok(from.enter(open)?.map(drop).map_err(|e| format!("{e:#}")))
    })?;
    Ok(begun.elapsed())
}

//! A node with sticky under the file provider, and demo applications behind it.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use sticky_tests::demo::{Backends, HTTP_PORT, demo_binary};
use sticky_tests::names::TempDir;
use sticky_tests::netns::Netns;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::Topology;

/// The parts; dropped in this order.
pub struct FileNode {
    pub sticky: Sticky,
    pub file: ServiceFile,
    pub running: Backends,
    pub backends: Netns,
    pub net: Topology,
}

impl FileNode {
    /// Starts `count` backends, and sticky with the services that `text` makes of their addresses.
    pub fn start(count: u8, text: impl FnOnce(&[IpAddr]) -> String) -> anyhow::Result<Self> {
        Self::start_with(&[], count, text)
    }

    /// The same with more arguments.
    pub fn start_with(
        arguments: &[&str],
        count: u8,
        text: impl FnOnce(&[IpAddr]) -> String,
    ) -> anyhow::Result<Self> {
        let net = Topology::new()?;
        let (backends, addresses) = net.backends(count)?;
        let running = Backends::start(&backends, &demo_binary()?, &addresses)?;
        let file = ServiceFile::new(addresses)?;
        file.write(&text(&file.addresses))?;
        let provider = format!("file:{}", file.path().display());
        let fixed = ["--iface", "eth0", "--provider", &provider, "--http", "[::]:80"];
        let sticky = Sticky::start(&net.node, &[&fixed[..], arguments].concat())?;
        Ok(Self { sticky, file, running, backends, net })
    }

    /// Starts `count` backends with the first `serving` of them in an `ip_hash` service `demo`, all up.
    pub fn demo(count: u8, serving: usize) -> anyhow::Result<Self> {
        let node = Self::start(count, |addresses| demo(&addresses[..serving]))?;
        node.sticky.wait_up("demo", serving, Duration::from_secs(10))?;
        Ok(node)
    }

    /// Puts the first `serving` backends into the service `demo` of [`FileNode::demo`] and waits until they are up.
    pub fn scale(&self, serving: usize) -> anyhow::Result<()> {
        self.file.write(&demo(&self.file.addresses[..serving]))?;
        self.sticky.wait_up("demo", serving, Duration::from_secs(10)).map(|_| ())
    }
}

/// The service file.
pub struct ServiceFile {
    dir: TempDir,
    pub addresses: Vec<IpAddr>,
}

impl ServiceFile {
    /// An empty one, for backends on these addresses.
    pub fn new(addresses: Vec<IpAddr>) -> anyhow::Result<Self> {
        Ok(Self { dir: TempDir::new()?, addresses })
    }

    /// Its path.
    pub fn path(&self) -> PathBuf {
        self.dir.join("services.toml")
    }

    /// Replaces it in one step.
    pub fn write(&self, text: &str) -> anyhow::Result<()> {
        let new = self.dir.join("new");
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.path())?)
    }
}

fn demo(addresses: &[IpAddr]) -> String {
    service(
        "demo",
        &["8080:8080/tcp", "9090:9090/tcp"],
        addresses,
        &[("com.docker.lb.hosts", "demo.local"), ("com.docker.lb.ip_hash", "true")],
    )
}

/// One `[[service]]` of the file.
pub fn service(
    name: &str,
    publish: &[&str],
    addresses: &[IpAddr],
    labels: &[(&str, &str)],
) -> String {
    let list = |items: Vec<String>| {
        items.iter().map(|item| format!("\"{item}\"")).collect::<Vec<_>>().join(", ")
    };
    let at = |address: &IpAddr| SocketAddr::new(*address, HTTP_PORT).to_string();
    let backends = list(addresses.iter().map(at).collect());
    let publish = list(publish.iter().map(|&port| port.to_owned()).collect());
    let mut text = format!(
        "[[service]]\nname = \"{name}\"\npublish = [{publish}]\nbackends = [{backends}]\n[service.labels]\n"
    );
    for (key, value) in labels {
        let _ = writeln!(text, "\"{key}\" = \"{value}\"");
    }
    text
}

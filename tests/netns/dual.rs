//! A node of both families: a service of IPv4 backends and one of IPv6 backends, over TCP and UDP.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::Duration;

use sticky_tests::bulk;
use sticky_tests::datagrams::{DATAGRAM_PORT, Server};
use sticky_tests::demo::{Backends, HTTP_PORT, LINE_PORT, backend_name, demo_binary};
use sticky_tests::netns::Netns;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::{NODE, NODE_V6, Topology, client, client_v6};

use crate::fixture::ServiceFile;

const LIMIT: Duration = Duration::from_secs(10);

/// Names and values.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    V4,
    V6,
}

pub const BOTH: [Family; 2] = [Family::V4, Family::V6];

impl Family {
    /// The name of its service.
    pub fn service(self) -> &'static str {
        match self {
            Self::V4 => "four",
            Self::V6 => "six",
        }
    }

    /// The frontend for a port of its backends: those of the second service are 10,000 higher.
    pub fn frontend(self, port: u16) -> SocketAddr {
        match self {
            Self::V4 => SocketAddr::new(NODE.into(), port),
            Self::V6 => SocketAddr::new(NODE_V6.into(), port + 10_000),
        }
    }

    pub fn client(self, index: u16) -> IpAddr {
        match self {
            Self::V4 => client(index.into()),
            Self::V6 => client_v6(index),
        }
    }
}

/// The parts; dropped in this order.
pub struct Dual {
    pub sticky: Sticky,
    pub file: ServiceFile,
    _servers: Vec<Server>,
    _demo: Backends,
    pub backends: Netns,
    pub net: Topology,
    count: usize,
    /// Of each service, as the file has them.
    labels: [String; 2],
}

impl Dual {
    /// `count` backends of each family, all up, behind `eth0` in a mode; `labels` besides `ip_hash`.
    pub fn start(count: u8, mode: &str, labels: Labels<'_>) -> anyhow::Result<Self> {
        Self::start_prepared(count, [labels; 2], &["--xdp-mode", mode], |_, _| Ok(()))
    }

    /// The same with labels for each service and more arguments, and something that is made ready at the backends.
    pub fn start_prepared(
        count: u8,
        labels: [Labels<'_>; 2],
        arguments: &[&str],
        prepare: impl FnOnce(&Netns, &[IpAddr]) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let net = Topology::new()?;
        let (backends, mut addresses) = net.backends(count)?;
        net.add_v6()?;
        addresses.extend(net.backends_v6(&backends, count)?);
        let demo = Backends::start(&backends, &demo_binary()?, &addresses)?;
        let servers = addresses.iter().map(|&address| Server::start(&backends, address));
        let servers = servers.collect::<anyhow::Result<Vec<_>>>()?;
        addresses.iter().try_for_each(|&address| bulk::serve(&backends, address))?;

        prepare(&backends, &addresses)?;
        let file = ServiceFile::new(addresses)?;
        let count = usize::from(count);
        let labels = labels.map(|some| {
            let all = [&[("com.docker.lb.ip_hash", "true")], some].concat();
            all.iter().map(|(key, value)| format!("\"{key}\" = \"{value}\"\n")).collect()
        });
        let all: Vec<usize> = (0..count).collect();
        file.write(&text(&file, count, &all, &[], &labels))?;
        let provider = format!("file:{}", file.path().display());
        let fixed = ["--iface", "eth0", "--provider", &provider, "--http", "none"];
        let sticky = Sticky::start(&net.node, &[&fixed[..], arguments].concat())?;
        for family in BOTH {
            sticky.wait_up(family.service(), count, LIMIT)?;
        }
        Ok(Self { sticky, file, _servers: servers, _demo: demo, backends, net, count, labels })
    }

    /// Puts these backends into the services, some of them drained.
    pub fn write(&self, serving: &[usize], drained: &[usize]) -> anyhow::Result<()> {
        self.file.write(&text(&self.file, self.count, serving, drained, &self.labels))
    }

    /// Puts these backends into the services and waits until it is so.
    pub fn serve(&self, which: Range<usize>) -> anyhow::Result<()> {
        let which: Vec<usize> = which.collect();
        self.write(&which, &[])?;
        for family in BOTH {
            self.sticky.wait_service(family.service(), "changed", LIMIT, |service| {
                service["backends"].as_array().map_or(0, Vec::len) == which.len()
            })?;
        }
        Ok(())
    }

    /// The names of a backend, one of each family.
    pub fn names(&self, index: usize) -> [String; 2] {
        [index, index + self.count].map(|at| backend_name(&self.file.addresses[at]))
    }

    /// Runs something as the clients do.
    pub fn client<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        self.net.clients.enter(work)?
    }
}

fn text(
    file: &ServiceFile,
    count: usize,
    serving: &[usize],
    drained: &[usize],
    labels: &[String; 2],
) -> String {
    let of = |family: Family, addresses: &[IpAddr]| {
        let tcp = [LINE_PORT, HTTP_PORT, bulk::BULK_PORT].map(|port| (port, "tcp"));
        let ports = tcp.into_iter().chain([(DATAGRAM_PORT, "udp")]);
        let publish = ports.map(|(port, protocol)| {
            format!("\"{}:{port}/{protocol}\"", family.frontend(port).port())
        });
        let publish: Vec<_> = publish.collect();
        let backends = serving.iter().map(|index| {
            let address = SocketAddr::new(addresses[*index], LINE_PORT);
            format!("{{ addr = \"{address}\", drain = {} }}", drained.contains(index))
        });
        let backends: Vec<_> = backends.collect();
        format!(
            "[[service]]\nname = \"{}\"\npublish = [{}]\nbackends = [{}]\n[service.labels]\n{}",
            family.service(),
            publish.join(", "),
            backends.join(", "),
            labels[family as usize]
        )
    };
    let (four, six) = file.addresses.split_at(count);
    of(Family::V4, four) + &of(Family::V6, six)
}

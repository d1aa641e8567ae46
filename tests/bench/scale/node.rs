//! A node whose Docker is not real.

use std::collections::HashSet;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::{Value, json};
use socket2::{Domain, Socket, Type};
use sticky_tests::fake_docker::FakeDocker;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::Topology;
use sticky_tests::wait;

use super::usage::Usage;

/// Of a cluster.
#[derive(Clone, Copy)]
pub struct Size {
    pub services: usize,
    pub tasks: usize,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} services x {} tasks", self.services, self.tasks)
    }
}

/// Dropped in this order.
pub struct Node {
    sticky: Sticky,
    docker: FakeDocker,
    _net: Topology,
    size: Size,
    interval: &'static str,
    /// From the start of the process to the line about the last service.
    pub took: Duration,
}

/// One for all backends; each has room for its own connections elsewhere, and a SYN for which there is none is lost.
fn listener() -> std::io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((Ipv4Addr::UNSPECIFIED, 8080)).into())?;
    socket.listen(libc::SOMAXCONN)?;
    Ok(socket.into())
}

impl Node {
    /// Starts sticky and waits until every service is in the maps with all of its tasks.
    pub fn start(binary: &Path, size: Size, interval: &'static str) -> anyhow::Result<Self> {
        let net = Topology::new()?;
        net.node.sysctl("net.ipv4.ip_forward", "1")?;
        net.node.ip("route add 198.19.0.0/16 via 203.0.113.2")?;
        net.other.ip("route add local 198.19.0.0/16 dev lo")?;
        let listener = net.other.enter(listener)??;
        // Ends with the program.
        std::thread::spawn(move || listener.incoming().for_each(drop));
        let docker = FakeDocker::start()?;
        for number in 0..size.services {
            docker.set(number, &labels(number, interval), &tasks(size, number, size.tasks));
        }
        let url = docker.url();
        let arguments = ["--iface", "eth0", "--docker-host", &url, "--http", "[::]:80"];
        let began = Instant::now();
        let sticky = Sticky::start_binary(binary.to_owned(), &net.node, &arguments)?;
        let mut node = Self { sticky, docker, _net: net, size, interval, took: Duration::ZERO };
        let wanted = (0..size.services).map(|number| (number, size.tasks));
        let last = node.wait(0, wanted.collect(), Duration::from_secs(120))?;
        node.took = last - began;
        Ok(node)
    }

    pub fn usage(&mut self) -> anyhow::Result<Usage> {
        Usage::of(self.sticky.process()?.id())
    }

    /// SIGTERM, and waits for the end.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.sticky.terminate(Duration::from_secs(60)).map(drop)
    }

    /// The first service gets a task that does not come to run.
    pub fn unsettle(&self) {
        let mut all = tasks(self.size, 0, self.size.tasks);
        all.push((self.size.tasks + 2, Ipv4Addr::UNSPECIFIED, "preparing"));
        self.docker.set(0, &labels(0, self.interval), &all);
        self.docker.updated(0);
    }

    /// One of the other services has a task more, or less; how long it took until that was in the maps.
    pub fn change(&mut self, change: usize) -> anyhow::Result<Duration> {
        let number = 1 + change / 2 % (self.size.services - 1).max(1);
        let count = self.size.tasks + 1 - change % 2;
        let logged = self.sticky.log().len();
        let mut all = tasks(self.size, number, count);
        if self.size.services == 1 {
            all.push((self.size.tasks + 2, Ipv4Addr::UNSPECIFIED, "preparing"));
        }
        let number = number % self.size.services;
        self.docker.set(number, &labels(number, self.interval), &all);
        let began = Instant::now();
        self.docker.updated(number);
        Ok(self.wait(logged, vec![(number, count)], Duration::from_secs(20))? - began)
    }

    /// Waits for a line about each of these services with so many backends; when the last one came.
    fn wait(
        &mut self,
        from: usize,
        services: Vec<(usize, usize)>,
        limit: Duration,
    ) -> anyhow::Result<Instant> {
        let mut missing: HashSet<(usize, usize)> = services.into_iter().collect();
        let (mut read, mut last) = (from, Instant::now());
        wait::until("lines about the maps", limit, || {
            let log = self.sticky.log();
            for line in &log[read.min(log.len())..] {
                if said(&line.text).is_some_and(|said| missing.remove(&said)) {
                    last = line.at;
                }
            }
            read = log.len();
            Ok(if missing.is_empty() {
                Ok(())
            } else {
                Err(format!("{} are missing", missing.len()))
            })
        })
        .context("is sticky's log as it was?")?;
        Ok(last)
    }
}

/// The service and the number of backends of `service s7: 10 -> 11 backends, generation …`.
fn said(line: &str) -> Option<(usize, usize)> {
    let (name, rest) = line.split_once("service s")?.1.split_once(": ")?;
    let count = rest.split_once(" -> ")?.1.split_once(" backends")?.0;
    Some((name.parse().ok()?, count.parse().ok()?))
}

fn labels(number: usize, interval: &str) -> Value {
    json!({
        "com.docker.lb.hosts": format!("s{number}.local"), "com.docker.lb.port": "8080",
        "com.docker.lb.ip_hash": "true", "sticky.health.interval": interval,
    })
}

/// Running tasks of a service, each with an address of its own unless there are more than 65,000.
fn tasks(size: Size, service: usize, count: usize) -> Vec<(usize, Ipv4Addr, &'static str)> {
    let address = |slot: usize| {
        let [.., high, low] = (service * (size.tasks + 2) + slot).to_be_bytes();
        Ipv4Addr::new(198, 19, high, low)
    };
    (1..=count).map(|slot| (slot, address(slot), "running")).collect()
}

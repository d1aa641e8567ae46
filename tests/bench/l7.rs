//! What a request costs: sticky beside nginx, HAProxy, Envoy and Caddy, each with its own sticky sessions on; and beside
//! nginx and HAProxy that also tell backends and clients what sticky tells them.
//!
//! Clients, proxies and backends meet on the loopback of one namespace, on addresses of documentation. The proxies have
//! the first CPU, clients and backends the last; a proxy that is not asked takes next to nothing, so all run all the time
//! and take turns. Every answer is checked: status, length, and the backend of its session.

pub mod backend;
pub mod client;
pub mod load;
mod measure;
mod peers;
mod second;
mod services;
pub mod usage;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use procfs::CpuInfo;
use procfs::prelude::*;
use sticky_tests::netns::Netns;

use self::client::Wish;
use self::measure::Lab;
use self::peers::{Kind, PROXY};
use crate::report::{Report, Table};

const BACKENDS: u8 = 5;
const PLAIN: Wish = Wish { body: 1000, session: true };
/// Of what the better peer can do, for latencies.
const PART: f64 = 0.7;

/// A load that all proxies get.
#[derive(Clone, Copy)]
struct Load {
    name: &'static str,
    title: &'static str,
    wish: Wish,
    connections: usize,
    access_log: bool,
    requests: usize,
}

const fn load(name: &'static str, title: &'static str, body: usize) -> Load {
    let wish = Wish { body, session: true };
    Load { name, title, wish, connections: FEW, access_log: false, requests: 6_000 }
}

const fn many(requests: usize, load: Load) -> Load {
    Load { connections: 4096, requests, ..load }
}

const LOADS: [Load; 8] = [
    load("0", "no body, 64 connections", 0),
    load("1k", "1 kB, 64 connections", 1000),
    Load { requests: 700, ..load("100k", "100 kB, 64 connections", 100_000) },
    Load { access_log: true, ..load("log", "1 kB, 64 connections, access log", 1000) },
    Load {
        wish: Wish { body: 1000, session: false },
        ..load("new", "1 kB, 64 connections, each request a new session", 1000)
    },
    many(20_000, load("0-many", "no body, 4096 connections", 0)),
    many(20_000, load("1k-many", "1 kB, 4096 connections", 1000)),
    many(8_000, load("100k-many", "100 kB, 4096 connections", 100_000)),
];

/// How long and how often.
#[derive(Clone, Copy)]
struct Effort {
    /// Many short ones: a machine that is slow for a moment, or stands still, spoils the round that it does so in.
    rounds: usize,
    /// Of the requests of a load.
    part: f64,
    connections: usize,
    idle: usize,
    /// Rounds of latencies, and windows of each.
    paced: (usize, usize),
    services: &'static [usize],
}

const FULL: Effort = Effort {
    rounds: 21,
    part: 1.0,
    connections: 4096,
    idle: 4096,
    paced: (200, 5),
    services: &services::MANY,
};
const QUICK: Effort = Effort {
    rounds: 1,
    part: 0.02,
    connections: 64,
    idle: 64,
    paced: (1, 10),
    services: &[10, 100],
};
/// Loads of more connections than this get proxies of their own, so many at a time: what each keeps open to the backends
/// are files of this process, and 20,000 are as many as some systems allow.
const FEW: usize = 64;
const TOGETHER: usize = 3;
/// The largest body that is asked for.
const LARGEST: usize = 100_000;

/// Enough to tell what happens often from what does not.
const TRAINING: Effort = Effort { part: 3.0, ..QUICK };

/// Where clients, proxies and backends meet.
fn stage() -> anyhow::Result<(Netns, Vec<SocketAddr>)> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    let netns = Netns::new("bench")?;
    netns.ip(&format!("addr add {PROXY}/32 dev lo"))?;
    let backends: Vec<SocketAddr> = (1..=BACKENDS)
        .map(|host| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(203, 0, 113, host)), 8080))
        .collect();
    for backend in &backends {
        netns.ip(&format!("addr add {}/32 dev lo", backend.ip()))?;
    }
    netns.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
    // No client's own end may take a port that a proxy will listen on.
    netns.sysctl("net.ipv4.ip_local_reserved_ports", "8000-9299")?;
    netns.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
    Ok((netns, backends))
}

/// Each load once, for sticky alone.
pub fn train() -> anyhow::Result<()> {
    let (netns, backends) = stage()?;
    let lab = Lab { netns: &netns, backends, kinds: vec![Kind::Sticky] };
    netns.enter(|| runtime()?.block_on(lab.train(&TRAINING)))?
}

/// Measures all proxies that are here.
pub fn run(quick: bool) -> anyhow::Result<Report> {
    let (netns, backends) = stage()?;
    let mut notes = vec![
        "proxies on one CPU with one worker, clients and backends on the other; loopback, keep-alive on both sides".to_owned(),
        "CPU: user and system time of the proxy alone; requests per second: as many as come back, whoever is the bottleneck".to_owned(),
        format!("latencies: open loop at {PART} of what the better peer can do, asked anew in each round; from when a request was due; after 60 ms of the same, in windows of 20 ms, p99.9 in 100 ms; a proxy that cannot do as much is left out"),
        "on two cores: two workers on both CPUs, and beside them, on the same ones, a thread of clients and backends for each".to_owned(),
        "many services: sticky alone, from a file, checked once an hour, two backends each".to_owned(),
        "access logs off unless the load says so; then to files: sticky's and nginx's in batches, HAProxy's line by line".to_owned(),
    ];
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        match kind.find() {
            Ok((_, version)) => {
                notes.push(format!("{}, {version}: {}", kind.name(), kind.affinity()));
                kinds.push(kind);
            }
            Err(error) if kind == Kind::Sticky => return Err(error),
            Err(error) => notes.push(format!("{} is missing: {error:#}", kind.name())),
        }
    }
    let lab = Lab { netns: &netns, backends, kinds };
    let effort = if quick { QUICK } else { FULL };
    let tables = netns.enter(|| runtime()?.block_on(lab.measure(&effort)))??;
    notes.extend(summary(&tables));
    Ok(Report { name: "l7", notes, tables })
}

/// What sticky is to each of the others, in what a request takes of a processor and of time.
fn summary(tables: &[Table]) -> Vec<String> {
    let line = |table: &Table| {
        let own = table.rows.iter().find(|row| row.name == Kind::Sticky.name())?;
        let others = table.rows.iter().filter(|row| row.name != own.name);
        let all: Vec<String> = others
            .map(|row| format!("{:.2} x {}", own.samples.ratio(&row.samples), row.name))
            .collect();
        Some(format!("sticky, {}: {}", table.title, all.join(", ")))
    };
    let told = |table: &&Table| table.name.starts_with("cpu-") || table.name == "p99";
    tables.iter().filter(told).filter_map(line).collect()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cpus {
    Last,
    All,
}

/// Binds this thread to the last CPU, or lets it have all.
fn pin(to: Cpus) -> anyhow::Result<()> {
    let cpus = CpuInfo::current()?.num_cores();
    let mut set = CpuSet::new();
    for cpu in if to == Cpus::All { 0..cpus } else { cpus - 1..cpus } {
        set.set(cpu)?;
    }
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// For clients and backends, which share a thread.
fn runtime() -> anyhow::Result<tokio::runtime::LocalRuntime> {
    Ok(tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())?)
}

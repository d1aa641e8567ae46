//! What a request costs: sticky beside nginx and HAProxy, each with its own sticky sessions on.
//!
//! Clients, proxies and backends meet on the loopback of one namespace, on addresses of documentation. The proxies have
//! the first CPU, clients and backends the last; a proxy that is not asked takes next to nothing, so all run all the time
//! and take turns. Every answer is checked: status, length, and the backend of its session.

pub mod backend;
pub mod client;
pub mod load;
mod peers;
pub mod usage;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::Pid;
use sticky_tests::netns::Netns;

use self::client::{Client, Wish};
use self::peers::{Kind, Mode, PROXY, Proxy};
use crate::report::{Report, Row, Samples, Table, quantile};

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
    Load { name, title, wish, connections: 64, access_log: false, requests: 20_000 }
}

const LOADS: [Load; 8] = [
    load("0", "no body, 64 connections", 0),
    load("1k", "1 kB, 64 connections", 1000),
    Load { requests: 2_000, ..load("100k", "100 kB, 64 connections", 100_000) },
    Load { access_log: true, ..load("log", "1 kB, 64 connections, access log", 1000) },
    Load {
        wish: Wish { body: 1000, session: false },
        ..load("new", "1 kB, 64 connections, each request a new session", 1000)
    },
    Load { connections: 4096, ..load("0-many", "no body, 4096 connections", 0) },
    Load { connections: 4096, ..load("1k-many", "1 kB, 4096 connections", 1000) },
    Load {
        connections: 4096,
        requests: 8_000,
        ..load("100k-many", "100 kB, 4096 connections", 100_000)
    },
];

/// How long and how often.
struct Effort {
    rounds: usize,
    /// Of the requests of a load.
    part: f64,
    connections: usize,
    idle: usize,
    paced: Duration,
}

const FULL: Effort =
    Effort { rounds: 7, part: 1.0, connections: 4096, idle: 4096, paced: Duration::from_secs(4) };
const QUICK: Effort =
    Effort { rounds: 1, part: 0.02, connections: 64, idle: 64, paced: Duration::from_millis(200) };

/// Measures all proxies that are here.
pub fn run(quick: bool) -> anyhow::Result<Report> {
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

    let mut notes = vec![
        "proxies on one CPU with one worker, clients and backends on the other; loopback, keep-alive on both sides".to_owned(),
        "CPU: user and system time of the proxy alone; requests per second: as many as come back, whoever is the bottleneck".to_owned(),
        format!("latencies: open loop at {PART} of what the better peer can do, from when a request was due"),
        "access logs off unless the load says so; then to files: sticky's and nginx's in batches, HAProxy's line by line".to_owned(),
    ];
    let mut kinds = Vec::new();
    for kind in Kind::ALL {
        match kind.find() {
            Ok((_, version)) => {
                notes.push(format!("{version}: {}", kind.affinity()));
                kinds.push(kind);
            }
            Err(error) if kind == Kind::Sticky => return Err(error),
            Err(error) => notes.push(format!("{} is missing: {error:#}", kind.name())),
        }
    }
    notes.push("not measured: Envoy, which apt does not have, and Caddy".to_owned());

    let lab = Lab { netns: &netns, backends, kinds };
    let effort = if quick { QUICK } else { FULL };
    let tables = netns.enter(|| {
        pin()?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())?;
        runtime.block_on(lab.measure(&effort))
    })??;
    Ok(Report { name: "l7", notes, tables })
}

/// This thread leaves the first CPU to the proxies, if there is another.
fn pin() -> anyhow::Result<()> {
    let cpus = std::thread::available_parallelism()?.get();
    let mut last = CpuSet::new();
    last.set(cpus - 1)?;
    Ok(sched_setaffinity(Pid::from_raw(0), &last)?)
}

/// What the measurements share.
struct Lab<'a> {
    netns: &'a Netns,
    backends: Vec<SocketAddr>,
    kinds: Vec<Kind>,
}

impl Lab<'_> {
    async fn measure(&self, effort: &Effort) -> anyhow::Result<Vec<Table>> {
        backend::serve(&self.backends, 100_000)?;
        let mut tables = Vec::new();
        // Of fresh processes: what was freed before would be used again.
        tables.push(self.idle(effort).await?);
        let quiet = self.start(Mode { access_log: false }, 8100).await?;
        let logging = self.start(Mode { access_log: true }, 8200).await?;
        let mut capacity = f64::NAN;
        for load in LOADS.iter().filter(|load| load.connections <= effort.connections) {
            let proxies = if load.access_log { &logging } else { &quiet };
            let [costs, rates] = self.load(load, proxies, effort).await?;
            if load.name == "1k" {
                capacity = rates
                    .rows
                    .iter()
                    .filter(|row| self.kinds.len() == 1 || row.name != Kind::Sticky.name())
                    .map(|row| row.samples.median)
                    .fold(f64::MIN, f64::max);
            }
            tables.extend([costs, rates]);
        }
        tables.extend(self.latencies(&quiet, PART * capacity, effort).await?);
        Ok(tables)
    }

    /// Starts all proxies, and waits until each answers with all backends up.
    async fn start(&self, mode: Mode, port: u16) -> anyhow::Result<Vec<Proxy>> {
        let mut proxies = Vec::new();
        for (&kind, port) in self.kinds.iter().zip(port..) {
            proxies.push(Proxy::start(kind, mode, port, self.netns, &self.backends)?);
        }
        let limit = Instant::now() + Duration::from_secs(20);
        for proxy in &mut proxies {
            while let Err(error) = Client::open(proxy.addr, PLAIN).await {
                proxy.check()?;
                let name = proxy.kind.name();
                anyhow::ensure!(Instant::now() < limit, "{name} does not answer: {error:#}");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        // Those that check their backends have seen them all by now.
        tokio::time::sleep(Duration::from_secs(2)).await;
        Ok(proxies)
    }

    /// CPU time and requests per second under one load.
    async fn load(
        &self,
        load: &Load,
        proxies: &[Proxy],
        effort: &Effort,
    ) -> anyhow::Result<[Table; 2]> {
        let requests = ((load.requests as f64 * effort.part) as usize).max(load.connections * 2);
        let mut costs = vec![Vec::new(); proxies.len()];
        let mut rates = vec![Vec::new(); proxies.len()];
        for _ in 0..effort.rounds {
            for ((proxy, costs), rates) in proxies.iter().zip(&mut costs).zip(&mut rates) {
                let (cost, rate) = one(proxy, load, requests)
                    .await
                    .with_context(|| format!("{}: {}", proxy.kind.name(), load.title))?;
                costs.push(cost);
                rates.push(rate);
            }
        }
        let costs = self.table(
            format!("cpu-{}", load.name),
            format!("CPU per request: {}", load.title),
            "µs",
            costs,
            f64::min,
        );
        let rates = self.table(
            format!("rate-{}", load.name),
            format!("requests per second: {}", load.title),
            "requests/s",
            rates,
            f64::max,
        );
        Ok([costs, rates])
    }

    /// Latencies at a fixed rate.
    async fn latencies(
        &self,
        proxies: &[Proxy],
        rate: f64,
        effort: &Effort,
    ) -> anyhow::Result<Vec<Table>> {
        const PARTS: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        let mut found = PARTS.map(|_| vec![Vec::new(); proxies.len()]);
        for _ in 0..effort.rounds {
            for (at, proxy) in proxies.iter().enumerate() {
                let clients = load::open(proxy.addr, PLAIN, 64).await?;
                let (times, _) = load::paced(clients, rate, effort.paced).await?;
                for ((_, part), found) in PARTS.iter().zip(&mut found) {
                    if let Some(found) = found.get_mut(at) {
                        found.push(quantile(&times, *part));
                    }
                }
            }
        }
        let table = |((name, _), samples): ((&str, f64), Vec<Vec<f64>>)| {
            let title = format!("{name} at {rate:.0} requests/s: 1 kB, 64 connections");
            self.table(name.to_owned(), title, "µs", samples, f64::min)
        };
        Ok(PARTS.into_iter().zip(found).map(table).collect())
    }

    /// User-space memory of connections that wait for their next request.
    async fn idle(&self, effort: &Effort) -> anyhow::Result<Table> {
        let mut found = vec![Vec::new(); self.kinds.len()];
        for _ in 0..effort.rounds.min(3) {
            let proxies = self.start(Mode { access_log: false }, 8000).await?;
            for (proxy, found) in proxies.iter().zip(&mut found) {
                let warm = load::open(proxy.addr, PLAIN, 32).await?;
                let before = usage::memory_kb(proxy.pid())?;
                let idle = load::open(proxy.addr, PLAIN, effort.idle).await?;
                tokio::time::sleep(Duration::from_millis(500)).await;
                let more = usage::memory_kb(proxy.pid())? - before;
                found.push(more / idle.len() as f64);
                drop((warm, idle));
            }
        }
        let title = format!("memory of an idle connection, of {}", effort.idle);
        Ok(self.table("idle".to_owned(), title, "kB", found, f64::min))
    }

    /// One row for each proxy; the base is the better of the peers.
    fn table(
        &self,
        name: String,
        title: String,
        unit: &'static str,
        samples: Vec<Vec<f64>>,
        better: fn(f64, f64) -> f64,
    ) -> Table {
        let rows: Vec<Row> = self
            .kinds
            .iter()
            .zip(samples)
            .map(|(kind, all)| Row { name: kind.name().to_owned(), samples: Samples::new(all) })
            .collect();
        let peers = || rows.iter().enumerate().filter(|(_, row)| row.name != Kind::Sticky.name());
        let best = peers().map(|(_, row)| row.samples.median).reduce(better);
        let base = peers().find(|(_, row)| Some(row.samples.median) == best).map(|(at, _)| at);
        Table { name, title, unit, base, rows }
    }
}

/// One proxy under one load: CPU time per request in µs, and requests per second.
async fn one(proxy: &Proxy, load: &Load, requests: usize) -> anyhow::Result<(f64, f64)> {
    let clients = load::open(proxy.addr, load.wish, load.connections).await?;
    let (_, clients) = load::closed(clients, requests / 10).await?;
    let before = usage::cpu_us(proxy.pid())?;
    let (took, _) = load::closed(clients, requests).await?;
    let cost = usage::cpu_us(proxy.pid())? - before;
    proxy.forget_log()?;
    let requests = requests as f64;
    Ok((cost / requests, requests / took.as_secs_f64()))
}

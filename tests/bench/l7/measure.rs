//! The measurements, one after the other.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use sticky_tests::netns::Netns;

use super::client::Client;
use super::peers::{Kind, Mode, Proxy};
use super::second::Second;
use super::{
    Cpus, Effort, FEW, LARGEST, LOADS, Load, PART, PLAIN, TOGETHER, backend, load, pin, services,
    usage,
};
use crate::report::{Row, Table, quantile};

/// Requests that tell what a proxy can do now.
const ASKED: usize = 2_000;
/// Before latencies count: 40 ms after so many clients have come at once, all connections to backends that they used and
/// nobody needs any more acknowledge the last answer, in one go.
const SETTLING: Duration = Duration::from_millis(60);
/// Of one value of a latency.
const WINDOW: Duration = Duration::from_millis(20);

/// What the measurements share.
pub struct Lab<'a> {
    pub netns: &'a Netns,
    pub backends: Vec<SocketAddr>,
    pub kinds: Vec<Kind>,
}

impl Lab<'_> {
    /// All tables.
    pub async fn measure(&self, effort: &Effort) -> anyhow::Result<Vec<Table>> {
        // The proxies have the first, if there is another.
        pin(Cpus::Last)?;
        backend::serve(&self.backends, LARGEST)?;
        let mut tables = Vec::new();
        // Of fresh processes: what was freed before would be used again.
        tables.push(self.idle(effort).await?);
        let quiet = self.start(&self.kinds, Mode::PLAIN, 8100).await?;
        let logging =
            self.start(&self.kinds, Mode { access_log: true, ..Mode::PLAIN }, 8200).await?;
        let (mut capacity, mut each) = (f64::NAN, Vec::new());
        for load in LOADS.iter().filter(|load| load.connections <= effort.connections) {
            let found = if load.connections > FEW {
                self.many(load, effort).await?
            } else {
                self.rounds(load, if load.access_log { &logging } else { &quiet }, effort).await?
            };
            let [costs, rates] = self.costs_and_rates(load, found);
            if load.name == "1k" {
                capacity = rates
                    .rows
                    .iter()
                    .filter(|row| self.kinds.len() == 1 || as_they_come(row))
                    .map(|row| row.samples.median)
                    .fold(f64::MIN, f64::max);
                each = rates.rows.iter().map(|row| row.samples.median).collect();
            }
            tables.extend([costs, rates]);
        }
        // An open loop at more than it can do says nothing about a proxy.
        let least = PART * capacity * 1.05;
        let able = |(kind, most): (&Kind, &f64)| *kind == Kind::Sticky || *most > least;
        let able: Vec<bool> = self.kinds.iter().zip(&each).map(able).collect();
        tables.extend(self.latencies(&quiet, &able, effort).await?);
        drop((quiet, logging));
        let (rounds, requests) = (effort.rounds.div_ceil(3), (20_000.0 * effort.part) as usize);
        tables.extend(services::measure(self, effort.services, rounds, requests).await?);
        // The last, since this thread has both CPUs from then on.
        tables.extend(self.two_cores(effort).await?);
        Ok(tables)
    }

    /// The loads of few connections, with proxies that end in order.
    pub async fn train(&self, effort: &Effort) -> anyhow::Result<()> {
        pin(Cpus::Last)?;
        backend::serve(&self.backends, LARGEST)?;
        let quiet = self.start(&self.kinds, Mode::PLAIN, 8100).await?;
        let logging =
            self.start(&self.kinds, Mode { access_log: true, ..Mode::PLAIN }, 8200).await?;
        for load in LOADS.iter().filter(|load| load.connections <= FEW) {
            let proxies = if load.access_log { &logging } else { &quiet };
            self.rounds(load, proxies, effort).await?;
        }
        quiet.into_iter().chain(logging).try_for_each(Proxy::end)
    }

    /// The same with proxies of their own, a few at a time.
    async fn many(&self, load: &Load, effort: &Effort) -> anyhow::Result<[Vec<Vec<f64>>; 2]> {
        let effort = Effort { rounds: effort.rounds.div_ceil(3), ..*effort };
        let mut found = [Vec::new(), Vec::new()];
        for kinds in self.kinds.chunks(TOGETHER) {
            let proxies = self.start(kinds, Mode::PLAIN, 8500).await?;
            let more = self.rounds(load, &proxies, &effort).await?;
            for (found, more) in found.iter_mut().zip(more) {
                found.extend(more);
            }
        }
        Ok(found)
    }

    /// Starts proxies, and waits until each answers with all backends up.
    async fn start(&self, kinds: &[Kind], mode: Mode, port: u16) -> anyhow::Result<Vec<Proxy>> {
        let mut proxies = Vec::new();
        for (&kind, port) in kinds.iter().zip(port..) {
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

    /// CPU time and requests per second under one load, for each proxy and round.
    async fn rounds(
        &self,
        load: &Load,
        proxies: &[Proxy],
        effort: &Effort,
    ) -> anyhow::Result<[Vec<Vec<f64>>; 2]> {
        let requests = |proxy: &Proxy| {
            let part = effort.part * proxy.kind.part();
            ((load.requests as f64 * part) as usize).max(load.connections * 2)
        };
        let mut costs = vec![Vec::new(); proxies.len()];
        let mut rates = vec![Vec::new(); proxies.len()];
        for round in 0..effort.rounds {
            for (at, proxy) in in_turn(proxies, round) {
                let (cost, rate) = one(proxy, load, requests(proxy)).await.with_context(|| {
                    format!("{}: {}; it said:\n{}", proxy.kind.name(), load.title, proxy.said())
                })?;
                costs[at].push(cost);
                rates[at].push(rate);
            }
        }
        Ok([costs, rates])
    }

    fn costs_and_rates(&self, load: &Load, [costs, rates]: [Vec<Vec<f64>>; 2]) -> [Table; 2] {
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
        [costs, rates]
    }

    /// Latencies at a part of what the better peer can do. That is asked anew in each round, since a machine whose
    /// neighbours work may have half of its speed a moment later: the same rate is then more than anybody can do. And a
    /// machine may stand still for a millisecond some times a second: the median of p99 is a proxy's own only if most
    /// windows are shorter than what lies between. To p99.9 it takes more requests, so that is of a round.
    async fn latencies(
        &self,
        proxies: &[Proxy],
        able: &[bool],
        effort: &Effort,
    ) -> anyhow::Result<Vec<Table>> {
        const PARTS: [(&str, f64); 3] = [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)];
        let mut found = PARTS.map(|_| vec![Vec::new(); proxies.len()]);
        let mut rates = Vec::new();
        let able: Vec<(usize, &Proxy)> =
            proxies.iter().enumerate().filter(|(at, _)| able.get(*at) == Some(&true)).collect();
        let peer = |proxy: &Proxy| able.len() == 1 || Kind::PEERS.contains(&proxy.kind);
        let (rounds, windows) = effort.paced;
        for round in 0..rounds {
            let mut most = 0_f64;
            for (_, proxy) in able.iter().filter(|(_, proxy)| peer(proxy)) {
                let (_, rate) = one(proxy, &load("1k", "as much as it can", 1000), ASKED).await?;
                most = most.max(rate);
            }
            let rate = PART * most;
            rates.push(rate);
            // Who comes right after the question is another one each time.
            for (_, (at, proxy)) in in_turn(&able, round) {
                let clients = load::open(proxy.addr, PLAIN, 64).await?;
                let (_, mut clients) = load::paced(clients, rate, SETTLING).await?;
                let mut note = |part: usize, times: &[f64]| {
                    found[part][*at].push(quantile(times, PARTS[part].1));
                };
                let mut all = Vec::new();
                for _ in 0..windows {
                    let (times, same) = load::paced(clients, rate, WINDOW).await?;
                    clients = same;
                    [0, 1].into_iter().for_each(|part| note(part, &times));
                    all.extend(times);
                }
                note(2, &all);
            }
        }
        let rate = quantile(&rates, 0.5);
        let table = |((name, _), samples): ((&str, f64), Vec<Vec<f64>>)| {
            let title = format!(
                "{name} at {PART} of the better peer's, {rate:.0} requests/s: 1 kB, 64 connections"
            );
            self.table(name.to_owned(), title, "µs", samples, f64::min)
        };
        Ok(PARTS.into_iter().zip(found).map(table).collect())
    }

    /// CPU time and requests per second, with a worker on each CPU.
    async fn two_cores(&self, effort: &Effort) -> anyhow::Result<[Table; 2]> {
        pin(Cpus::All)?;
        let proxies = self.start(&self.kinds, Mode { cpus: 2, ..Mode::PLAIN }, 8300).await?;
        let second = Second::start(&self.backends, LARGEST)?;
        let mut found = [(); 2].map(|()| vec![Vec::new(); proxies.len()]);
        for round in 0..effort.rounds {
            for (at, proxy) in in_turn(&proxies, round) {
                let part = effort.part * proxy.kind.part();
                let requests = ((6_000.0 * part) as usize).max(64);
                let both = two(proxy, &second, requests)
                    .await
                    .with_context(|| format!("{}: on two cores", proxy.kind.name()))?;
                for (found, value) in found.iter_mut().zip(both) {
                    found[at].push(value);
                }
            }
        }
        let [costs, rates] = found;
        let title = |what: &str| format!("{what} on two cores: 1 kB, 64 connections");
        Ok([
            self.table("cpu-two".to_owned(), title("CPU per request"), "µs", costs, f64::min),
            self.table(
                "rate-two".to_owned(),
                title("requests per second"),
                "requests/s",
                rates,
                f64::max,
            ),
        ])
    }

    /// User-space memory of connections that wait for their next request.
    async fn idle(&self, effort: &Effort) -> anyhow::Result<Table> {
        let mut found = vec![Vec::new(); self.kinds.len()];
        for _ in 0..effort.rounds.min(3) {
            let proxies = self.start(&self.kinds, Mode::PLAIN, 8000).await?;
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

    /// One row for each proxy; the base is the better of the peers, as they come.
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
            .filter(|(_, all)| !all.is_empty())
            .map(|(kind, all)| Row::new(kind.name(), all))
            .collect();
        let peers = || rows.iter().enumerate().filter(|(_, row)| as_they_come(row));
        let best = peers().map(|(_, row)| row.samples.median).reduce(better);
        let base = peers().find(|(_, row)| Some(row.samples.median) == best).map(|(at, _)| at);
        Table { name, title, unit, base, rows }
    }
}

/// All of them and their places, in each round from another one on and in the other direction: it is not the same to come
/// after one as after another.
fn in_turn<T>(all: &[T], round: usize) -> Vec<(usize, &T)> {
    let mut order: Vec<_> = all.iter().enumerate().collect();
    order.rotate_left(round % all.len().max(1));
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// Whether it is a peer's, without the headers that sticky adds: what all ratios are to.
fn as_they_come(row: &Row) -> bool {
    Kind::PEERS.iter().any(|kind| kind.name() == row.name)
}

/// One proxy under one load: CPU time per request in µs, and requests per second.
async fn one(proxy: &Proxy, load: &Load, requests: usize) -> anyhow::Result<(f64, f64)> {
    let clients = load::open(proxy.addr, load.wish, load.connections).await?;
    // Each client once at least: what a proxy opens for so many at once is not what one more request costs.
    let warm = (requests / 10).max(load.connections);
    let (_, clients) = load::closed(clients, warm).await?;
    let before = usage::cpu_us(proxy.pid())?;
    let (took, clients) = load::closed(clients, requests).await?;
    let cost = usage::cpu_us(proxy.pid())? - before;
    // Nor are their ends.
    drop(clients);
    proxy.forget_log()?;
    let requests = requests as f64;
    Ok((cost / requests, requests / took.as_secs_f64()))
}

/// The same with half of the load from another thread, each with half of the clients.
async fn two(proxy: &Proxy, second: &Second, requests: usize) -> anyhow::Result<[f64; 2]> {
    let clients = load::open(proxy.addr, PLAIN, 32).await?;
    second.open(proxy.addr, PLAIN, 32).await?;
    let warm = requests / 10;
    let ((_, clients), ()) = tokio::try_join!(load::closed(clients, warm), second.ask(warm))?;
    let (before, began) = (usage::cpu_us(proxy.pid())?, Instant::now());
    tokio::try_join!(load::closed(clients, requests), second.ask(requests))?;
    let took = began.elapsed();
    let cost = usage::cpu_us(proxy.pid())? - before;
    let requests = 2.0 * requests as f64;
    Ok([cost / requests, requests / took.as_secs_f64()])
}

//! A hundred changes a second.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;
use sticky_tests::fake_docker::FakeDocker;
use sticky_tests::netns::Netns;
use sticky_tests::sticky::{Sticky, up};
use sticky_tests::topology::Topology;

use super::table;
use super::traffic::{Seen, Traffic, p50_and_p99};
use crate::l7::client::HOST;
use crate::l7::{backend, usage};
use crate::report::Table;

/// Tasks that are there all the time, and that come and go.
const STAY: usize = 5;
const CHANGING: usize = 20;
const EVERY: Duration = Duration::from_millis(10);
const LIMIT: Duration = Duration::from_secs(20);
const SERVICE: &str = "s0";

/// How long and how often.
pub struct Effort {
    rounds: usize,
    time: Duration,
}

pub const FULL: Effort = Effort { rounds: 9, time: Duration::from_secs(4) };
pub const QUICK: Effort = Effort { rounds: 1, time: Duration::from_millis(700) };

pub fn note() -> String {
    format!(
        "changes: an event every {EVERY:?}, with it one of {CHANGING} tasks comes or goes beside {STAY} that stay; a Docker API that is not real, all else is. \
         Load on the same CPUs: 64 connections through layer 4 and 64 sessions of layer 7 with 1000 requests a second each, known clients that connect again, new sessions"
    )
}

/// Dropped in this order.
struct Node {
    sticky: Sticky,
    docker: FakeDocker,
    net: Topology,
    backends: Netns,
    addresses: Vec<Ipv4Addr>,
}

/// What a kind of round found, a sample a round.
#[derive(Default)]
struct Found {
    layer4: [Vec<f64>; 2],
    layer7: [Vec<f64>; 2],
    cpu: Vec<f64>,
    again: Vec<f64>,
    ordered: Vec<f64>,
    commits: Vec<f64>,
}

/// Rounds with and without changes, in turn.
pub fn measure(binary: &Path, effort: &Effort) -> anyhow::Result<Vec<Table>> {
    let mut node = Node::start(binary)?;
    let id = node.sticky.process()?.id();
    let (calm, storm) = node.net.clients.enter(|| -> anyhow::Result<_> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())?;
        let (mut calm, mut storm) = (Found::default(), Found::default());
        let mut traffic = runtime.block_on(Traffic::open())?;
        for _ in 0..effort.rounds {
            for (found, changing) in [(&mut calm, false), (&mut storm, true)] {
                let what =
                    if changing { "while a service changes" } else { "while nothing changes" };
                let before = node.count(id)?;
                let (round, ordered) = node.changing(changing, || {
                    runtime.block_on(traffic.round(effort.time)).context(what)
                })?;
                let (after, seen);
                (traffic, seen) = round;
                after = node.count(id)?;
                if changing {
                    node.settled(after.generation > before.generation)?;
                }
                found.note(&before, &after, &seen, ordered);
            }
        }
        Ok((calm, storm))
    })??;
    Ok(tables(calm, storm))
}

fn tables(calm: Found, storm: Found) -> Vec<Table> {
    let pair = |name: &str, title: &str, unit, calm, storm| {
        let rows = vec![("nothing changes", calm), ("100 changes a second", storm)];
        table(name, title, unit, Some(0), rows)
    };
    let rows = vec![("ordered", storm.ordered), ("commits of the maps", storm.commits)];
    let ([calm4, calm4_p99], [calm7, calm7_p99]) = (calm.layer4, calm.layer7);
    let ([storm4, storm4_p99], [storm7, storm7_p99]) = (storm.layer4, storm.layer7);
    vec![
        table("changes", "changes, and what they come together to", "a second", None, rows),
        pair("l4-p50", "round trip through layer 4, p50", "µs", calm4, storm4),
        pair("l4-p99", "round trip through layer 4, p99", "µs", calm4_p99, storm4_p99),
        pair("l7-p50", "request through layer 7, p50", "µs", calm7, storm7),
        pair("l7-p99", "request through layer 7, p99", "µs", calm7_p99, storm7_p99),
        pair("cpu", "CPU of sticky", "% of a core", calm.cpu, storm.cpu),
        table(
            "again",
            "TCP segments that were sent again",
            "a second",
            None,
            vec![("nothing changes", calm.again), ("100 changes a second", storm.again)],
        ),
    ]
}

/// What counts on.
struct Count {
    at: Instant,
    cpu_us: f64,
    again: f64,
    generation: u64,
}

impl Found {
    fn note(&mut self, before: &Count, after: &Count, seen: &Seen, ordered: usize) {
        let seconds = (after.at - before.at).as_secs_f64();
        let layers = [(&mut self.layer4, &seen.layer4), (&mut self.layer7, &seen.layer7)];
        for (found, times) in layers {
            for (found, time) in found.iter_mut().zip(p50_and_p99(times)) {
                found.push(time);
            }
        }
        self.cpu.push((after.cpu_us - before.cpu_us) / seconds / 1e4);
        self.again.push((after.again - before.again) / seconds);
        self.ordered.push(ordered as f64 / seconds);
        self.commits.push((after.generation - before.generation) as f64 / seconds);
    }
}

impl Node {
    fn start(binary: &Path) -> anyhow::Result<Self> {
        let net = Topology::new()?;
        let (backends, addresses) = net.backends((STAY + CHANGING) as u8)?;
        serve(&backends, &addresses)?;
        let v4 = |address: &IpAddr| match address {
            IpAddr::V4(address) => *address,
            IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
        };
        let addresses: Vec<Ipv4Addr> = addresses.iter().map(v4).collect();
        let docker = FakeDocker::start()?;
        set(&docker, &addresses, |slot| slot < STAY);
        let url = docker.url();
        let arguments = ["--iface", "eth0", "--docker-host", &url, "--http", "[::]:80"];
        let sticky = Sticky::start_binary(binary.to_owned(), &net.node, &arguments)?;
        sticky.wait_up(SERVICE, STAY, LIMIT)?;
        Ok(Self { sticky, docker, net, backends, addresses })
    }

    /// Does `work`, if so wanted while tasks come and go; also says how often they did.
    fn changing<T>(
        &self,
        wanted: bool,
        work: impl FnOnce() -> anyhow::Result<T>,
    ) -> anyhow::Result<(T, usize)> {
        let stop = AtomicBool::new(!wanted);
        std::thread::scope(|scope| {
            let changes = scope.spawn(|| self.change(&stop));
            let done = work();
            stop.store(true, Ordering::Relaxed);
            let ordered = changes.join().map_err(|_| anyhow::anyhow!("the changes panicked"))?;
            Ok((done?, ordered))
        })
    }

    /// One task after the other comes, and then goes; in the end all have gone.
    fn change(&self, stop: &AtomicBool) -> usize {
        let (mut there, mut ordered) = ([false; CHANGING], 0);
        let mut next = Instant::now();
        while !stop.load(Ordering::Relaxed) {
            if let Some(task) = there.get_mut(ordered % CHANGING) {
                *task = !*task;
            }
            let is_there = |slot: usize| slot < STAY || there.get(slot - STAY) == Some(&true);
            set(&self.docker, &self.addresses, is_there);
            self.docker.updated(0);
            ordered += 1;
            next += EVERY;
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
        }
        set(&self.docker, &self.addresses, |slot| slot < STAY);
        self.docker.updated(0);
        ordered
    }

    /// What was ordered last must be in force in the end, and something of the rest on the way.
    fn settled(&self, changed: bool) -> anyhow::Result<()> {
        anyhow::ensure!(changed, "not one of the changes was taken");
        let wanted = format!("the {STAY} tasks that stay");
        self.sticky.wait_service(SERVICE, &wanted, LIMIT, |service| {
            up(service) == STAY && service["backends"].as_array().map(Vec::len) == Some(STAY)
        })?;
        Ok(())
    }

    fn count(&self, id: u32) -> anyhow::Result<Count> {
        let generation = self.sticky.status()?["generation"].as_u64().context("a generation")?;
        Ok(Count {
            at: Instant::now(),
            cpu_us: usage::cpu_us(id)?,
            again: sent_again()? + self.backends.enter(sent_again)??,
            generation,
        })
    }
}

/// The application on all addresses, to the end of the program.
fn serve(netns: &Netns, addresses: &[IpAddr]) -> anyhow::Result<()> {
    let addresses: Vec<SocketAddr> =
        addresses.iter().map(|address| SocketAddr::new(*address, 8080)).collect();
    let listeners = netns.enter(|| backend::listen(&addresses))??;
    std::thread::spawn(move || -> anyhow::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())?;
        runtime.block_on(async {
            backend::serve_on(listeners, 1000)?;
            std::future::pending().await
        })
    });
    Ok(())
}

/// The service with those of its tasks that are there.
fn set(docker: &FakeDocker, addresses: &[Ipv4Addr], there: impl Fn(usize) -> bool) {
    let labels = json!({
        "com.docker.lb.hosts": HOST, "com.docker.lb.port": "8080", "com.docker.lb.ip_hash": "true",
        "com.docker.lb.sticky_session_cookie": "session",
    });
    let all = addresses.iter().enumerate().filter(|(slot, _)| there(*slot));
    let tasks: Vec<_> = all.map(|(slot, address)| (slot + 1, *address, "running")).collect();
    docker.set(0, &labels, &tasks);
}

/// By TCP in this thread's namespace.
fn sent_again() -> anyhow::Result<f64> {
    let text = std::fs::read_to_string("/proc/thread-self/net/snmp")?;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    let found = names.split(' ').zip(values.split(' ')).find(|(name, _)| *name == "RetransSegs");
    Ok(found.context("the kernel counts TCP")?.1.parse()?)
}

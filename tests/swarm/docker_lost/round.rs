//! One death of dockerd, and its return.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use serde_json::Value;
use sticky_tests::demo::{HTTP_PORT, LINE_PORT};
use sticky_tests::dockerd::Dockerd;
use sticky_tests::http;
use sticky_tests::lines::LineConnection;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::{Topology, client, vip};
use sticky_tests::wait;
use tokio::task::JoinSet;

use super::TASKS;
use super::watch::{Deaths, Said, Serving, listen};
use crate::watch::{Break, Stop, talk};

/// How long it is dead.
const AWAY: Duration = Duration::from_secs(20);
/// Within this time of its return all is known as it is.
const RIGHT: Duration = Duration::from_secs(2);
/// A quiet cluster is read this often, and a little.
const READ: Duration = Duration::from_secs(15);
/// For an answer of a new container.
const PATIENCE: Duration = Duration::from_millis(200);
/// Connections that are held open.
const OPEN: usize = 30;

/// A node whose daemon is killed.
pub struct Scene<'a> {
    pub name: &'static str,
    pub net: &'a Topology,
    pub daemon: &'a Dockerd,
    pub sticky: &'a mut Sticky,
    /// The network at whose addresses this host reaches its containers.
    pub network: &'static str,
    /// What Docker calls in service.
    pub truth: &'a (dyn Fn() -> anyhow::Result<Serving> + Sync),
    /// Whether its containers survive the daemon's return.
    pub survive: bool,
}

/// What has happened in all rounds.
#[derive(Default)]
pub struct Lived {
    pub open: Vec<LineConnection>,
    pub breaks: Vec<Break>,
    /// From the end of sticky until it was ready again.
    pub without_sticky: Vec<(Instant, Instant)>,
    /// From the end of the first task until all was well again.
    pub without_tasks: Vec<(Instant, Instant)>,
    /// The container that was made ill.
    pub ill: Option<String>,
    opened: u32,
}

/// What `sticky status` said.
struct Sample {
    at: Instant,
    connected: bool,
    up: BTreeSet<String>,
    generation: u64,
}

impl Scene<'_> {
    /// `round` of `rounds`: in the middle one sticky is killed too, in the last one a backend falls ill.
    pub fn round(
        &mut self,
        (round, rounds): (usize, usize),
        deaths: &Deaths,
        lived: &mut Lived,
    ) -> anyhow::Result<()> {
        let before = (self.truth)()?;
        ensure!(before.len() == TASKS, "{before:?}");
        ensure!(before.values().all(|one| self.daemon.lives(one)), "their groups are not found");
        deaths.expect(before.values().cloned());
        let mut open = std::mem::take(&mut lived.open);
        self.net.clients.enter(|| {
            while open.len() < OPEN {
                open.push(LineConnection::open(client(5_000 + lived.opened), vip(LINE_PORT))?);
                lived.opened += 1;
            }
            anyhow::Ok(())
        })??;

        let (stop, said) = (AtomicBool::new(false), Mutex::new(Said::default()));
        let (daemon, truth, began) = (self.daemon, self.truth, Instant::now());
        let (net, network) = (self.net, self.network);
        let answering = move |new: &Serving| answering(net, daemon, network, new);
        let result = std::thread::scope(|scope| {
            let talking = scope.spawn(|| talk(open, &stop));
            let until_here = Stop(&stop);
            let result = self
                .outage(&before, round == rounds / 2, round + 1 == rounds, lived)
                .and_then(|()| {
                    scope.spawn(|| listen(daemon, truth, &answering, &said, &stop));
                    self.return_of_docker(&before, &said, deaths, lived)
                });
            drop(until_here);
            let (live, mut breaks) = talking.join().expect("it asserts nothing");
            lived.open = live;
            lived.breaks.append(&mut breaks);
            result
        });
        let right = result.with_context(|| format!("round {round}"))?;
        if let (Some(first), false) = (deaths.since(began).first(), self.survive) {
            lived.without_tasks.push((*first, right));
        }
        Ok(())
    }

    /// The last good state stays in force.
    fn outage(
        &mut self,
        before: &Serving,
        restart: bool,
        fall_ill: bool,
        lived: &mut Lived,
    ) -> anyhow::Result<()> {
        let killed = Instant::now();
        self.daemon.kill()?;
        let (lost, lost_at) = (Instant::now(), SystemTime::now());
        wait::until_true("the loss of Docker in the status", Duration::from_secs(2), || {
            Ok(self.sticky.status()?["provider"]["connected"] == false)
        })
        .with_context(|| format!("sticky said:\n{}", self.log_of("", killed)))?;
        let stays = "the cluster cannot be read, its last good state stays";
        ensure!(self.sticky.log().iter().any(|line| line.text.contains(stays)), "it is in the log");
        if restart {
            std::thread::sleep(AWAY / 4);
            let killed = Instant::now();
            self.sticky.kill();
            // Layer 4 has nobody but the kernel for a while.
            std::thread::sleep(Duration::from_secs(1));
            self.sticky.run()?;
            lived.without_sticky.push((killed, Instant::now()));
            println!("{}: sticky killed, ready again {:?} later", self.name, killed.elapsed());
        }
        let mut expected: BTreeSet<String> = before.keys().cloned().collect();
        if fall_ill {
            let (id, container) = before.first_key_value().context("a backend")?;
            lived.ill = Some(container.clone());
            self.make_ill(id)?;
            expected.remove(id);
            let (asked, what) = (Instant::now(), "the ill one is found without Docker");
            wait::until_true(
                what,
                Duration::from_secs(12),
                || Ok(self.sample()?.1.up == expected),
            )?;
            println!("{}: the ill one is out after {:?}", self.name, asked.elapsed());
        }
        loop {
            let (status, sample) = self.sample()?;
            let provider = &status["provider"];
            ensure!(!sample.connected && provider["error"].is_string(), "{provider}");
            ensure!(sample.up == expected, "{:?} are up of {expected:?}", sample.up);
            let read =
                humantime::parse_rfc3339(provider["last_update"].as_str().unwrap_or_default())?;
            ensure!(
                lost_at - READ < read && read < lost_at + Duration::from_secs(1),
                "lost at {}, {provider}",
                humantime::format_rfc3339(lost_at)
            );
            if lost.elapsed() > AWAY {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn make_ill(&self, id: &str) -> anyhow::Result<()> {
        let status = self.sticky.status()?;
        let all = status["services"][0]["backends"].as_array().context("backends")?;
        let one = all.iter().find(|backend| backend["id"] == id).context("the one")?;
        let to = one["addr"].as_str().context("an address")?.parse()?;
        self.net.node.block_on(|| http::get(None, to, "demo.local", "/health?well=0", &[]))??;
        Ok(())
    }

    /// Everything is known as it is within [`RIGHT`]. Returns when it was, with all tasks there.
    fn return_of_docker(
        &self,
        before: &Serving,
        said: &Mutex<Said>,
        deaths: &Deaths,
        lived: &Lived,
    ) -> anyhow::Result<Instant> {
        let asked = Instant::now();
        let generation = self.sample()?.1.generation;
        self.daemon.come_back()?;
        let ill = |container: &String| lived.ill.as_ref() == Some(container);
        let (mut samples, mut right_at) = (Vec::new(), None);
        let (back, began, unreachable) = loop {
            let sample = self.sample()?.1;
            let now = said.lock().unwrap_or_else(PoisonError::into_inner);
            let well = now.serving.iter().filter(|(_, container)| !ill(container));
            let well: BTreeSet<String> = well.map(|(id, _)| id.clone()).collect();
            let right = sample.connected
                && sample.up == well
                && now.serving.len() == TASKS
                && now.serving.keys().all(|id| now.began.contains_key(id))
                && now.serving.values().all(|container| self.daemon.lives(container));
            if right {
                right_at.get_or_insert(sample.at);
            }
            let back = now.back.filter(|back| right && back.elapsed() > 2 * RIGHT);
            let tell = format!("up {:?}, Docker says {:?}", sample.up, now.serving);
            samples.push(sample);
            if let Some(back) = back {
                break (back, now.began.clone(), now.unreachable());
            }
            drop(now);
            ensure!(asked.elapsed() < Duration::from_secs(90), "not right: {tell}");
            std::thread::sleep(Duration::from_millis(50));
        };

        let connected =
            samples.iter().find(|sample| sample.connected).map_or(asked, |sample| sample.at);
        let late = |at: Instant, since: Instant| at.saturating_duration_since(since.max(back));
        let container =
            |id: &String| before.get(id).or_else(|| began.get(id).map(|(_, container)| container));
        // How long a dead one was still called up, and a new one not yet.
        let stale = samples.iter().flat_map(|sample| {
            let died = sample.up.iter().filter_map(|id| deaths.of(container(id)?));
            died.map(|died| late(sample.at, died))
        });
        let stale = stale.max().unwrap_or_default();
        let fresh = began.iter().filter(|(_, (_, container))| !ill(container));
        let fresh = fresh.filter_map(|(id, (since, _))| {
            let up = samples.iter().find(|sample| sample.up.contains(id))?;
            Some((late(up.at, *since), id))
        });
        let (fresh, last) = fresh.max().map_or((Duration::ZERO, ""), |(late, id)| (late, id));
        let dead = deaths.since(asked);
        let course = format!(
            "{}: API back after {:?}, read {:?} later; {} tasks ended from {:?} on; dead ones up for {stale:?}, new ones not yet for {fresh:?}, nor reached for up to {unreachable:?}, all well after {:?}",
            self.name,
            back - asked,
            late(connected, back),
            dead.len(),
            dead.first().map(|first| *first - asked),
            asked.elapsed()
        );
        println!("{course}");
        ensure!(
            late(connected, back) < RIGHT && stale < RIGHT && fresh < RIGHT,
            "the state was wrong for longer than {RIGHT:?}: {course}; sticky said of the last one:\n{}",
            self.log_of(last, asked)
        );
        if self.survive {
            ensure!(dead.is_empty(), "--live-restore does not work here");
            ensure!(
                samples.iter().all(|sample| sample.generation == generation),
                "maps were changed for nothing"
            );
        } else {
            ensure!(dead.len() == TASKS, "the tasks survived");
        }
        Ok(right_at.unwrap_or_else(Instant::now))
    }

    /// What sticky said since then of a backend, of all without an id; but nothing of requests.
    fn log_of(&self, id: &str, since: Instant) -> String {
        let log = self.sticky.log().into_iter();
        let of_it = |text: &str| text.contains(id) && !text.contains(" client=");
        let lines = log.filter(|line| line.at > since && of_it(&line.text));
        lines.map(|line| format!("{:?} {}\n", line.at - since, line.text)).collect()
    }

    fn sample(&self) -> anyhow::Result<(Value, Sample)> {
        let status = self.sticky.status()?;
        let all = status["services"][0]["backends"].as_array().context("backends")?;
        let up = all.iter().filter(|backend| backend["state"] == "up");
        let sample = Sample {
            at: Instant::now(),
            connected: status["provider"]["connected"] == true,
            up: up.filter_map(|backend| backend["id"].as_str()).map(ToOwned::to_owned).collect(),
            generation: status["generation"].as_u64().context("a generation")?,
        };
        Ok((status, sample))
    }
}

/// Which of these containers answer at their addresses, as themselves.
fn answering(
    net: &Topology,
    daemon: &Dockerd,
    network: &str,
    new: &Serving,
) -> anyhow::Result<Vec<String>> {
    let known = daemon.api(&format!("/networks/{network}"))?;
    let addresses = new.values().filter_map(|container| {
        let address = known["Containers"][container]["IPv4Address"].as_str()?;
        let address: IpAddr = address.split('/').next()?.parse().ok()?;
        Some((container.clone(), SocketAddr::new(address, HTTP_PORT)))
    });
    let addresses: Vec<_> = addresses.collect();
    net.node.block_on(|| async {
        let ask = |(container, to): (String, SocketAddr)| async move {
            let answer = http::get(None, to, "demo.local", "/ping", &[]);
            let answer = tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()?;
            let itself = container.starts_with(answer.json().ok()?["instance"].as_str()?);
            itself.then_some(container)
        };
        let all: JoinSet<_> = addresses.into_iter().map(ask).collect();
        all.join_all().await.into_iter().flatten().collect()
    })
}

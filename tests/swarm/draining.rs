//! Scaling down one by one, fifty times: each task is known to be ending before it hears of it itself, and from then on
//! nobody new comes to it, at either layer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use anyhow::Context;
use serde_json::Value;
use sticky_tests::demo::HTTP_PORT;
use sticky_tests::http;
use sticky_tests::topology::{client, vip};
use tokio::task::JoinSet;

use crate::endings::Endings;
use crate::fixture::{COOKIE, PUBLISH, SwarmNode};
use crate::watch::Stop;

const TASKS: usize = 11;
const ROUNDS: usize = 5;
/// Between two orders: several tasks are on their way out at a time.
const APART: Duration = Duration::from_millis(300);
/// Clients of each layer that are new each time, and the pause of each.
const CLIENTS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(40);

/// A client that nobody has seen before.
struct Visit {
    began: SystemTime,
    port: u16,
    answer: Result<String, String>,
}

#[test]
fn all_of_50_ends_are_seen_before_their_sigterm_and_nobody_new_comes() -> anyhow::Result<()> {
    let node = SwarmNode::start()?;
    let endings = Endings::new(&node.dir);
    let [mount, told] = &endings.options;
    let options = [mount.as_str(), told.as_str(), "--label=com.docker.lb.ip_hash=true"];
    node.deploy("cookie", TASKS, &[&COOKIE, &PUBLISH, &options])?;

    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = BTreeMap::new();
    let (seen, visits) = std::thread::scope(|scope| {
        let seen = scope.spawn(|| watch(&node, &stop));
        let visits = scope.spawn(|| come(&node, &stop));
        let until_here = Stop(&stop);
        let scaled = (0..ROUNDS).try_for_each(|_| down_and_up(&node, &mut tasks));
        drop(until_here);
        let seen = seen.join().expect("it asserts nothing")?;
        let visits = visits.join().expect("it asserts nothing")?;
        scaled.map(|()| (seen, visits))
    })?;

    let told = endings.read()?;
    assert_eq!(told.len(), ROUNDS * (TASKS - 1), "instances that got SIGTERM");
    let mut leads: Vec<Duration> = Vec::new();
    for (instance, told) in &told {
        let task = tasks.get(instance).with_context(|| format!("{instance} is no task"))?;
        let seen = seen.get(task).with_context(|| format!("{task} was never seen draining"))?;
        let lead = told.duration_since(*seen);
        leads.push(lead.with_context(|| format!("{task} was seen draining after its SIGTERM"))?);
    }
    leads.sort();
    println!(
        "draining seen before SIGTERM in {} of {} ends, {:?} before in the median, {:?} at least",
        leads.len(),
        told.len(),
        leads[leads.len() / 2],
        leads[0]
    );

    for port in [80, HTTP_PORT] {
        let new = || visits.iter().filter(|visit| visit.port == port);
        let failed: Vec<_> = new().filter_map(|visit| visit.answer.as_ref().err()).collect();
        let late: Vec<_> = new().filter(|visit| drained(visit, &tasks, &seen)).collect();
        println!("port {port}: {} new clients, {} failed", new().count(), failed.len());
        assert!(failed.is_empty(), "port {port}: {failed:#?}");
        assert!(late.is_empty(), "port {port}: {} came to a draining task", late.len());
        assert!(new().count() > 1000, "port {port}: {} clients are no load", new().count());
    }
    Ok(())
}

/// Whether a visit that began after its instance was seen draining came there all the same.
fn drained(
    visit: &Visit,
    tasks: &BTreeMap<String, String>,
    seen: &BTreeMap<String, SystemTime>,
) -> bool {
    let task = visit.answer.as_ref().ok().and_then(|instance| tasks.get(instance));
    task.and_then(|task| seen.get(task)).is_some_and(|seen| visit.began > *seen)
}

/// One task less, one at a time, down to one, and all of them again. Notes which instance is which task.
fn down_and_up(node: &SwarmNode, tasks: &mut BTreeMap<String, String>) -> anyhow::Result<()> {
    for task in node.swarm.wait_running("demo", TASKS)? {
        tasks.insert(task.instance().to_owned(), task.id);
    }
    for replicas in (1..TASKS).rev() {
        node.swarm.scale("demo", replicas)?;
        std::thread::sleep(APART);
    }
    node.swarm.wait_running("demo", 1)?;
    node.swarm.scale("demo", TASKS)?;
    node.swarm.wait_running("demo", TASKS)?;
    node.wait("cookie", TASKS).map(drop)
}

/// When the state first said of each task that it is draining: the time at which one who asked had the answer.
fn watch(node: &SwarmNode, stop: &AtomicBool) -> anyhow::Result<BTreeMap<String, SystemTime>> {
    let admin = "127.0.0.1:9880".parse()?;
    node.net.node.block_on(|| async move {
        let mut seen = BTreeMap::new();
        while !stop.load(Ordering::Relaxed) {
            let state = http::get(None, admin, "localhost", "/api/v1/state", &[]).await?.json()?;
            let now = SystemTime::now();
            let services = state["services"].as_array().context("services")?;
            let backends = services.iter().filter_map(|service| service["backends"].as_array());
            for backend in backends.flatten().filter(|backend| backend["state"] == "draining") {
                let id = Value::as_str(&backend["id"]).context("an id")?;
                seen.entry(id.to_owned()).or_insert(now);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        anyhow::Ok(seen)
    })?
}

/// New clients all the time, by cookie and by address.
fn come(node: &SwarmNode, stop: &Arc<AtomicBool>) -> anyhow::Result<Vec<Visit>> {
    let next = Arc::new(AtomicU32::new(0));
    node.net.clients.block_on(|| async move {
        let mut running = JoinSet::new();
        for port in [80, HTTP_PORT].into_iter().cycle().take(2 * CLIENTS as usize) {
            let (next, stop) = (Arc::clone(&next), Arc::clone(stop));
            running.spawn(async move {
                let mut visits = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    let from = client(next.fetch_add(1, Ordering::Relaxed));
                    let began = SystemTime::now();
                    let answer = http::get(Some(from), vip(port), "demo.local", "/ping", &[]).await;
                    let instance = answer.and_then(|answer| {
                        anyhow::ensure!(
                            answer.status == 200,
                            "{}: {}",
                            answer.status,
                            answer.text()
                        );
                        let ping = answer.json()?;
                        Ok(ping["instance"].as_str().context("an instance")?.to_owned())
                    });
                    let answer = instance.map_err(|error| format!("{from}: {error:#}"));
                    visits.push(Visit { began, port, answer });
                    tokio::time::sleep(PAUSE).await;
                }
                visits
            });
        }
        running.join_all().await.into_iter().flatten().collect()
    })
}

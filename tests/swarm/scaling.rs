//! 5 → 10 → 3 → 8 replicas through Docker, under way.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sticky_tests::demo::{HTTP_PORT, LINE_PORT};
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::process::Line;
use sticky_tests::topology::{client, vip};

use crate::fixture::{IP_HASH, PUBLISH, SwarmNode};
use crate::watch::{Break, Tasks, Visits, talk};

const KNOWN: u32 = 300;
const OPEN: u32 = 100;
const SILENT: usize = 30;

#[test]
fn nothing_moves_that_need_not_and_maps_follow_within_a_second() -> anyhow::Result<()> {
    let node = SwarmNode::start()?;
    let tasks = node.deploy("ip-hash", 5, &[&IP_HASH, &PUBLISH])?;
    let known = load::visit(&node.net.clients, 0..KNOWN, vip(HTTP_PORT))?;
    let open: anyhow::Result<Vec<_>> = node.net.clients.enter(|| {
        (KNOWN..KNOWN + OPEN)
            .map(|index| LineConnection::open(client(index), vip(LINE_PORT)))
            .collect()
    })?;
    let mut silent = open?;
    let talking = silent.split_off(SILENT);

    let (tasks, stop) = (Tasks::start(&tasks), AtomicBool::new(false));
    let (tasks, visits, talking, mut broken, steps) = std::thread::scope(|scope| {
        let tasks = scope.spawn(|| tasks.watch(&node.swarm, "demo", &stop));
        let visits = scope.spawn(|| Visits::watch(&node.net.clients, known, &stop));
        let talking = scope.spawn(|| talk(talking, &stop));
        let steps: anyhow::Result<Vec<_>> = [(10, 10_000), (3, 20_000), (8, 30_000)]
            .iter()
            .map(|&(to, new)| step(&node, to, new))
            .collect();
        stop.store(true, Ordering::Relaxed);
        let (talking, broken) = talking.join().expect("it asserts nothing");
        let visits = visits.join().expect("it asserts nothing");
        anyhow::Ok((tasks.join().expect("it asserts nothing")?, visits, talking, broken, steps?))
    })?;

    // The silent ones speak up at last.
    let end = Instant::now();
    silent.retain_mut(|connection| match connection.ask("at last") {
        Ok(()) => true,
        Err(error) => {
            broken.push(Break {
                at: end,
                instance: connection.instance.clone(),
                error: format!("{error:#}"),
            });
            false
        }
    });
    let wrong = broken.iter().filter(|broken| tasks.served(&broken.instance, broken.at));
    let wrong: Vec<_> =
        wrong.map(|broken| format!("{}: {}", broken.instance, broken.error)).collect();
    println!(
        "of {OPEN} connections {} live, {} ended with their tasks",
        talking.len() + silent.len(),
        broken.len()
    );
    assert!(wrong.is_empty(), "{} connections broke whose task lives: {wrong:#?}", wrong.len());

    let moved = visits.moves.iter().filter(|moved| tasks.served(&moved.from, moved.at));
    let moved: Vec<_> = moved
        .map(|moved| format!("{}: {} -> {}", client(moved.client), moved.from, moved.to))
        .collect();
    println!(
        "{} visits of {KNOWN} known clients, {} moves, all from ending tasks",
        visits.count,
        visits.moves.len()
    );
    assert!(moved.is_empty(), "{} known clients moved whose task lives: {moved:#?}", moved.len());
    assert!(visits.failures.is_empty(), "visits failed: {:#?}", visits.failures);

    let mut delays: Vec<Duration> = steps.iter().flat_map(|step| step.delays(&tasks)).collect();
    delays.sort();
    println!("from a task's change to the line about it, {} changes: {delays:?}", delays.len());
    assert_eq!(delays.len(), 5 + 7 + 5);
    assert!(
        delays.iter().all(|delay| *delay < Duration::from_secs(1)),
        "later than 1 s: {delays:?}"
    );
    Ok(())
}

/// One change of the number of replicas, and what sticky said about it.
struct Step {
    from: usize,
    began: Instant,
    ended: Instant,
    updates: Vec<Line>,
}

fn step(node: &SwarmNode, to: usize, new: u32) -> anyhow::Result<Step> {
    let before: BTreeSet<_> =
        node.swarm.serving("demo")?.iter().map(|task| task.instance().to_owned()).collect();
    let logged = node.sticky.log().len();
    let began = Instant::now();
    node.swarm.scale("demo", to)?;
    let tasks = node.swarm.wait_running("demo", to)?;
    node.wait("ip-hash", to)?;
    let after: BTreeSet<_> = tasks.iter().map(|task| task.instance().to_owned()).collect();

    let visits = load::visit(&node.net.clients, new..new + 200, vip(HTTP_PORT))?;
    let used: BTreeSet<_> = visits.values().map(|visit| visit.instance.clone()).collect();
    assert_eq!(used, after, "200 new clients use the tasks there are");
    let fresh = visits.values().filter(|visit| !before.contains(&visit.instance)).count();
    println!("{} -> {to}: {fresh} of 200 new clients came to new tasks", before.len());
    let updates = node.sticky.updates("demo", logged);
    updates.iter().for_each(|line| println!("  {}", line.text));
    Ok(Step { from: before.len(), began, ended: Instant::now(), updates })
}

impl Step {
    /// For each task that came or went, how long after it the first line was that counts it.
    fn delays(&self, tasks: &Tasks) -> Vec<Duration> {
        let (came, went) = tasks.changes(self.began, self.ended);
        let counted = |line: &Line| -> Option<usize> {
            line.text.split(" -> ").nth(1)?.split(' ').next()?.parse().ok()
        };
        let first = |enough: &dyn Fn(usize) -> bool| {
            self.updates.iter().find(|line| counted(line).is_some_and(enough)).map(|line| line.at)
        };
        let late = |change: Instant, line: Option<Instant>| {
            line.map_or(Duration::MAX, |line| line.saturating_duration_since(change))
        };
        let up = (1..).zip(&came).map(|(k, at)| late(*at, first(&|count| count >= self.from + k)));
        let down =
            (1..).zip(&went).map(|(k, at)| late(*at, first(&|count| count + k <= self.from)));
        up.chain(down).collect()
    }
}

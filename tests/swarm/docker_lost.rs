//! dockerd is killed again and again, and stays away for a while: under load nobody loses anything by it. What it ends itself on
//! its return, as it does with the tasks of a Swarm, is known at once.

mod load;
mod round;
mod watch;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

use anyhow::Context;
use sticky_tests::demo::{IMAGE, demo_image};
use sticky_tests::dockerd::Dockerd;
use sticky_tests::sticky::Sticky;
use sticky_tests::topology::Topology;

use crate::fixture::{COOKIE, PUBLISH, SwarmNode};
use crate::watch::{Break, Stop};
use load::{Failure, KINDS, PAUSE, Seen};
use round::{Lived, Scene};
use watch::{Deaths, Serving};

/// How often it is killed; `STICKY_TEST_ROUNDS=2` for fewer.
const ROUNDS: usize = 10;
/// Backends of the service.
const TASKS: usize = 5;
/// What is seen on one side of a network is seen on the other a little later.
const SLACK: Duration = Duration::from_millis(500);

/// Both at once: they wait most of the time.
#[test]
fn nobody_loses_anything_when_dockerd_dies() -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let both = [scope.spawn(swarm), scope.spawn(containers)];
        let ended = both.map(|thread| thread.join());
        for result in ended {
            result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(())
    })
}

/// A Swarm, whose tasks do not survive the return of their daemon.
fn swarm() -> anyhow::Result<()> {
    let mut node = SwarmNode::start()?;
    let labels = ["--label=com.docker.lb.ip_hash=true", "--label=sticky.health.path=/health"];
    node.deploy("cookie", TASKS, &[&COOKIE, &PUBLISH, &labels, &["--restart-delay=100ms"]])?;
    let SwarmNode { sticky, swarm, net, .. } = &mut node;
    let truth = || {
        let tasks = swarm.serving("demo")?.into_iter();
        Ok(tasks.map(|task| (task.id, task.container)).collect())
    };
    let daemon = &swarm.daemon;
    let network = "docker_gwbridge";
    lose(Scene { name: "Swarm", net, daemon, sticky, network, truth: &truth, survive: false })
        .context("Swarm")
}

/// Plain containers, which do with `--live-restore`.
fn containers() -> anyhow::Result<()> {
    let net = Topology::new()?;
    let daemon = Dockerd::start_with(&net.node, &["--live-restore"])?;
    daemon.docker(&["load", "--quiet", "--input", &demo_image()?.to_string_lossy()])?;
    for number in 1..=TASKS {
        let name = format!("--name=shop-demo-{number}");
        let fixed = ["run", "--detach", &name, "--env=TCP=0.0.0.0:9090"];
        let labels = [
            "--label=com.docker.compose.project=shop",
            "--label=com.docker.compose.service=demo",
            "--label=com.docker.lb.ip_hash=true",
            "--label=sticky.l4.listen=8080/tcp,9090/tcp",
            "--label=sticky.health.path=/health",
        ];
        daemon.docker(&[&fixed[..], &labels, &COOKIE, &[IMAGE]].concat())?;
    }
    let docker = daemon.url();
    let fixed = ["--iface", "eth0", "--http", "[::]:80"];
    let provider = ["--provider", "docker", "--docker-host", &docker];
    let mut sticky = Sticky::start(&net.node, &[&fixed[..], &provider].concat())?;
    sticky.wait_up("shop_demo", TASKS, Duration::from_secs(20))?;
    let truth = || {
        let all = daemon.api("/containers/json")?;
        let ids = all.as_array().context("a list")?.iter().filter_map(|one| one["Id"].as_str());
        Ok(ids.map(|id| (id.to_owned(), id.to_owned())).collect::<Serving>())
    };
    lose(Scene {
        name: "containers",
        net: &net,
        daemon: &daemon,
        sticky: &mut sticky,
        network: "bridge",
        truth: &truth,
        survive: true,
    })
    .context("containers")
}

fn lose(mut scene: Scene<'_>) -> anyhow::Result<()> {
    let rounds = std::env::var("STICKY_TEST_ROUNDS").ok().and_then(|count| count.parse().ok());
    let rounds = rounds.unwrap_or(ROUNDS);
    let (stop, deaths) = (Arc::new(AtomicBool::new(false)), Deaths::default());
    let (net, daemon, name, began) = (scene.net, scene.daemon, scene.name, Instant::now());
    let mut lived = Lived::default();
    let (result, seen) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load::run(&net.clients, &stop));
        scope.spawn(|| deaths.watch(daemon, &stop));
        let until_here = Stop(&stop);
        let result =
            (0..rounds).try_for_each(|round| scene.round((round, rounds), &deaths, &mut lived));
        drop(until_here);
        (result, load.join().expect("it asserts nothing"))
    });
    let seen = seen?;
    result?;
    for (kind, count) in KINDS.into_iter().zip(seen.requests) {
        let failed = seen.failures.iter().filter(|failure| failure.kind == kind).count();
        println!("{name}: {kind:?}: {count} requests, {failed} failed");
    }
    println!("{name}: {} open connections broke, {} live", lived.breaks.len(), lived.open.len());
    let wrong = wrong(&seen, &lived, &deaths);
    if !wrong.is_empty() {
        let told = |text: &str| !text.contains(" client=") || text.contains("=\"repinned\"");
        println!("{name}: sticky said, from {began:?} on, of backends and who moved:");
        for line in scene.sticky.log().iter().filter(|line| told(&line.text)) {
            println!("  {:?} {}", line.at, line.text);
        }
    }
    assert!(
        wrong.is_empty(),
        "{name}: {} for no reason: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(20)]
    );
    let load = began.elapsed().as_millis() / PAUSE.as_millis();
    assert!(
        seen.requests.iter().all(|count| *count as u128 > load),
        "no load: {:?}",
        seen.requests
    );
    Ok(())
}

/// What nothing excuses: the end of sticky excuses requests at layer 7, and that of a task its own clients.
fn wrong(seen: &Seen, lived: &Lived, deaths: &Deaths) -> Vec<String> {
    let dead =
        |instance: &str, at: Instant| deaths.of(instance).is_some_and(|died| died <= at + SLACK);
    let within = |spans: &[(Instant, Instant)], began, ended| {
        spans.iter().any(|(from, to)| *from <= ended + SLACK && began <= *to + SLACK + PAUSE)
    };
    let failures = seen.failures.iter().filter(|failure| {
        let (began, ended) = (failure.began, failure.ended);
        !(within(&lived.without_tasks, began, ended)
            || !failure.kind.layer4() && within(&lived.without_sticky, began, ended))
    });
    let moves = seen.moves.iter().filter(|(_, moved)| {
        // While tasks come back one by one, the first of them may have more than it takes.
        !dead(&moved.from, moved.at)
            && !within(&lived.without_tasks, moved.at, moved.at)
            && lived.ill.as_deref().is_none_or(|ill| !ill.starts_with(&moved.from))
    });
    let breaks = lived.breaks.iter().filter(|Break { instance, at, .. }| !dead(instance, *at));
    failures
        .map(|Failure { kind, began, ended, error }| {
            format!("{kind:?} after {:?}: {error}", *ended - *began)
        })
        .chain(moves.map(|moved| format!("{moved:?}")))
        .chain(breaks.map(|broken| format!("{broken:?}")))
        .collect()
}

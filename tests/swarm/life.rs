//! The life of a service: what the maps and the proxy do about it, and when. Clients come by all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;
use sticky_tests::demo::IMAGE;
use sticky_tests::http::{self, Answer};
use sticky_tests::swarm::Task;
use sticky_tests::topology::{NODE, client, vip};
use sticky_tests::wait;

use crate::fixture::SwarmNode;
use crate::sessions;
use crate::watch::Stop;

const NAME: &str = "life";
const HOST: &str = "life.local";
const TASKS: usize = 3;
const CLIENTS: u32 = 20;
const SAMPLES: usize = 50;
const LIMIT: Duration = Duration::from_secs(20);
/// An image with a health check, under two names.
const CHECKED: [&str; 2] = ["sticky-demo:checked", "sticky-demo:checked-too"];

#[test]
fn a_service_is_followed_from_its_labels_to_its_end() -> anyhow::Result<()> {
    let node = SwarmNode::start()?;
    images(&node)?;
    labels_that_come_later(&node)?;

    let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients = std::thread::scope(|scope| {
        let clients = scope.spawn(|| {
            sessions::watch(&node.net.clients, (HOST, 0, CLIENTS), vip(80), &ready, &stop)
        });
        // Also if an assertion fails, or the others would be waited for in vain.
        let until_here = Stop(&stop);
        let lived = [events, new_image_and_back, failing_health_check, crash_loop, networks]
            .iter()
            .try_for_each(|part| part(&node));
        drop(until_here);
        let clients = clients.join().expect("it asserts nothing")?;
        lived.map(|()| clients)
    })?;
    let failures: Vec<_> = clients.iter().flat_map(|client| &client.failures).collect();
    let requests: usize = clients.iter().map(|client| client.requests).sum();
    println!("{requests} requests meanwhile, {} failed", failures.len());
    assert!(failures.is_empty() && requests > 500, "{failures:#?}");

    node_drain(&node)?;
    end(&node)
}

fn images(node: &SwarmNode) -> anyhow::Result<()> {
    let container = node.swarm.docker(&["create", IMAGE])?;
    let check =
        "HEALTHCHECK --interval=300ms --timeout=2s --retries=1 CMD [\"/sticky-demo\", \"--check\"]";
    for image in CHECKED {
        node.swarm.docker(&["commit", "--change", check, container.trim(), image])?;
    }
    Ok(())
}

/// Without labels a service is none of ours; with them it is, and none of its tasks is restarted for it.
fn labels_that_come_later(node: &SwarmNode) -> anyhow::Result<()> {
    let replicas = TASKS.to_string();
    node.swarm.docker(&[
        "service",
        "create",
        "--detach",
        "--quiet",
        "--no-resolve-image",
        "--name",
        NAME,
        "--network",
        "demo",
        "--replicas",
        &replicas,
        "--publish",
        "8080:8080",
        "--stop-grace-period",
        "2s",
        "--rollback-order",
        "start-first",
        "--rollback-monitor",
        "1ms",
        "--rollback-parallelism",
        "2",
        CHECKED[0],
    ])?;
    let tasks = node.swarm.wait_running(NAME, TASKS)?;
    assert_eq!(node.sticky.service(NAME)?, Value::Null);
    assert_eq!(ask(node, "/ping")?.status, 404);
    let began = Instant::now();
    update(
        node,
        &[
            "--label-add",
            "com.docker.lb.hosts=life.local",
            "--label-add",
            "com.docker.lb.ip_hash=true",
            "--label-add",
            "com.docker.lb.port=8080",
            "--label-add",
            "com.docker.lb.hots=x",
        ],
    )?;
    let entry = node.sticky.wait_up(NAME, TASKS, LIMIT)?;
    println!("labels: in force {:?} after the order", began.elapsed());
    assert_eq!(entry["errors"][0]["hint"], "did you mean `com.docker.lb.hosts`?", "{entry}");
    assert_eq!(node.swarm.serving(NAME)?, tasks);
    assert_eq!(ask(node, "/ping")?.status, 200);
    // What is put right is not complained about any more.
    update(node, &["--label-rm", "com.docker.lb.hots"])?;
    node.sticky.wait_service(NAME, "no errors", LIMIT, |entry| {
        entry["errors"] == Value::Array(Vec::new())
    })?;
    Ok(())
}

/// What Docker announces by an event is in force within 100 ms, 300 ms at the worst.
fn events(node: &SwarmNode) -> anyhow::Result<()> {
    let (mut own, mut wall) = (Vec::new(), Vec::new());
    for sample in 0..SAMPLES {
        let host = format!("life-{sample}.local");
        update(node, &["--label-add", &format!("com.docker.lb.hosts={HOST},{host}")])?;
        let ordered = Instant::now();
        let state = wait::until("the host to be served", LIMIT, || {
            let state = state(node)?;
            let service =
                state["services"].as_array().and_then(|all| all.iter().find(|s| s["name"] == NAME));
            let there = service.is_some_and(|service| service["hosts"][1] == host.as_str());
            Ok(if there { Ok(state) } else { Err(host.clone()) })
        })?;
        wall.push(ordered.elapsed());
        own.push(state["provider"]["last_update_ms"].as_u64().context("a time")?);
    }
    own.sort_unstable();
    wall.sort_unstable();
    println!(
        "{SAMPLES} changes of labels: from event to maps {} ms in the median, {} ms at worst; from the end of the order {:?}, {:?}",
        own[SAMPLES / 2],
        own[SAMPLES - 1],
        wall[SAMPLES / 2],
        wall[SAMPLES - 1]
    );
    assert!(own[SAMPLES / 2] <= 100 && own[SAMPLES - 1] <= 300, "{own:?}");
    Ok(())
}

/// `update --image` and `rollback`, two tasks at a time.
fn new_image_and_back(node: &SwarmNode) -> anyhow::Result<()> {
    let before = node.swarm.serving(NAME)?;
    let logged = node.sticky.log().len();
    update(
        node,
        &[
            "--image",
            CHECKED[1],
            "--update-order",
            "start-first",
            "--update-parallelism",
            "2",
            "--update-monitor",
            "1ms",
        ],
    )?;
    let new = node.wait_updated(NAME, TASKS)?;
    assert!(new.iter().all(|task| !before.contains(task)));
    tell(node, "update --image", logged);
    let logged = node.sticky.log().len();
    node.swarm.docker(&["service", "rollback", "--detach", "--quiet", NAME])?;
    let path = format!("/services/{NAME}");
    wait::until_true("the rollback", LIMIT, || {
        Ok(node.swarm.daemon.api(&path)?["UpdateStatus"]["State"] == "rollback_completed")
    })?;
    let back = settled(node)?;
    assert!(back.iter().all(|task| !new.contains(task)));
    tell(node, "rollback", logged);
    Ok(())
}

/// A container that is ill gets no request from the moment that Docker knows, which is before it is ended.
fn failing_health_check(node: &SwarmNode) -> anyhow::Result<()> {
    let tasks = node.swarm.serving(NAME)?;
    let ill = tasks.first().context("a task")?;
    let local = node.swarm.addresses("docker_gwbridge")?;
    let (_, address) = local.iter().find(|(id, _)| *id == ill.container).context("an address")?;
    let to = format!("{address}:8080").parse()?;
    node.net.node.block_on(|| http::get(None, to, HOST, "/health?well=0", &[]))??;
    let began = Instant::now();
    node.sticky.wait_service(NAME, "the ill one is out", LIMIT, |entry| {
        let all = entry["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().all(|backend| backend["id"] != ill.id.as_str() || backend["state"] != "up")
    })?;
    println!("unhealthy: out {:?} after it fell ill, checked every 300 ms", began.elapsed());
    let replaced = || Ok(!node.swarm.serving(NAME)?.contains(ill));
    wait::until_true("Swarm to replace it", LIMIT, replaced)?;
    settled(node).map(drop)
}

/// Tasks that crash every second, every two and every three are taken out and in, and hardly anybody sees it.
fn crash_loop(node: &SwarmNode) -> anyhow::Result<()> {
    node.swarm.create(&[
        "--name",
        "crash",
        "--network",
        "demo",
        "--replicas",
        "3",
        "--label",
        "com.docker.lb.hosts=crash.local",
        "--label",
        "com.docker.lb.port=8080",
        "--env",
        "CRASH={{.Task.Slot}}",
        "--restart-delay",
        "100ms",
    ])?;
    node.sticky
        .wait_service("crash", "one is up", LIMIT, |entry| sticky_tests::sticky::up(entry) > 0)?;
    let logged = node.sticky.log().len();
    let (end, mut asked, mut refused) = (Instant::now() + Duration::from_secs(6), 0, 0);
    while Instant::now() < end {
        let ping = || http::get(None, vip(80), "crash.local", "/ping", &[]);
        let status = node.net.clients.block_on(ping)??.status;
        // 502: the last one that was there has just crashed, and nobody knows yet.
        assert!([200, 502].contains(&status), "request {asked}: {status}");
        asked += 1;
        refused += usize::from(status == 502);
        std::thread::sleep(Duration::from_millis(20));
    }
    let seen = |text: &str| text.contains("service=\"crash\"") && text.contains("to=\"gone\"");
    let gone = node.sticky.log().iter().skip(logged).filter(|line| seen(&line.text)).count();
    println!("crash loop: {asked} requests while {gone} tasks crashed, {refused} met nobody");
    assert!(gone >= 2 && refused * 20 <= asked, "{gone} crashes, {refused} of {asked} refused");
    node.swarm.remove("crash")
}

/// A network more and one less: Swarm makes new tasks for it, which are reached as before.
fn networks(node: &SwarmNode) -> anyhow::Result<()> {
    node.swarm.docker(&["network", "create", "-d", "overlay", "other"])?;
    for change in ["--network-add", "--network-rm"] {
        let before = node.swarm.serving(NAME)?;
        update(
            node,
            &[change, "other", "--update-parallelism", "0", "--update-order", "start-first"],
        )?;
        let after = node.wait_updated(NAME, TASKS)?;
        assert!(after.iter().all(|task| !before.contains(task)), "{change}");
    }
    Ok(())
}

/// Swarm's own drain of a node: all is ordered to end, and comes back.
fn node_drain(node: &SwarmNode) -> anyhow::Result<()> {
    let id = node.swarm.docker(&["node", "ls", "--quiet"])?;
    let began = Instant::now();
    node.swarm.docker(&["node", "update", "--availability", "drain", id.trim()])?;
    node.sticky.wait_up(NAME, 0, LIMIT)?;
    println!("node drain: nobody gets new clients {:?} after the order", began.elapsed());
    let none = |entry: &Value| {
        entry["backends"].as_array().is_some_and(|all| all.iter().all(|b| b["addr"].is_null()))
    };
    node.sticky.wait_service(NAME, "all are gone", LIMIT, none)?;
    let began = Instant::now();
    let answer = ask(node, "/ping")?;
    assert_eq!((answer.status, answer.header("retry-after").is_empty()), (503, false));
    assert!((4..8).contains(&began.elapsed().as_secs()), "{:?}", began.elapsed());
    node.swarm.docker(&["node", "update", "--availability", "active", id.trim()])?;
    settled(node)?;
    assert_eq!(ask(node, "/ping")?.status, 200);
    Ok(())
}

fn end(node: &SwarmNode) -> anyhow::Result<()> {
    let began = Instant::now();
    node.swarm.docker(&["service", "rm", NAME])?;
    node.sticky
        .wait_service(NAME, "no new client", LIMIT, |entry| sticky_tests::sticky::up(entry) == 0)?;
    println!("rm: no new client {:?} after the order", began.elapsed());
    node.sticky.wait_service(NAME, "gone", LIMIT, Value::is_null)?;
    assert_eq!(ask(node, "/ping")?.status, 404);
    let packet = node
        .net
        .clients
        .block_on(|| http::get(Some(client(0)), (NODE, 8080).into(), HOST, "/ping", &[]))?;
    assert!(packet.is_err(), "the frontend is gone too");
    Ok(())
}

fn update(node: &SwarmNode, options: &[&str]) -> anyhow::Result<()> {
    let fixed = ["service", "update", "--detach", "--quiet", "--no-resolve-image"];
    node.swarm.docker(&[&fixed[..], options, &[NAME]].concat()).map(drop)
}

/// Waits until Swarm has all tasks, and sticky has them and no other.
fn settled(node: &SwarmNode) -> anyhow::Result<Vec<Task>> {
    let tasks = node.swarm.wait_running(NAME, TASKS)?;
    node.sticky.wait_service(NAME, "all up", LIMIT, |entry| {
        sticky_tests::sticky::up(entry) == TASKS
            && entry["backends"].as_array().map(Vec::len) == Some(TASKS)
    })?;
    Ok(tasks)
}

fn ask(node: &SwarmNode, path: &str) -> anyhow::Result<Answer> {
    node.net.clients.block_on(|| http::get(Some(client(5000)), vip(80), HOST, path, &[]))?
}

/// The state as the admin address has it.
fn state(node: &SwarmNode) -> anyhow::Result<Value> {
    let admin = "127.0.0.1:9880".parse()?;
    node.net.node.block_on(|| http::get(None, admin, "localhost", "/api/v1/state", &[]))??.json()
}

fn tell(node: &SwarmNode, what: &str, logged: usize) {
    for line in node.sticky.updates(NAME, logged) {
        println!("{what}: {}", line.text);
    }
}

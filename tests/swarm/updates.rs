//! Twenty rolling updates under load, through both data paths: nobody sees an error, and nothing is done twice.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use sticky_tests::demo::{HTTP_PORT, LINE_PORT};
use sticky_tests::http::{Answer, Connection, Jar};
use sticky_tests::lines::LineConnection;
use sticky_tests::topology::{client, vip};
use tokio::task::JoinSet;

use crate::endings::Endings;
use crate::fixture::{COOKIE, PUBLISH, SwarmNode};
use crate::watch::Stop;

/// Clients that keep their session and connection, those that are new each time, and those that come to the published port.
const PINNED: u32 = 50;
const NEW: u32 = 50;
const LAYER4: u32 = 30;
const OPEN: u32 = 30;
/// Time between two requests of a client.
const PAUSE: Duration = Duration::from_millis(150);
const TASKS: usize = 4;
const UPDATES: usize = 20;

/// What the clients of one kind did.
#[derive(Default)]
struct Done {
    requests: usize,
    /// Ids of the POSTs that were answered.
    posts: Vec<String>,
    failures: Vec<(Instant, String)>,
}

/// A connection that broke.
struct Break {
    at: SystemTime,
    instance: String,
    error: String,
}

#[test]
fn rolling_updates_fail_no_request_and_execute_no_post_twice() -> anyhow::Result<()> {
    let node = SwarmNode::start()?;
    let endings = Endings::new(&node.dir);
    let [mount, told] = &endings.options;
    let options =
        [mount, told, "--env=EXECUTIONS=/journal/executions", "--label=com.docker.lb.ip_hash=true"];
    node.deploy("cookie", TASKS, &[&COOKIE, &PUBLISH, &options])?;

    let stop = Arc::new(AtomicBool::new(false));
    let (breaks, all) = std::thread::scope(|scope| {
        let lines = scope.spawn(|| node.net.clients.enter(|| talk(&stop)));
        let clients = scope.spawn(|| load(&node, &stop));
        let until_here = Stop(&stop);
        std::thread::sleep(Duration::from_secs(1));
        let updated = (0..UPDATES).try_for_each(|number| update(&node, number));
        std::thread::sleep(Duration::from_secs(1));
        drop(until_here);
        let lines = lines.join().expect("it asserts nothing")??;
        let clients = clients.join().expect("it asserts nothing")?;
        updated.map(|()| (lines, clients))
    })?;

    let told = endings.read()?;
    assert_eq!(told.len(), UPDATES * TASKS, "instances that got SIGTERM");
    let early = |b: &&Break| told.get(&b.instance).is_none_or(|told| b.at < *told);
    let wrong = breaks.iter().filter(early).map(|b| format!("{}: {}", b.instance, b.error));
    let wrong: Vec<_> = wrong.collect();
    println!("{OPEN} open connections ended {} times with their tasks", breaks.len());
    assert!(wrong.is_empty(), "connections broke before their task was told to end: {wrong:#?}");
    assert!(breaks.len() >= UPDATES * OPEN as usize / 2, "{} connections", breaks.len());
    let mut executed: HashMap<String, usize> = HashMap::new();
    for line in std::fs::read_to_string(node.dir.join("executions"))?.lines() {
        let id = line.split(' ').next().unwrap_or_default();
        *executed.entry(id.to_owned()).or_default() += 1;
    }
    for (kind, done) in &all {
        println!(
            "{kind:?}: {} requests, {} POSTs, {} failures",
            done.requests,
            done.posts.len(),
            done.failures.len()
        );
        assert!(done.failures.is_empty(), "{kind:?}: {:#?}", done.failures);
        assert!(done.requests > 300, "{kind:?}: {} requests are no load", done.requests);
        let wrong: Vec<_> = done.posts.iter().filter(|id| executed.get(*id) != Some(&1)).collect();
        assert!(wrong.is_empty(), "{kind:?}: not executed once: {wrong:?}");
    }
    let twice: Vec<_> = executed.iter().filter(|(_, count)| **count > 1).collect();
    assert!(twice.is_empty(), "executed twice: {twice:?}");
    Ok(())
}

/// By turns start-first and stop-first, two tasks at a time.
fn update(node: &SwarmNode, number: usize) -> anyhow::Result<()> {
    let order = ["start-first", "stop-first"][number % 2];
    let (began, version) = (Instant::now(), format!("VERSION={number}"));
    node.swarm.docker(&[
        "service",
        "update",
        "--detach",
        "--quiet",
        "--no-resolve-image",
        "--update-monitor",
        "1ms",
        "--update-delay",
        "0s",
        "--update-order",
        order,
        "--update-parallelism",
        "2",
        "--env-add",
        &version,
        "demo",
    ])?;
    node.wait_updated("demo", TASKS)?;
    println!("update {number}, {order}, took {:?}", began.elapsed());
    Ok(())
}

/// Talks on open connections until `stop`; one that breaks is noted, and opened anew by the same client.
fn talk(stop: &AtomicBool) -> anyhow::Result<Vec<Break>> {
    let connect = |index| LineConnection::open(client(3000 + index), vip(LINE_PORT));
    let mut open: Vec<_> = (0..OPEN).map(connect).collect::<anyhow::Result<_>>()?;
    let mut breaks = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for (index, connection) in (0..).zip(&mut open) {
            if let Err(error) = connection.ask("still there?") {
                let (at, error) = (SystemTime::now(), format!("{error:#}"));
                let instance = std::mem::replace(connection, connect(index)?).instance;
                breaks.push(Break { at, instance, error });
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(breaks)
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Kind {
    Pinned,
    New,
    Layer4,
}

fn load(node: &SwarmNode, stop: &Arc<AtomicBool>) -> anyhow::Result<Vec<(Kind, Done)>> {
    let kinds = [(Kind::Pinned, 0, PINNED), (Kind::New, 1000, NEW), (Kind::Layer4, 2000, LAYER4)];
    node.net.clients.block_on(|| async move {
        let mut running = JoinSet::new();
        for (kind, first, count) in kinds {
            for index in first..first + count {
                let stop = Arc::clone(stop);
                running.spawn(async move { (kind, visit(kind, index, &stop).await) });
            }
        }
        let mut all: Vec<(Kind, Done)> = kinds.map(|(kind, ..)| (kind, Done::default())).into();
        for (kind, done) in running.join_all().await {
            let (_, sum) = all.iter_mut().find(|(of, _)| *of == kind).expect("all kinds are there");
            sum.requests += done.requests;
            sum.posts.extend(done.posts);
            sum.failures.extend(done.failures);
        }
        all
    })
}

/// GETs and POSTs by turns.
async fn visit(kind: Kind, index: u32, stop: &AtomicBool) -> Done {
    let (mut done, mut jar, mut connection) = (Done::default(), Jar::default(), None);
    while !stop.load(Ordering::Relaxed) {
        if kind != Kind::Pinned {
            (jar, connection) = (Jar::default(), None);
        }
        let post = (done.requests % 2 == 1).then(|| format!("{index}-{}", done.requests));
        match request(kind, index, post.as_deref(), &jar, &mut connection).await {
            Ok(answer) => {
                jar.absorb(&answer);
                done.posts.extend(post);
            }
            Err(error) => {
                done.failures.push((Instant::now(), format!("{}: {error:#}", client(index))));
                connection = None;
            }
        }
        done.requests += 1;
        tokio::time::sleep(PAUSE).await;
    }
    done
}

async fn request(
    kind: Kind,
    index: u32,
    post: Option<&str>,
    jar: &Jar,
    connection: &mut Option<Connection>,
) -> anyhow::Result<Answer> {
    let port = if kind == Kind::Layer4 { HTTP_PORT } else { 80 };
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(Some(client(index)), vip(port)).await?),
    };
    let cookies = jar.header();
    let mut headers: Vec<_> = cookies.iter().map(|line| ("cookie", line.as_str())).collect();
    headers.extend(post.map(|id| ("x-idempotency", id)));
    let answer = match post {
        Some(id) => open.send("POST", "demo.local", "/echo", &headers, id.to_owned()).await?,
        None => open.get("demo.local", "/ping", &headers).await?,
    };
    anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    anyhow::ensure!(
        post.is_none_or(|id| answer.text() == id),
        "another's answer: {}",
        answer.text()
    );
    Ok(answer)
}

//! Clients with cookie jars that never stop: which instance each had, when, and whether it kept its session.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use sticky_tests::http::{Connection, Jar};
use sticky_tests::netns::Netns;
use sticky_tests::topology::{client, vip};
use sticky_tests::wait;
use tokio::task::JoinSet;

use crate::fixture::SwarmNode;
use crate::watch::Tasks;

/// Requests on one connection, before the next one is opened.
const PER_CONNECTION: usize = 10;
/// Time between two requests of a client: 400 clients must leave a small machine some air.
const PAUSE: Duration = Duration::from_millis(400);

/// What one client saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// Each change of instance: when it was seen, and from and to whom.
    pub moves: Vec<(Instant, String, String)>,
    /// The instance that answered last.
    pub instance: String,
    pub sessions: BTreeSet<String>,
    /// Answers of an instance that did not know the session.
    pub strange: usize,
    pub requests: usize,
    pub failures: Vec<String>,
}

impl Seen {
    /// Whether the first session lasts.
    pub fn kept(&self) -> bool {
        self.moves.is_empty() && self.sessions.len() == 1 && self.strange == 0
    }
}

/// A service, its tasks, and what its clients saw.
pub type Watched = (&'static str, Tasks, Vec<Seen>);

/// Does something while `clients` of each service come by all the time: its name, its host, its first client. None of
/// their requests may fail.
pub fn meanwhile(
    node: &SwarmNode,
    services: [(&'static str, &'static str, u32); 2],
    clients: u32,
    something: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<Watched>> {
    let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    std::thread::scope(|scope| {
        let (stop, ready) = (&stop, &ready);
        let watching = services.map(|(service, host, first)| {
            let seen = scope.spawn(move || {
                watch(&node.net.clients, (host, first, clients), vip(80), ready, stop)
            });
            let tasks = scope.spawn(move || {
                let now = Tasks::start(&node.swarm.serving(service)?);
                now.watch(&node.swarm, service, stop)
            });
            (service, tasks, seen)
        });
        let all = clients as usize * services.len();
        let everybody = || Ok(ready.load(Ordering::Relaxed) == all);
        let done =
            wait::until_true("all clients to have a session", Duration::from_secs(20), everybody)
                .and_then(|()| something());
        stop.store(true, Ordering::Relaxed);
        let mut watched = Vec::new();
        for (service, tasks, seen) in watching {
            let seen = seen.join().expect("it asserts nothing")?;
            let failures: Vec<_> = seen.iter().flat_map(|client| &client.failures).collect();
            let requests: usize = seen.iter().map(|client| client.requests).sum();
            println!("{service}: {requests} requests, {} failed", failures.len());
            assert!(failures.is_empty(), "{service}: {failures:#?}");
            watched.push((service, tasks.join().expect("it asserts nothing")?, seen));
        }
        done.map(|()| watched)
    })
}

/// Lets `clients` come to `host` until `stop`, and returns what each saw. `ready` counts those that have a session.
pub fn watch(
    netns: &Netns,
    (host, first, clients): (&'static str, u32, u32),
    to: SocketAddr,
    ready: &Arc<AtomicUsize>,
    stop: &Arc<AtomicBool>,
) -> anyhow::Result<Vec<Seen>> {
    netns.block_on(|| async move {
        let mut running = JoinSet::new();
        for index in first..first + clients {
            let (ready, stop) = (Arc::clone(ready), Arc::clone(stop));
            running.spawn(async move {
                // Not all at once.
                tokio::time::sleep(PAUSE / clients * (index - first)).await;
                visit(host, index, to, &ready, &stop).await
            });
        }
        running.join_all().await
    })
}

async fn visit(
    host: &str,
    index: u32,
    to: SocketAddr,
    ready: &AtomicUsize,
    stop: &AtomicBool,
) -> Seen {
    let (mut seen, mut jar) = (Seen::default(), Jar::default());
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        if seen.requests.is_multiple_of(PER_CONNECTION) {
            connection = None;
        }
        if let Err(error) = once(host, index, to, &mut connection, &mut jar, &mut seen).await {
            seen.failures.push(format!("{}: {error:#}", client(index)));
            connection = None;
        }
        seen.requests += 1;
        if seen.requests == 1 {
            ready.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(PAUSE).await;
    }
    seen
}

async fn once(
    host: &str,
    index: u32,
    to: SocketAddr,
    connection: &mut Option<Connection>,
    jar: &mut Jar,
    seen: &mut Seen,
) -> anyhow::Result<()> {
    let open = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(Some(client(index)), to).await?),
    };
    let answer = jar.get(open, host, "/ping").await?;
    anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    let ping = answer.json()?;
    let instance = ping["instance"].as_str().context("an instance")?.to_owned();
    if seen.instance != instance && !seen.instance.is_empty() {
        seen.moves.push((Instant::now(), seen.instance.clone(), instance.clone()));
    } else {
        seen.strange += usize::from(ping["known"] != true);
    }
    seen.instance = instance;
    seen.sessions.insert(ping["session"].as_str().context("a session")?.to_owned());
    Ok(())
}

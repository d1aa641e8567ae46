//! Clients with cookie jars that never stop: which instance each had, when, and whether it kept its session.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use sticky_tests::http::{Connection, Jar};
use sticky_tests::netns::Netns;
use sticky_tests::topology::client;
use tokio::task::JoinSet;

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

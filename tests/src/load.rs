//! Many clients, each with an address of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use tokio::task::JoinSet;

use crate::http::{Connection, Jar, get};
use crate::netns::Netns;
use crate::topology::client;

/// How many clients are at work at the same time.
const PARALLEL: usize = 32;

/// Which backend a client reached, and what that backend saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visit {
    /// The backend's name.
    pub instance: String,
    /// The peer of the backend's connection, `address:port`.
    pub peer: String,
}

/// Each client of `clients` asks `http://TO/ping` once, on a connection of its own.
pub fn visit(
    netns: &Netns,
    clients: impl IntoIterator<Item = u32>,
    to: SocketAddr,
) -> anyhow::Result<BTreeMap<u32, Visit>> {
    let clients: Vec<_> = clients.into_iter().collect();
    each(netns, clients, move |index| async move {
        let answer = get(Some(client(index)), to, "demo.local", "/ping", &[]).await?;
        anyhow::ensure!(
            answer.status == 200,
            "client {index}: {}: {}",
            answer.status,
            answer.text()
        );
        let ping = answer.json()?;
        let text = |name: &str| {
            ping[name].as_str().map(str::to_owned).with_context(|| format!("{name} in {ping}"))
        };
        Ok(Visit { instance: text("instance")?, peer: text("client")? })
    })
}

/// How a client's sessions went.
#[derive(Debug, Clone, Default)]
pub struct Sessions {
    /// All sessions that its requests had.
    pub sessions: BTreeSet<String>,
    /// The backends that answered, `x-upstream-addr`.
    pub upstreams: BTreeSet<String>,
    /// Answers of a backend that did not know the session.
    pub strange: usize,
}

impl Sessions {
    /// Whether the first session lasted: it is the only one, and every backend that saw it knew it.
    pub fn kept(&self) -> bool {
        self.sessions.len() == 1 && self.strange == 0
    }
}

/// Each of `clients` sends `requests` requests for `host` to `http://TO/ping`, with a cookie jar and a new connection every
/// tenth request.
pub fn sessions(
    netns: &Netns,
    host: &'static str,
    clients: u32,
    requests: usize,
    to: SocketAddr,
) -> anyhow::Result<BTreeMap<u32, Sessions>> {
    each(netns, (0..clients).collect(), move |index| async move {
        let mut jar = Jar::default();
        let mut seen = Sessions::default();
        let mut connection = Connection::open(Some(client(index)), to).await?;
        for request in 0..requests {
            if request % 10 == 9 {
                connection = Connection::open(Some(client(index)), to).await?;
            }
            let answer = jar.get(&mut connection, host, "/ping").await?;
            anyhow::ensure!(
                answer.status == 200,
                "client {index}: {}: {}",
                answer.status,
                answer.text()
            );
            let ping = answer.json()?;
            seen.sessions.insert(ping["session"].as_str().context("a session")?.to_owned());
            seen.upstreams.insert(answer.header("x-upstream-addr").to_owned());
            seen.strange += usize::from(ping["known"] != true);
        }
        Ok(seen)
    })
}

/// Runs `work` for each client, `PARALLEL` at a time.
pub fn each<T, F>(
    netns: &Netns,
    clients: Vec<u32>,
    work: impl Fn(u32) -> F + Send + Sync + Clone + 'static,
) -> anyhow::Result<BTreeMap<u32, T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send,
{
    netns.block_on(|| async move {
        let mut running = JoinSet::new();
        let mut done = BTreeMap::new();
        for index in clients {
            if running.len() >= PARALLEL {
                take(&mut running, &mut done).await?;
            }
            let work = work.clone();
            running.spawn(async move { (index, work(index).await) });
        }
        while !running.is_empty() {
            take(&mut running, &mut done).await?;
        }
        Ok(done)
    })?
}

async fn take<T: 'static>(
    running: &mut JoinSet<(u32, anyhow::Result<T>)>,
    done: &mut BTreeMap<u32, T>,
) -> anyhow::Result<()> {
    let next = tokio::time::timeout(Duration::from_secs(60), running.join_next())
        .await
        .context("clients hang")?;
    if let Some(joined) = next {
        let (index, result) = joined?;
        done.insert(index, result.with_context(|| format!("client {}", client(index)))?);
    }
    Ok(())
}

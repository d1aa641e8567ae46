//! Clients of both data paths that never stop, and when something was wrong for one of them.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use sticky_tests::demo::HTTP_PORT;
use sticky_tests::http::{Connection, Jar};
use sticky_tests::netns::Netns;
use sticky_tests::topology::{client, vip};
use tokio::task::JoinSet;

use crate::watch::Move;

/// Clients of each kind.
const CLIENTS: u32 = 12;
/// Time between two requests of a client.
pub const PAUSE: Duration = Duration::from_millis(250);

/// How a client comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To the proxy, with cookies, on one connection as long as it lasts.
    Session,
    /// To the proxy, without cookies, on a new connection each time.
    NoSession,
    /// To the published port, from the same address, on a new connection each time.
    Known,
    /// The same from a new address each time.
    Stranger,
}

pub const KINDS: [Kind; 4] = [Kind::Session, Kind::NoSession, Kind::Known, Kind::Stranger];

impl Kind {
    pub fn layer4(self) -> bool {
        matches!(self, Self::Known | Self::Stranger)
    }

    /// The address for the request `number` of the client `index` of this kind.
    fn address(self, index: u32, number: u32) -> IpAddr {
        client(match self {
            Self::Session => 1_000 + index,
            Self::NoSession => 2_000 + index,
            Self::Known => 3_000 + index,
            Self::Stranger => 10_000 + index * 5_000 + number % 5_000,
        })
    }
}

/// A request that failed.
#[derive(Debug)]
pub struct Failure {
    pub kind: Kind,
    pub began: Instant,
    pub ended: Instant,
    pub error: String,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Seen {
    /// In the order of [`KINDS`].
    pub requests: [usize; 4],
    pub failures: Vec<Failure>,
    /// Clients with a session, or known ones, that came to another instance than before.
    pub moves: Vec<(Kind, Move)>,
}

/// Lets them come until `stop`.
pub fn run(netns: &Netns, stop: &Arc<AtomicBool>) -> anyhow::Result<Seen> {
    netns.block_on(|| async move {
        let mut running = JoinSet::new();
        for (place, kind) in KINDS.into_iter().enumerate() {
            for index in 0..CLIENTS {
                let stop = Arc::clone(stop);
                running.spawn(async move { (place, come(kind, index, &stop).await) });
            }
        }
        let mut all = Seen::default();
        for (place, (count, mut seen)) in running.join_all().await {
            all.requests[place] += count;
            all.failures.append(&mut seen.failures);
            all.moves.append(&mut seen.moves);
        }
        all
    })
}

async fn come(kind: Kind, index: u32, stop: &AtomicBool) -> (usize, Seen) {
    let (mut seen, mut jar, mut open) = (Seen::default(), Jar::default(), None);
    let mut last: Option<String> = None;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        match ask(kind.address(index, number), kind, &mut open, &mut jar).await {
            Ok(to) => {
                let stays = matches!(kind, Kind::Session | Kind::Known);
                if let Some(from) = last.filter(|from| stays && *from != to) {
                    let at = Instant::now();
                    seen.moves.push((kind, Move { at, client: index, from, to: to.clone() }));
                }
                last = Some(to);
            }
            Err(error) => {
                let error = format!("client {index}: {error:#}");
                seen.failures.push(Failure { kind, began, ended: Instant::now(), error });
                open = None;
            }
        }
        if kind != Kind::Session {
            (open, jar) = (None, Jar::default());
        }
        number += 1;
        tokio::time::sleep(PAUSE).await;
    }
    (number as usize, seen)
}

/// One request; the instance that answered.
async fn ask(
    from: IpAddr,
    kind: Kind,
    open: &mut Option<Connection>,
    jar: &mut Jar,
) -> anyhow::Result<String> {
    let port = if kind.layer4() { HTTP_PORT } else { 80 };
    let connection = match open {
        Some(open) => open,
        None => open.insert(Connection::open(Some(from), vip(port)).await?),
    };
    let answer = jar.get(connection, "demo.local", "/ping").await?;
    anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(answer.json()?["instance"].as_str().context("an instance")?.to_owned())
}

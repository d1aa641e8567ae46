//! The relay: carries in user space what XDP cannot, with the same choice (P6).
//!
//! XDP never sees a client on this very host, and cannot turn an IPv6 packet into an IPv4 one. Docker's processes hold the
//! published ports, so the relay listens on ports of its own, and an nftables `table` brings to them what is for a
//! frontend. The table is this process's: when the process ends, however it ends, the kernel takes it away, and these
//! clients have Docker's own way to the service again.
//!
//! `follow` keeps all that as each commit wants it, `rules` has the table's messages, `routes` what a commit says,
//! `dial` finds and connects a backend, `tcp` and `udp` carry; `tracked` has the kernel forget where it sent a
//! client's datagrams before. By `succession` open connections go to the next sticky.

mod dial;
mod follow;
mod parcel;
mod pipe;
mod routes;
mod rules;
mod stats;
mod succession;
mod table;
mod tcp;
mod tracked;
mod udp;

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::clients::ClientTable;
use crate::control::InForce;
use crate::proxy::preface;
use follow::Follower;
use routes::Routes;
use succession::Leaving;

/// Connections and UDP sessions at the same time, if there are descriptors for them.
const ROOM: u64 = 16_384;
/// Of all descriptors; each connection takes two of them.
const SHARE: u64 = 4;
/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A running relay.
pub struct Relay {
    shared: Arc<Shared>,
    /// Set when no new connection shall come here.
    retired: watch::Sender<bool>,
    stage: watch::Sender<Stage>,
    /// Connections do not share the threads of the control plane.
    runtime: Option<Runtime>,
}

/// How far it is in its life.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Starting,
    /// The rules for a commit are in place, or could not be.
    Ready,
    /// No more connections are sent here.
    Retired,
}

struct Shared {
    clients: Arc<dyn ClientTable>,
    routes: watch::Sender<Arc<Routes>>,
    room: Arc<Semaphore>,
    /// Permits of `room`.
    size: usize,
    /// Ends everything that is open.
    cut: CancellationToken,
    /// Has everything that is open go to a successor by `leave`.
    leaving: CancellationToken,
    leave: OnceLock<mpsc::UnboundedSender<Leaving>>,
    stats: stats::All,
    /// Why clients are not carried.
    trouble: Mutex<Option<String>>,
    started: Instant,
}

impl Relay {
    /// Starts it for what comes in force.
    ///
    /// # Errors
    /// There are no threads for it.
    pub fn start(
        in_force: watch::Receiver<Option<Arc<InForce>>>,
        clients: Arc<dyn ClientTable>,
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .thread_name("relay")
            .enable_all()
            .build()
            .context("no runtime for the relay")?;
        let size = room();
        let shared = Arc::new(Shared {
            clients,
            routes: watch::Sender::new(Arc::default()),
            room: Arc::new(Semaphore::new(size)),
            size,
            cut: CancellationToken::new(),
            leaving: CancellationToken::new(),
            leave: OnceLock::new(),
            stats: stats::All::default(),
            trouble: Mutex::default(),
            started: Instant::now(),
        });
        let (retired, stage) = (watch::Sender::new(false), watch::Sender::new(Stage::Starting));
        let follower = Follower::new(Arc::clone(&shared), stage.clone());
        runtime.spawn(follower.run(in_force, retired.subscribe()));
        Ok(Self { shared, retired, stage, runtime: Some(runtime) })
    }

    /// Why clients on this host and IPv6 clients of IPv4 tasks are not served, if so.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Registers its metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register_collector(Box::new(stats::Shown(Arc::clone(&self.shared.stats))));
    }

    /// Takes no more connections and lets open ones end; after `timeout` cuts the rest, and returns how many.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.retired.send_replace(true);
        let mut stage = self.stage.subscribe();
        let ended = async {
            // Those that were sent here until then are accepted, and open, a moment later.
            let _ = stage.wait_for(|stage| *stage == Stage::Retired).await;
            tokio::time::sleep(LOOK).await;
            while self.shared.open() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        // What is left is cut.
        let _ = tokio::time::timeout(timeout, ended).await;
        let cut = self.shared.open();
        self.shared.cut.cancel();
        // Their resets are sent before the process ends.
        for _ in 0..4 {
            if self.shared.open() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        }
        cut
    }

    /// Takes the open connections of the one before, when it brings them; `socket` is the control socket of both.
    ///
    /// # Errors
    /// There is no place to wait for it.
    pub fn inherit(&self, socket: &Path) -> io::Result<()> {
        let _inside = self.runtime.as_ref().map(Runtime::enter);
        succession::inherit(Arc::clone(&self.shared), socket)
    }

    /// Gives all open connections to a successor.
    ///
    /// # Errors
    /// It does not take any.
    pub fn hand_over(&self, socket: &Path) -> io::Result<()> {
        let _inside = self.runtime.as_ref().map(Runtime::enter);
        succession::hand_over(&self.shared, socket)
    }

    /// Waits until the rules for the first commit are in place, or cannot be.
    pub async fn ready(&self) {
        // An error means that the relay has ended, for which nobody needs to wait.
        let _ = self.stage.subscribe().wait_for(|stage| *stage != Stage::Starting).await;
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// How much can be open at the same time.
fn room() -> usize {
    let descriptors = getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft);
    usize::try_from((descriptors / SHARE).min(ROOM)).unwrap_or(usize::MAX)
}

impl Shared {
    /// Connections and sessions.
    fn open(&self) -> usize {
        self.size - self.room.available_permits()
    }

    fn troubled(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Milliseconds since the start.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

//! The relay: carries in user space what XDP cannot, with the same choice (P6).
//!
//! XDP never sees a client on this very host, and cannot turn an IPv6 packet into an IPv4 one. Docker's processes hold the
//! published ports, so the relay listens on ports of its own, and an nftables [`table`] brings to them what is for a
//! frontend. The table is this process's: when the process ends, however it ends, the kernel takes it away, and these
//! clients have Docker's own way to the service again.
//!
//! [`rules`] has the table's messages, [`routes`] follows the commits, [`dial`] finds and connects a backend, [`tcp`] and
//! [`udp`] carry; [`tracked`] has the kernel forget where it sent a client's datagrams before.

mod counted;
mod dial;
mod routes;
mod rules;
mod stats;
mod table;
mod tcp;
mod tracked;
mod udp;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::registry::Registry;
use tokio::runtime::Runtime;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::clients::ClientTable;
use crate::control::InForce;
use crate::model::{Frontend, Proto};
use crate::proxy::preface;
use routes::{Book, Routes};
use rules::Entry;
use table::Table;

/// Connections and UDP sessions at the same time, if there are descriptors for them.
const ROOM: u64 = 16_384;
/// Of all descriptors; each connection takes two of them.
const SHARE: u64 = 4;
/// A table that the kernel refused is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// How often the end of a drain is looked for.
const LOOK: Duration = Duration::from_millis(50);

/// A running relay.
pub struct Relay {
    shared: Arc<Shared>,
    /// Set when no new connection shall come here.
    retired: watch::Sender<bool>,
    /// Connections do not share the threads of the control plane.
    runtime: Option<Runtime>,
}

struct Shared {
    clients: Arc<dyn ClientTable>,
    routes: watch::Sender<Arc<Routes>>,
    room: Arc<Semaphore>,
    /// Permits of `room`.
    size: usize,
    /// Ends everything that is open.
    cut: CancellationToken,
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
            stats: stats::All::default(),
            trouble: Mutex::default(),
            started: Instant::now(),
        });
        let retired = watch::Sender::new(false);
        let follower = Follower {
            shared: Arc::clone(&shared),
            book: Book::default(),
            tcp: None,
            udp: HashMap::new(),
            table: None,
        };
        runtime.spawn(follower.run(in_force, retired.subscribe()));
        Ok(Self { shared, retired, runtime: Some(runtime) })
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

    /// Takes the table away and lets open connections end; after `timeout` cuts the rest, and returns how many.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.retired.send_replace(true);
        let open = || self.shared.size - self.shared.room.available_permits();
        let ended = async {
            while open() > 0 {
                tokio::time::sleep(LOOK).await;
            }
        };
        // What is left is cut.
        let _ = tokio::time::timeout(timeout, ended).await;
        let cut = open();
        self.shared.cut.cancel();
        cut
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

/// Keeps ports and table as the last commit wants them.
struct Follower {
    shared: Arc<Shared>,
    book: Book,
    tcp: Option<u16>,
    udp: HashMap<Frontend, udp::Port>,
    table: Option<Table>,
}

impl Follower {
    async fn run(
        mut self,
        mut in_force: watch::Receiver<Option<Arc<InForce>>>,
        mut retired: watch::Receiver<bool>,
    ) {
        loop {
            let now = in_force.borrow_and_update().clone();
            if let Some(now) = now {
                let routes = self.book.publish(&now);
                let wanted: BTreeSet<Frontend> = routes.frontends().collect();
                *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) =
                    self.book.stats();
                self.shared.routes.send_replace(Arc::new(routes));
                self.follow(&wanted).await;
            }
            let again = tokio::time::sleep(RETRY);
            tokio::select! {
                changed = in_force.changed() => if changed.is_err() { return },
                () = again, if self.shared.troubled() => {}
                _ = retired.wait_for(|retired| *retired) => break,
            }
        }
        self.retire().await;
        info!("the relay takes no more connections");
        self.shared.cut.cancelled().await;
    }

    async fn follow(&mut self, wanted: &BTreeSet<Frontend>) {
        let done = match self.ports(wanted) {
            Ok(entries) => self.rules(entries).await,
            Err(error) => Err(error),
        };
        let trouble = done.err().map(|error| format!("{error:#}"));
        self.udp.retain(|frontend, _| wanted.contains(frontend));
        let mut last = self.shared.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if *last != trouble {
            match &trouble {
                Some(error) => warn!(
                    error,
                    "the relay does not work: clients on this host, and IPv6 clients of IPv4 tasks, are Docker's"
                ),
                None => info!("the relay works again"),
            }
        }
        *last = trouble;
    }

    /// Opens what ports are missing; which frontend goes to which.
    fn ports(&mut self, wanted: &BTreeSet<Frontend>) -> anyhow::Result<BTreeSet<Entry>> {
        let mut entries = BTreeSet::new();
        for frontend in wanted {
            let to = match frontend.proto {
                Proto::Tcp => self.tcp()?,
                Proto::Udp => self.udp(*frontend)?,
            };
            entries.insert(Entry { frontend: *frontend, to });
        }
        Ok(entries)
    }

    fn tcp(&mut self) -> anyhow::Result<u16> {
        if let Some(port) = self.tcp {
            return Ok(port);
        }
        let port = tcp::open().context("no port for the relay")?;
        for listener in port.listeners {
            tokio::spawn(tcp::serve(Arc::clone(&self.shared), listener));
        }
        info!(port = port.number, "the relay listens");
        self.tcp = Some(port.number);
        Ok(port.number)
    }

    fn udp(&mut self, frontend: Frontend) -> anyhow::Result<u16> {
        if let Some(port) = self.udp.get(&frontend) {
            return Ok(port.number);
        }
        let port = udp::open(&self.shared, frontend)
            .with_context(|| format!("no port for the relay of {frontend}"))?;
        let number = port.number;
        self.udp.insert(frontend, port);
        Ok(number)
    }

    /// Leaves new connections, and the next datagrams, to a successor or to Docker.
    async fn retire(&mut self) {
        let Some(table) = self.table.take() else { return };
        let gone = tokio::task::spawn_blocking(move || {
            let frontends = table.entries().iter().map(|entry| (entry.frontend, None)).collect();
            drop(table);
            forget(frontends);
        });
        if gone.await.is_ok() {
            self.udp.clear();
        }
    }

    /// Brings the table up to date, on a thread that may wait for the kernel.
    async fn rules(&mut self, entries: BTreeSet<Entry>) -> anyhow::Result<()> {
        // With nothing to redirect, the host is spared the tracking of connections that NAT turns on.
        if entries.is_empty() {
            self.table = None;
            return Ok(());
        }
        let table = self.table.take();
        let changed = tokio::task::spawn_blocking(move || {
            let mut table = table.map_or_else(Table::create, Ok)?;
            let new = entries.difference(table.entries());
            let new: BTreeMap<_, _> = new.map(|entry| (entry.frontend, Some(entry.to))).collect();
            table.set(&entries)?;
            forget(new);
            Ok::<_, table::Error>(table)
        });
        // A table that is not as it should be is dropped, and made anew.
        self.table = Some(changed.await??);
        Ok(())
    }
}

/// Clients of UDP that the kernel sent to Docker, or to an earlier relay, come to us from their next datagram on.
fn forget(mut frontends: BTreeMap<Frontend, Option<u16>>) {
    frontends.retain(|frontend, _| frontend.proto == Proto::Udp);
    if let Err(error) = tracked::forget(&frontends) {
        debug!(%error, "tracked UDP flows stay where they are until they are silent");
    }
}

impl Shared {
    fn troubled(&self) -> bool {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Milliseconds since the start.
    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

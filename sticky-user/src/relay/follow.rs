//! Ports and rules, as each commit wants them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::routes::Book;
use super::rules::Entry;
use super::table::{self, Table};
use super::{Shared, Stage, tcp, tracked, udp};
use crate::control::InForce;
use crate::model::{Frontend, Proto};

/// A table that the kernel refused is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// Keeps ports and table as the last commit wants them.
pub(super) struct Follower {
    shared: Arc<Shared>,
    stage: watch::Sender<Stage>,
    book: Book,
    tcp: Option<u16>,
    udp: HashMap<Frontend, udp::Port>,
    table: Option<Table>,
}

impl Follower {
    pub(super) fn new(shared: Arc<Shared>, stage: watch::Sender<Stage>) -> Self {
        Self { shared, stage, book: Book::default(), tcp: None, udp: HashMap::new(), table: None }
    }

    /// Until everything is cut.
    pub(super) async fn run(
        mut self,
        mut in_force: watch::Receiver<Option<Arc<InForce>>>,
        mut retired: watch::Receiver<bool>,
    ) {
        loop {
            let now = in_force.borrow_and_update().clone();
            if let Some(now) = now {
                let routes = Arc::new(self.book.publish(&now));
                *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) =
                    self.book.stats();
                let before = self.shared.routes.send_replace(Arc::clone(&routes));
                // Most commits change backends only, of which the table says nothing.
                let same = routes.leads_as(&before) && self.table.is_some();
                // With none left, the table goes when the last connection has ended.
                if !same || routes.is_empty() || self.shared.troubled() {
                    self.follow(&routes.frontends().collect()).await;
                }
                self.stage.send_replace(Stage::Ready);
            }
            let again = tokio::time::sleep(RETRY);
            tokio::select! {
                changed = in_force.changed() => if changed.is_err() { return },
                () = again, if self.shared.troubled() => {}
                _ = retired.wait_for(|retired| *retired) => break,
            }
        }
        self.retire().await;
        self.stage.send_replace(Stage::Retired);
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

    /// Leaves new connections, and the next datagrams, to a successor or to Docker. The table stays, empty: where no other
    /// has rules for NAT, the kernel would stop to translate what is open too.
    async fn retire(&mut self) {
        let Some(mut table) = self.table.take() else { return };
        let emptied = tokio::task::spawn_blocking(move || {
            let frontends = table.entries().iter().map(|entry| (entry.frontend, None)).collect();
            match table.set(&BTreeSet::new()) {
                Ok(()) => forget(frontends),
                Err(error) => warn!(%error, "clients still come to the relay"),
            }
            table
        });
        self.table = emptied.await.ok();
        self.udp.clear();
    }

    /// Brings the table up to date, on a thread that may wait for the kernel.
    async fn rules(&mut self, entries: BTreeSet<Entry>) -> anyhow::Result<()> {
        // With nothing to redirect, the host is spared the tracking of connections that NAT turns on.
        if entries.is_empty() && self.shared.open() == 0 {
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

//! What the operator drains (contract, section 6.1): a backend, a service or all of a node gets no new client, and its own
//! stay. Kept in the state directory until it is taken back or what was drained is gone.

mod order;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::{info, warn};

use crate::model::{Backend, DrainMode, Service, Snapshot, State};
use crate::provider::Found;
use crate::state::StateDir;
pub use order::{Done, Order, Refused};

/// Something that is drained. Services and backends are known by their ids: what comes in their place is not drained.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Drain {
    Backend { id: String, name: String },
    Service { id: String, name: String },
    Node { name: String },
}

impl fmt::Display for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backend { name, .. } => write!(f, "backend {name}"),
            Self::Service { name, .. } => write!(f, "service {name}"),
            Self::Node { name } => write!(f, "node {name}"),
        }
    }
}

impl Drain {
    fn covers(&self, service: &Service, backend: &Backend) -> bool {
        match self {
            Self::Backend { id, .. } => backend.id == *id,
            Self::Service { id, .. } => service.id == *id,
            Self::Node { name } => backend.node == *name,
        }
    }

    /// Whether both stand for the same, whatever it is called.
    fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Backend { id, .. }, Self::Backend { id: other, .. })
            | (Self::Service { id, .. }, Self::Service { id: other, .. }) => id == other,
            (one, other) => one == other,
        }
    }

    /// Whether a whole snapshot knows it still. Nodes come and go without a trace in it.
    fn is_there(&self, snapshot: &Snapshot) -> bool {
        let mut services = snapshot.services.iter();
        match self {
            Self::Backend { id, .. } => {
                services.any(|service| service.backends.iter().any(|backend| backend.id == *id))
            }
            Self::Service { id, .. } => services.any(|service| service.id == *id),
            Self::Node { .. } => true,
        }
    }

    /// Why a backend is drained, as its status says it.
    fn reason(&self) -> String {
        match self {
            Self::Backend { .. } => BY.to_owned(),
            Self::Service { .. } => format!("its service is {BY}"),
            Self::Node { name } => format!("node {name} is {BY}"),
        }
    }
}

const BY: &str = "drained by the operator";

/// The drains in force, which orders change.
#[derive(Debug)]
pub struct Drains {
    state: StateDir,
    now: watch::Sender<Arc<Vec<Drain>>>,
    /// One change at a time, each written before it counts.
    changing: Mutex<()>,
}

impl Drains {
    /// Those of an earlier run.
    #[must_use]
    pub fn open(state: StateDir) -> Self {
        let drains = state.drains();
        for drain in &drains {
            info!(what = %drain, "still drained by the operator");
        }
        Self { state, now: watch::Sender::new(Arc::new(drains)), changing: Mutex::new(()) }
    }

    /// Those in force.
    #[must_use]
    pub fn now(&self) -> Arc<Vec<Drain>> {
        Arc::clone(&self.now.borrow())
    }

    /// Does what an order says about something of `snapshot`.
    ///
    /// # Errors
    /// It names nothing, or too much, or cannot be kept.
    pub fn change(&self, order: &Order, snapshot: &Snapshot) -> Result<Done, Refused> {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.now();
        let (after, what) = order.apply(&before, snapshot)?;
        if after != *before {
            self.state.save_drains(&after).map_err(|error| Refused::NotKept(error.to_string()))?;
            self.now.send_replace(Arc::new(after));
            for drain in &what {
                info!(what = %drain, undo = order.undo, "order of the operator");
            }
        }
        Ok(Done::new(&what, snapshot))
    }

    /// Drops drains of what is gone.
    fn forget(&self, snapshot: &Snapshot) {
        let _one = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.now();
        let (there, gone): (Vec<_>, Vec<_>) =
            before.iter().cloned().partition(|drain| drain.is_there(snapshot));
        if gone.is_empty() {
            return;
        }
        for drain in &gone {
            info!(what = %drain, "was drained by the operator and is gone");
        }
        if let Err(error) = self.state.save_drains(&there) {
            warn!(%error, "the drains cannot be saved; a restart would read what is gone");
        }
        self.now.send_replace(Arc::new(there));
    }
}

/// Hands on what is found, with what is drained marked so. Ends with either side.
pub async fn follow(
    mut found: watch::Receiver<Arc<Found>>,
    drains: Arc<Drains>,
    to: watch::Sender<Arc<Found>>,
) {
    let mut orders = drains.now.subscribe();
    loop {
        let now = Arc::clone(&found.borrow_and_update());
        let order = Arc::clone(&orders.borrow_and_update());
        to.send_replace(mark(&now, &order, now.event_at));
        loop {
            tokio::select! {
                changed = found.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                changed = orders.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let order = Arc::clone(&orders.borrow_and_update());
                    to.send_replace(mark(&now, &order, Instant::now()));
                }
            }
        }
        let now = Arc::clone(&found.borrow());
        if now.status.connected && !drains.now().is_empty() {
            let drains = Arc::clone(&drains);
            // It waits for the disk, if there is anything to forget.
            if tokio::task::spawn_blocking(move || drains.forget(&now.snapshot)).await.is_err() {
                return;
            }
        }
    }
}

fn mark(found: &Arc<Found>, drains: &[Drain], event_at: Instant) -> Arc<Found> {
    if drains.is_empty() {
        return Arc::new(Found { event_at, ..Found::clone(found) });
    }
    let mut snapshot = Snapshot::clone(&found.snapshot);
    for service in &mut snapshot.services {
        for at in 0..service.backends.len() {
            let backend = &service.backends[at];
            // What Swarm has ordered, and what is not there yet, stays as it is.
            if backend.state == State::Up
                && let Some(drain) = drains.iter().find(|drain| drain.covers(service, backend))
            {
                let backend = &mut Arc::make_mut(service).backends[at];
                backend.state = State::Draining(DrainMode::Sessions);
                backend.reason = Some(drain.reason());
            }
        }
    }
    Arc::new(Found { snapshot: Arc::new(snapshot), event_at, ..Found::clone(found) })
}

/// A saved snapshot as it was found, before `drains` were marked in it.
pub fn unmark(snapshot: &mut Snapshot) {
    let drained = snapshot.services.iter_mut().filter(|s| s.backends.iter().any(marked));
    let backends = drained.flat_map(|service| &mut Arc::make_mut(service).backends);
    for backend in backends.filter(|backend| marked(backend)) {
        (backend.state, backend.reason) = (State::Up, None);
    }
}

/// Whether a snapshot is as these drains say.
#[must_use]
pub fn in_force(snapshot: &Snapshot, drains: &[Drain]) -> bool {
    let backends = snapshot.services.iter().flat_map(|s| s.backends.iter().map(move |b| (s, b)));
    backends.into_iter().all(|(service, backend)| {
        match drains.iter().any(|drain| drain.covers(service, backend)) {
            true => !backend.state.takes_new(),
            false => !marked(backend),
        }
    })
}

fn marked(backend: &Backend) -> bool {
    backend.state == State::Draining(DrainMode::Sessions)
        && backend.reason.as_ref().is_some_and(|reason| reason.ends_with(BY))
}

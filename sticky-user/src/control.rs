//! From what was found to what is in force: the reconcile loop.
//!
//! It knows no map: it hands a [`plan::Plan`] to a [`DataPath`] that it describes here, and publishes what is in force
//! after each commit.

mod became;
mod counted;
pub mod desired;
pub mod frontends;
mod in_order;
mod parts;
pub mod plan;
pub mod reconcile;
pub mod rules;
pub mod settle;
mod shares;
mod warming;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use sticky_common::outcome::Outcome;

use crate::model::{Frontend, LabelError, Service, Snapshot};
use plan::{Loaded, Plan};

/// What this node serves since the last commit.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Counts the commits of this node.
    pub generation: u64,
    /// With the states that health and the operator gave.
    pub snapshot: Arc<Snapshot>,
    pub services: Vec<Arc<InForceService>>,
    pub updated: SystemTime,
    /// From the event to the maps in force.
    pub took: Duration,
}

/// A service's part of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForceService {
    pub id: String,
    pub frontends: Vec<FrontendInForce>,
    /// Slots by backend id.
    pub slots: HashMap<String, u32>,
    /// Mistakes that only show on this node, such as a contested port.
    pub errors: Vec<LabelError>,
    /// The maps have a backend of it.
    pub loaded: bool,
}

impl InForce {
    /// The services that go by the client's address, and of whose backends the maps have none.
    #[must_use]
    pub fn not_loaded(&self) -> Vec<Arc<Service>> {
        // Both are in the same order.
        let all = self.snapshot.services.iter().zip(&self.services);
        let rest = all.filter(|(service, place)| service.config.ip_hash && !place.loaded);
        rest.map(|(service, _)| Arc::clone(service)).collect()
    }
}

/// A frontend and how packets for it are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendInForce {
    pub frontend: Frontend,
    /// The backends' port.
    pub target: u16,
    pub path: Path,
}

/// What carries a client's packets or requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Path {
    Xdp,
    Proxy,
    Relay,
}

impl Path {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Xdp => "xdp",
            Self::Proxy => "proxy",
            Self::Relay => "relay",
        }
    }
}

/// Where a backend is from this host.
#[derive(Clone, Debug, PartialEq)]
pub enum Reach {
    /// Through this interface, whose replies come back through our hook.
    Device(u32),
    /// At the other end of this link, which is in another network namespace.
    Peer(u32),
    /// Not at all, and why.
    Not(String),
}

/// What may be elsewhere than was said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Moved {
    pub all: bool,
    pub addrs: HashSet<IpAddr>,
}

impl Moved {
    /// This, and something else.
    pub fn and(&mut self, other: Self) {
        self.all |= other.all;
        self.addrs.extend(other.addrs);
    }

    #[must_use]
    pub fn is_nothing(&self) -> bool {
        !self.all && self.addrs.is_empty()
    }

    #[must_use]
    pub fn touches(&self, mut addrs: impl Iterator<Item = IpAddr>) -> bool {
        self.all || !self.addrs.is_empty() && addrs.any(|addr| self.addrs.contains(&addr))
    }
}

/// The maps, as the loop needs them.
pub trait DataPath: Send + 'static {
    /// What is loaded, also what another process of sticky left.
    fn loaded(&mut self) -> Result<Loaded, Error>;
    /// Follows what became of the interfaces that clients come in by. Says which addresses may be elsewhere since.
    fn look(&mut self) -> Result<Moved, Error>;
    /// Where each of these addresses is; also puts the hooks in place that are missing where backends answer.
    fn reach(&mut self, addrs: &[IpAddr]) -> Result<HashMap<IpAddr, Reach>, Error>;
    /// Makes the changes, in the plan's order.
    fn apply(&mut self, plan: &Plan, after: &Loaded) -> Result<(), Error>;
    /// Clients with a record: how many per service index, and per backend (`BackendId`).
    fn census(&self) -> Result<Arc<Census>, Error>;
    /// Shows every client record.
    fn records(&self, each: &mut dyn FnMut(&settle::Known)) -> Result<(), Error>;
    /// Removes client records, those excepted that changed since they were shown.
    fn forget(&self, stale: &[settle::Known]) -> Result<(), Error>;
    /// Removes flows that are over: of backends that are not among the living, and silent ones.
    fn sweep(&self, living: &HashSet<u32>, now: u32) -> Result<(), Error>;
    /// Slots per table.
    fn table_size(&self) -> u32;
    /// The hash key is another than the loaded tables were used with.
    fn rekeyed(&self) -> bool;
}

/// How many clients have a record.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Census {
    /// By service index.
    pub services: HashMap<u32, u64>,
    /// Clients whose newest backend this is, by [`sticky_common::types::BackendId`].
    pub backends: HashMap<u32, u64>,
}

/// The data path refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// The data path, as the views see it.
pub trait DataPathView: Send + Sync {
    /// Interfaces that clients come in by.
    fn interfaces(&self) -> Vec<Interface>;
    /// Counters since the maps were made.
    fn counters(&self) -> Result<Counters, String>;
}

/// An interface with our XDP program.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Interface {
    pub name: String,
    /// `native`, `generic`, or `none` while nothing can be attached.
    pub mode: String,
    pub pinned: bool,
    /// Why nothing is attached.
    pub problem: Option<String>,
}

/// Sums over all CPUs.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    pub outcomes: Vec<(Outcome, u64)>,
    /// Packets and bytes by backend id.
    pub backends: HashMap<String, (u64, u64)>,
    /// Clients with a record, by service id.
    pub clients: HashMap<String, u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_touches_those_who_have_it() {
        let [a, b]: [IpAddr; 2] = [[192, 0, 2, 1].into(), [192, 0, 2, 2].into()];
        let mut moved = Moved::default();
        assert!(!moved.touches([a, b].into_iter()));
        moved.and(Moved { all: false, addrs: [a].into() });
        moved.and(Moved::default());
        assert!(moved.touches([b, a].into_iter()) && !moved.touches([b].into_iter()));
        moved.and(Moved { all: true, addrs: HashSet::new() });
        assert!(moved.touches(std::iter::empty()));
    }
}

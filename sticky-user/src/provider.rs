//! What every provider hands over, and the rules for ports and hosts that two services want.

mod contest;
mod publisher;
mod redirects;
#[cfg(test)]
pub(crate) mod waiting;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

pub use contest::contest;
pub use publisher::Publisher;

use crate::model::Snapshot;

/// The cluster as a provider last saw it.
#[derive(Clone, Debug)]
pub struct Found {
    pub snapshot: Arc<Snapshot>,
    /// When the event or the change of the file behind this snapshot was seen.
    pub event_at: Instant,
    pub status: ProviderStatus,
}

/// How well the provider is connected to its source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderStatus {
    /// `swarm`, `docker` or `file`.
    pub kind: &'static str,
    pub connected: bool,
    /// Why the source cannot be read; the snapshot is then the last good one.
    pub error: Option<String>,
    /// When the source was last read whole.
    pub last_update: SystemTime,
}

impl Found {
    /// What is known before the source was read once: the last snapshot of an earlier run, or nothing.
    #[must_use]
    pub fn before_first_look(
        kind: &'static str,
        snapshot: Snapshot,
        last_update: SystemTime,
    ) -> Self {
        Self {
            snapshot: Arc::new(snapshot),
            event_at: Instant::now(),
            status: ProviderStatus { kind, connected: false, error: None, last_update },
        }
    }
}

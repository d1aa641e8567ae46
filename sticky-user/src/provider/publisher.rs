//! Hands what a provider found to the rest of sticky, when it differs from what it handed over before.

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use tokio::sync::watch;
use tracing::{info, warn};

use super::{Found, ProviderStatus};
use crate::model::Snapshot;

/// The sending end of a provider.
#[derive(Debug)]
pub struct Publisher {
    sender: watch::Sender<Arc<Found>>,
}

impl Publisher {
    /// A publisher that starts from `initial`, and its receiving end.
    #[must_use]
    pub fn new(initial: Found) -> (Self, watch::Receiver<Arc<Found>>) {
        let (sender, receiver) = watch::channel(Arc::new(initial));
        (Self { sender }, receiver)
    }

    /// What was handed over last.
    #[must_use]
    pub fn last(&self) -> Arc<Found> {
        Arc::clone(&self.sender.borrow())
    }

    /// Hands over a whole snapshot, unless nothing in it or in the status is new but the time. Returns whether it was.
    pub fn found(&self, snapshot: Snapshot, event_at: Instant, status: ProviderStatus) -> bool {
        let last = self.last();
        let snapshot = snapshot.reusing(&last.snapshot);
        let same = *last.snapshot == snapshot;
        if same && same_state(&last.status, &status) {
            self.still(status.last_update);
            return false;
        }
        report_status(&last.status, &status);
        let snapshot = if same { Arc::clone(&last.snapshot) } else { Arc::new(snapshot) };
        self.sender.send_replace(Arc::new(Found { snapshot, event_at, status }));
        true
    }

    /// The source was read, and says what it said before.
    pub fn still(&self, read_at: SystemTime) {
        // How old the snapshot is must be known when the source is lost, but nobody waits for it.
        self.sender.send_if_modified(|last| {
            let status = ProviderStatus { last_update: read_at, ..last.status.clone() };
            *last = Arc::new(Found { status, ..Found::clone(last) });
            false
        });
    }

    /// The source cannot be read: the last snapshot stays, with the reason.
    pub fn lost(&self, error: String) {
        let last = self.last();
        let status = ProviderStatus { connected: false, error: Some(error), ..last.status.clone() };
        if !same_state(&last.status, &status) {
            report_status(&last.status, &status);
            let snapshot = Arc::clone(&last.snapshot);
            self.sender.send_replace(Arc::new(Found {
                snapshot,
                event_at: Instant::now(),
                status,
            }));
        }
    }
}

/// Whether two states differ in more than their time.
fn same_state(a: &ProviderStatus, b: &ProviderStatus) -> bool {
    (a.kind, a.connected, &a.error) == (b.kind, b.connected, &b.error)
}

fn report_status(last: &ProviderStatus, status: &ProviderStatus) {
    match &status.error {
        Some(error) if last.error.as_ref() != Some(error) => {
            warn!(
                provider = status.kind,
                error, "the cluster cannot be read, its last good state stays"
            );
        }
        None if status.connected && !last.connected => {
            info!(provider = status.kind, "the cluster is read")
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;

    #[test]
    fn a_lost_source_was_last_read_when_it_was_last_looked_at() {
        let read = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let status = |seconds| ProviderStatus {
            kind: "swarm",
            connected: true,
            error: None,
            last_update: read(seconds),
        };
        let first = Found::before_first_look("swarm", Snapshot::default(), read(0));
        let (publisher, mut found) = Publisher::new(first);
        assert!(publisher.found(Snapshot::default(), Instant::now(), status(1)));
        found.borrow_and_update();
        assert!(!publisher.found(Snapshot::default(), Instant::now(), status(2)));
        assert!(!found.has_changed().unwrap(), "nothing to do for anybody");
        assert_eq!(found.borrow().status.last_update, read(2));
        publisher.lost("gone".to_owned());
        assert_eq!(found.borrow_and_update().status.last_update, read(2));
    }
}

//! What reaches the control loop, and when: not before there is something to trust, not while a successor takes over.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::model::State;
use crate::provider::Found;

/// How long a start waits for the provider before it serves what an earlier run saved.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a first start waits for backends to answer.
const SETTLE: Duration = Duration::from_secs(1);

/// Waits until there is something to put in force: what the provider reads now, or else what an earlier run `saved`.
/// An empty start in between would take everything out of the maps that are still loaded.
pub(super) async fn first(
    found: &mut watch::Receiver<Arc<Found>>,
    saved: bool,
) -> Option<Arc<Found>> {
    let patience = if saved { PATIENCE } else { Duration::MAX };
    // One that says why it cannot be read will not be waited for.
    let answer =
        found.wait_for(|found| found.status.connected || saved && found.status.error.is_some());
    if let Ok(Err(_)) = tokio::time::timeout(patience, answer).await {
        return None;
    }
    if !saved {
        return settled(found).await;
    }
    let last = Arc::clone(&found.borrow());
    if last.status.connected {
        return Some(last);
    }
    tracing::warn!(
        error = last.status.error.as_deref().unwrap_or("no answer yet"),
        saved = %humantime::format_rfc3339_seconds(last.status.last_update),
        "the provider cannot be read, serving from the last snapshot"
    );
    Some(last)
}

/// Nothing is known of any backend: those that answer at once count from the first commit on. Maps that are loaded
/// although no snapshot was saved would otherwise lose them for a moment.
async fn settled(found: &mut watch::Receiver<Arc<Found>>) -> Option<Arc<Found>> {
    let starting = |found: &Arc<Found>| {
        let mut backends = found.snapshot.services.iter().flat_map(|service| &service.backends);
        backends.any(|backend| backend.state == State::Starting)
    };
    let all = found.wait_for(|found| !starting(found));
    let ended = matches!(tokio::time::timeout(SETTLE, all).await, Ok(Err(_)));
    (!ended).then(|| Arc::clone(&found.borrow()))
}

/// Hands on what is found, except while `paused`; what came meanwhile is handed on after.
pub(super) async fn forward(
    mut found: watch::Receiver<Arc<Found>>,
    mut paused: watch::Receiver<bool>,
    to: watch::Sender<Arc<Found>>,
) {
    loop {
        if paused.wait_for(|paused| !paused).await.is_err() {
            return;
        }
        let now = Arc::clone(&found.borrow_and_update());
        to.send_if_modified(|last| {
            let newer = !Arc::ptr_eq(last, &now);
            *last = now;
            newer
        });
        if found.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Instant, SystemTime};

    use super::*;
    use crate::model::Snapshot;
    use crate::provider::ProviderStatus;

    fn found(connected: bool) -> Arc<Found> {
        Arc::new(Found {
            snapshot: Arc::new(Snapshot::default()),
            event_at: Instant::now(),
            status: ProviderStatus {
                kind: "file",
                connected,
                error: None,
                last_update: SystemTime::UNIX_EPOCH,
            },
        })
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_saved_is_served_only_when_the_provider_is_late() {
        let (sender, mut receiver) = watch::channel(found(false));
        let started = tokio::time::Instant::now();
        assert!(!first(&mut receiver, true).await.unwrap().status.connected);
        assert_eq!(started.elapsed(), PATIENCE);
        let mut wrong = Found::clone(&found(false));
        wrong.status.error = Some("gone".to_owned());
        sender.send_replace(Arc::new(wrong));
        assert!(first(&mut receiver, true).await.unwrap().status.error.is_some());
        assert_eq!(started.elapsed(), PATIENCE, "an error is an answer");
        let wait = tokio::spawn(async move { first(&mut receiver, false).await });
        tokio::time::sleep(PATIENCE * 10).await;
        assert!(!wait.is_finished());
        sender.send_replace(found(true));
        assert!(wait.await.unwrap().unwrap().status.connected);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_passes_while_paused() {
        let (sender, receiver) = watch::channel(found(true));
        let (pause, paused) = watch::channel(true);
        let (to, out) = watch::channel(found(false));
        tokio::spawn(forward(receiver, paused, to));
        sender.send_replace(found(true));
        tokio::time::sleep(PATIENCE).await;
        assert!(!out.borrow().status.connected);
        pause.send_replace(false);
        tokio::time::sleep(PATIENCE).await;
        assert!(out.borrow().status.connected);
    }
}

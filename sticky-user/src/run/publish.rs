//! What follows each commit: the proxy, the metrics, the snapshot on disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tracing::info;

use crate::clients::tables::Tables;
use crate::control::InForce;
use crate::metrics::Metrics;
use crate::provider::Found;
use crate::proxy::Proxy;
use crate::state::Saver;

/// Time between two writes of the snapshot: each waits for the disk.
const SAVE_PAUSE: Duration = Duration::from_millis(200);

/// Who hears of a commit.
pub(super) struct To {
    pub(super) in_force: watch::Receiver<Option<Arc<InForce>>>,
    pub(super) tables: Arc<Tables>,
    pub(super) proxy: Arc<Proxy>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) ready: Arc<AtomicBool>,
}

/// Hands on every commit.
pub(super) async fn follow(mut to: To) {
    loop {
        let Ok(in_force) = to.in_force.wait_for(Option::is_some).await.map(|now| now.clone())
        else {
            return;
        };
        if let Some(in_force) = in_force {
            // The table first: what a route leads to must be known to it.
            to.tables.publish(in_force.not_loaded());
            to.proxy.publish(&in_force.snapshot);
            to.metrics.updated(in_force.took);
            if !to.ready.swap(true, Ordering::AcqRel) {
                info!(services = in_force.snapshot.services.len(), "ready");
            }
        }
        if to.in_force.changed().await.is_err() {
            return;
        }
    }
}

/// Keeps what is in force for a start while the provider is away, and when it was read: that is told once more when the
/// provider is lost.
pub(super) async fn save(
    mut saver: Saver,
    mut in_force: watch::Receiver<Option<Arc<InForce>>>,
    mut found: watch::Receiver<Arc<Found>>,
) {
    loop {
        let changed = tokio::select! {
            changed = in_force.changed() => changed,
            changed = found.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        let Some(now) = in_force.borrow_and_update().clone() else { continue };
        let read_at = found.borrow_and_update().status.last_update;
        let saved = tokio::task::spawn_blocking(move || {
            saver.save(&now.snapshot, read_at);
            saver
        });
        match saved.await {
            Ok(back) => saver = back,
            Err(_) => return,
        }
        tokio::time::sleep(SAVE_PAUSE).await;
    }
}

//! Services from a file (contract, section 4.3), read again whenever it changes.

mod document;
mod reader;
mod service;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use notify::event::{AccessKind, AccessMode};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};
use tracing::debug;

pub use document::{Mistake, check};

use crate::labels::Instance;
use crate::model::{Service, Snapshot};
use crate::provider::{Found, ProviderStatus, Publisher};

/// Editors write in several steps: what is read is the file as it is this long after the last of them.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// How often the file is looked at where no event tells of a change (network file systems, replaced directories).
const LOOK: Duration = Duration::from_secs(5);

/// Reads a file of services and publishes what it says.
#[derive(Debug)]
pub struct Provider {
    path: PathBuf,
    instance: Instance,
    publisher: Publisher,
    /// The last right form of each service.
    good: HashMap<String, Service>,
    /// What was read last.
    text: Option<String>,
}

impl Provider {
    /// A provider that starts from what an earlier run found, and where it publishes. Nothing is read before
    /// [`Provider::run`].
    #[must_use]
    pub fn new(
        path: PathBuf,
        instance: Instance,
        initial: Found,
    ) -> (Self, watch::Receiver<Arc<Found>>) {
        let services =
            initial.snapshot.services.iter().filter(|service| !service.backends.is_empty());
        let good =
            services.map(|service| (service.name.clone(), Service::clone(service))).collect();
        let (publisher, found) = Publisher::new(initial);
        (Self { path, instance, publisher, good, text: None }, found)
    }

    /// Reads the file and follows its changes; ends only with its task.
    pub async fn run(mut self) {
        let (changed, mut changes) = mpsc::channel(1);
        let mut watcher = None;
        loop {
            // Before the file is read, so that no change falls between.
            if watcher.is_none() {
                watcher = watch_directory(&self.path, changed.clone())
                    .inspect_err(|error| debug!(%error, "the directory cannot be watched"))
                    .ok();
            }
            self.look(Instant::now());
            let Ok(Some(event_at)) = timeout(LOOK, changes.recv()).await else {
                if !self.path.parent().is_some_and(Path::exists) {
                    watcher = None;
                }
                continue;
            };
            loop {
                sleep(DEBOUNCE).await;
                if changes.try_recv().is_err() {
                    break;
                }
            }
            self.look(event_at);
        }
    }

    /// Reads the file if it is not as it was.
    fn look(&mut self, event_at: Instant) {
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) => {
                self.text = None;
                self.publisher.lost(format!("{} cannot be read: {error}", self.path.display()));
                return;
            }
        };
        if self.text.as_ref() == Some(&text) {
            return;
        }
        match document::read(&text, &self.instance, &mut self.good) {
            Ok(services) => {
                let last_update = SystemTime::now();
                let status =
                    ProviderStatus { kind: "file", connected: true, error: None, last_update };
                self.publisher.found(Snapshot { services }, event_at, status);
            }
            Err(mistakes) => {
                let mistakes: Vec<String> = mistakes
                    .iter()
                    .map(|mistake| format!("{}:{mistake}", self.path.display()))
                    .collect();
                self.publisher.lost(mistakes.join("; "));
            }
        }
        self.text = Some(text);
    }
}

/// Watches the directory of a file, since editors replace the file itself.
fn watch_directory(
    path: &Path,
    changed: mpsc::Sender<Instant>,
) -> notify::Result<RecommendedWatcher> {
    let file = path.file_name().map(ToOwned::to_owned);
    let directory =
        path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        let Ok(event) = event else { return };
        let ours = event.paths.iter().any(|path| path.file_name() == file.as_deref());
        // Reading it is no change.
        let change = match event.kind {
            EventKind::Access(kind) => kind == AccessKind::Close(AccessMode::Write),
            _ => true,
        };
        if ours && change {
            // A full channel already says that there is something to look at.
            let _ = changed.try_send(Instant::now());
        }
    })?;
    watcher.watch(directory, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}

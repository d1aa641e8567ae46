//! How long each backend was in each state, for the log.

use std::collections::HashMap;
use std::time::Instant;

use tracing::info;

use super::Key;
use crate::model::{Snapshot, State};

#[derive(Default)]
pub(super) struct Journal {
    since: HashMap<Key, Since>,
}

struct Since {
    service: String,
    backend: String,
    state: State,
    at: Instant,
}

impl Journal {
    /// Notes the states of a snapshot, and logs those that changed.
    pub(super) fn write(&mut self, snapshot: &Snapshot) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.since);
        for service in &snapshot.services {
            for backend in &service.backends {
                let key = (service.id.clone(), backend.id.clone());
                let at = match before.remove(&key) {
                    Some(since) if since.state == backend.state => since.at,
                    since => {
                        let reason = backend.reason.as_deref();
                        tell(
                            since.as_ref(),
                            &service.name,
                            &backend.name,
                            &backend.id,
                            backend.state.as_str(),
                            reason,
                            now,
                        );
                        now
                    }
                };
                let (service, name) = (service.name.clone(), backend.name.clone());
                self.since.insert(key, Since { service, backend: name, state: backend.state, at });
            }
        }
        for ((_, id), since) in &before {
            tell(Some(since), &since.service, &since.backend, id, "gone", None, now);
        }
    }
}

fn tell(
    since: Option<&Since>,
    service: &str,
    backend: &str,
    id: &str,
    state: &str,
    reason: Option<&str>,
    now: Instant,
) {
    let from = since.map_or("new", |since| since.state.as_str());
    let after_ms = since.map_or(0, |since| now.duration_since(since.at).as_millis());
    info!(service, backend, id, from, to = state, after_ms, reason, "backend changed");
}

//! How long each backend was in each state, for the log.

use std::collections::HashMap;
use std::time::Instant;

use tracing::info;

use crate::model::{Service, State};

/// Of one service.
#[derive(Default)]
pub(super) struct Journal {
    service: String,
    /// By backend id.
    since: HashMap<String, Since>,
}

struct Since {
    backend: String,
    state: State,
    at: Instant,
}

impl Journal {
    /// Notes the states of its backends, and logs those that changed.
    pub(super) fn write(&mut self, service: &Service) {
        let now = Instant::now();
        self.service.clone_from(&service.name);
        let mut before = std::mem::take(&mut self.since);
        for backend in &service.backends {
            let at = match before.remove(&backend.id) {
                Some(since) if since.state == backend.state => since.at,
                since => {
                    let (name, id) = (&backend.name, &backend.id);
                    let (state, reason) = (backend.state.as_str(), backend.reason.as_deref());
                    tell(since.as_ref(), &service.name, name, id, state, reason, now);
                    now
                }
            };
            let since = Since { backend: backend.name.clone(), state: backend.state, at };
            self.since.insert(backend.id.clone(), since);
        }
        self.gone(&before);
    }

    /// The service is gone, and its backends are with it.
    pub(super) fn end(self) {
        self.gone(&self.since);
    }

    fn gone(&self, backends: &HashMap<String, Since>) {
        let now = Instant::now();
        for (id, since) in backends {
            tell(Some(since), &self.service, &since.backend, id, "gone", None, now);
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

//! How long each backend was in each state, for the log.

use std::collections::HashMap;
use std::time::Instant;

use tracing::info;

use crate::model::{Backend, Service, State};

/// Where a backend comes from.
const NEW: &str = "new";

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
        let mut new: HashMap<State, Vec<&Backend>> = HashMap::new();
        for backend in &service.backends {
            let at = match before.remove(&backend.id) {
                Some(since) if since.state == backend.state => since.at,
                Some(since) => {
                    self.changed(Some(&since), backend, now);
                    now
                }
                None => {
                    new.entry(backend.state).or_default().push(backend);
                    now
                }
            };
            let since = Since { backend: backend.name.clone(), state: backend.state, at };
            self.since.insert(backend.id.clone(), since);
        }
        for (state, backends) in new {
            match &*backends {
                [backend] => self.changed(None, backend, now),
                // A line for each would be the longer part of what a start of a large cluster logs.
                several => {
                    let (service, count, to) = (&service.name, several.len(), state.as_str());
                    info!(service, backends = count, from = NEW, to, "backends changed");
                }
            }
        }
        self.gone(&before);
    }

    fn changed(&self, since: Option<&Since>, backend: &Backend, now: Instant) {
        let (name, id) = (&backend.name, &backend.id);
        let (state, reason) = (backend.state.as_str(), backend.reason.as_deref());
        tell(since, &self.service, name, id, state, reason, now);
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
    let from = since.map_or(NEW, |since| since.state.as_str());
    let after_ms = since.map_or(0, |since| now.duration_since(since.at).as_millis());
    info!(service, backend, id, from, to = state, after_ms, reason, "backend changed");
}

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
                None if backend.reason.is_some() => {
                    self.changed(None, backend, now);
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::model::ServiceConfig;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Log {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(text)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn backend(number: usize, state: State, reason: Option<&str>) -> Backend {
        Backend {
            id: number.to_string(),
            name: format!("s.{number}"),
            addr: None,
            addr_v6: None,
            node: String::new(),
            layer4: true,
            outgoing: false,
            weight: 1,
            state,
            reason: reason.map(str::to_owned),
        }
    }

    /// The lines about these backends, after those before.
    fn lines(journal: &mut Journal, states: &[(State, Option<&str>)]) -> Vec<String> {
        let backends = states.iter().enumerate();
        let service = Service {
            id: "s".to_owned(),
            name: "s".to_owned(),
            config: ServiceConfig::default(),
            publish: Vec::new(),
            backends: backends.map(|(n, (state, reason))| backend(n, *state, *reason)).collect(),
            errors: Vec::new(),
        };
        let log = Log::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .without_time()
            .with_ansi(false)
            .with_writer(move || to.clone());
        tracing::subscriber::with_default(subscriber.finish(), || journal.write(&service));
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn new_ones_of_which_nothing_else_is_to_be_said_share_a_line() {
        let (mut journal, up) = (Journal::default(), (State::Up, None));
        let sick = (State::Down, Some("its container is unhealthy"));
        let first = lines(&mut journal, &[up, up, sick, sick, (State::Starting, None)]);
        let has = |part: &str| first.iter().filter(|line| line.contains(part)).count();
        assert_eq!(first.len(), 4, "{first:?}");
        assert_eq!(has(r#"backends=2 from="new" to="up""#), 1, "{first:?}");
        assert_eq!(has("unhealthy"), 2, "{first:?}");
        assert_eq!(has(r#"id="4" from="new" to="starting""#), 1, "{first:?}");
        let next = lines(&mut journal, &[up, sick, sick, sick, up]);
        assert_eq!(next.len(), 2, "those that changed: {next:?}");
        assert!(lines(&mut journal, &[up, sick, sick, sick, up]).is_empty());
    }
}

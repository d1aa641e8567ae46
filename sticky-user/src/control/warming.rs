//! `sticky.slow_start` at layer 4: a backend that comes up gets its share of new clients in steps.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{Backend, Service, State};

/// Steps to the whole share.
const STEPS: u32 = 8;

/// Since when backends have been up, by service and backend. `None`: nobody was up before, who could spare them.
#[derive(Debug, Default)]
pub struct Warming(HashMap<(String, String), Option<Instant>>);

impl Warming {
    /// Takes in which backends are up; among the services are all with a slow start.
    pub fn see<'a>(&mut self, services: impl IntoIterator<Item = &'a Arc<Service>>, now: Instant) {
        let mut next = HashMap::new();
        let slow = |service: &&Arc<Service>| !service.config.slow_start.is_zero();
        for service in services.into_iter().filter(slow) {
            let up = || service.backends.iter().filter(|backend| backend.state == State::Up);
            let served = up().any(|backend| self.0.contains_key(&key(service, backend)));
            for backend in up() {
                let key = key(service, backend);
                let came = served.then_some(now);
                let since = self.0.get(&key).copied().unwrap_or(came);
                next.insert(key, since);
            }
        }
        self.0 = next;
    }

    /// What a backend weighs now beside the others of its service.
    #[must_use]
    pub fn weight(&self, service: &Service, backend: &Backend, now: Instant) -> u32 {
        if backend.state != State::Up {
            return 0;
        }
        if service.config.slow_start.is_zero() {
            return backend.weight;
        }
        let step = match self.coldness(service, backend, now) {
            Some((up_for, step)) => 1 + (up_for.as_nanos() / step.as_nanos().max(1)) as u32,
            None => STEPS,
        };
        backend.weight.saturating_mul(step.min(STEPS))
    }

    /// How long until some backend weighs more; `None`: all weigh what they should.
    #[must_use]
    pub fn next_step(&self, services: &[Arc<Service>], now: Instant) -> Option<Duration> {
        if self.0.is_empty() {
            return None;
        }
        let slow = services.iter().filter(|service| !service.config.slow_start.is_zero());
        let all = slow.flat_map(|s| s.backends.iter().map(move |b| (s, b)));
        all.filter_map(|(service, backend)| self.coldness(service, backend, now))
            .map(|(up_for, step)| {
                let into = up_for.as_nanos() % step.as_nanos().max(1);
                step.saturating_sub(Duration::from_nanos(u64::try_from(into).unwrap_or(0)))
            })
            .min()
    }

    /// How long it has been up, and how long a step takes, while it is on its way.
    fn coldness(
        &self,
        service: &Service,
        backend: &Backend,
        now: Instant,
    ) -> Option<(Duration, Duration)> {
        let since = (*self.0.get(&key(service, backend))?)?;
        let (up_for, slow) = (now.saturating_duration_since(since), service.config.slow_start);
        (up_for < slow).then_some((up_for, slow / STEPS))
    }
}

fn key(service: &Service, backend: &Backend) -> (String, String) {
    (service.id.clone(), backend.id.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceConfig;

    fn service(up: &[&str]) -> Arc<Service> {
        let backend = |id: &&str| Backend {
            id: (*id).to_owned(),
            name: (*id).to_owned(),
            addr: None,
            addr_v6: None,
            node: String::new(),
            layer4: true,
            outgoing: false,
            weight: 3,
            state: State::Up,
            reason: None,
        };
        Arc::new(Service {
            id: "s".to_owned(),
            name: "s".to_owned(),
            config: ServiceConfig {
                slow_start: Duration::from_secs(8),
                ..ServiceConfig::default()
            },
            publish: Vec::new(),
            backends: up.iter().map(backend).collect(),
            errors: Vec::new(),
        })
    }

    #[test]
    fn a_newcomer_weighs_more_step_by_step() {
        let (begin, second) = (Instant::now(), Duration::from_secs(1));
        let mut warming = Warming::default();
        warming.see(&[service(&["a", "b"])], begin);
        let three = service(&["a", "b", "c"]);
        let all = std::slice::from_ref(&three);
        assert_eq!(warming.next_step(all, begin), None, "those who came first share all there is");
        warming.see(all, begin + second);
        let weights = |at: Duration| {
            three.backends.iter().map(|b| warming.weight(&three, b, begin + at)).collect::<Vec<_>>()
        };
        assert_eq!(weights(second), [24, 24, 3]);
        assert_eq!(warming.next_step(all, begin + second * 3 / 2), Some(second / 2));
        assert_eq!(weights(second * 5), [24, 24, 15]);
        assert_eq!(weights(second * 9), [24, 24, 24]);
        assert_eq!(warming.next_step(all, begin + second * 9), None);
    }

    #[test]
    fn who_was_away_starts_again() {
        let begin = Instant::now();
        let mut warming = Warming::default();
        for up in [&["a", "b"][..], &["a"], &["a", "b"]] {
            warming.see(&[service(up)], begin);
        }
        let both = service(&["a", "b"]);
        assert_eq!(warming.weight(&both, &both.backends[1], begin), 3);
        assert_eq!(warming.weight(&both, &both.backends[0], begin), 24);
    }
}

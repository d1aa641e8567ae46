//! What is counted per service and backend, by all workers, through every change of the routes.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::reason::Reason;
use crate::model::{Service, Snapshot};

/// Upper bounds of the latency histogram in seconds; what is longer is only in the total.
pub const BUCKETS: [f64; 13] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];
const FIRST_CODE: u16 = 100;
const CODES: usize = 500;

/// Counters of a service.
#[derive(Debug)]
pub struct ServiceStats {
    codes: Box<[AtomicU64]>,
    reasons: [AtomicU64; Reason::ALL.len()],
    retries: AtomicU64,
    buckets: [AtomicU64; BUCKETS.len()],
    beyond: AtomicU64,
    micros: AtomicU64,
    pub(super) clients: super::rate::Buckets,
}

impl Default for ServiceStats {
    fn default() -> Self {
        Self {
            codes: (0..CODES).map(|_| AtomicU64::new(0)).collect(),
            reasons: Default::default(),
            retries: AtomicU64::new(0),
            buckets: Default::default(),
            beyond: AtomicU64::new(0),
            micros: AtomicU64::new(0),
            clients: super::rate::Buckets::default(),
        }
    }
}

impl ServiceStats {
    /// A request has ended.
    pub(super) fn finished(&self, code: u16, took: Duration) {
        if let Some(count) = self.codes.get(usize::from(code.saturating_sub(FIRST_CODE))) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
        let seconds = took.as_secs_f64();
        let bucket = BUCKETS.iter().position(|bound| seconds <= *bound);
        bucket
            .and_then(|at| self.buckets.get(at))
            .unwrap_or(&self.beyond)
            .fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn chosen(&self, reason: Reason) {
        if let Some(count) = self.reasons.get(reason as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn retried(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests by status code, those that occurred.
    pub fn codes(&self) -> impl Iterator<Item = (u16, u64)> {
        (FIRST_CODE..)
            .zip(&self.codes)
            .map(|(code, n)| (code, n.load(Ordering::Relaxed)))
            .filter(|(_, n)| *n > 0)
    }

    /// Choices of a backend by reason.
    pub fn reasons(&self) -> impl Iterator<Item = (Reason, u64)> {
        Reason::ALL
            .into_iter()
            .zip(&self.reasons)
            .map(|(reason, n)| (reason, n.load(Ordering::Relaxed)))
    }

    /// Requests tried at another backend.
    pub fn retries(&self) -> u64 {
        self.retries.load(Ordering::Relaxed)
    }

    /// Sum of all times in seconds, their number, and the number in each bucket (not cumulative, the last unbounded).
    pub fn times(&self) -> (f64, u64, Vec<(f64, u64)>) {
        let mut buckets: Vec<_> = BUCKETS
            .into_iter()
            .zip(&self.buckets)
            .map(|(bound, n)| (bound, n.load(Ordering::Relaxed)))
            .collect();
        buckets.push((f64::INFINITY, self.beyond.load(Ordering::Relaxed)));
        let count = buckets.iter().map(|(_, n)| n).sum();
        let seconds = Duration::from_micros(self.micros.load(Ordering::Relaxed)).as_secs_f64();
        (seconds, count, buckets)
    }
}

/// Counters of a backend.
#[derive(Debug, Default)]
pub struct BackendStats {
    /// Requests and tunnels at it now.
    pub(super) in_progress: AtomicU32,
    /// Requests sent to it.
    pub(super) requests: AtomicU64,
    pub(super) failures: super::ejection::Failures,
    pub(super) warmth: super::warmth::Warmth,
}

/// Finds the counters of services and backends again when routes are built anew.
#[derive(Debug, Default)]
pub(super) struct Registry {
    services: HashMap<String, Entry>,
    next_pool: u64,
}

#[derive(Debug, Default)]
struct Entry {
    stats: Arc<ServiceStats>,
    backends: HashMap<String, (SocketAddr, u64, Arc<BackendStats>)>,
}

impl Registry {
    pub(super) fn knows(&self, service: &str) -> bool {
        self.services.get(service).is_some_and(|entry| !entry.backends.is_empty())
    }

    pub(super) fn service(&mut self, id: &str) -> Arc<ServiceStats> {
        self.services.entry(id.to_owned()).or_default().stats.clone()
    }

    /// Counters of a backend and the number of its upstream connections' pool: another one at each address.
    pub(super) fn backend(
        &mut self,
        service: &str,
        id: &str,
        addr: SocketAddr,
    ) -> (u64, Arc<BackendStats>) {
        let entry = self.services.entry(service.to_owned()).or_default();
        let next = self.next_pool;
        let backend = entry.backends.entry(id.to_owned()).or_insert_with(|| {
            self.next_pool += 1;
            (addr, next, Arc::default())
        });
        if backend.0 != addr {
            self.next_pool += 1;
            (backend.0, backend.1) = (addr, next);
        }
        (backend.1, backend.2.clone())
    }

    /// Forgets services that are not in the snapshot any more.
    pub(super) fn retain(&mut self, snapshot: &Snapshot) {
        let kept: HashSet<&str> = snapshot.services.iter().map(|s| s.id.as_str()).collect();
        self.services.retain(|id, _| kept.contains(id.as_str()));
    }

    /// Forgets backends that a service has no longer.
    pub(super) fn retain_backends(&mut self, service: &Service) {
        let Some(entry) = self.services.get_mut(&service.id) else { return };
        let kept: HashSet<&str> = service.backends.iter().map(|b| b.id.as_str()).collect();
        entry.backends.retain(|id, _| kept.contains(id.as_str()));
    }
}

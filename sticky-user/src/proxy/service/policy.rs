//! What the labels say about who is served, and how much a backend takes.

use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipnet::IpNet;
use sticky_common::hash::HashKey;

use super::{Backend, Service};
use crate::clients::{hash_of, masked};
use crate::model::{IpPrefix, ServiceConfig};
use crate::proxy::random::Random;

/// Share of a backend that has just come up, in thousandths: not 0, or it would never be tried.
const COLDEST: u64 = 50;

pub(super) struct Policy {
    max_fails: u32,
    fail_timeout: Duration,
    slow_start_ms: u64,
    max_connections: u32,
    /// Requests per second and client.
    rate: Option<u32>,
    prefix: IpPrefix,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
}

impl Policy {
    pub(super) fn new(config: &ServiceConfig) -> Self {
        Self {
            max_fails: config.max_fails,
            fail_timeout: config.fail_timeout,
            slow_start_ms: u64::try_from(config.slow_start.as_millis()).unwrap_or(u64::MAX),
            max_connections: config.max_connections.unwrap_or(u32::MAX),
            rate: config.rate.filter(|rate| *rate > 0),
            prefix: config.ip_prefix,
            allow: config.allow.clone(),
            deny: config.deny.clone(),
        }
    }
}

impl Service {
    /// `sticky.allow`, `sticky.deny`.
    pub(in crate::proxy) fn admits(&self, client: IpAddr) -> bool {
        let Policy { allow, deny, .. } = &self.policy;
        !deny.iter().any(|net| net.contains(&client))
            && (allow.is_empty() || allow.iter().any(|net| net.contains(&client)))
    }

    /// The hash of the client that an address stands for (`sticky.ip_prefix`).
    pub(in crate::proxy) fn client_hash(&self, key: HashKey, client: IpAddr) -> u64 {
        hash_of(key, &masked(client, self.policy.prefix))
    }

    /// `sticky.rate`: whether this client may have one more request now.
    pub(in crate::proxy) fn affords(&self, client: IpAddr, now_ms: u64) -> bool {
        let Policy { rate, prefix, .. } = self.policy;
        let Some(rate) = rate else { return true };
        let bits = if client.is_ipv4() { prefix.v4 } else { prefix.v6 };
        let client = IpNet::new(client, bits).map_or(client, |net| net.network());
        self.stats.clients.take(client, rate, now_ms)
    }

    /// Counts a request at a backend; `false` if it has all it takes (`sticky.max_connections`).
    pub(in crate::proxy) fn enter(&self, at: usize) -> bool {
        let max = self.policy.max_connections;
        let Some(backend) = self.backends.get(at) else { return false };
        let more = |now: u32| (now < max).then(|| now + 1);
        backend.stats.in_progress.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Whether a backend has all it takes.
    pub(in crate::proxy) fn full(&self, at: usize) -> bool {
        self.load(at) >= self.policy.max_connections
    }

    pub(in crate::proxy) fn ejected(&self, at: usize, now_ms: u64) -> bool {
        self.backends.get(at).is_some_and(|backend| backend.stats.failures.ejected(now_ms))
    }

    /// A connection to a backend failed.
    pub(in crate::proxy) fn failed(&self, backend: &Backend, now_ms: u64) {
        let Policy { max_fails, fail_timeout, .. } = self.policy;
        if backend.stats.failures.failed(now_ms, max_fails, fail_timeout) {
            tracing::warn!(
                service = self.name, backend = backend.name, addr = %backend.addr,
                "connections fail, no new requests for {}", humantime::format_duration(fail_timeout)
            );
        }
    }

    /// `sticky.slow_start`: whether a backend that has come up lately takes this request, more and more often.
    pub(super) fn warm(&self, at: usize, random: &Random, now_ms: u64) -> bool {
        let slow = self.policy.slow_start_ms;
        let Some(backend) = self.backends.get(at).filter(|_| slow > 0) else { return true };
        let Some(up_for) = backend.stats.warmth.up_for(now_ms).filter(|up_for| *up_for < slow)
        else {
            return true;
        };
        let share = (up_for.saturating_mul(1000) / slow).max(COLDEST);
        u64::from(random.below(1000)) < share
    }

    pub(super) fn load(&self, at: usize) -> u32 {
        self.backends.get(at).map_or(u32::MAX, |b| b.stats.in_progress.load(Ordering::Relaxed))
    }
}

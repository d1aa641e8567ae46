//! A service as requests need it: made once per change of the cluster.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use http::HeaderValue;
use sticky_common::hash::HashKey;
use sticky_common::maglev;

use super::random::Random;
use super::stats::{BackendStats, Registry, ServiceStats};
use crate::model::{self, BackendMode, CookieAffinity, OnLoss, State};

/// A service with its backends.
pub(super) struct Service {
    pub id: String,
    pub name: String,
    /// Stands for the id in cookies.
    pub hash: u64,
    pub stats: Arc<ServiceStats>,
    pub cookie: Option<CookieAffinity>,
    pub ip_hash: bool,
    pub strict: bool,
    pub ssl_only: bool,
    /// Without a slash at the end; empty: every path.
    pub root: String,
    pub rewrite: bool,
    /// Share among the services of its route.
    pub weight: u32,
    pub backends: Vec<Backend>,
    by_id: HashMap<String, usize>,
    /// Backends that take new clients, with the sum of the weights up to each.
    takers: Vec<(u32, usize)>,
    config: Limits,
}

struct Limits {
    max_fails: u32,
    fail_timeout: std::time::Duration,
    allow: Vec<ipnet::IpNet>,
    deny: Vec<ipnet::IpNet>,
}

/// A backend that requests can be sent to.
pub(super) struct Backend {
    pub id: String,
    pub name: String,
    pub addr: SocketAddr,
    /// `x-upstream-addr`.
    pub shown: HeaderValue,
    pub state: State,
    /// Number of the pool of its upstream connections.
    pub pool: u64,
    pub stats: Arc<BackendStats>,
}

impl Service {
    pub(super) fn build(service: &model::Service, key: HashKey, registry: &mut Registry) -> Self {
        let config = &service.config;
        let mut backends = Vec::with_capacity(service.backends.len());
        let (mut takers, mut sum) = (Vec::new(), 0_u32);
        for backend in &service.backends {
            let Some(addr) = backend.addr.filter(|addr| addr.port() != 0) else { continue };
            let (pool, stats) = registry.backend(&service.id, &backend.id, addr);
            if backend.state.takes_new() {
                sum = sum.saturating_add(backend.weight.max(1));
                takers.push((sum, backends.len()));
            }
            let shown = HeaderValue::try_from(addr.to_string());
            backends.push(Backend {
                id: backend.id.clone(),
                name: backend.name.clone(),
                addr,
                shown: shown.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
                state: backend.state,
                pool,
                stats,
            });
        }
        // One address stands for all tasks: there is nothing to be sticky to.
        let vip = config.backend_mode == BackendMode::Vip;
        Self {
            id: service.id.clone(),
            name: service.name.clone(),
            hash: maglev::identity(key, service.id.as_bytes()),
            stats: registry.service(&service.id),
            cookie: config.cookie.clone().filter(|_| !vip),
            ip_hash: config.ip_hash && !vip,
            strict: config.on_loss == OnLoss::Strict,
            ssl_only: config.ssl_only,
            root: config.context_root.clone().unwrap_or_default(),
            rewrite: config.context_root_rewrite,
            weight: config
                .weight
                .unwrap_or_else(|| u32::try_from(takers.len()).unwrap_or(u32::MAX)),
            by_id: backends.iter().enumerate().map(|(at, b)| (b.id.clone(), at)).collect(),
            backends,
            takers,
            config: Limits {
                max_fails: config.max_fails,
                fail_timeout: config.fail_timeout,
                allow: config.allow.clone(),
                deny: config.deny.clone(),
            },
        }
    }

    pub(super) fn position(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }

    pub(super) fn admits(&self, client: IpAddr) -> bool {
        let Limits { allow, deny, .. } = &self.config;
        !deny.iter().any(|net| net.contains(&client))
            && (allow.is_empty() || allow.iter().any(|net| net.contains(&client)))
    }

    /// Whether there is a backend for a new client besides those that this request failed at.
    pub(super) fn takes_new(&self, failed: &[u64]) -> bool {
        self.takers.iter().any(|(_, at)| self.is_open(*at, failed))
    }

    fn is_open(&self, at: usize, failed: &[u64]) -> bool {
        self.backends.get(at).is_some_and(|backend| !failed.contains(&backend.pool))
    }

    /// Of two backends drawn by weight, the one with fewer requests in progress.
    pub(super) fn better_of_two(
        &self,
        random: &Random,
        failed: &[u64],
        now_ms: u64,
    ) -> Option<usize> {
        if let &[(_, only)] = self.takers.as_slice() {
            return Some(only).filter(|at| self.is_open(*at, failed));
        }
        let fit = |at: usize| self.is_open(at, failed) && !self.ejected(at, now_ms);
        let first = self
            .draw(random, None, fit)
            .or_else(|| self.draw(random, None, |at| self.is_open(at, failed)))?;
        let Some(second) = self.draw(random, Some(first), fit) else { return Some(first) };
        Some(if self.load(second) < self.load(first) { second } else { first })
    }

    /// One by weight among those that fit. Passive ejection never leaves nobody: see the caller.
    fn draw(
        &self,
        random: &Random,
        other_than: Option<usize>,
        fit: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let fits = |at: usize| Some(at) != other_than && fit(at);
        let total = self.takers.last()?.0;
        // Nearly always the first draw fits.
        for _ in 0..2 {
            let at = self.at_weight(random.below(total))?;
            if fits(at) {
                return Some(at);
            }
        }
        let mut before = 0;
        let fitting: Vec<(u32, usize)> = self
            .takers
            .iter()
            .filter_map(|&(sum, at)| {
                let weight = sum - before;
                before = sum;
                fits(at).then_some((weight, at))
            })
            .collect();
        let mut rest = random.below(fitting.iter().map(|(weight, _)| weight).sum());
        for (weight, at) in fitting {
            if rest < weight {
                return Some(at);
            }
            rest -= weight;
        }
        None
    }

    fn at_weight(&self, draw: u32) -> Option<usize> {
        let at = self.takers.partition_point(|(sum, _)| *sum <= draw);
        self.takers.get(at).map(|(_, at)| *at)
    }

    fn load(&self, at: usize) -> u32 {
        self.backends.get(at).map_or(u32::MAX, |b| b.stats.in_progress.load(Ordering::Relaxed))
    }

    /// The same backend for the same hash while the same ones fit: for a client whose own is out for a moment.
    pub(super) fn stand_in(&self, hash: u64, failed: &[u64], now_ms: u64) -> Option<usize> {
        let fit: Vec<usize> = self
            .takers
            .iter()
            .map(|(_, at)| *at)
            .filter(|at| self.is_open(*at, failed) && !self.ejected(*at, now_ms))
            .collect();
        let count = u32::try_from(fit.len()).ok()?;
        fit.get(sticky_common::hash::slot(hash, count) as usize).copied()
    }

    pub(super) fn ejected(&self, at: usize, now_ms: u64) -> bool {
        self.backends.get(at).is_some_and(|backend| backend.stats.failures.ejected(now_ms))
    }

    /// A connection to a backend failed.
    pub(super) fn failed(&self, backend: &Backend, now_ms: u64) {
        let Limits { max_fails, fail_timeout, .. } = self.config;
        if backend.stats.failures.failed(now_ms, max_fails, fail_timeout) {
            tracing::warn!(
                service = self.name, backend = backend.name, addr = %backend.addr,
                "connections fail, no new requests for {}", humantime::format_duration(fail_timeout)
            );
        }
    }
}

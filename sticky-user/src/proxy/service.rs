//! A service as requests need it: made once per change of the cluster.

mod pick;
mod policy;

use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::HashMap;
use http::HeaderValue;
use http::header::HeaderName;
use sticky_common::hash::HashKey;
use sticky_common::maglev;

use self::policy::Policy;
use super::cookies;
use super::owners::Owners;
use super::stats::{BackendStats, Registry, ServiceStats};
use crate::model::{
    self, BackendMode, CookieAffinity, CookieMode, OnLoss, ProxyProtocol, ServiceConfig, State,
};

/// A service with its backends.
pub(super) struct Service {
    /// What it was made from.
    pub source: Arc<model::Service>,
    pub id: String,
    pub name: String,
    /// Stands for the id in cookies.
    pub hash: u64,
    pub stats: Arc<ServiceStats>,
    pub cookie: Option<CookieAffinity>,
    /// Names that our cookie has on the routes of this service.
    pub own_names: Vec<String>,
    /// The header that carries affinity.
    pub header: Option<HeaderName>,
    pub ip_hash: bool,
    /// What a connection to a backend begins with.
    pub proxy_protocol: Option<ProxyProtocol>,
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
    /// Owners of values, where some affinity goes by them.
    owners: Option<Owners>,
    policy: Policy,
}

/// A backend that requests can be sent to.
pub(super) struct Backend {
    pub id: String,
    pub name: String,
    pub addr: SocketAddr,
    /// `x-upstream-addr`.
    pub shown: HeaderValue,
    pub state: State,
    pub weight: u32,
    /// An update is about to replace it.
    pub outgoing: bool,
    /// Number of the pool of its upstream connections.
    pub pool: u64,
    pub stats: Arc<BackendStats>,
}

impl Service {
    pub(super) fn build(
        service: &Arc<model::Service>,
        key: HashKey,
        registry: &mut Registry,
        now_ms: u64,
    ) -> Self {
        let config = &service.config;
        registry.retain_backends(service);
        // What was there when we came needs no slow start.
        let known = registry.knows(&service.id);
        let mut backends = Vec::with_capacity(service.backends.len());
        for backend in &service.backends {
            let Some(addr) = backend.addr.filter(|addr| addr.port() != 0) else { continue };
            let (pool, stats) = registry.backend(&service.id, &backend.id, addr);
            stats.warmth.seen(backend.state.takes_new(), known, now_ms);
            let shown = HeaderValue::try_from(addr.to_string());
            backends.push(Backend {
                id: backend.id.clone(),
                name: backend.name.clone(),
                addr,
                shown: shown.unwrap_or_else(|_| HeaderValue::from_static("unknown")),
                state: backend.state,
                weight: backend.weight.max(1),
                outgoing: backend.outgoing,
                pool,
                stats,
            });
        }
        let takers = takers(&backends);
        // One address stands for all tasks: there is nothing to be sticky to.
        let vip = config.backend_mode == BackendMode::Vip;
        let cookie = config.cookie.clone().filter(|_| !vip);
        let header = config.header.as_ref().filter(|_| !vip);
        let header = header.and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok());
        let by_value =
            header.is_some() || cookie.as_ref().is_some_and(|c| c.mode == CookieMode::Hash);
        let owners = by_value.then(|| {
            let new = takers.iter().filter_map(|(_, at)| Some((*at, backends.get(*at)?)));
            Owners::new(key, new.map(|(at, backend)| (at, backend.id.as_str(), backend.weight)))
        });
        let root = config.context_root.clone().unwrap_or_default();
        Self {
            source: Arc::clone(service),
            id: service.id.clone(),
            name: service.name.clone(),
            hash: maglev::identity(key, service.id.as_bytes()),
            stats: registry.service(&service.id),
            own_names: own_names(config),
            cookie,
            header,
            ip_hash: config.ip_hash && !vip,
            proxy_protocol: config.proxy_protocol,
            strict: config.on_loss == OnLoss::Strict,
            ssl_only: config.ssl_only,
            rewrite: config.context_root_rewrite && !root.is_empty(),
            root,
            weight: config
                .weight
                .unwrap_or_else(|| u32::try_from(takers.len()).unwrap_or(u32::MAX)),
            by_id: backends.iter().enumerate().map(|(at, b)| (b.id.clone(), at)).collect(),
            backends,
            takers,
            owners,
            policy: Policy::new(config),
        }
    }

    pub(super) fn position(&self, id: &str) -> Option<usize> {
        self.by_id.get(id).copied()
    }
}

fn own_names(config: &ServiceConfig) -> Vec<String> {
    let Some(cookie) = &config.cookie else { return Vec::new() };
    if let Some(name) = &cookie.own_name {
        return vec![name.clone()];
    }
    let root = config.context_root.as_deref().unwrap_or_default();
    let hosts = config.hosts.iter().map(Some).chain(config.default_backend.then_some(None));
    hosts.map(|host| cookies::own_name(host, root)).collect()
}

fn takers(backends: &[Backend]) -> Vec<(u32, usize)> {
    let mut sum = 0_u32;
    let new = backends.iter().enumerate().filter(|(_, backend)| backend.state.takes_new());
    new.map(|(at, backend)| {
        sum = sum.saturating_add(backend.weight);
        (sum, at)
    })
    .collect()
}

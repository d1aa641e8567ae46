//! Which services a request is for: host, then the longest context root.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use sticky_common::hash::HashKey;

use super::cookies;
use super::service::Service;
use super::stats::Registry;
use crate::model::{HostPattern, Snapshot};

/// Every route of one snapshot.
#[derive(Default)]
pub(super) struct Routes {
    exact: HashMap<String, Host>,
    /// By the domain behind `*.`.
    wildcard: HashMap<String, Host>,
    unknown: Host,
    /// Redirect targets by host.
    redirects: HashMap<String, String>,
    pub services: Vec<Arc<Service>>,
    /// Those that were asked for.
    pools: OnceLock<HashSet<u64>>,
}

#[derive(Default)]
struct Host {
    /// Longest context root first.
    routes: Vec<Arc<Route>>,
}

/// The services of one host and context root.
#[derive(Default)]
pub(super) struct Route {
    root: String,
    /// Name of our cookie for those services that have no other.
    own_name: String,
    pub services: Vec<Arc<Service>>,
    /// Some service of it goes by cookies or a header.
    pub reads: bool,
}

/// Where a request belongs.
pub(super) enum Found<'a> {
    Route(&'a Arc<Route>),
    Redirect(&'a str),
    Nothing,
}

impl Routes {
    /// The routes of a snapshot for an instance of this service cluster; what is as it was in the last ones is the same.
    pub(super) fn build(
        snapshot: &Snapshot,
        last: &Self,
        cluster: Option<&str>,
        key: HashKey,
        registry: &mut Registry,
        now_ms: u64,
    ) -> Self {
        registry.retain(snapshot);
        let before: HashMap<&str, _> =
            last.services.iter().map(|service| (service.id.as_str(), service)).collect();
        let mut routes = Self::default();
        let mut shared: HashMap<(Option<&HostPattern>, &str), Vec<Arc<Service>>> = HashMap::new();
        for found in &snapshot.services {
            let config = &found.config;
            if config.service_cluster.is_some() && config.service_cluster.as_deref() != cluster {
                continue;
            }
            for redirect in &config.redirects {
                routes.redirects.insert(redirect.source.clone(), redirect.target.clone());
            }
            if config.hosts.is_empty() && !config.default_backend {
                continue;
            }
            let same = before.get(found.id.as_str()).filter(|b| Arc::ptr_eq(&b.source, found));
            let service = match same {
                Some(same) => Arc::clone(same),
                None => Arc::new(Service::build(found, key, registry, now_ms)),
            };
            let root = config.context_root.as_deref().unwrap_or_default();
            let hosts = config.hosts.iter().map(Some);
            for host in hosts.chain(config.default_backend.then_some(None)) {
                let services = shared.entry((host, root)).or_default();
                // One that is named twice is there once.
                if !services.last().is_some_and(|last| Arc::ptr_eq(last, &service)) {
                    services.push(Arc::clone(&service));
                }
            }
            routes.services.push(service);
        }
        for ((host, root), services) in shared {
            let reads = services.iter().any(|s| s.cookie.is_some() || s.header.is_some());
            let own_name = cookies::own_name(host, root);
            let route = Arc::new(Route { root: root.to_owned(), own_name, services, reads });
            routes.host(host).routes.push(route);
        }
        let hosts = routes.exact.values_mut().chain(routes.wildcard.values_mut());
        for host in hosts.chain([&mut routes.unknown]) {
            host.routes.sort_by_key(|route| std::cmp::Reverse(route.root.len()));
        }
        routes
    }

    /// Pools that may keep connections.
    pub(super) fn pools(&self) -> &HashSet<u64> {
        let all = || self.services.iter().flat_map(|service| &service.backends);
        self.pools.get_or_init(|| all().map(|backend| backend.pool).collect())
    }

    fn host(&mut self, pattern: Option<&HostPattern>) -> &mut Host {
        match pattern {
            Some(HostPattern::Exact(name)) => self.exact.entry(name.clone()).or_default(),
            Some(HostPattern::Wildcard(domain)) => self.wildcard.entry(domain.clone()).or_default(),
            None => &mut self.unknown,
        }
    }

    /// Routes `host` (lower case, without port) and path. A host is known by its exact name, then by the nearest wildcard;
    /// where the paths of one do not fit, the next is asked. The default is for hosts that nobody names.
    pub(super) fn find(&self, host: &str, path: &str) -> Found<'_> {
        if let Some(target) = self.redirects.get(host) {
            return Found::Redirect(target);
        }
        let mut known = false;
        let mut entry = self.exact.get(host);
        let mut rest = host;
        loop {
            known |= entry.is_some();
            if let Some(route) = entry.and_then(|entry| entry.route(path)) {
                return Found::Route(route);
            }
            let Some((_, domain)) = rest.split_once('.') else { break };
            rest = domain;
            entry = self.wildcard.get(domain);
        }
        match self.unknown.route(path) {
            Some(route) if !known => Found::Route(route),
            _ => Found::Nothing,
        }
    }
}

impl Route {
    /// Name of the cookie that a service sets here.
    pub(super) fn own_name<'a>(&'a self, service: &'a Service) -> &'a str {
        let own = service.cookie.as_ref().and_then(|cookie| cookie.own_name.as_deref());
        own.unwrap_or(&self.own_name)
    }
}

impl Host {
    fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| is_below(path, &route.root))
    }
}

/// `/app` and `/app/x` are below `/app`, `/apple` is not.
fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| root.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

//! Which services a request is for: host, then the longest context root.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, OnceLock};

use sticky_common::hash::HashKey;

use super::cookies;
use super::service::Service;
use super::stats::Registry;
use crate::model::{self, HostPattern, ServiceConfig, Snapshot};

/// Every route of one snapshot.
#[derive(Default)]
pub(super) struct Routes {
    /// What the names lead to; the same as long as they lead to the same.
    names: Arc<Names>,
    hosts: Vec<Arc<Host>>,
    pub services: Vec<Arc<Service>>,
    /// Those that were asked for.
    pools: OnceLock<HashSet<u64>>,
    /// What all this was made of.
    sources: Vec<Arc<model::Service>>,
}

/// Hosts by their place in the list.
#[derive(Default)]
struct Names {
    exact: foldhash::HashMap<String, usize>,
    /// By the domain behind `*.`.
    wildcard: foldhash::HashMap<String, usize>,
    unknown: Option<usize>,
    /// Redirect targets by host.
    redirects: HashMap<String, String>,
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
        let sources = &snapshot.services;
        let others = || last.sources.iter().zip(sources).filter(|(a, b)| !Arc::ptr_eq(a, b));
        if last.sources.len() == sources.len() && others().all(|(a, b)| found_alike(a, b)) {
            let mut routes = last.clone_with(sources);
            for (_, other) in others() {
                routes.replace(other, || Service::build(other, key, registry, now_ms));
            }
            return routes;
        }
        registry.retain(snapshot);
        let before: HashMap<&str, _> =
            last.services.iter().map(|service| (service.id.as_str(), service)).collect();
        let mut routes = Self { sources: sources.clone(), ..Self::default() };
        let mut names = Names::default();
        let mut shared: HashMap<(Option<&HostPattern>, &str), Vec<Arc<Service>>> = HashMap::new();
        for found in sources {
            let config = &found.config;
            if config.service_cluster.is_some() && config.service_cluster.as_deref() != cluster {
                continue;
            }
            for redirect in &config.redirects {
                names.redirects.insert(redirect.source.clone(), redirect.target.clone());
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
            for host in patterns(config) {
                let services = shared.entry((host, root)).or_default();
                // One that is named twice is there once.
                if !services.last().is_some_and(|last| Arc::ptr_eq(last, &service)) {
                    services.push(Arc::clone(&service));
                }
            }
            routes.services.push(service);
        }
        let mut hosts = Vec::new();
        for ((host, root), services) in shared {
            let route = Arc::new(Route::new(host, root, services));
            let place = names.place(host, hosts.len());
            if place == hosts.len() {
                hosts.push(Host::default());
            }
            if let Some(host) = hosts.get_mut(place) {
                host.routes.push(route);
            }
        }
        for host in &mut hosts {
            host.routes.sort_by_key(|route| std::cmp::Reverse(route.root.len()));
        }
        routes.hosts = hosts.into_iter().map(Arc::new).collect();
        routes.names = Arc::new(names);
        routes
    }

    /// Pools that may keep connections.
    pub(super) fn pools(&self) -> &HashSet<u64> {
        let all = || self.services.iter().flat_map(|service| &service.backends);
        self.pools.get_or_init(|| all().map(|backend| backend.pool).collect())
    }

    /// The same, for sources whose names lead where they did.
    fn clone_with(&self, sources: &[Arc<model::Service>]) -> Self {
        Self {
            names: Arc::clone(&self.names),
            hosts: self.hosts.clone(),
            services: self.services.clone(),
            pools: OnceLock::new(),
            sources: sources.to_vec(),
        }
    }

    /// Has one service as it is now, if it is for the proxy.
    fn replace(&mut self, source: &model::Service, make: impl FnOnce() -> Service) {
        let Some(service) = self.services.iter_mut().find(|s| s.id == source.id) else { return };
        let now = Arc::new(make());
        let before = std::mem::replace(service, Arc::clone(&now));
        for place in patterns(&source.config).filter_map(|host| self.names.get(host)) {
            if let Some(host) = self.hosts.get_mut(place) {
                *host = Arc::new(host.with(&before, &now));
            }
        }
    }

    /// Routes `host` (lower case, without port) and path. A host is known by its exact name, then by the nearest wildcard;
    /// where the paths of one do not fit, the next is asked. The default is for hosts that nobody names.
    pub(super) fn find(&self, host: &str, path: &str) -> Found<'_> {
        let Names { exact, wildcard, unknown, redirects } = &*self.names;
        if let Some(target) = redirects.get(host) {
            return Found::Redirect(target);
        }
        let host_at = |place: &usize| self.hosts.get(*place);
        let mut known = false;
        let mut entry = exact.get(host).and_then(host_at);
        let mut rest = host;
        loop {
            known |= entry.is_some();
            if let Some(route) = entry.and_then(|entry| entry.route(path)) {
                return Found::Route(route);
            }
            let Some((_, domain)) = rest.split_once('.') else { break };
            rest = domain;
            entry = wildcard.get(domain).and_then(host_at);
        }
        match unknown.as_ref().and_then(host_at).and_then(|unknown| unknown.route(path)) {
            Some(route) if !known => Found::Route(route),
            _ => Found::Nothing,
        }
    }
}

impl Names {
    fn get(&self, host: Option<&HostPattern>) -> Option<usize> {
        match host {
            Some(HostPattern::Exact(name)) => self.exact.get(name).copied(),
            Some(HostPattern::Wildcard(domain)) => self.wildcard.get(domain).copied(),
            None => self.unknown,
        }
    }

    /// Its place, which is this one if it has none yet.
    fn place(&mut self, host: Option<&HostPattern>, new: usize) -> usize {
        *match host {
            Some(HostPattern::Exact(name)) => self.exact.entry(name.clone()).or_insert(new),
            Some(HostPattern::Wildcard(name)) => self.wildcard.entry(name.clone()).or_insert(new),
            None => self.unknown.get_or_insert(new),
        }
    }
}

impl Route {
    fn new(host: Option<&HostPattern>, root: &str, services: Vec<Arc<Service>>) -> Self {
        let own_name = cookies::own_name(host, root);
        Self { root: root.to_owned(), own_name, reads: read(&services), services }
    }

    /// The same with one service in the place of another.
    fn with(&self, before: &Arc<Service>, now: &Arc<Service>) -> Self {
        let of = |service| if Arc::ptr_eq(service, before) { now } else { service };
        let services: Vec<_> =
            self.services.iter().map(|service| Arc::clone(of(service))).collect();
        let (root, own_name) = (self.root.clone(), self.own_name.clone());
        Self { root, own_name, reads: read(&services), services }
    }

    /// Name of the cookie that a service sets here.
    pub(super) fn own_name<'a>(&'a self, service: &'a Service) -> &'a str {
        let own = service.cookie.as_ref().and_then(|cookie| cookie.own_name.as_deref());
        own.unwrap_or(&self.own_name)
    }
}

/// Whether cookies or a header say anything to one of them.
fn read(services: &[Arc<Service>]) -> bool {
    services.iter().any(|s| s.cookie.is_some() || s.header.is_some())
}

/// The hosts of a service; `None` stands for all that nobody names.
fn patterns(config: &ServiceConfig) -> impl Iterator<Item = Option<&HostPattern>> {
    config.hosts.iter().map(Some).chain(config.default_backend.then_some(None))
}

/// Whether the same requests come to both.
fn found_alike(a: &model::Service, b: &model::Service) -> bool {
    let (id, a, b) = (a.id == b.id, &a.config, &b.config);
    id && a.hosts == b.hosts
        && a.default_backend == b.default_backend
        && a.context_root == b.context_root
        && a.redirects == b.redirects
        && a.service_cluster == b.service_cluster
}

impl Host {
    fn with(&self, before: &Arc<Service>, now: &Arc<Service>) -> Self {
        let routes = self.routes.iter().map(|route| {
            if route.services.iter().any(|service| Arc::ptr_eq(service, before)) {
                Arc::new(route.with(before, now))
            } else {
                Arc::clone(route)
            }
        });
        Self { routes: routes.collect() }
    }

    fn route(&self, path: &str) -> Option<&Arc<Route>> {
        self.routes.iter().find(|route| is_below(path, &route.root))
    }
}

/// `/app` and `/app/x` are below `/app`, `/apple` is not.
fn is_below(path: &str, root: &str) -> bool {
    path.strip_prefix(root)
        .is_some_and(|rest| root.is_empty() || rest.is_empty() || rest.starts_with('/'))
}

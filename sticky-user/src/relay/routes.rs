//! Which service a frontend belongs to, and what lives as long as a backend does.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::stats::{BackendStats, ServiceStats};
use crate::control::{InForce, InForceService};
use crate::model::{self, Frontend, IpPrefix, ProxyProtocol};
use crate::proxy::Buckets;

/// How long a client waits for a service that has lost its last backend, before it is refused.
const PATIENCE: Duration = Duration::from_secs(5);

/// The state of one commit.
#[derive(Clone, Default)]
pub(super) struct Routes {
    /// The backends' port, and the place in the list; the same as long as they lead to the same.
    by_frontend: Arc<HashMap<Frontend, (u16, usize)>>,
    services: Vec<Arc<Service>>,
}

/// What a connection to one frontend needs to know.
#[derive(Clone)]
pub(super) struct Route {
    /// The backends' port.
    pub(super) target: u16,
    pub(super) service: Arc<Service>,
}

pub(super) struct Service {
    /// What it was made from.
    source: Arc<model::Service>,
    pub(super) id: String,
    pub(super) backends: HashMap<String, Arc<Backend>>,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
    /// New connections per second and client.
    pub(super) rate: Option<u32>,
    pub(super) buckets: Arc<Buckets>,
    pub(super) stats: Arc<ServiceStats>,
    prefix: IpPrefix,
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    /// Since when no backend takes new clients.
    without: Option<Instant>,
}

/// A backend, the same in all routes while it is there.
pub(super) struct Backend {
    pub(super) id: String,
    ip: IpAddr,
    v6: Option<Ipv6Addr>,
    /// Cancelled when it is gone, and with it its connections.
    pub(super) gone: CancellationToken,
    pub(super) stats: Arc<BackendStats>,
}

impl Backend {
    /// Its address for a client of this frontend: of the same family, if it has one.
    pub(super) fn ip(&self, frontend: &Frontend) -> IpAddr {
        let v6 = self.v6.map(IpAddr::V6).filter(|_| frontend.addr.is_ipv6());
        v6.unwrap_or(self.ip)
    }
}

impl Routes {
    pub(super) fn get(&self, frontend: &Frontend) -> Option<Route> {
        let (target, place) = *self.by_frontend.get(frontend)?;
        let service = Arc::clone(self.services.get(place)?);
        Some(Route { target, service })
    }

    /// By its id.
    pub(super) fn service(&self, id: &str) -> Option<&Arc<Service>> {
        self.services.iter().find(|service| service.id == id)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_frontend.is_empty()
    }

    pub(super) fn frontends(&self) -> impl Iterator<Item = Frontend> {
        self.by_frontend.keys().copied()
    }

    /// Whether the frontends are those of these routes, without a look at each.
    pub(super) fn leads_as(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.by_frontend, &other.by_frontend)
    }
}

impl Service {
    /// `sticky.allow`, `sticky.deny`.
    pub(super) fn admits(&self, client: IpAddr) -> bool {
        !self.deny.iter().any(|net| net.contains(&client))
            && (self.allow.is_empty() || self.allow.iter().any(|net| net.contains(&client)))
    }

    /// The address that all of one client share.
    pub(super) fn client(&self, addr: IpAddr) -> IpAddr {
        let bits = if addr.is_ipv4() { self.prefix.v4 } else { self.prefix.v6 };
        IpNet::new(addr, bits).map_or(addr, |net| net.network())
    }

    /// Until when a client waits while there is no backend.
    pub(super) fn patience(&self) -> Instant {
        self.without.unwrap_or_else(Instant::now) + PATIENCE
    }
}

/// Makes the routes of each commit, and tells what is gone.
#[derive(Default)]
pub(super) struct Book {
    routes: Routes,
    /// The place of each of its services.
    places: Vec<Arc<InForceService>>,
}

impl Book {
    /// Most commits change the backends of a few services, and nothing else.
    pub(super) fn publish(&mut self, in_force: &InForce) -> Routes {
        // Both are in the same order.
        let found = in_force.snapshot.services.iter().zip(&in_force.services);
        let found: Vec<_> = found.filter(|(service, _)| service.config.ip_hash).collect();
        let known = self.routes.services.iter().zip(&self.places);
        let same = self.places.len() == found.len()
            && known.zip(&found).all(|((old, place), (service, now))| {
                old.id == service.id
                    && (Arc::ptr_eq(place, now) || place.frontends == now.frontends)
            });
        if same {
            for (old, (service, _)) in self.routes.services.iter_mut().zip(&found) {
                if !Arc::ptr_eq(&old.source, service) {
                    *old = Arc::new(next(service, Some(old)));
                }
            }
        } else {
            self.rebuild(&found);
        }
        self.places = found.into_iter().map(|(_, place)| Arc::clone(place)).collect();
        self.routes.clone()
    }

    fn rebuild(&mut self, found: &[(&Arc<model::Service>, &Arc<InForceService>)]) {
        let old = std::mem::take(&mut self.routes.services);
        let mut old: HashMap<_, _> =
            old.iter().map(|service| (service.id.as_str(), service)).collect();
        let mut by_frontend = HashMap::new();
        for (at, (service, place)) in found.iter().enumerate() {
            let previous = old.remove(service.id.as_str());
            let same = previous.filter(|p| Arc::ptr_eq(&p.source, service));
            let now = match same {
                Some(same) => Arc::clone(same),
                None => Arc::new(next(service, previous.map(|p| &**p))),
            };
            self.routes.services.push(now);
            // What is for loopback stays with whoever listens there, were it a VIP.
            let ours = place.frontends.iter().filter(|place| !place.frontend.addr.is_loopback());
            by_frontend.extend(ours.map(|place| (place.frontend, (place.target, at))));
        }
        self.routes.by_frontend = Arc::new(by_frontend);
        // What is left is in no service any more.
        for backend in old.values().flat_map(|service| service.backends.values()) {
            backend.gone.cancel();
        }
    }

    /// Name and numbers of each service.
    pub(super) fn stats(&self) -> Vec<Arc<ServiceStats>> {
        self.routes.services.iter().map(|service| Arc::clone(&service.stats)).collect()
    }
}

fn next(service: &Arc<model::Service>, previous: Option<&Service>) -> Service {
    let stats = previous
        .map_or_else(|| Arc::new(ServiceStats::new(&service.name)), |p| Arc::clone(&p.stats));
    let old = previous.map(|p| &p.backends);
    let mut backends = HashMap::with_capacity(service.backends.len());
    for backend in &service.backends {
        let Some(ip) = backend.addr.map(|addr| addr.ip()) else { continue };
        let same = |kept: &&Arc<Backend>| (kept.ip, kept.v6) == (ip, backend.addr_v6);
        let kept = old.and_then(|old| old.get(&backend.id)).filter(same);
        let entry = kept.cloned().unwrap_or_else(|| {
            Arc::new(Backend {
                id: backend.id.clone(),
                ip,
                v6: backend.addr_v6,
                gone: CancellationToken::new(),
                stats: stats.backend(&backend.name),
            })
        });
        backends.insert(backend.id.clone(), entry);
    }
    for (id, backend) in old.into_iter().flatten() {
        if !backends.get(id).is_some_and(|now| Arc::ptr_eq(now, backend)) {
            backend.gone.cancel();
        }
    }
    stats.keep(service.backends.iter().map(|backend| backend.name.as_str()));
    let config = &service.config;
    let serves = service.backends.iter().any(|backend| backend.state.takes_new());
    let since = previous.and_then(|p| p.without);
    Service {
        source: Arc::clone(service),
        id: service.id.clone(),
        backends,
        proxy_protocol: config.proxy_protocol,
        rate: config.rate.filter(|rate| *rate > 0),
        buckets: previous.map(|p| Arc::clone(&p.buckets)).unwrap_or_default(),
        stats,
        prefix: config.ip_prefix,
        allow: config.allow.clone(),
        deny: config.deny.clone(),
        without: (!serves).then(|| since.unwrap_or_else(Instant::now)),
    }
}

#[cfg(test)]
pub(super) mod tests;

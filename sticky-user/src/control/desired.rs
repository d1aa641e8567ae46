//! From a snapshot to what the maps should say.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use sticky_common::hash::HashKey;
use sticky_common::maglev;
use sticky_common::types::{Backend as MapBackend, tick};

use super::frontends::Resolved;
use super::plan::{DesiredBackend, DesiredService, FrontendKey};
use super::{Reach, rules};
use crate::model::{Backend, Frontend, LabelError, Proto, Service, State};

/// Identities in the maps outlive a change of the cluster's key, so they are hashed with none.
const IDENTITY_KEY: HashKey = HashKey { k0: 0, k1: 0 };

/// The identity of a service or backend in the maps.
#[must_use]
pub fn identity(id: &str) -> u64 {
    // 0 means "none" there.
    maglev::identity(IDENTITY_KEY, id.as_bytes()).max(1)
}

/// Nanoseconds of a second.
const NANOS: u32 = 1_000_000_000;

/// What the maps should say of a service, and what it was made from.
#[derive(Debug, PartialEq)]
pub struct Part {
    pub service: Arc<Service>,
    resolved: Resolved,
    /// `None`: it is not balanced by the client's address.
    pub desired: Option<Arc<DesiredService>>,
    /// What cannot be served.
    pub errors: Vec<LabelError>,
    /// Frontends of a family that not every backend has an address of.
    pub relayed: Vec<Frontend>,
    /// Something else may follow from the same: a weight grows with time, or a backend that nothing leads to may be reached.
    pub restless: bool,
}

impl Part {
    /// Puts together what the maps should say; `weight` is what a backend weighs now.
    #[must_use]
    pub fn new(
        service: &Arc<Service>,
        resolved: &Resolved,
        key: HashKey,
        reach: &HashMap<IpAddr, Reach>,
        weight: impl Fn(&Backend) -> u32,
    ) -> Self {
        let mut part = Self {
            service: Arc::clone(service),
            resolved: resolved.clone(),
            desired: None,
            errors: Vec::new(),
            relayed: Vec::new(),
            restless: !service.config.slow_start.is_zero(),
        };
        if service.config.ip_hash {
            part.desired = Some(Arc::new(part.desired(key, reach, weight)));
        }
        part
    }

    /// Whether it is this service's, as it was then or is now.
    #[must_use]
    pub fn belongs_to(&self, service: &Arc<Service>) -> bool {
        Arc::ptr_eq(&self.service, service) || self.service.id == service.id
    }

    /// The service's, in the maps.
    #[must_use]
    pub fn identity(&self) -> u64 {
        let desired = self.desired.as_ref().map(|desired| desired.identity);
        desired.unwrap_or_else(|| identity(&self.service.id))
    }

    /// Whether the same would be made of these, as long as addresses are where they were.
    #[must_use]
    pub fn is_of(&self, service: &Arc<Service>, resolved: &Resolved) -> bool {
        !self.restless && Arc::ptr_eq(&self.service, service) && self.resolved == *resolved
    }

    /// Whether both differ in their backends at most.
    #[must_use]
    pub fn serves_as(&self, other: &Self) -> bool {
        let [a, b] = [self, other].map(|part| part.desired.as_ref().map(|d| &d.frontends));
        a == b
    }

    /// Shares what is as it was before.
    #[must_use]
    pub fn after(mut self, before: &Arc<Self>) -> Arc<Self> {
        if self == **before {
            return Arc::clone(before);
        }
        if self.desired == before.desired {
            self.desired.clone_from(&before.desired);
        }
        Arc::new(self)
    }

    fn desired(
        &mut self,
        key: HashKey,
        reach: &HashMap<IpAddr, Reach>,
        weight: impl Fn(&Backend) -> u32,
    ) -> DesiredService {
        let service = Arc::clone(&self.service);
        let mut backends = Vec::with_capacity(service.backends.len());
        // A connection stays with a backend that fails its checks; a flow of datagrams has no end that would set it free.
        let connects = service.publish.iter().any(|publish| publish.proto == Proto::Tcp);
        let serving = |backend: &&Backend| connects || backend.state != State::Down;
        for backend in service.backends.iter().filter(serving) {
            let mut wanted = desired_backend(backend, weight(backend), key);
            for addr in local(backend) {
                match reach.get(&addr) {
                    Some(Reach::Device(ifindex)) => wanted.reached(addr, *ifindex, false),
                    Some(Reach::Peer(ifindex)) => wanted.reached(addr, *ifindex, true),
                    Some(Reach::Not(why)) => {
                        self.restless = true;
                        self.errors.push(unreachable(backend, why));
                    }
                    None => {}
                }
            }
            if wanted.ifindex_v4 != 0 || wanted.ifindex_v6 != 0 {
                backends.push(wanted);
            }
        }
        let ttl = match service.config.affinity_ttl.as_secs_f64() {
            0.0 => 0,
            secs => tick::from_secs(secs.ceil() as u64),
        };
        // What has no address of a family cannot be sent packets of it: all its backends or none.
        let in_xdp = |frontend: &Frontend| {
            let serves = |b: &DesiredBackend| match frontend.addr {
                IpAddr::V4(_) => b.ifindex_v4 != 0,
                IpAddr::V6(_) => b.ifindex_v6 != 0,
            };
            backends.iter().all(serves)
        };
        let (packets, relayed): (Vec<_>, Vec<_>) =
            self.resolved.frontends.iter().partition(|(frontend, _)| in_xdp(frontend));
        self.relayed = relayed.iter().map(|(frontend, _)| *frontend).collect();
        DesiredService {
            identity: identity(&service.id),
            id: service.id.as_str().into(),
            ttl,
            prefix: service.config.ip_prefix,
            interval: service.config.rate.map_or(0, |rate| NANOS / rate.max(1)),
            rules: rules::verdicts(&service.config.allow, &service.config.deny),
            frontends: packets
                .iter()
                .map(|(f, target)| (FrontendKey::of(f), target.to_be_bytes()))
                .collect(),
            backends,
        }
    }
}

/// The addresses of its backends that the data path can use.
pub fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    let backends = if service.config.ip_hash { &*service.backends } else { &[] };
    backends.iter().flat_map(local)
}

/// Where layer 4 delivers to.
fn local(backend: &Backend) -> impl Iterator<Item = IpAddr> {
    let usable = backend.layer4 && backend.state.alive();
    let v6 = backend.addr_v6.map(IpAddr::V6);
    backend.addr.map(|a| a.ip()).into_iter().chain(v6).filter(move |_| usable)
}

fn desired_backend(backend: &Backend, weight: u32, key: HashKey) -> DesiredBackend {
    DesiredBackend {
        identity: identity(&backend.id),
        id: backend.id.clone(),
        member: maglev::identity(key, backend.id.as_bytes()),
        flags: MapBackend::ALIVE | if backend.state.keeps() { MapBackend::KEEPS } else { 0 },
        weight,
        ..DesiredBackend::default()
    }
}

fn unreachable(backend: &Backend, why: &str) -> LabelError {
    LabelError {
        label: "backend".into(),
        value: backend.addr.map(|a| a.to_string()).unwrap_or_default(),
        message: format!("{} cannot be balanced at layer 4: {why}", backend.name),
        hint: "its packets and replies must pass this host".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_never_none() {
        assert_ne!(identity(""), 0);
        assert_ne!(identity("a"), identity("b"));
    }
}

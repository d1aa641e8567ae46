//! From a snapshot to what the maps should say.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use sticky_common::hash::HashKey;
use sticky_common::maglev;
use sticky_common::types::{Backend as MapBackend, tick};

use super::frontends::Resolved;
use super::plan::{Desired, DesiredBackend, DesiredService, FrontendKey};
use super::rules;
use super::{ClientRules, Names, Reach};
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

/// What the maps should say, what its numbers stand for, and what cannot be served, by position of the service.
#[derive(Default)]
pub struct Wanted {
    pub desired: Desired,
    pub names: Names,
    pub errors: HashMap<usize, Vec<LabelError>>,
    /// Frontends of a family that not every backend has an address of.
    pub relayed: HashSet<Frontend>,
}

/// Backends that the data path can use, with the address it uses.
pub fn addresses(services: &[Arc<Service>]) -> Vec<IpAddr> {
    services.iter().filter(|s| s.config.ip_hash).flat_map(|s| &s.backends).flat_map(local).collect()
}

/// Where layer 4 delivers to.
fn local(backend: &Backend) -> impl Iterator<Item = IpAddr> {
    let usable = backend.layer4 && backend.state.alive();
    let v6 = backend.addr_v6.map(IpAddr::V6);
    backend.addr.map(|a| a.ip()).into_iter().chain(v6).filter(move |_| usable)
}

/// Puts together what the maps should say; `weight` is what a backend weighs now.
#[must_use]
pub fn wanted(
    services: &[Arc<Service>],
    resolved: &[Resolved],
    reach: &HashMap<IpAddr, Reach>,
    key: HashKey,
    weight: impl Fn(&Service, &Backend) -> u32,
) -> Wanted {
    let mut out = Wanted::default();
    for (at, (service, resolved)) in services.iter().zip(resolved).enumerate() {
        if !service.config.ip_hash {
            continue;
        }
        let service_identity = identity(&service.id);
        out.names.services.insert(service_identity, service.id.clone());
        let mut backends = Vec::new();
        // A connection stays with a backend that fails its checks; a flow of datagrams has no end that would set it free.
        let connects = service.publish.iter().any(|publish| publish.proto == Proto::Tcp);
        let serving = |backend: &&Backend| connects || backend.state != State::Down;
        for backend in service.backends.iter().filter(serving) {
            let mut wanted = desired_backend(backend, weight(service, backend), key);
            for addr in local(backend) {
                match reach.get(&addr) {
                    Some(Reach::Device(ifindex)) => wanted.reached(addr, *ifindex),
                    Some(Reach::Not(why)) => {
                        out.errors.entry(at).or_default().push(unreachable(backend, why));
                    }
                    None => {}
                }
            }
            if wanted.ifindex_v4 != 0 || wanted.ifindex_v6 != 0 {
                out.names.backends.insert(wanted.identity, backend.id.clone());
                backends.push(wanted);
            }
        }
        let ttl = match service.config.affinity_ttl.as_secs_f64() {
            0.0 => 0,
            secs => tick::from_secs(secs.ceil() as u64),
        };
        out.names
            .clients
            .insert(service_identity, ClientRules { prefix: service.config.ip_prefix, ttl });
        // What has no address of a family cannot be sent packets of it: all its backends or none.
        let in_xdp = |frontend: &Frontend| {
            let serves = |b: &DesiredBackend| match frontend.addr {
                IpAddr::V4(_) => b.ifindex_v4 != 0,
                IpAddr::V6(_) => b.ifindex_v6 != 0,
            };
            backends.iter().all(serves)
        };
        let (packets, relayed): (Vec<_>, Vec<_>) =
            resolved.frontends.iter().partition(|(frontend, _)| in_xdp(frontend));
        out.relayed.extend(relayed.iter().map(|(frontend, _)| *frontend));
        out.desired.services.push(DesiredService {
            identity: service_identity,
            ttl,
            prefix: service.config.ip_prefix,
            interval: service.config.rate.map_or(0, |rate| NANOS / rate.max(1)),
            rules: rules::verdicts(&service.config.allow, &service.config.deny),
            backends,
            frontends: packets
                .iter()
                .map(|(f, target)| (FrontendKey::of(f), target.to_be_bytes()))
                .collect(),
        });
    }
    out
}

fn desired_backend(backend: &Backend, weight: u32, key: HashKey) -> DesiredBackend {
    DesiredBackend {
        identity: identity(&backend.id),
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

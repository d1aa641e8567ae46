//! From a snapshot to what the maps should say.

use std::collections::HashMap;
use std::net::IpAddr;

use sticky_common::hash::HashKey;
use sticky_common::maglev;
use sticky_common::types::{Backend as MapBackend, FrontendKeyV4, tick};

use super::frontends::Resolved;
use super::plan::{Desired, DesiredBackend, DesiredService};
use super::{ClientRules, Names, Reach};
use crate::model::{Backend, LabelError, Service, State};

/// Identities in the maps outlive a change of the cluster's key, so they are hashed with none.
const IDENTITY_KEY: HashKey = HashKey { k0: 0, k1: 0 };

/// The identity of a service or backend in the maps.
#[must_use]
pub fn identity(id: &str) -> u64 {
    // 0 means "none" there.
    maglev::identity(IDENTITY_KEY, id.as_bytes()).max(1)
}

/// What the maps should say, what its numbers stand for, and what cannot be served, by position of the service.
pub struct Wanted {
    pub desired: Desired,
    pub names: Names,
    pub errors: HashMap<usize, Vec<LabelError>>,
}

/// Backends that the data path can use, with the address it uses.
pub fn addresses(services: &[Service]) -> Vec<IpAddr> {
    services
        .iter()
        .filter(|s| s.config.ip_hash)
        .flat_map(|s| &s.backends)
        .filter_map(local_v4)
        .collect()
}

fn local_v4(backend: &Backend) -> Option<IpAddr> {
    backend
        .addr
        .map(|a| a.ip())
        .filter(|ip| ip.is_ipv4() && backend.layer4 && backend.state.alive())
}

/// Puts together what the maps should say.
#[must_use]
pub fn wanted(
    services: &[Service],
    resolved: &[Resolved],
    reach: &HashMap<IpAddr, Reach>,
    key: HashKey,
) -> Wanted {
    let mut out =
        Wanted { desired: Desired::default(), names: Names::default(), errors: HashMap::new() };
    for (at, (service, resolved)) in services.iter().zip(resolved).enumerate() {
        if !service.config.ip_hash {
            continue;
        }
        let service_identity = identity(&service.id);
        out.names.services.insert(service_identity, service.id.clone());
        let mut backends = Vec::new();
        for backend in &service.backends {
            let Some(addr) = local_v4(backend) else { continue };
            match reach.get(&addr) {
                Some(Reach::Device(ifindex)) => {
                    let wanted = desired_backend(backend, addr, *ifindex, key);
                    out.names.backends.insert(wanted.identity, backend.id.clone());
                    backends.push(wanted);
                }
                Some(Reach::Not(why)) => {
                    out.errors.entry(at).or_default().push(unreachable(backend, why))
                }
                None => {}
            }
        }
        let ttl = match service.config.affinity_ttl.as_secs_f64() {
            0.0 => 0,
            secs => tick::from_secs(secs.ceil() as u64),
        };
        let mask = mask(service.config.ip_prefix.v4);
        out.names
            .clients
            .insert(service_identity, ClientRules { prefix: service.config.ip_prefix, ttl });
        out.desired.services.push(DesiredService {
            identity: service_identity,
            ttl,
            mask,
            backends,
            frontends: resolved
                .frontends
                .iter()
                .filter_map(|(f, target)| Some((key_v4(f)?, target.to_be_bytes())))
                .collect(),
        });
    }
    out
}

fn desired_backend(backend: &Backend, addr: IpAddr, ifindex: u32, key: HashKey) -> DesiredBackend {
    let mut bytes = [0; 16];
    match addr {
        IpAddr::V4(v4) => bytes[..4].copy_from_slice(&v4.octets()),
        IpAddr::V6(v6) => bytes = v6.octets(),
    }
    DesiredBackend {
        identity: identity(&backend.id),
        member: maglev::identity(key, backend.id.as_bytes()),
        addr: bytes,
        ifindex,
        flags: MapBackend::ALIVE | if backend.state.keeps() { MapBackend::KEEPS } else { 0 },
        weight: if backend.state == State::Up { backend.weight } else { 0 },
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

fn key_v4(frontend: &crate::model::Frontend) -> Option<FrontendKeyV4> {
    match frontend.addr {
        IpAddr::V4(v4) => Some(FrontendKeyV4 {
            addr: v4.octets(),
            port: frontend.port.to_be_bytes(),
            proto: frontend.proto.number(),
            zero: 0,
        }),
        IpAddr::V6(_) => None,
    }
}

/// The mask of a prefix length, in network order.
#[must_use]
pub fn mask(prefix: u8) -> [u8; 4] {
    u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks() {
        assert_eq!(mask(32), [255; 4]);
        assert_eq!(mask(24), [255, 255, 255, 0]);
        assert_eq!(mask(0), [0; 4]);
    }

    #[test]
    fn identities_are_never_none() {
        assert_ne!(identity(""), 0);
        assert_ne!(identity("a"), identity("b"));
    }
}

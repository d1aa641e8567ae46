//! What user space writes into the maps.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use sticky::control::plan::{FrontendKey, Rule};
use sticky::model;
use sticky_common::types::{Backend, BackendId, Frontend, Slot, addr};

use super::places::{BACKENDS, FAMILIES, Family, NARROW, PORT, Proto, SECOND, TARGET};
use crate::rig::{TABLE_SIZE, UP};

/// The service of all frontends.
pub const SERVICE: u32 = 7;
/// What the maps say, of user space's part.
#[derive(Clone)]
pub struct Maps {
    pub slots: Arc<[Slot]>,
    pub backends: Vec<Backend>,
    pub frontends: HashMap<FrontendKey, Frontend>,
    pub rules: Vec<(u32, Vec<Rule>)>,
}

impl Default for Maps {
    fn default() -> Self {
        let mut frontends = HashMap::new();
        for family in FAMILIES {
            for (vip, port) in
                [(family.vip(), PORT), (family.vip(), SECOND), (family.second_vip(), PORT)]
            {
                for proto in [Proto::Tcp, Proto::Udp] {
                    frontends.insert(key(SocketAddr::new(vip, port), proto), frontend(family));
                }
            }
        }
        let backends = BACKENDS.into_iter().chain([NARROW]).map(|i| backend(i, UP)).collect();
        Self { slots: everywhere(BACKENDS[0], false), backends, frontends, rules: Vec::new() }
    }
}

impl Maps {
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Every slot leads to this backend.
    pub fn to(self, index: u32, unsettled: bool) -> Self {
        self.with(|m| m.slots = everywhere(index, unsettled))
    }

    /// No backend is up, since before the tick from which packets are refused if `refused`.
    pub fn nobody_up(self, refused: bool) -> Self {
        self.with(|m| m.slots = vec![Slot::EMPTY; TABLE_SIZE as usize].into()).each(|f| {
            f.refuse_at = if refused { 1 } else { u32::MAX };
        })
    }

    pub fn state(self, index: u32, flags: u32) -> Self {
        self.with(|m| {
            let backend = m.backends.iter_mut().find(|b| BackendId(b.id).index() == index);
            backend.unwrap().flags = flags;
        })
    }

    pub fn each(self, change: impl Fn(&mut Frontend)) -> Self {
        self.with(|m| m.frontends.values_mut().for_each(change))
    }
}

pub fn everywhere(index: u32, unsettled: bool) -> Arc<[Slot]> {
    vec![Slot::new(index, unsettled); TABLE_SIZE as usize].into()
}

pub fn key(at: SocketAddr, proto: Proto) -> FrontendKey {
    let proto = match proto {
        Proto::Tcp => model::Proto::Tcp,
        Proto::Udp => model::Proto::Udp,
    };
    FrontendKey::of(&model::Frontend { addr: at.ip(), port: at.port(), proto })
}

fn frontend(family: Family) -> Frontend {
    Frontend {
        service: SERVICE,
        ttl: 1000,
        rules: 0,
        interval: 0,
        refuse_at: 0,
        port: TARGET.to_be_bytes(),
        prefix: if family == Family::V4 { 128 } else { 64 },
        zero: 0,
    }
}

fn backend(index: u32, flags: u32) -> Backend {
    let (IpAddr::V4(v4), IpAddr::V6(v6)) = (Family::V4.backend(index), Family::V6.backend(index))
    else {
        panic!("each family gives its own")
    };
    Backend {
        v6: addr::from_bytes(v6.octets()),
        v4: v4.octets(),
        // Set at load, when the interfaces are there.
        ifindex_v4: 0,
        ifindex_v6: 0,
        id: BackendId::new(index, 1).0,
        flags,
        service: SERVICE,
    }
}

/// An address as the maps have it.
pub fn mapped(addr: IpAddr) -> sticky_common::types::Addr {
    match addr {
        IpAddr::V4(v4) => addr::mapped(v4.octets()),
        IpAddr::V6(v6) => addr::from_bytes(v6.octets()),
    }
}

//! The backends of one service, and their table.

use std::collections::HashMap;

use sticky_common::hash::{self, HashKey};
use sticky_common::maglev::{self, Cursor, Member};
use sticky_common::types::{Backend, BackendId, Slot, tick};

use crate::model::{self, IpPrefix, Service};

/// A service's table, with identities that stay while a backend is there.
pub(super) struct Members {
    number: u32,
    prefix: IpPrefix,
    ttl: u32,
    slots: Vec<Slot>,
    /// By index; `None` is free for the next backend.
    places: Vec<Place>,
}

struct Place {
    generation: u32,
    member: Option<(String, Backend)>,
}

impl Members {
    pub(super) fn build(
        service: &Service,
        number: u32,
        previous: Option<&Self>,
        key: HashKey,
        table_size: u32,
    ) -> Self {
        let mut places = place(&service.backends, previous);
        let mut members = Vec::with_capacity(service.backends.len());
        // The table of layer 4, to give its answers (P6); without any such backend, those that only a proxy reaches.
        let layer4 = service.backends.iter().any(|b| b.layer4 && b.state.takes_new());
        for (at, place) in places.iter_mut().enumerate() {
            let Some((id, backend)) = &mut place.member else { continue };
            let index = u32::try_from(at).expect("far fewer backends than 2^20");
            backend.id = BackendId::new(index, place.generation).0;
            let Some(found) = service.backends.iter().find(|b| b.id == *id) else { continue };
            backend.flags = flags(found.state);
            if found.state.takes_new() && found.addr.is_some() && found.layer4 >= layer4 {
                let identity = maglev::identity(key, id.as_bytes());
                members.push(Member { identity, weight: found.weight, index });
            }
        }
        members.sort_by_key(|member| member.identity);
        let mut slots = vec![Slot::EMPTY; table_size as usize];
        maglev::fill(&members, &mut vec![Cursor::default(); members.len()], &mut slots);
        let ttl = service.config.affinity_ttl;
        Self {
            number,
            prefix: service.config.ip_prefix,
            ttl: if ttl.is_zero() { 0 } else { tick::from_secs(ttl.as_secs()) },
            slots,
            places,
        }
    }

    pub(super) const fn number(&self) -> u32 {
        self.number
    }

    pub(super) const fn prefix(&self) -> IpPrefix {
        self.prefix
    }

    pub(super) const fn ttl(&self) -> u32 {
        self.ttl
    }

    pub(super) fn slot(&self, hash: u64) -> Slot {
        let size = u32::try_from(self.slots.len()).expect("made from a u32");
        self.slots.get(hash::slot(hash, size) as usize).copied().unwrap_or(Slot::EMPTY)
    }

    pub(super) fn backend(&self, index: u32) -> Option<&Backend> {
        self.places.get(index as usize)?.member.as_ref().map(|(_, backend)| backend)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.iter().all(|place| place.member.is_none())
    }

    pub(super) fn name(&self, index: u32) -> Option<&str> {
        self.places.get(index as usize)?.member.as_ref().map(|(id, _)| id.as_str())
    }
}

/// Each backend at the index it had, new ones at free indices in another generation.
fn place(backends: &[model::Backend], previous: Option<&Members>) -> Vec<Place> {
    let blank = Backend::default();
    let mut wanted: HashMap<&str, ()> = backends.iter().map(|b| (b.id.as_str(), ())).collect();
    let mut places: Vec<Place> = Vec::with_capacity(backends.len());
    for old in previous.map(|p| p.places.as_slice()).unwrap_or_default() {
        let member = old
            .member
            .as_ref()
            .filter(|(id, _)| wanted.remove(id.as_str()).is_some())
            .map(|(id, _)| (id.clone(), blank));
        places.push(Place { generation: old.generation, member });
    }
    let mut free = 0;
    // In the snapshot's order, so that the same history gives the same indices.
    for backend in backends.iter().filter(|b| wanted.contains_key(b.id.as_str())) {
        while places.get(free).is_some_and(|place| place.member.is_some()) {
            free += 1;
        }
        let member = Some((backend.id.clone(), blank));
        match places.get_mut(free) {
            Some(place) => {
                place.generation = place.generation % BackendId::MAX_GENERATION + 1;
                place.member = member;
            }
            None => places.push(Place { generation: 1, member }),
        }
    }
    places
}

fn flags(state: model::State) -> u32 {
    let alive = if state.alive() { Backend::ALIVE } else { 0 };
    let keeps = if state.keeps() { Backend::KEEPS } else { 0 };
    alive | keeps
}

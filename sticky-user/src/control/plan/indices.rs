//! Which indices of the maps are free.

use std::collections::{BTreeMap, HashSet};

use sticky_common::maps::{MAX_BACKENDS, MAX_SERVICES};
use sticky_common::types::{BackendId, tick};

use super::{Full, Loaded};

/// Ticks until an index can be used again: packets that read the old table must be gone.
const COOLING: u32 = tick::from_secs(2);

/// Free indices of the maps.
pub(super) struct Indices {
    services: HashSet<u32>,
    /// By index.
    backends: Vec<bool>,
    cooling: HashSet<u32>,
    next_service: u32,
    next_backend: u32,
}

impl Indices {
    pub(super) fn of(loaded: &Loaded, now: u32) -> Self {
        let mut backends = vec![false; MAX_BACKENDS as usize];
        for backend in loaded.services.values().flat_map(|s| s.backends.values()) {
            if let Some(used) = backends.get_mut(BackendId(backend.id).index() as usize) {
                *used = true;
            }
        }
        Self {
            services: loaded.services.values().map(|s| s.index).collect(),
            backends,
            cooling: loaded
                .retired
                .iter()
                .filter(|(_, (_, end))| tick::since(now, *end) < COOLING)
                .map(|(index, _)| *index)
                .collect(),
            next_service: 0,
            next_backend: 0,
        }
    }

    pub(super) fn service(&mut self) -> Result<u32, Full> {
        let limit = MAX_SERVICES - 1;
        let index = (self.next_service..limit)
            .find(|i| !self.services.contains(i))
            .ok_or(Full { what: "services", limit })?;
        self.next_service = index + 1;
        Ok(index)
    }

    pub(super) fn backend(
        &mut self,
        retired: &mut BTreeMap<u32, (u32, u32)>,
    ) -> Result<BackendId, Full> {
        let used = |i: u32| self.backends.get(i as usize).is_none_or(|used| *used);
        let free = |i: &u32| !used(*i) && !self.cooling.contains(i);
        let index = (self.next_backend..MAX_BACKENDS)
            .find(free)
            .ok_or(Full { what: "backends", limit: MAX_BACKENDS })?;
        self.next_backend = index + 1;
        let generation =
            retired.remove(&index).map_or(1, |(last, _)| last % BackendId::MAX_GENERATION + 1);
        Ok(BackendId::new(index, generation))
    }
}

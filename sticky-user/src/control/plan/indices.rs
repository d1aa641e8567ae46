//! Which indices of the maps are free.

use std::collections::HashSet;

use sticky_common::maps::{MAX_BACKENDS, MAX_SERVICES};
use sticky_common::types::{BackendId, tick};

use super::{Full, Loaded};

/// Ticks until an index can be used again: packets that read the old table must be gone.
const COOLING: u32 = tick::from_secs(2);

/// Free indices of the maps, lowest first.
pub(super) struct Indices<'a> {
    loaded: &'a Loaded,
    now: u32,
    /// Those in use; looked for when the first service is new.
    services: Option<HashSet<u32>>,
    next_service: u32,
}

impl<'a> Indices<'a> {
    pub(super) const fn of(loaded: &'a Loaded, now: u32) -> Self {
        Self { loaded, now, services: None, next_service: 0 }
    }

    pub(super) fn service(&mut self) -> Result<u32, Full> {
        let limit = MAX_SERVICES - 1;
        let used = || self.loaded.services.values().map(|service| service.index).collect();
        let used = self.services.get_or_insert_with(used);
        let index = (self.next_service..limit)
            .find(|index| !used.contains(index))
            .ok_or(Full { what: "services", limit })?;
        self.next_service = index + 1;
        Ok(index)
    }

    /// Takes one for a backend from what is loaded `next`.
    pub(super) fn backend(&self, next: &mut Loaded) -> Result<BackendId, Full> {
        let cool = |end: u32| tick::since(self.now, end) >= COOLING;
        let again = next.retired.iter().find(|(_, (_, end))| cool(*end));
        if let Some((&index, &(last, _))) = again {
            next.retired.remove(&index);
            return Ok(BackendId::new(index, last % BackendId::MAX_GENERATION + 1));
        }
        let index = next.unused;
        if index >= MAX_BACKENDS {
            return Err(Full { what: "backends", limit: MAX_BACKENDS });
        }
        next.unused += 1;
        Ok(BackendId::new(index, 1))
    }
}

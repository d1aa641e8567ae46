//! How many slots each backend has.

use std::collections::HashMap;

use sticky_common::types::BackendId;

use super::desired::identity;
use super::plan::LoadedService;
use crate::model::Service;

/// Slots by backend id.
pub(super) fn count(service: &Service, loaded: &LoadedService) -> HashMap<String, u32> {
    let mut counts: Vec<u32> = Vec::new();
    for index in loaded.slots.iter().filter_map(|slot| slot.index()) {
        let at = index as usize;
        if counts.len() <= at {
            counts.resize(at + 1, 0);
        }
        counts[at] += 1;
    }
    let count = |id: &str| {
        let backend = loaded.backends.get(&identity(id))?;
        counts.get(BackendId(backend.id).index() as usize).copied()
    };
    service.backends.iter().map(|b| (b.id.clone(), count(&b.id).unwrap_or(0))).collect()
}

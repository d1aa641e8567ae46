//! How many slots each backend has.

use std::collections::HashMap;

use sticky_common::types::BackendId;

use super::desired::identity;
use super::plan::LoadedService;
use crate::model::Service;

/// Slots by backend id.
pub(super) fn of(service: &Service, loaded: &LoadedService) -> HashMap<String, u32> {
    let slots = |id: &str| {
        let index = BackendId(loaded.backends.get(&identity(id))?.id).index();
        let at = loaded.shares.binary_search_by_key(&index, |(backend, _)| *backend).ok()?;
        loaded.shares.get(at).map(|(_, slots)| *slots)
    };
    service.backends.iter().map(|b| (b.id.clone(), slots(&b.id).unwrap_or(0))).collect()
}

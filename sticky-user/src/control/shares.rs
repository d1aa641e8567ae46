//! How many slots each backend has. A table is counted once, and again only when another one is in its place.

use std::collections::HashMap;
use std::sync::Arc;

use sticky_common::types::{BackendId, Slot};

use super::desired::identity;
use super::plan::{Loaded, LoadedService};
use crate::model::Service;

/// What was counted last, by the identity of the service.
#[derive(Default)]
pub(super) struct Shares(HashMap<u64, Counted>);

struct Counted {
    service: Arc<Service>,
    slots: Arc<[Slot]>,
    by_backend: Arc<HashMap<String, u32>>,
}

impl Shares {
    /// Slots by backend id, of each of these services.
    pub(super) fn of(
        &mut self,
        services: &[Arc<Service>],
        loaded: &Loaded,
    ) -> Vec<Arc<HashMap<String, u32>>> {
        let mut before = std::mem::take(&mut self.0);
        let mut of = |service: &Arc<Service>| {
            let identity = identity(&service.id);
            let Some(loaded) = loaded.services.get(&identity) else { return Arc::default() };
            let counted = match before.remove(&identity) {
                Some(same) if same.is_of(service, loaded) => {
                    Counted { service: Arc::clone(service), ..same }
                }
                _ => Counted::new(service, loaded),
            };
            let by_backend = Arc::clone(&counted.by_backend);
            self.0.insert(identity, counted);
            by_backend
        };
        services.iter().map(&mut of).collect()
    }
}

impl Counted {
    fn new(service: &Arc<Service>, loaded: &LoadedService) -> Self {
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
        let backends = service.backends.iter();
        let by_backend = backends.map(|b| (b.id.clone(), count(&b.id).unwrap_or(0))).collect();
        Self {
            service: Arc::clone(service),
            slots: Arc::clone(&loaded.slots),
            by_backend: Arc::new(by_backend),
        }
    }

    /// Whether it would be counted the same.
    fn is_of(&self, service: &Arc<Service>, loaded: &LoadedService) -> bool {
        let has_all = || {
            self.by_backend.len() == service.backends.len()
                && service.backends.iter().all(|backend| self.by_backend.contains_key(&backend.id))
        };
        Arc::ptr_eq(&self.slots, &loaded.slots)
            && (Arc::ptr_eq(&self.service, service) || has_all())
    }
}

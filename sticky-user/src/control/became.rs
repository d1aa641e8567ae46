//! What is in force of each service. What follows from the same part with the same in the maps is the same.

use std::sync::Arc;

use super::desired::Part;
use super::frontends::Resolved;
use super::in_order::InOrder;
use super::plan::{Loaded, LoadedService};
use super::{FrontendInForce, InForceService, Path, shares};
use crate::model::Service;
use crate::parallel;

/// What became of all services, last.
#[derive(Default)]
pub(super) struct All(Vec<Became>);

/// What is in force of a service, and what that followed from.
struct Became {
    part: Arc<Part>,
    loaded: Option<Arc<LoadedService>>,
    in_force: Arc<InForceService>,
}

impl All {
    /// What becomes of these services.
    pub(super) fn of(
        &mut self,
        services: &[Arc<Service>],
        resolved: &[Resolved],
        parts: &[Arc<Part>],
        loaded: &Loaded,
    ) -> Vec<Arc<InForceService>> {
        let before = std::mem::take(&mut self.0);
        let (mut before, mut parts) = (InOrder::new(&before), InOrder::new(parts));
        let all: Vec<_> = services
            .iter()
            .zip(resolved)
            .map(|(service, resolved)| {
                let part = parts.find(|part| part.belongs_to(service));
                let loaded = part.and_then(|part| loaded.services.get(&part.identity()));
                let same = part.and_then(|part| {
                    let before = before.find(|before| before.part.belongs_to(service))?;
                    let loaded_before = before.loaded.as_ref().map(Arc::as_ptr);
                    let same =
                        Arc::ptr_eq(part, &before.part) && loaded.map(Arc::as_ptr) == loaded_before;
                    same.then_some(before)
                });
                (service, resolved, part, loaded, same.map(|same| Arc::clone(&same.in_force)))
            })
            .collect();
        let others: Vec<_> = all.iter().filter(|(.., same)| same.is_none()).collect();
        let made = parallel::map(&others, |(service, resolved, part, loaded, _)| {
            let (part, loaded) = (part.map(Arc::as_ref), loaded.map(Arc::as_ref));
            Arc::new(in_force(service, resolved, part, loaded))
        });
        let mut made = made.into_iter();
        let in_force = all.iter().map(|(_, _, part, loaded, same)| {
            let in_force = same
                .clone()
                .or_else(|| made.next())
                .expect("as many were made as there are that are not the same");
            if let Some(part) = part {
                let (part, loaded) = (Arc::clone(part), loaded.cloned());
                self.0.push(Became { part, loaded, in_force: Arc::clone(&in_force) });
            }
            in_force
        });
        in_force.collect()
    }
}

fn in_force(
    service: &Service,
    resolved: &Resolved,
    part: Option<&Part>,
    loaded: Option<&LoadedService>,
) -> InForceService {
    let mut errors = resolved.errors.clone();
    errors.extend(part.into_iter().flat_map(|part| part.errors.iter().cloned()));
    let relayed = |frontend: &_| part.is_some_and(|part| part.relayed.contains(frontend));
    let frontends = resolved.frontends.iter().map(|&(frontend, target)| FrontendInForce {
        frontend,
        target,
        path: if relayed(&frontend) { Path::Relay } else { Path::Xdp },
    });
    InForceService {
        id: service.id.clone(),
        frontends: frontends.collect(),
        slots: loaded.map(|loaded| shares::count(service, loaded)).unwrap_or_default(),
        errors,
        loaded: loaded.is_some_and(|loaded| loaded.wanted.is_some() && !loaded.backends.is_empty()),
    }
}

//! What is in force of each service. What follows from the same part with the same in the maps is the same.

use std::sync::Arc;

use super::desired::Part;
use super::frontends::Resolved;
use super::in_order::InOrder;
use super::parts::{Changed, Parts};
use super::plan::{Loaded, LoadedService};
use super::{FrontendInForce, InForceService, Path, shares};
use crate::model::Service;
use crate::parallel;

/// What became of all services, last, in their order.
#[derive(Default)]
pub(super) struct All(Vec<Became>);

/// What is in force of a service, and what that followed from.
#[derive(Clone)]
struct Became {
    part: Option<Arc<Part>>,
    loaded: Option<Arc<LoadedService>>,
    in_force: Arc<InForceService>,
}

/// What the state of a service follows from.
struct Source<'a> {
    service: &'a Service,
    resolved: &'a Resolved,
    part: Option<&'a Arc<Part>>,
    loaded: Option<&'a Arc<LoadedService>>,
}

/// All that is known now.
#[derive(Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) services: &'a [Arc<Service>],
    pub(super) resolved: &'a [Resolved],
    pub(super) parts: &'a Parts,
    pub(super) loaded: &'a Loaded,
}

impl<'a> Known<'a> {
    fn of(&self, place: usize) -> Option<Source<'a>> {
        let (service, resolved) = (self.services.get(place)?, self.resolved.get(place)?);
        // Where the data path could not even be looked at, the parts are still in the order of other services.
        let part = self.parts.get(place).filter(|part| part.belongs_to(service));
        let loaded = part.and_then(|part| self.loaded.services.get(&part.identity()));
        Some(Source { service, resolved, part, loaded })
    }
}

impl All {
    /// What becomes of all that is known, of which this changed.
    pub(super) fn of(&mut self, known: Known<'_>, changed: &Changed) -> Vec<Arc<InForceService>> {
        match changed {
            Changed::All => self.0 = self.anew(known),
            Changed::Only(places) => {
                for place in places {
                    if let (Some(became), Some(source)) = (self.0.get_mut(*place), known.of(*place))
                    {
                        *became = source.becomes();
                    }
                }
            }
        }
        self.0.iter().map(|became| Arc::clone(&became.in_force)).collect()
    }

    fn anew(&self, known: Known<'_>) -> Vec<Became> {
        let mut before = InOrder::new(&self.0);
        let sources = (0..known.services.len()).filter_map(|place| known.of(place));
        let sources: Vec<_> = sources
            .map(|source| {
                let before = before.find(|before| before.in_force.id == source.service.id);
                (before.filter(|before| source.gave(before)), source)
            })
            .collect();
        parallel::map(&sources, |(same, source)| match same {
            Some(same) => Became::clone(same),
            None => source.becomes(),
        })
    }
}

impl Source<'_> {
    /// Whether this followed from it.
    fn gave(&self, became: &Became) -> bool {
        let loaded = [self.loaded, became.loaded.as_ref()].map(|loaded| loaded.map(Arc::as_ptr));
        let same = |part: &Arc<Part>| became.part.as_ref().is_some_and(|b| Arc::ptr_eq(b, part));
        loaded[0] == loaded[1] && self.part.is_some_and(same)
    }

    fn becomes(&self) -> Became {
        Became {
            part: self.part.cloned(),
            loaded: self.loaded.cloned(),
            in_force: Arc::new(self.in_force()),
        }
    }

    fn in_force(&self) -> InForceService {
        let Self { service, resolved, part, loaded } = self;
        let mut errors = resolved.errors.clone();
        errors.extend(part.iter().flat_map(|part| part.errors.iter().cloned()));
        let relayed = |frontend: &_| part.is_some_and(|part| part.relayed.contains(frontend));
        let frontends = resolved.frontends.iter().map(|&(frontend, target)| FrontendInForce {
            frontend,
            target,
            path: if relayed(&frontend) { Path::Relay } else { Path::Xdp },
        });
        let has_backends =
            |loaded: &&Arc<LoadedService>| loaded.wanted.is_some() && !loaded.backends.is_empty();
        InForceService {
            id: service.id.clone(),
            frontends: frontends.collect(),
            slots: loaded.map(|loaded| shares::of(service, loaded)).unwrap_or_default(),
            errors,
            loaded: loaded.as_ref().is_some_and(has_backends),
        }
    }
}

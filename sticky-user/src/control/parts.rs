//! What should be in force of each service, made anew only where it may be other than before.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::Moved;
use super::desired::{self, Part};
use super::frontends::Resolved;
use super::in_order::InOrder;
use super::plan::DesiredService;
use crate::model::{self, Service};

/// The services' parts, in the order of the services.
#[derive(Default)]
pub(super) struct Parts {
    /// What they were made of.
    services: Vec<Arc<Service>>,
    resolved: Arc<Vec<Resolved>>,
    /// `None`: it could not be made.
    parts: Vec<Option<Arc<Part>>>,
    /// The places of those that may be other although what they were made of is the same.
    restless: BTreeSet<usize>,
    /// Addresses that may be elsewhere than these say.
    moved: Moved,
    /// The services were in their places when it was last asked what is to be made anew.
    lined_up: bool,
}

/// What is other than it was.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Changed {
    /// More than backends, or services are not in the places that they were in.
    All,
    /// Services in these places.
    Only(Vec<usize>),
}

impl Changed {
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Only(places) if places.is_empty())
    }

    /// The places, of so many.
    pub(super) fn places(&self, count: usize) -> Vec<usize> {
        match self {
            Self::All => (0..count).collect(),
            Self::Only(places) => places.clone(),
        }
    }
}

impl Parts {
    /// These addresses may be elsewhere; so until parts were made since.
    pub(super) fn moved(&mut self, moved: Moved) {
        self.moved.and(moved);
    }

    /// The places of these services whose parts are to be made anew.
    pub(super) fn again(
        &mut self,
        services: &[Arc<Service>],
        resolved: &Arc<Vec<Resolved>>,
    ) -> Vec<usize> {
        self.lined_up = model::in_place(&self.services, services);
        if !self.lined_up {
            self.line_up(services);
        }
        // Most parts need not even be looked at.
        let alike = Arc::ptr_eq(&self.resolved, resolved) && self.moved.is_nothing();
        let known = self.services.iter().zip(&self.parts);
        let all = services.iter().zip(&**resolved).zip(known).enumerate();
        let suspects = all.filter(|(place, ((service, _), (known, part)))| {
            let same = alike && part.is_some() && Arc::ptr_eq(service, known);
            !same || self.restless.contains(place)
        });
        let other = suspects.filter(|(_, ((service, resolved), (_, part)))| {
            let is = |part: &Arc<Part>| part.is_of(service, resolved);
            !part.as_ref().is_some_and(is) || self.moved.touches(desired::addresses(service))
        });
        other.map(|(place, _)| place).collect()
    }

    /// Takes in what was made of the services in the places that are to be made anew. Says what is other than it was.
    pub(super) fn put(
        &mut self,
        services: &[Arc<Service>],
        resolved: &Arc<Vec<Resolved>>,
        made: Vec<(usize, Part)>,
    ) -> Changed {
        let (mut other, mut alike) = (Vec::new(), self.lined_up);
        for (place, made) in made {
            let Some(part) = self.parts.get_mut(place) else { continue };
            let before = part.take();
            let made = match &before {
                Some(before) => made.after(before),
                None => Arc::new(made),
            };
            match made.restless {
                true => self.restless.insert(place),
                false => self.restless.remove(&place),
            };
            alike &= before.as_ref().is_some_and(|before| before.serves_as(&made));
            if before.is_none_or(|before| !Arc::ptr_eq(&before, &made)) {
                other.push(place);
            }
            *part = Some(made);
        }
        model::take_over(&mut self.services, services);
        self.resolved = Arc::clone(resolved);
        self.moved = Moved::default();
        if alike { Changed::Only(other) } else { Changed::All }
    }

    /// What should be in the maps.
    pub(super) fn desired(&self, changed: &Changed) -> Vec<Arc<DesiredService>> {
        let desired = |part: &Arc<Part>| part.desired.clone();
        match changed {
            Changed::All => self.parts.iter().flatten().filter_map(desired).collect(),
            Changed::Only(places) => {
                places.iter().filter_map(|place| self.get(*place)).filter_map(desired).collect()
            }
        }
    }

    /// That of the service in this place; none where nothing is made of services.
    pub(super) fn get(&self, place: usize) -> Option<&Arc<Part>> {
        self.parts.get(place)?.as_ref()
    }

    /// Puts the parts in the order of these services.
    fn line_up(&mut self, services: &[Arc<Service>]) {
        let before: Vec<_> = std::mem::take(&mut self.parts).into_iter().flatten().collect();
        let mut before = InOrder::new(&before);
        self.services.clear();
        self.restless.clear();
        for (place, service) in services.iter().enumerate() {
            let part = before.find(|part| part.belongs_to(service)).cloned();
            let made_of = part.as_ref().map_or(service, |part| &part.service);
            self.services.push(Arc::clone(made_of));
            if part.as_ref().is_some_and(|part| part.restless) {
                self.restless.insert(place);
            }
            self.parts.push(part);
        }
    }
}

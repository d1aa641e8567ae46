//! The loop: waits for a change of what was found or of this node's addresses and links, commits it, says so.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use sticky_common::hash::HashKey;
use sticky_common::types::tick;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::became::{All, Known};
use super::counted::Counted;
use super::desired::{self, Part, identity};
use super::frontends::{Frontends, Occupied, Resolved};
use super::in_order::InOrder;
use super::parts::{Changed, Parts};
use super::plan::{self, Build, Loaded, Plan, Wanted};
use super::settle::Survey;
use super::warming::Warming;
use super::{InForce, InForceService};
use crate::model::{Service, Snapshot};
use crate::provider::Found;

/// How often hooks are looked after, and failed commits tried again, when nothing changes.
const UPKEEP: Duration = Duration::from_secs(5);

/// How often the client records are looked through for slots that can settle.
const SURVEY: Duration = Duration::from_secs(60);

/// What the loop works with.
pub struct Inputs {
    pub found: watch::Receiver<Arc<Found>>,
    pub vips: watch::Receiver<Vec<IpAddr>>,
    /// Counts the changes of this host's links.
    pub links: watch::Receiver<u64>,
    pub occupied: Box<dyn Occupied + Send>,
    pub hash_key: HashKey,
    /// `None`: layer 7 only.
    pub data_path: Option<Box<dyn super::DataPath>>,
}

/// Runs until the sender of what was found is gone. Blocks in system calls: give it a thread of its own, outside of any
/// runtime; `runtime` only serves to wait.
pub fn run(mut inputs: Inputs, publish: &watch::Sender<Option<Arc<InForce>>>, runtime: &Runtime) {
    let loaded = match inputs.data_path.as_mut().map(|d| d.loaded()).transpose() {
        Ok(loaded) => loaded.unwrap_or_default(),
        Err(e) => {
            error!(error = %e, "cannot read what is loaded; starting from nothing");
            Loaded::default()
        }
    };
    let mut reconciler = Reconciler::new(loaded);
    let mut found = inputs.found.borrow_and_update().clone();
    let mut surveyed = Instant::now();
    let mut event_at = found.event_at;
    loop {
        if let Some(in_force) = reconciler.step(&mut inputs, &found, event_at) {
            publish.send_replace(Some(Arc::new(in_force)));
        }
        if surveyed.elapsed() >= SURVEY {
            reconciler.settle(&mut inputs);
            surveyed = Instant::now();
        }
        let step = reconciler.warming.next_step(&found.snapshot.services, Instant::now());
        let pause = step.unwrap_or(UPKEEP).min(UPKEEP);
        let waiting = async {
            tokio::select! {
                changed = inputs.found.changed() => changed,
                changed = inputs.vips.changed() => changed,
                changed = inputs.links.changed() => changed,
                () = tokio::time::sleep(pause) => Ok(()),
            }
        };
        if runtime.block_on(waiting).is_err() {
            return;
        }
        let next = inputs.found.borrow_and_update().clone();
        // What this host changed itself, such as an address, is seen now.
        event_at = if Arc::ptr_eq(&found, &next) { Instant::now() } else { next.event_at };
        found = next;
        inputs.vips.mark_unchanged();
        inputs.links.mark_unchanged();
    }
}

/// What the last commit was made from.
#[derive(PartialEq)]
struct Basis {
    snapshot: Arc<Snapshot>,
    services: Vec<Arc<InForceService>>,
}

struct Reconciler {
    loaded: Loaded,
    generation: u64,
    counted: Counted,
    last: Option<Basis>,
    /// Problems of this node that were already told.
    errors: HashSet<(String, String)>,
    warming: Warming,
    frontends: Frontends,
    parts: Parts,
    /// What became of each of them.
    became: All,
    /// What the last plan followed from; from the same and the same parts follows that nothing is to be done. `None`: it is
    /// still to be carried out.
    planned: Option<Arc<Snapshot>>,
}

impl Reconciler {
    fn new(loaded: Loaded) -> Self {
        Self {
            loaded,
            generation: 0,
            counted: Counted::default(),
            last: None,
            errors: HashSet::new(),
            warming: Warming::default(),
            frontends: Frontends::default(),
            parts: Parts::default(),
            became: All::default(),
            planned: None,
        }
    }

    /// Commits what changed. `None`: nothing did.
    fn step(&mut self, inputs: &mut Inputs, found: &Found, event_at: Instant) -> Option<InForce> {
        let services = &found.snapshot.services;
        let vips = inputs.vips.borrow().clone();
        let resolved = match &inputs.data_path {
            Some(_) => self.frontends.of(services, &vips, &*inputs.occupied, Instant::now()),
            None => Arc::new(vec![Resolved::default(); services.len()]),
        };
        // A refused change leaves layer 4 as it is; layer 7 goes on with what was found.
        let committed = self.commit(inputs, found, &resolved).unwrap_or_else(|e| {
            error!(error = %e, "the data path refused a change; layer 4 stays as it is, the next try is in {} s", UPKEEP.as_secs());
            Some((Plan::default(), self.loaded.clone(), Changed::All))
        });
        let (plan, after, changed) = committed?;
        let took = event_at.elapsed();
        let before = std::mem::replace(&mut self.loaded, after);
        let known =
            Known { services, resolved: &resolved, parts: &self.parts, loaded: &self.loaded };
        let basis = Basis {
            snapshot: Arc::clone(&found.snapshot),
            services: self.became.of(known, &changed),
        };
        if self.last.as_ref() == Some(&basis) && plan.is_empty() {
            return None;
        }
        self.generation += 1;
        self.tell(inputs, found, &before, &plan, &changed, took);
        self.tell_errors(&basis, found, &changed);
        let in_force = InForce {
            generation: self.generation,
            snapshot: Arc::clone(&basis.snapshot),
            services: basis.services.clone(),
            updated: SystemTime::now(),
            took,
        };
        self.last = Some(basis);
        Some(in_force)
    }

    /// `None`: there is nothing to do that was not done before.
    fn commit(
        &mut self,
        inputs: &mut Inputs,
        found: &Found,
        resolved: &Arc<Vec<Resolved>>,
    ) -> Result<Option<(Plan, Loaded, Changed)>, super::Error> {
        let Some(data_path) = &mut inputs.data_path else {
            return Ok(Some((Plan::default(), Loaded::default(), Changed::All)));
        };
        let planned = self.planned.take();
        let services = &found.snapshot.services;
        let changed = self.make_parts(services, resolved, inputs.hash_key, &mut **data_path)?;
        let rekeyed = data_path.rekeyed();
        let changed = if planned.is_none() || rekeyed { Changed::All } else { changed };
        if changed.is_nothing()
            && let Some(planned) = planned.filter(|p| Arc::ptr_eq(p, &found.snapshot))
        {
            self.planned = Some(planned);
            return Ok(None);
        }
        let desired = self.parts.desired(&changed);
        let wanted = match changed {
            Changed::All => Wanted::All(&desired),
            Changed::Only(_) => Wanted::Others(&desired),
        };
        let build = Build { table_size: data_path.table_size(), now: now(), rekeyed };
        let (plan, after) =
            plan::diff(&self.loaded, wanted, build).map_err(|e| super::Error(e.to_string()))?;
        data_path.apply(&plan, &after)?;
        self.planned = Some(Arc::clone(&found.snapshot));
        Ok(Some((plan, after, changed)))
    }

    /// Makes what should be in force of the services that are not as they were.
    fn make_parts(
        &mut self,
        services: &[Arc<Service>],
        resolved: &Arc<Vec<Resolved>>,
        key: HashKey,
        data_path: &mut dyn super::DataPath,
    ) -> Result<Changed, super::Error> {
        // Still so after a failure further on.
        self.parts.moved(data_path.look()?);
        let again = self.parts.again(services, resolved);
        let again = again.into_iter().filter_map(|place| {
            let (service, resolved) = services.get(place).zip(resolved.get(place))?;
            Some((place, service, resolved))
        });
        let again: Vec<_> = again.collect();
        let at = Instant::now();
        self.warming.see(again.iter().map(|(_, service, _)| *service), at);
        let addrs: Vec<IpAddr> =
            again.iter().flat_map(|(_, service, _)| desired::addresses(service)).collect();
        let reach = data_path.reach(&addrs)?;
        let made = again.into_iter().map(|(place, service, resolved)| {
            let weight = |backend: &_| self.warming.weight(service, backend, at);
            (place, Part::new(service, resolved, key, &reach, weight))
        });
        let made = made.collect();
        Ok(self.parts.put(services, resolved, made))
    }

    /// Looks through the client records: slots that nobody disputes settle, records that stand for nothing go.
    fn settle(&mut self, inputs: &mut Inputs) {
        let Some(data_path) = &mut inputs.data_path else { return };
        if let Err(e) = self.settle_in(&mut **data_path) {
            warn!(error = %e, "cannot settle slots; they stay right, only slower");
        }
    }

    fn settle_in(&mut self, data_path: &mut dyn super::DataPath) -> Result<(), super::Error> {
        let mut survey = Survey::new(&self.loaded, now());
        data_path.records(&mut |known| survey.visit(known))?;
        let found = survey.finish();
        data_path.forget(&found.stale)?;
        let backends = self.loaded.services.values().flat_map(|s| s.backends.values());
        data_path.sweep(&backends.map(|b| b.id).collect(), now())?;
        let mut plan = Plan::default();
        let mut after = self.loaded.clone();
        for (identity, slots) in found.tables {
            if let Some(service) = after.services.get_mut(&identity) {
                plan.tables.push((service.index, Arc::clone(&slots)));
                plan.services.push(identity);
                let service = Arc::make_mut(service);
                service.moved = service.moved.filter(|_| slots.iter().any(|slot| slot.unsettled()));
                service.slots = slots;
            }
        }
        if !plan.is_empty() {
            data_path.apply(&plan, &after)?;
            debug!(tables = plan.tables.len(), stale = found.stale.len(), "slots settled");
            self.loaded = after;
        }
        Ok(())
    }

    /// One line per service whose slots or backends changed (contract, section 7).
    fn tell(
        &mut self,
        inputs: &Inputs,
        found: &Found,
        before: &Loaded,
        plan: &Plan,
        changed: &Changed,
        took: Duration,
    ) {
        let previous = self.last.as_ref().map(|l| Arc::clone(&l.snapshot)).unwrap_or_default();
        let services = &found.snapshot.services;
        let up = |s: &Service| s.backends.iter().filter(|b| b.state.takes_new()).count();
        let mut old = InOrder::new(&previous.services);
        let mut others = Vec::new();
        let mut known = 0;
        for place in changed.places(services.len()) {
            let Some(service) = services.get(place) else { continue };
            let old = match changed {
                Changed::All => old.find(|old| Arc::ptr_eq(old, service) || old.id == service.id),
                Changed::Only(_) => previous.services.get(place),
            };
            known += usize::from(old.is_some());
            let part = self.parts.get(place);
            let moved = part.and_then(|part| plan.moved.get(&part.identity()));
            let moved = moved.copied().unwrap_or(0);
            let same = |old: &&Arc<Service>| Arc::ptr_eq(old, service) || up(old) == up(service);
            if moved > 0 || !old.as_ref().is_some_and(same) {
                others.push((service, old.map_or(0, |old| up(old)), moved));
            }
        }
        let mut now = InOrder::new(services);
        let mut gone = Vec::new();
        if *changed == Changed::All && known < previous.services.len() {
            let is_gone = |old: &&Arc<Service>| now.find(|now| now.id == old.id).is_none();
            gone.extend(previous.services.iter().filter(is_gone));
        }
        if let Some(data_path) = &inputs.data_path
            && !others.is_empty()
            && !plan.is_empty()
        {
            self.count(&**data_path);
        }
        for (service, was_up, moved_slots) in others {
            let (size, clients, moved) = self.clients(before, identity(&service.id));
            info!(
                "service {}: {was_up} -> {} backends, generation {}, {} ms from event, {moved_slots} of {size} slots moved, {moved} of {clients} clients moved",
                service.name,
                up(service),
                self.generation,
                took.as_millis(),
            );
        }
        for gone in gone {
            info!(
                "service {}: removed, generation {}, {} ms from event",
                gone.name,
                self.generation,
                took.as_millis()
            );
        }
    }

    /// Counts the clients, unless that was just done.
    fn count(&mut self, data_path: &dyn super::DataPath) {
        let began = Instant::now();
        if self.counted.is_old(began) {
            let census = data_path.census().unwrap_or_else(|e| {
                warn!(error = %e, "cannot count the clients");
                Arc::default()
            });
            let now = Instant::now();
            self.counted.take(census, now, now - began);
        }
    }

    /// Slots of a service's table, clients with a record, and those whose backend no longer takes their connections.
    fn clients(&self, before: &Loaded, id: u64) -> (usize, u64, u64) {
        let Some(now) = self.loaded.services.get(&id) else { return (0, 0, 0) };
        let known = self.counted.census.services.get(&now.index).copied().unwrap_or(0);
        let keeps = |identity: &u64| {
            now.backends
                .get(identity)
                .is_some_and(|b| b.flags & sticky_common::types::Backend::KEEPS != 0)
        };
        let old = before.services.get(&id).into_iter().flat_map(|s| &s.backends);
        let lost = old.filter(|(identity, _)| !keeps(identity));
        let moved = lost.filter_map(|(_, b)| self.counted.census.backends.get(&b.id)).sum();
        (now.slots.len(), known, moved)
    }

    fn tell_errors(&mut self, basis: &Basis, found: &Found, changed: &Changed) {
        let has_none = |place: &usize| {
            let service = found.snapshot.services.get(*place);
            let in_force = basis.services.get(*place);
            service.is_none_or(|service| service.errors.is_empty())
                && in_force.is_none_or(|in_force| in_force.errors.is_empty())
        };
        if let Changed::Only(places) = changed
            && self.errors.is_empty()
            && places.iter().all(has_none)
        {
            return;
        }
        let mut now = HashSet::new();
        for (service, in_force) in found.snapshot.services.iter().zip(&basis.services) {
            for error in service.errors.iter().chain(&in_force.errors) {
                let text = format!("{}={}: {}", error.label, error.value, error.message);
                let told = (service.name.clone(), text);
                if !self.errors.contains(&told) {
                    warn!(service = %service.name, label = %error.label, value = %error.value, hint = %error.hint, "{}", error.message);
                }
                now.insert(told);
            }
        }
        for (service, message) in self.errors.difference(&now) {
            info!(service = %service, "no longer: {message}");
        }
        self.errors = now;
    }
}

/// The current tick of the maps' clock.
#[must_use]
pub fn now() -> u32 {
    // A coarse monotonic clock always exists on Linux; 0 only makes records look old.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC_COARSE)
        .map_or(0, |t| tick::from_nanos(Duration::from(t).as_nanos() as u64))
}

#[cfg(test)]
mod tests;

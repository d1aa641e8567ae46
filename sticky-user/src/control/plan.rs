//! What to change in the maps: `diff` compares what is loaded with what is wanted. Pure, so that it is tested without a
//! kernel; the executor only carries the plan out, in its order.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use sticky_common::maglev::{self, Cursor, Member};
use sticky_common::maps::{MAX_BACKENDS, MAX_SERVICES};
use sticky_common::types::{Backend, BackendId, Frontend, FrontendKeyV4, Slot, tick};

/// Ticks until an index can be used again: packets that read the old table must be gone.
const COOLING: u32 = tick::from_secs(2);

/// What user space knows of the maps' contents.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// By identity.
    pub services: BTreeMap<u64, LoadedService>,
    pub frontends: HashMap<FrontendKeyV4, Frontend>,
    /// Indices that were used before: last generation, and the tick of their end.
    pub retired: BTreeMap<u32, (u32, u32)>,
}

/// A service in the maps.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedService {
    pub index: u32,
    pub slots: Arc<[Slot]>,
    /// By identity. Also those that are no longer in the table but live.
    pub backends: BTreeMap<u64, Backend>,
    /// What the slots were built from: Maglev identity and weight. Empty after an adoption.
    pub members: Vec<(u64, u32)>,
    /// Tick of the last move of a slot.
    pub moved: u32,
}

/// What the maps should say.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Desired {
    pub services: Vec<DesiredService>,
}

/// An `ip_hash` service of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredService {
    pub identity: u64,
    /// Affinity time in ticks, 0: none.
    pub ttl: u32,
    pub mask: [u8; 4],
    pub backends: Vec<DesiredBackend>,
    /// Frontends, and the port of the backends behind each.
    pub frontends: Vec<(FrontendKeyV4, [u8; 2])>,
}

/// A backend that lives.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredBackend {
    pub identity: u64,
    /// Identity for the table, which is keyed as the clients' hash is.
    pub member: u64,
    pub addr: [u8; 16],
    pub ifindex: u32,
    pub flags: u32,
    /// 0: not in the table.
    pub weight: u32,
}

/// Changes in the order in which they are made: nothing ever points at what is not there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub backends: Vec<(u64, Backend)>,
    pub service_ids: Vec<(u32, u64)>,
    /// The commit point: whole tables, swapped.
    pub tables: Vec<(u32, Arc<[Slot]>)>,
    pub frontends: Vec<(FrontendKeyV4, Frontend)>,
    pub gone_frontends: Vec<FrontendKeyV4>,
    pub gone_tables: Vec<u32>,
    pub retired: Vec<Backend>,
    /// Slots that changed hands, by service identity.
    pub moved: BTreeMap<u64, usize>,
}

impl Plan {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// There are more services or backends than the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more {what} than the {limit} that the maps hold")]
pub struct Full {
    what: &'static str,
    limit: u32,
}

/// How tables are built.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub table_size: u32,
    /// The tick of this change.
    pub now: u32,
    /// The hash key is another than the loaded tables were used with: every client's slot is another.
    pub rekeyed: bool,
}

/// The plan that turns `loaded` into `desired`, and what is loaded after it.
pub fn diff(loaded: &Loaded, desired: &Desired, build: Build) -> Result<(Plan, Loaded), Full> {
    let mut plan = Plan::default();
    let mut next = Loaded { retired: loaded.retired.clone(), ..Loaded::default() };
    let mut indices = Indices::of(loaded, build.now);

    for want in &desired.services {
        let old = loaded.services.get(&want.identity);
        let index = match old {
            Some(old) => old.index,
            None => {
                let index = indices.service()?;
                plan.service_ids.push((index, want.identity));
                index
            }
        };
        let mut backends = BTreeMap::new();
        for b in &want.backends {
            let before = old.and_then(|o| o.backends.get(&b.identity));
            let id = match before {
                Some(before) => BackendId(before.id),
                None => indices.backend(&mut next.retired)?,
            };
            let value = Backend {
                addr: b.addr,
                id: id.0,
                ifindex: b.ifindex,
                flags: b.flags,
                service: index,
            };
            if before != Some(&value) {
                plan.backends.push((b.identity, value));
            }
            backends.insert(b.identity, value);
        }
        let (slots, members, moved) = table(want, old, &backends, build);
        if old.is_none_or(|o| o.slots != slots) {
            plan.tables.push((index, Arc::clone(&slots)));
        }
        if moved > 0 {
            plan.moved.insert(want.identity, moved);
        }
        for (key, port) in &want.frontends {
            let value = Frontend {
                service: index,
                mask: want.mask,
                ttl: want.ttl,
                port: *port,
                zero: [0; 2],
            };
            if loaded.frontends.get(key) != Some(&value) {
                plan.frontends.push((*key, value));
            }
            next.frontends.insert(*key, value);
        }
        let last_move = if moved > 0 { build.now } else { old.map_or(0, |o| o.moved) };
        next.services.insert(
            want.identity,
            LoadedService { index, slots, backends, members, moved: last_move },
        );
    }

    plan.gone_frontends =
        loaded.frontends.keys().filter(|k| !next.frontends.contains_key(*k)).copied().collect();
    for (identity, old) in &loaded.services {
        let kept = next.services.get(identity);
        if kept.is_none() {
            plan.gone_tables.push(old.index);
            plan.service_ids.push((old.index, 0));
        }
        for (identity, backend) in &old.backends {
            if kept.is_none_or(|k| !k.backends.contains_key(identity)) {
                let id = BackendId(backend.id);
                next.retired.insert(id.index(), (id.generation(), build.now));
                plan.retired.push(Backend { flags: 0, ..*backend });
            }
        }
    }
    Ok((plan, next))
}

/// The slots of a service: what the members give, and marked where a change moved them.
fn table(
    want: &DesiredService,
    old: Option<&LoadedService>,
    backends: &BTreeMap<u64, Backend>,
    build: Build,
) -> (Arc<[Slot]>, Vec<(u64, u32)>, usize) {
    let mut members: Vec<Member> = want
        .backends
        .iter()
        .filter(|b| b.weight > 0)
        .filter_map(|b| {
            let index = BackendId(backends.get(&b.identity)?.id).index();
            Some(Member { identity: b.member, weight: b.weight, index })
        })
        .collect();
    members.sort_by_key(|m| m.identity);
    let built_from: Vec<_> = members.iter().map(|m| (m.identity, m.weight)).collect();
    if let Some(old) = old
        && old.members == built_from
        && !built_from.is_empty()
        && !build.rekeyed
    {
        return (Arc::clone(&old.slots), built_from, 0);
    }
    let mut slots = vec![Slot::EMPTY; build.table_size as usize];
    maglev::fill(&members, &mut vec![Cursor::default(); members.len()], &mut slots);
    let mut moved = 0;
    if let Some(old) = old {
        for (new, old) in slots.iter_mut().zip(old.slots.iter()) {
            let same = new.index() == old.index();
            moved += usize::from(!same);
            if !same || old.unsettled() || build.rekeyed {
                *new = new.marked_unsettled();
            }
        }
    }
    (slots.into(), built_from, moved)
}

/// Free indices of the maps.
struct Indices {
    services: HashSet<u32>,
    backends: BTreeSet<u32>,
    cooling: HashSet<u32>,
    next_service: u32,
    next_backend: u32,
}

impl Indices {
    fn of(loaded: &Loaded, now: u32) -> Self {
        Self {
            services: loaded.services.values().map(|s| s.index).collect(),
            backends: loaded
                .services
                .values()
                .flat_map(|s| s.backends.values())
                .map(|b| BackendId(b.id).index())
                .collect(),
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

    fn service(&mut self) -> Result<u32, Full> {
        let limit = MAX_SERVICES - 1;
        let index = (self.next_service..limit)
            .find(|i| !self.services.contains(i))
            .ok_or(Full { what: "services", limit })?;
        self.next_service = index + 1;
        Ok(index)
    }

    fn backend(&mut self, retired: &mut BTreeMap<u32, (u32, u32)>) -> Result<BackendId, Full> {
        let free = |i: &u32| !self.backends.contains(i) && !self.cooling.contains(i);
        let index = (self.next_backend..MAX_BACKENDS)
            .find(free)
            .ok_or(Full { what: "backends", limit: MAX_BACKENDS })?;
        self.next_backend = index + 1;
        let generation =
            retired.remove(&index).map_or(1, |(last, _)| last % BackendId::MAX_GENERATION + 1);
        Ok(BackendId::new(index, generation))
    }
}

#[cfg(test)]
mod tests;

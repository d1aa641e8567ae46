//! Finds the slots that no client disagrees with any more, and the records that stand for nothing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sticky_common::types::{BackendId, ClientKey, Record, Slot, tick};

use super::plan::{Loaded, LoadedService};

/// Ticks that slots stay unsettled after a move: a connection to a backend that died with its last slot is met by a
/// flow of the new one, so that the client gets its answer, a reset, and not silence.
const AFTER_MOVE: u32 = tick::from_secs(300);
/// Ticks that a record is kept for established connections, however short the affinity time: 3 h of silence (P2).
const SILENCE: u32 = tick::from_secs(3 * 3600);

/// A client's record, and the slot its address has.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Known {
    pub key: ClientKey,
    pub slot: u32,
    pub record: Record,
}

/// What a look at all records finds.
#[derive(Debug, Default, PartialEq)]
pub struct Found {
    /// Tables to be put in place, by service identity.
    pub tables: Vec<(u64, Arc<[Slot]>)>,
    /// Records whose backends are all gone, or that are older than anything asks for.
    pub stale: Vec<Known>,
}

/// Goes through the records one by one.
pub struct Survey<'a> {
    services: HashMap<u32, Service<'a>>,
    now: u32,
    stale: Vec<Known>,
}

struct Service<'a> {
    identity: u64,
    loaded: &'a LoadedService,
    /// Affinity time of its frontends.
    ttl: u32,
    /// Unsettled slots with a client that belongs elsewhere.
    disputed: HashSet<u32>,
}

impl<'a> Survey<'a> {
    #[must_use]
    pub fn new(loaded: &'a Loaded, now: u32) -> Self {
        let mut ttls: HashMap<u32, u32> = HashMap::new();
        for frontend in loaded.frontends.values() {
            let ttl = ttls.entry(frontend.service).or_default();
            *ttl = frontend.ttl.max(*ttl);
        }
        let services = loaded.services.iter().map(|(identity, service)| {
            let ttl = ttls.get(&service.index).copied().unwrap_or(0);
            let service =
                Service { identity: *identity, loaded: service, ttl, disputed: HashSet::new() };
            (service.loaded.index, service)
        });
        Self { services: services.collect(), now, stale: Vec::new() }
    }

    /// Takes note of one record.
    pub fn visit(&mut self, known: &Known) {
        let Some(service) = self.services.get_mut(&known.key.service) else {
            self.stale.push(*known);
            return;
        };
        let old = tick::since(self.now, known.record.seen) > service.ttl.max(SILENCE);
        let mut lives = known.record.backends.iter().filter(|id| service.lives(**id)).peekable();
        if old || lives.peek().is_none() {
            self.stale.push(*known);
            return;
        }
        let Some(slot) = service.loaded.slots.get(known.slot as usize) else { return };
        if slot.unsettled() && lives.any(|id| Some(BackendId(*id).index()) != slot.index()) {
            service.disputed.insert(known.slot);
        }
    }

    /// What follows from all of them.
    #[must_use]
    pub fn finish(self) -> Found {
        let now = self.now;
        let tables = self
            .services
            .into_values()
            .filter_map(|s| Some((s.identity, s.settled(now)?)))
            .collect();
        Found { tables, stale: self.stale }
    }
}

impl Service<'_> {
    fn lives(&self, id: u32) -> bool {
        id != BackendId::NONE.0 && self.loaded.backends.values().any(|b| b.id == id)
    }

    fn settled(&self, now: u32) -> Option<Arc<[Slot]>> {
        let slots = &self.loaded.slots;
        if tick::since(now, self.loaded.moved?) < AFTER_MOVE {
            return None;
        }
        let free = |at: usize, slot: &Slot| {
            slot.unsettled() && !u32::try_from(at).is_ok_and(|at| self.disputed.contains(&at))
        };
        if !slots.iter().enumerate().any(|(at, slot)| free(at, slot)) {
            return None;
        }
        let settle = |(at, slot)| if free(at, slot) { slot.marked_settled() } else { *slot };
        Some(slots.iter().enumerate().map(settle).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use sticky_common::types::Backend;

    fn backend(index: u32) -> Backend {
        Backend {
            v4: [0; 4],
            v6: [0; 4],
            ifindex_v4: 1,
            ifindex_v6: 1,
            id: BackendId::new(index, 1).0,
            flags: Backend::ALIVE,
            service: 3,
        }
    }

    fn loaded() -> Loaded {
        let slots = vec![Slot::new(0, true), Slot::new(1, true), Slot::new(1, false)];
        let backends = BTreeMap::from([(10, backend(0)), (11, backend(1))]);
        let service = LoadedService {
            index: 3,
            slots: slots.into(),
            shares: Arc::default(),
            backends,
            members: Vec::new(),
            moved: Some(1000),
            rules: 0,
            wanted: None,
        };
        Loaded { services: BTreeMap::from([(7, service.into())]), ..Loaded::default() }
    }

    fn known(addr: u8, slot: u32, ids: [u32; 4], seen: u32) -> Known {
        Known {
            key: ClientKey { service: 3, addr: [u32::from(addr); 4] },
            slot,
            record: Record { backends: ids, seen, zero: 0 },
        }
    }

    fn survey(records: &[Known], now: u32) -> Found {
        let loaded = loaded();
        let mut survey = Survey::new(&loaded, now);
        records.iter().for_each(|r| survey.visit(r));
        survey.finish()
    }

    const ON_0: u32 = BackendId::new(0, 1).0;
    const ON_1: u32 = BackendId::new(1, 1).0;

    #[test]
    fn a_slot_settles_when_nobody_belongs_elsewhere() {
        let found = survey(
            &[known(1, 0, [ON_0, 0, 0, 0], 2000), known(2, 1, [ON_1, ON_0, 0, 0], 2000)],
            2000,
        );
        let slots = &found.tables[0].1;
        assert_eq!(slots.iter().map(|s| s.unsettled()).collect::<Vec<_>>(), [false, true, false]);
        assert!(found.stale.is_empty());
    }

    #[test]
    fn not_right_after_a_move() {
        assert_eq!(survey(&[], 1000 + AFTER_MOVE - 1), Found::default());
        assert_eq!(survey(&[], 1000 + AFTER_MOVE).tables.len(), 1);
    }

    #[test]
    fn what_stands_for_nothing_is_stale() {
        let gone = BackendId::new(0, 2).0;
        let elsewhere =
            Known { key: ClientKey { service: 9, addr: [0; 4] }, ..known(1, 0, [ON_0; 4], 2000) };
        let old = known(2, 1, [ON_0, 0, 0, 0], 2000);
        let records = [known(1, 1, [gone, 0, 0, 0], 2000 + SILENCE), elsewhere, old];
        let found = survey(&records, 2001 + SILENCE);
        assert_eq!(found.stale, records);
        assert!(!found.tables[0].1[1].unsettled(), "a stale record disputes nothing");
    }
}

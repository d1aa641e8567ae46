//! Who owns a value of a cookie or header: the shared hash over the backends that take new clients.

use sticky_common::hash::{self, HashKey};
use sticky_common::maglev::{self, Cursor, Member};
use sticky_common::types::Slot;

/// One size for all nodes, whatever their data paths use: the same snapshot gives the same owners everywhere.
const SLOTS: usize = 16_381;

/// A Maglev table of one service.
pub(super) struct Owners {
    key: HashKey,
    slots: Vec<Slot>,
}

impl Owners {
    /// `backends` with their positions, ids and weights.
    pub(super) fn new<'a>(
        key: HashKey,
        backends: impl Iterator<Item = (usize, &'a str, u32)>,
    ) -> Self {
        let mut members: Vec<Member> = backends
            .map(|(at, id, weight)| Member {
                identity: maglev::identity(key, id.as_bytes()),
                weight,
                index: u32::try_from(at).unwrap_or(u32::MAX),
            })
            .collect();
        members.sort_by_key(|member| member.identity);
        let mut slots = vec![Slot::EMPTY; SLOTS];
        maglev::fill(&members, &mut vec![Cursor::default(); members.len()], &mut slots);
        Self { key, slots }
    }

    /// Keyed hash of a value, and the position of its owner.
    pub(super) fn owner(&self, value: &[u8]) -> (u64, Option<usize>) {
        let hash = maglev::identity(self.key, value);
        let slot = self.slots.get(hash::slot(hash, SLOTS as u32) as usize);
        (hash, slot.and_then(|slot| slot.index()).map(|index| index as usize))
    }
}

//! The slots of one service.

use std::collections::BTreeMap;
use std::sync::Arc;

use sticky_common::maglev::{self, Cursor, Member};
use sticky_common::types::{Backend, BackendId, Slot};

use super::{Build, DesiredService, LoadedService};

/// A table, as in [`LoadedService`].
pub(super) struct Table {
    pub(super) slots: Arc<[Slot]>,
    pub(super) shares: Arc<[(u32, u32)]>,
    pub(super) members: Vec<(u64, u32)>,
    /// Slots that changed hands.
    pub(super) moved: usize,
}

impl Table {
    /// What the members give, and marked where a change moved them.
    pub(super) fn of(
        want: &DesiredService,
        old: Option<&LoadedService>,
        backends: &BTreeMap<u64, Backend>,
        build: Build,
    ) -> Self {
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
            let (slots, shares) = (Arc::clone(&old.slots), Arc::clone(&old.shares));
            return Self { slots, shares, members: built_from, moved: 0 };
        }
        let mut slots: Arc<[Slot]> =
            std::iter::repeat_n(Slot::EMPTY, build.table_size as usize).collect();
        let filled = Arc::make_mut(&mut slots);
        let mut cursors = vec![Cursor::default(); members.len()];
        maglev::fill(&members, &mut cursors, filled);
        let shares = members.iter().zip(&cursors).map(|(member, at)| (member.index, at.taken()));
        let mut shares: Vec<_> = shares.collect();
        shares.sort_unstable();
        let mut moved = 0;
        if let Some(old) = old {
            for (new, old) in filled.iter_mut().zip(old.slots.iter()) {
                let same = new.index() == old.index();
                moved += usize::from(!same);
                if !same || old.unsettled() || build.rekeyed {
                    *new = new.marked_unsettled();
                }
            }
        }
        Self { slots, shares: shares.into(), members: built_from, moved }
    }
}

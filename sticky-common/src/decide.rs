//! The decision: which backend a packet, a connection or a request of a client goes to.
//!
//! The table answers for settled slots. A slot that a change moved is *unsettled* until no client's record disagrees with
//! it; there the record answers, and where a record names several backends, the flows do. So established connections
//! stay (P2), known clients stay (P3), and nobody else pays for it.

use crate::outcome::Outcome;
use crate::types::{Backend, BackendId, Record, Slot, tick};

/// What the decision asks of the maps.
pub trait World {
    /// The backend at an index, if it is in use.
    fn backend(&self, index: u32) -> Option<&Backend>;
    /// Whether the packet at hand belongs to a known flow to this backend.
    fn has_flow(&self, backend: &Backend) -> bool;
}

/// Now, and how long an inactive client keeps its backend.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    pub now: u32,
    /// Ticks; 0: new connections follow the table.
    pub ttl: u32,
}

/// Where it goes, and why. No backend: the reason is one that drops.
///
/// Plain references instead of results with values inside: the verifier follows a pointer that may be null, but not a
/// value that is only set on some ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'a> {
    pub backend: Option<&'a Backend>,
    pub reason: Outcome,
}

impl<'a> Decision<'a> {
    /// What the table says.
    #[inline(always)]
    fn by_table(slot: Slot, reason: Outcome, world: &'a impl World) -> Self {
        let backend = match slot.index() {
            Some(index) => alive(world.backend(index)),
            None => None,
        };
        Self { backend, reason: if backend.is_some() { reason } else { Outcome::NoBackend } }
    }
}

/// Backend for the first packet of a connection, or for a request.
///
/// The caller then remembers it: [`remember`].
#[inline(always)]
pub fn first<'a>(
    slot: Slot,
    record: Option<&Record>,
    clock: Clock,
    world: &'a impl World,
) -> Decision<'a> {
    let Some(record) = record else { return Decision::by_table(slot, Outcome::New, world) };
    let recorded = lookup(record.backends[0], world);
    let keeps = match recorded {
        Some(backend) => backend.flags & Backend::KEEPS != 0,
        None => false,
    };
    if keeps && clock.ttl != 0 && tick::since(clock.now, record.seen) <= clock.ttl {
        return Decision { backend: recorded, reason: Outcome::Pinned };
    }
    match no_room(slot, record, world) {
        None => {
            let reason = if keeps { Outcome::Expired } else { Outcome::Repinned };
            Decision::by_table(slot, reason, world)
        }
        backend => {
            let reason = if keeps { Outcome::Pinned } else { Outcome::Repinned };
            Decision { backend, reason }
        }
    }
}

/// Where a record is full of living backends, the newest of them that takes its clients: the table's would push the oldest
/// out of the record, and with it its connections (P2).
#[inline(always)]
fn no_room<'a>(slot: Slot, record: &Record, world: &'a impl World) -> Option<&'a Backend> {
    if record.backends[Record::DEPTH - 1] == BackendId::NONE.0 {
        return None;
    }
    let mut newest = None;
    for id in record.backends {
        let backend = lookup(id, world)?;
        if slot.index() == Some(BackendId(id).index()) {
            return None;
        }
        if newest.is_none() && backend.flags & Backend::KEEPS != 0 {
            newest = Some(backend);
        }
    }
    newest
}

/// Backend for a later packet of a connection whose slot is unsettled.
#[inline(always)]
pub fn later<'a>(slot: Slot, record: Option<&Record>, world: &'a impl World) -> Decision<'a> {
    let Some(record) = record else { return Decision::by_table(slot, Outcome::Hash, world) };
    let mut newest = None;
    for id in record.backends {
        let Some(backend) = lookup(id, world) else { continue };
        // Only a client that was moved has several; then the flow says which of them this connection is with.
        if world.has_flow(backend) {
            return Decision { backend: Some(backend), reason: Outcome::Recorded };
        }
        if newest.is_none() {
            newest = Some(backend);
        }
    }
    match newest {
        Some(_) => Decision { backend: newest, reason: Outcome::Recorded },
        None => Decision::by_table(slot, Outcome::Hash, world),
    }
}

/// Backend for a datagram: the one that its flow is with; if it has none, as for the first packet of a connection.
#[inline(always)]
pub fn datagram<'a>(
    slot: Slot,
    record: Option<&Record>,
    clock: Clock,
    world: &'a impl World,
) -> Decision<'a> {
    match owner(slot, record, world) {
        None => first(slot, record, clock, world),
        backend => Decision { backend, reason: Outcome::Recorded },
    }
}

/// The backend whose flow the packet at hand is about.
#[inline(always)]
pub fn owner<'a>(
    slot: Slot,
    record: Option<&Record>,
    world: &'a impl World,
) -> Option<&'a Backend> {
    if let Some(record) = record {
        for id in record.backends {
            let Some(backend) = lookup(id, world) else { continue };
            if world.has_flow(backend) {
                return Some(backend);
            }
        }
    }
    match slot.index().and_then(|index| alive(world.backend(index))) {
        Some(backend) if world.has_flow(backend) => Some(backend),
        _ => None,
    }
}

/// The record after a connection to `backend` began: it comes first, and older living ones stay behind it.
#[inline(always)]
#[must_use]
pub fn remember(
    record: Option<&Record>,
    backend: &Backend,
    now: u32,
    world: &impl World,
) -> Record {
    let mut next = Record { backends: [backend.id, 0, 0, 0], seen: now, zero: 0 };
    let Some(record) = record else { return next };
    let mut at = 1;
    for id in record.backends {
        if id != backend.id && at < Record::DEPTH && lookup(id, world).is_some() {
            next.backends[at & (Record::DEPTH - 1)] = id;
            at += 1;
        }
    }
    next
}

/// The backend of an id, if this use of the index still lives.
#[inline(always)]
fn lookup(id: u32, world: &impl World) -> Option<&Backend> {
    if id == BackendId::NONE.0 {
        return None;
    }
    match alive(world.backend(BackendId(id).index())) {
        Some(backend) if backend.id == id => Some(backend),
        _ => None,
    }
}

#[inline(always)]
fn alive(backend: Option<&Backend>) -> Option<&Backend> {
    match backend {
        Some(b) if b.flags & Backend::ALIVE != 0 => backend,
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        backends: [Option<Backend>; 6],
        flow: Option<u32>,
    }

    impl World for Fake {
        fn backend(&self, index: u32) -> Option<&Backend> {
            self.backends.get(index as usize)?.as_ref()
        }
        fn has_flow(&self, backend: &Backend) -> bool {
            self.flow == Some(backend.id)
        }
    }

    const UP: u32 = Backend::ALIVE | Backend::KEEPS;

    fn id(index: u32) -> u32 {
        BackendId::new(index, 1).0
    }

    fn backend(index: u32, flags: u32) -> Option<Backend> {
        Some(Backend {
            v6: [0; 4],
            v4: [0; 4],
            ifindex_v4: 1,
            ifindex_v6: 1,
            id: id(index),
            flags,
            service: 0,
        })
    }

    fn world<const N: usize>(flags: [u32; N]) -> Fake {
        Fake {
            backends: core::array::from_fn(|i| match flags.get(i) {
                None | Some(0) => None,
                Some(flags) => backend(i as u32, *flags),
            }),
            flow: None,
        }
    }

    fn record(ids: &[u32], seen: u32) -> Record {
        let mut backends = [0; Record::DEPTH];
        for (to, from) in backends.iter_mut().zip(ids) {
            *to = id(*from);
        }
        Record { backends, seen, zero: 0 }
    }

    const CLOCK: Clock = Clock { now: 100, ttl: 50 };

    fn went(d: Decision<'_>) -> Result<(u32, Outcome), Outcome> {
        d.backend.map(|b| (BackendId(b.id).index(), d.reason)).ok_or(d.reason)
    }

    #[test]
    fn a_new_connection() {
        let up = world([UP; 4]);
        let slot = Slot::new(1, true);
        assert_eq!(went(first(slot, None, CLOCK, &up)), Ok((1, Outcome::New)));
        assert_eq!(
            went(first(slot, Some(&record(&[2], 60)), CLOCK, &up)),
            Ok((2, Outcome::Pinned))
        );
        assert_eq!(
            went(first(slot, Some(&record(&[2], 49)), CLOCK, &up)),
            Ok((1, Outcome::Expired))
        );
        let hash = Clock { now: 100, ttl: 0 };
        assert_eq!(
            went(first(slot, Some(&record(&[2], 100)), hash, &up)),
            Ok((1, Outcome::Expired))
        );
        assert_eq!(went(first(Slot::EMPTY, None, CLOCK, &up)), Err(Outcome::NoBackend));
        assert_eq!(
            went(first(Slot::EMPTY, Some(&record(&[2], 99)), CLOCK, &up)),
            Ok((2, Outcome::Pinned))
        );
    }

    #[test]
    fn states_of_the_recorded_backend() {
        let slot = Slot::new(1, true);
        let r = record(&[2], 99);
        // Draining with its clients: stays. Ordered to end, or failing: new connections leave, old ones stay. Gone: both leave.
        assert_eq!(
            went(first(slot, Some(&r), CLOCK, &world([UP, UP, UP, UP]))),
            Ok((2, Outcome::Pinned))
        );
        let ending = world([UP, UP, Backend::ALIVE, UP]);
        assert_eq!(went(first(slot, Some(&r), CLOCK, &ending)), Ok((1, Outcome::Repinned)));
        assert_eq!(went(later(slot, Some(&r), &ending)), Ok((2, Outcome::Recorded)));
        let gone = world([UP, UP, 0, UP]);
        assert_eq!(went(first(slot, Some(&r), CLOCK, &gone)), Ok((1, Outcome::Repinned)));
        assert_eq!(went(later(slot, Some(&r), &gone)), Ok((1, Outcome::Hash)));
    }

    #[test]
    fn a_datagram_stays_with_its_flow() {
        let mut w = world([UP, UP, Backend::ALIVE, UP]);
        let slot = Slot::new(1, false);
        let r = record(&[1, 2], 99);
        assert_eq!(went(datagram(slot, Some(&r), CLOCK, &w)), Ok((1, Outcome::Pinned)));
        assert_eq!(went(datagram(slot, None, CLOCK, &w)), Ok((1, Outcome::New)));
        w.flow = Some(id(2));
        assert_eq!(went(datagram(slot, Some(&r), CLOCK, &w)), Ok((2, Outcome::Recorded)));
        w.backends[2] = None;
        assert_eq!(went(datagram(slot, Some(&r), CLOCK, &w)), Ok((1, Outcome::Pinned)));
        w.flow = Some(id(1));
        assert_eq!(went(datagram(slot, None, CLOCK, &w)), Ok((1, Outcome::Recorded)));
    }

    #[test]
    fn another_use_of_the_index_is_another_backend() {
        let mut w = world([UP; 4]);
        w.backends[2] = Some(Backend { id: BackendId::new(2, 2).0, ..backend(2, UP).unwrap() });
        assert_eq!(
            went(first(Slot::new(1, true), Some(&record(&[2], 99)), CLOCK, &w)),
            Ok((1, Outcome::Repinned))
        );
    }

    #[test]
    fn a_moved_client_keeps_its_old_connections_by_flow() {
        let mut w = world([UP, UP, Backend::ALIVE, UP]);
        let r = remember(Some(&record(&[2], 60)), &w.backends[1].unwrap(), 100, &w);
        assert_eq!(r, record(&[1, 2], 100));
        assert_eq!(went(later(Slot::new(3, true), Some(&r), &w)), Ok((1, Outcome::Recorded)));
        w.flow = Some(id(2));
        assert_eq!(went(later(Slot::new(3, true), Some(&r), &w)), Ok((2, Outcome::Recorded)));
        w.backends[2] = None;
        assert_eq!(remember(Some(&r), &w.backends[3].unwrap(), 101, &w), record(&[3, 1], 101));
    }

    #[test]
    fn a_client_with_connections_to_as_many_backends_as_fit_stays_with_these() {
        let mut w = world([UP; 6]);
        let table = Clock { now: 100, ttl: 0 };
        let full = record(&[3, 2, 1, 0], 99);
        assert_eq!(
            went(first(Slot::new(4, true), Some(&full), table, &w)),
            Ok((3, Outcome::Pinned))
        );
        assert_eq!(
            went(first(Slot::new(1, true), Some(&full), table, &w)),
            Ok((1, Outcome::Expired))
        );
        // The newest takes no more: the next that does.
        w.backends[3] = backend(3, Backend::ALIVE);
        assert_eq!(
            went(first(Slot::new(4, true), Some(&full), CLOCK, &w)),
            Ok((2, Outcome::Repinned))
        );
        // One has gone: there is room.
        w.backends[0] = None;
        assert_eq!(
            went(first(Slot::new(4, true), Some(&full), CLOCK, &w)),
            Ok((4, Outcome::Repinned))
        );
        let next = remember(Some(&full), &w.backends[4].unwrap(), 101, &w);
        assert_eq!(next, record(&[4, 3, 2, 1], 101));
        // None of them takes more: the client goes on elsewhere.
        let ending = world([Backend::ALIVE, Backend::ALIVE, Backend::ALIVE, Backend::ALIVE, UP]);
        assert_eq!(
            went(first(Slot::new(4, true), Some(&full), CLOCK, &ending)),
            Ok((4, Outcome::Repinned))
        );
    }
}

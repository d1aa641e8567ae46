//! For how long, and of whom, a client's record is remembered.

use sticky_common::outcome::Outcome;
use sticky_common::types::{Backend, ClientKey, Record};
use sticky_common::{maps, types};

use super::case::Case;
use super::maps::Maps;
use super::packet::Packet;
use super::places::{BACKENDS, FAMILIES, Family, PROTOS, Proto};
use super::state::another;
use super::world::{World, next_tick, room_in_tick};

const A: u32 = BACKENDS[0];
const B: u32 = BACKENDS[1];

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            affinity(family, proto, &mut all);
        }
    }
    all
}

/// Changes what is remembered of all clients.
fn records(world: &mut World, change: impl Fn(&mut Record)) {
    let mut changed = 0;
    for name in [maps::CLIENTS, maps::CANDIDATES] {
        let mut map = world.map::<ClientKey, Record>(name);
        let all: Vec<_> = map.iter().collect::<Result<_, _>>().unwrap();
        for (key, mut record) in all {
            change(&mut record);
            map.insert(key, record, 0).unwrap();
            changed += 1;
        }
    }
    assert!(changed > 0, "nobody is remembered");
}

fn affinity(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let name = |what: &str| format!("{family:?} {proto:?}: {what}");
    let open = Packet::opening(family, proto);
    let moved = || Maps::default().to(B, true);
    let ttl = |ttl| move |f: &mut types::Frontend| f.ttl = ttl;
    all.push(
        Case::new(name("affinity time 0"))
            .forwarded(&open, Outcome::New, A)
            .swap(moved().each(ttl(0)))
            .forwarded(&another(&open, 40_001), Outcome::Expired, B),
    );
    all.push(
        Case::new(name("a record that is lost is written again in the next second"))
            .forwarded(&open, Outcome::New, A)
            .forwarded(&another(&open, 40_001), Outcome::Pinned, A)
            .then(|w| w.forget_clients())
            .then(|_| next_tick())
            .forwarded(&another(&open, 40_002), Outcome::New, A)
            .swap(moved())
            .forwarded(&another(&open, 40_003), Outcome::Pinned, A),
    );
    all.push(
        Case::new(name("its slot moves and comes back within a second: it stays where it went"))
            .then(|_| room_in_tick(500))
            .forwarded(&open, Outcome::New, A)
            .forwarded(&another(&open, 40_001), Outcome::Pinned, A)
            .swap(moved().state(A, Backend::ALIVE))
            .forwarded(&another(&open, 40_002), Outcome::Repinned, B)
            .swap(Maps::default().to(A, true))
            .forwarded(&another(&open, 40_003), Outcome::Pinned, B)
            .forwarded(&another(&open, 40_004), Outcome::Pinned, B),
    );
    all.push(
        Case::new(name("affinity time is over"))
            .forwarded(&open, Outcome::New, A)
            .swap(moved().each(ttl(10)))
            .then(|w| records(w, |r| r.seen -= 12))
            .forwarded(&another(&open, 40_001), Outcome::Expired, B)
            .forwarded(&another(&open, 40_002), Outcome::Pinned, B),
    );
    all.push(
        Case::new(name("affinity time is nearly over"))
            .forwarded(&open, Outcome::New, A)
            .swap(moved().each(ttl(100)))
            .then(|w| records(w, |r| r.seen -= 90))
            .forwarded(&another(&open, 40_001), Outcome::Pinned, A),
    );
    // The neighbour in the last bits of the prefix is the same client, the one beyond it is not.
    let (bits, near, far) = match family {
        Family::V4 => (128 - 1, "198.51.100.3", "198.51.100.5"),
        Family::V6 => (48, "2001:db8:1:ffff::1", "2001:db8:2::1"),
    };
    let prefix = move |f: &mut types::Frontend| f.prefix = bits;
    let from = |addr: &str| open.clone().with(|p| p.src.set_ip(addr.parse().unwrap()));
    all.push(
        Case::new(name("a prefix is one client"))
            .maps(Maps::default().each(prefix))
            .forwarded(&open, Outcome::New, A)
            .swap(moved().each(prefix))
            .forwarded(&from(near), Outcome::Pinned, A)
            .forwarded(&from(far), Outcome::New, B),
    );
}

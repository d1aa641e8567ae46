//! What changes between packets: tables, states of backends, the clients' records and flows.

use sticky_common::maps;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Backend, BackendId, ClientKey, Flow, FlowKey, Record, addr, tick};

use super::case::Case;
use super::maps::{Maps, SERVICE, mapped};
use super::packet::{ACK, FIN, PSH, Packet, RST, SYN, tcp, tcp_at, udp};
use super::places::{BACKENDS, FAMILIES, Family, PROTOS, Proto};
use super::world::{World, next_tick, now};
use crate::rig::UP;

const A: u32 = BACKENDS[0];
const B: u32 = BACKENDS[1];
const C: u32 = BACKENDS[2];
/// Established connections stay, new ones go elsewhere.
const ENDING: u32 = Backend::ALIVE;
const GONE: u32 = 0;

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            moves(family, proto, &mut all);
            states(family, proto, &mut all);
        }
        evidence_of_tcp(family, &mut all);
        evidence_of_udp(family, &mut all);
        several(family, &mut all);
    }
    all
}

/// Another connection of the same client.
pub fn another(packet: &Packet, port: u16) -> Packet {
    packet.clone().with(|p| p.src.set_port(port))
}

/// A later packet of the same flow, and why it goes where it goes in an unsettled slot.
fn later(family: Family, proto: Proto) -> Packet {
    match proto {
        Proto::Tcp => Packet::segment(family, ACK | PSH, b"data"),
        Proto::Udp => Packet::datagram(family, b"query"),
    }
}

fn moves(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let name = |what: &str| format!("{family:?} {proto:?}: {what}");
    let open = Packet::opening(family, proto);
    let data = later(family, proto);
    let to = |index, unsettled| Maps::default().to(index, unsettled);
    all.push(
        Case::new(name("its slot moved: it stays, and new clients move"))
            .forwarded(&open, Outcome::New, A)
            .swap(to(B, true))
            .forwarded(&data, Outcome::Recorded, A)
            .forwarded(&another(&open, 40_001), Outcome::Pinned, A)
            .forwarded(&stranger(family, proto), Outcome::New, B)
            .forwarded(&another(&later(family, proto), 40_001), Outcome::Recorded, A),
    );
    all.push(
        Case::new(name("five moves in a row"))
            .forwarded(&open, Outcome::New, A)
            .swap(to(B, true))
            .forwarded(&data, Outcome::Recorded, A)
            .swap(to(C, true))
            .forwarded(&data, Outcome::Recorded, A)
            .swap(to(A, true))
            .forwarded(&data, Outcome::Recorded, A)
            .swap(to(C, true))
            .forwarded(&data, Outcome::Recorded, A)
            .swap(to(B, true))
            .forwarded(&data, Outcome::Recorded, A)
            .forwarded(&another(&open, 40_002), Outcome::Pinned, A),
    );
    if proto == Proto::Tcp {
        all.push(
            Case::new(name("its slot settles"))
                .forwarded(&open, Outcome::New, A)
                .swap(to(A, false))
                .forwarded(&data, Outcome::Hash, A),
        );
        all.push(
            Case::new(name("an unsettled slot without a record")).maps(to(B, true)).forwarded(
                &data,
                Outcome::Hash,
                B,
            ),
        );
    }
    all.push(
        Case::new(name("nobody is in the table, and its backend lives"))
            .forwarded(&open, Outcome::New, A)
            .swap(Maps::default().nobody_up(true).with(|m| {
                m.slots = m.slots.iter().map(|s| s.marked_unsettled()).collect();
            }))
            .forwarded(&data, Outcome::Recorded, A),
    );
    all.push(
        Case::new(name("its table is gone, and comes back"))
            .forwarded(&open, Outcome::New, A)
            .swap(Maps::default().with(|m| m.frontends.clear()))
            .passed(&open)
            .swap(Maps::default())
            .forwarded(&another(&open, 40_001), Outcome::Pinned, A),
    );
}

/// The opening of a client of another prefix.
fn stranger(family: Family, proto: Proto) -> Packet {
    Packet::opening(family, proto).with(|p| {
        p.src = match family {
            Family::V4 => (family.client(3), 40_000).into(),
            Family::V6 => ("2001:db8:9::1".parse::<std::net::IpAddr>().unwrap(), 40_000).into(),
        };
    })
}

fn states(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let name = |what: &str| format!("{family:?} {proto:?}: {what}");
    let open = Packet::opening(family, proto);
    let data = later(family, proto);
    let with = |flags| Maps::default().to(B, true).state(A, flags);
    all.push(
        Case::new(name("its backend drains with its clients"))
            .forwarded(&open, Outcome::New, A)
            .swap(with(UP))
            .forwarded(&data, Outcome::Recorded, A)
            .forwarded(&another(&open, 40_001), Outcome::Pinned, A),
    );
    all.push(
        Case::new(name("its backend is ordered to end, or fails"))
            .forwarded(&open, Outcome::New, A)
            .swap(with(ENDING))
            .forwarded(&data, Outcome::Recorded, A)
            .forwarded(&another(&open, 40_001), Outcome::Repinned, B)
            .forwarded(&another(&open, 40_002), Outcome::Pinned, B)
            // Both connections stay where they are.
            .forwarded(&data, Outcome::Recorded, A)
            .forwarded(&another(&data, 40_001), Outcome::Recorded, B)
            .swap(with(UP))
            .forwarded(&data, Outcome::Recorded, A)
            .forwarded(&another(&open, 40_003), Outcome::Pinned, B),
    );
    let gone =
        Case::new(name("its backend is gone")).forwarded(&open, Outcome::New, A).swap(with(GONE));
    // The next datagram goes to one that lives; a segment too, which answers it with a reset.
    let why = if proto == Proto::Tcp { Outcome::Hash } else { Outcome::Repinned };
    all.push(gone.forwarded(&data, why, B).forwarded(&another(&open, 40_001), Outcome::Pinned, B));
    all.push(
        Case::new(name("its backend is gone, and it comes again"))
            .forwarded(&open, Outcome::New, A)
            .swap(with(GONE))
            .forwarded(&another(&open, 40_001), Outcome::Repinned, B),
    );
    all.push(
        Case::new(name("another use of its backend's index"))
            .forwarded(&open, Outcome::New, A)
            .swap(Maps::default().to(B, true).with(|m| {
                m.backends[0].id = BackendId::new(A, 2).0;
            }))
            .forwarded(&another(&open, 40_001), Outcome::Repinned, B),
    );
    all.push(
        Case::new(name("a settled slot of a backend that is gone"))
            .maps(Maps::default().state(A, GONE))
            .dropped(&open, &[Outcome::NoBackend], None),
    );
}

/// Changes all flows.
pub fn flows(world: &mut World, change: impl Fn(&mut Flow)) {
    for name in [maps::FLOWS, maps::TRANSIENT] {
        let mut map = world.map::<FlowKey, Flow>(name);
        let all: Vec<_> = map.iter().collect::<Result<_, _>>().unwrap();
        for (key, mut flow) in all {
            change(&mut flow);
            map.insert(key, flow, 0).unwrap();
        }
    }
    world.change_openings(change);
}

/// Where a client's record is, and its flow.
fn known(family: Family, evident: bool) -> impl Fn(&mut World) + Send + Sync {
    move |world: &mut World| {
        let prefix = if family == Family::V4 { 128 } else { 64 };
        let addr = addr::masked(&mapped(family.client(0)), prefix);
        let key = ClientKey { service: SERVICE, addr };
        for (name, there) in [(maps::CLIENTS, evident), (maps::CANDIDATES, !evident)] {
            let found = world.map::<ClientKey, Record>(name).get(&key, 0).is_ok();
            assert_eq!(found, there, "the record is in {name}: {found}");
        }
        let mut count = |name| world.map::<FlowKey, Flow>(name).keys().count();
        let (mut established, mut transient) = (count(maps::FLOWS), count(maps::TRANSIENT));
        let placed = world.openings();
        let real = placed.iter().filter(|opening| opening.flow.established()).count();
        (established, transient) = (established + real, transient + placed.len() - real);
        let expected = if evident { (1, 0) } else { (0, 1) };
        assert_eq!((established, transient), expected, "established flows, and others");
    }
}

fn evidence_of_tcp(family: Family, all: &mut Vec<Case>) {
    let name = |what: &str| format!("{family:?} TCP: {what}");
    let open = Packet::segment(family, SYN, b"");
    let out = open.delivered(family, A);
    let there = |flags, seq, ack, data: &[u8]| {
        open.clone().with(|p| p.body = tcp_at(flags, seq, ack, data))
    };
    let back = |flags, seq, ack, data: &[u8]| out.answer(tcp_at(flags, seq, ack, data));
    let syn_ack = back(SYN | ACK, 7000, 1001, b"");
    let seen = |p: &Packet| p.restored(family.frontend());
    let begun = |what: &str| {
        Case::new(name(what))
            .forwarded(&open, Outcome::New, A)
            .replied(&syn_ack, &seen(&syn_ack))
            .then(known(family, false))
    };
    all.push(
        begun("the answer to the backend's SYN is evidence")
            .forwarded(&there(ACK, 1001, 7001, b""), Outcome::Hash, A)
            .then(known(family, true)),
    );
    all.push(
        begun("another acknowledgement is none")
            .forwarded(&there(ACK, 1001, 7002, b""), Outcome::Hash, A)
            .then(known(family, false)),
    );
    let data = back(ACK | PSH, 7001, 1001, b"hello");
    all.push(
        begun("data of the backend is evidence")
            .replied(&data, &seen(&data))
            .then(known(family, true)),
    );
    let taken = back(ACK, 7001, 1006, b"");
    all.push(
        begun("data that the backend took is evidence")
            .replied(&taken, &seen(&taken))
            .then(known(family, true)),
    );
    let bare = back(ACK, 7001, 1001, b"");
    all.push(
        begun("a bare acknowledgement of the backend is none")
            .replied(&bare, &seen(&bare))
            .then(known(family, false)),
    );
    let reset = back(RST | ACK, 7001, 1006, b"");
    all.push(
        begun("a reset of the backend is none")
            .replied(&reset, &seen(&reset))
            .then(known(family, false)),
    );
    // It counts again after the slot moved: by the backend that answered.
    all.push(
        begun("the answer finds its backend after the slot moved")
            .swap(Maps::default().to(B, false))
            .forwarded(&there(ACK, 1001, 7001, b""), Outcome::Hash, A)
            .then(known(family, true)),
    );
    let ends = begun("both ends are done")
        .forwarded(&there(ACK, 1001, 7001, b""), Outcome::Hash, A)
        .then(known(family, true))
        .forwarded(&there(FIN | ACK, 1001, 7001, b""), Outcome::Hash, A);
    let fin = back(FIN | ACK, 7001, 1002, b"");
    all.push(ends.replied(&fin, &seen(&fin)).then(|w| {
        assert!(w.openings().iter().all(|opening| opening.flow.closed()), "it holds no place");
        assert_eq!(w.map::<FlowKey, Flow>(maps::FLOWS).keys().count(), 0, "it takes no room");
        assert_eq!(w.map::<FlowKey, Flow>(maps::TRANSIENT).keys().count(), 0);
    }));
    let late = begun("a SYN-ACK long after the SYN is another's")
        .then(|w| flows(w, |f| f.opened -= tick::from_secs(70)));
    all.push(late.reply_passed(&syn_ack));
    let words = begun("last words, two minutes long")
        .forwarded(&there(RST, 1001, 0, b""), Outcome::Hash, A)
        .replied(&bare, &seen(&bare))
        .then(|w| flows(w, |f| f.seen -= tick::from_secs(121)));
    all.push(words.reply_passed(&bare));
    all.push(
        begun("a silent flow stands in no other's way after 3 h")
            .then(|w| flows(w, |f| f.seen = now().wrapping_sub(tick::from_secs(3 * 3600 + 2))))
            .forwarded(
                &open.clone().with(|p| p.dst.set_port(super::places::SECOND)),
                Outcome::Pinned,
                A,
            ),
    );
}

fn evidence_of_udp(family: Family, all: &mut Vec<Case>) {
    let name = |what: &str| format!("{family:?} UDP: {what}");
    let open = Packet::datagram(family, b"query");
    let back = open.delivered(family, A).answer(udp(b"answer"));
    all.push(
        Case::new(name("datagrams that go on are evidence"))
            .then(|_| next_tick())
            .forwarded(&open, Outcome::New, A)
            .forwarded(&open, Outcome::Hash, A)
            .then(known(family, false))
            .then(|_| next_tick())
            .forwarded(&open, Outcome::Recorded, A)
            .then(known(family, true))
            .forwarded(&open, Outcome::Hash, A),
    );
    all.push(
        Case::new(name("a reply after three minutes of silence is another's"))
            .forwarded(&open, Outcome::New, A)
            .replied(&back, &back.restored(family.frontend()))
            .then(|w| flows(w, |f| f.seen = now() - tick::from_secs(182)))
            .reply_passed(&back),
    );
    all.push(
        Case::new(name("a datagram after three minutes of silence begins a flow"))
            .forwarded(&open, Outcome::New, A)
            .then(|w| flows(w, |f| f.seen = now() - tick::from_secs(182)))
            .swap(Maps::default().to(B, true).each(|f| f.ttl = 0))
            .forwarded(&open, Outcome::Expired, B),
    );
}

/// A client that was moved has several backends, and the flows say which connection is with which.
fn several(family: Family, all: &mut Vec<Case>) {
    let open = |port| Packet::segment(family, SYN, b"").with(|p| p.src.set_port(port));
    let data = |port| {
        Packet::segment(family, SYN, b"").with(|p| {
            p.src.set_port(port);
            p.body = tcp(ACK | PSH, b"data");
        })
    };
    all.push(
        Case::new(format!("{family:?} TCP: connections with three backends"))
            .forwarded(&open(1), Outcome::New, A)
            .swap(Maps::default().to(B, true).state(A, ENDING))
            .forwarded(&open(2), Outcome::Repinned, B)
            .swap(Maps::default().to(C, true).state(A, ENDING).state(B, ENDING))
            .forwarded(&open(3), Outcome::Repinned, C)
            .forwarded(&data(1), Outcome::Recorded, A)
            .forwarded(&data(2), Outcome::Recorded, B)
            .forwarded(&data(3), Outcome::Recorded, C)
            .swap(Maps::default().to(C, true).state(A, GONE).state(B, ENDING))
            .forwarded(&data(1), Outcome::Recorded, C)
            .forwarded(&data(2), Outcome::Recorded, B)
            .forwarded(&open(4), Outcome::Pinned, C),
    );
}

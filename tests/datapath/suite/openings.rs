//! Connections that want the same place while they open.

use std::net::SocketAddr;

use sticky_common::maps;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Flow, FlowKey, tick};

use super::case::Case;
use super::maps::mapped;
use super::packet::{ACK, PSH, Packet, RST, SYN, tcp_at};
use super::places::{BACKENDS, FAMILIES, Family, TARGET};
use super::state::flows;
use super::world::World;

const A: u32 = BACKENDS[0];

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for family in FAMILIES {
        places(family, &mut all);
    }
    all
}

/// The same of another client, with the same place.
fn same_place(family: Family, open: &Packet) -> Packet {
    let place = |client, port| {
        let key = FlowKey {
            client: mapped(client),
            backend: mapped(family.backend(A)),
            client_port: u16::to_be_bytes(port),
            backend_port: TARGET.to_be_bytes(),
            proto: 6,
        };
        key.place(maps::OPENING_BITS)
    };
    let (other, taken) = (family.client(1), place(open.src.ip(), open.src.port()));
    let port = (1..u16::MAX).find(|port| place(other, *port) == taken).unwrap();
    open.clone().with(|p| p.src = SocketAddr::new(other, port))
}

fn places(family: Family, all: &mut Vec<Case>) {
    let name = |what: &str| format!("{family:?} TCP: {what}");
    let first = Packet::segment(family, SYN, b"");
    let second = same_place(family, &first);
    let there = |open: &Packet, flags, seq, ack, data: &[u8]| {
        open.clone().with(|p| p.body = tcp_at(flags, seq, ack, data))
    };
    let back = |open: &Packet, flags, seq, ack, data: &[u8]| {
        open.delivered(family, A).answer(tcp_at(flags, seq, ack, data))
    };
    let seen = |p: &Packet| p.restored(family.frontend());
    let where_they_are = |openings: usize, transient: usize, established: usize| {
        move |w: &mut World| {
            let mut count = |name| w.map::<FlowKey, Flow>(name).keys().count();
            let found = (count(maps::TRANSIENT), count(maps::FLOWS));
            assert_eq!((w.openings().len(), found), (openings, (transient, established)));
        }
    };
    // To a service, a network of IPv6 is one client.
    let other = if family == Family::V4 { Outcome::New } else { Outcome::Pinned };
    let [a, b] = [&first, &second].map(|open| back(open, SYN | ACK, 7000, 1001, b""));
    let both = Case::new(name("two want one place"))
        .forwarded(&first, Outcome::New, A)
        .forwarded(&second, other, A)
        .then(where_they_are(1, 1, 0))
        .forwarded(&first, Outcome::Pinned, A)
        .forwarded(&second, Outcome::Pinned, A)
        .then(where_they_are(1, 1, 0));
    all.push(
        both.replied(&a, &seen(&a))
            .replied(&b, &seen(&b))
            .forwarded(&there(&first, ACK, 1001, 7001, b""), Outcome::Hash, A)
            .then(where_they_are(0, 1, 1))
            .forwarded(&there(&second, ACK, 1001, 7001, b""), Outcome::Hash, A)
            .then(where_they_are(0, 0, 2)),
    );
    let data = back(&first, ACK | PSH, 7001, 1001, b"hello");
    all.push(
        Case::new(name("one that came to nothing leaves its place, and may yet go on"))
            .forwarded(&first, Outcome::New, A)
            .then(|w| flows(w, |f| f.seen -= tick::from_secs(70)))
            .forwarded(&second, other, A)
            .then(where_they_are(1, 1, 0))
            .replied(&b, &seen(&b))
            .replied(&data, &seen(&data))
            .then(where_they_are(1, 0, 1)),
    );
    let reset = there(&first, RST, 1001, 0, b"");
    all.push(
        Case::new(name("a closed one leaves its place for good"))
            .forwarded(&first, Outcome::New, A)
            .forwarded(&reset, Outcome::Hash, A)
            .then(|w| flows(w, |f| f.seen -= tick::from_secs(70)))
            .forwarded(&second, other, A)
            .then(where_they_are(1, 0, 0))
            .reply_passed(&a),
    );
    all.push(
        Case::new(name("a container that opens a connection of its own frees the place"))
            .forwarded(&first, Outcome::New, A)
            .reply_passed(&back(&first, SYN, 1, 0, b""))
            .then(where_they_are(0, 0, 0)),
    );
}

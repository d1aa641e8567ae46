//! Connections that want the same place.

use std::net::SocketAddr;

use sticky_common::maps;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Flow, FlowKey, tick};

use super::case::Case;
use super::maps::mapped;
use super::packet::{ACK, FIN, PSH, Packet, RST, SYN, tcp_at};
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
    let where_they_are = |placed: usize, transient: usize, kept: usize| {
        move |w: &mut World| {
            let mut count = |name| w.map::<FlowKey, Flow>(name).keys().count();
            let found = (count(maps::TRANSIENT), count(maps::FLOWS));
            assert_eq!((w.openings().len(), found), (placed, (transient, kept)));
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
            .then(where_they_are(1, 1, 0))
            .forwarded(&there(&second, ACK, 1001, 7001, b""), Outcome::Hash, A)
            .then(where_they_are(1, 0, 1)),
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
    let (established, fin) =
        (there(&first, ACK, 1001, 7001, b""), there(&first, FIN | ACK, 1001, 7001, b""));
    let end = back(&first, FIN | ACK, 7001, 1002, b"");
    let lives = |what: &str| {
        Case::new(name(what))
            .forwarded(&first, Outcome::New, A)
            .replied(&a, &seen(&a))
            .forwarded(&established, Outcome::Hash, A)
            .then(where_they_are(1, 0, 0))
    };
    all.push(
        lives("one that goes on leaves its place, and goes on")
            .forwarded(&second, other, A)
            .then(where_they_are(1, 0, 1))
            .replied(&data, &seen(&data))
            .replied(&b, &seen(&b))
            .forwarded(&fin, Outcome::Hash, A)
            .then(where_they_are(1, 0, 1))
            .replied(&end, &seen(&end))
            .then(where_they_are(1, 1, 0))
            .replied(&end, &seen(&end)),
    );
    all.push(
        lives("an invented SYN takes nothing from one that goes on")
            .forwarded(&first, Outcome::Pinned, A)
            .then(|w| flows(w, |f| f.seen -= tick::from_secs(70)))
            .forwarded(&second, other, A)
            .then(where_they_are(1, 0, 1))
            .replied(&data, &seen(&data)),
    );
    all.push(
        lives("one whose last word is said leaves its place for good")
            .forwarded(&fin, Outcome::Hash, A)
            .replied(&end, &seen(&end))
            .then(where_they_are(1, 0, 0))
            .replied(&end, &seen(&end))
            .forwarded(&second, other, A)
            .then(where_they_are(1, 0, 0))
            .reply_passed(&end),
    );
    let (half, last) =
        (back(&first, FIN | ACK, 7001, 1001, b""), back(&first, ACK, 7002, 1002, b""));
    let over = |what: &str| {
        lives(what)
            .replied(&half, &seen(&half))
            .forwarded(&there(&first, FIN | ACK, 1001, 7002, b""), Outcome::Hash, A)
            .then(where_they_are(1, 0, 0))
    };
    all.push(
        over("one that has just ended leaves its place, and has its last word")
            .forwarded(&second, other, A)
            .then(where_they_are(1, 1, 0))
            .replied(&last, &seen(&last))
            .replied(&b, &seen(&b)),
    );
    all.push(
        over("one that ended a while ago leaves its place for good")
            .then(|w| flows(w, |f| f.seen -= tick::from_secs(3)))
            .forwarded(&second, other, A)
            .then(where_they_are(1, 0, 0))
            .reply_passed(&last),
    );
    let reset = there(&first, RST, 1001, 0, b"");
    all.push(
        lives("a closed one's ports serve another")
            .forwarded(&reset, Outcome::Hash, A)
            .forwarded(&first, Outcome::Pinned, A)
            .replied(&a, &seen(&a))
            .then(where_they_are(1, 0, 0)),
    );
    all.push(
        Case::new(name("one that was reset while it opened leaves its place for good"))
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

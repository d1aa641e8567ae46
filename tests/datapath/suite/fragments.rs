//! Fragments both ways: they follow the first one, whatever they contain, and nothing is read that is not there.

use sticky_common::outcome::Outcome;

use super::case::Case;
use super::maps::Maps;
use super::packet::{ACK, Packet, SYN, tcp, tcp_at, udp};
use super::places::{BACKENDS, FAMILIES, Family, PROTOS, Proto, TARGET};
use super::world::World;

const A: u32 = BACKENDS[0];
const B: u32 = BACKENDS[1];

fn large(family: Family, proto: Proto) -> Packet {
    Packet::opening(family, proto).with(|p| {
        p.body = match proto {
            Proto::Tcp => tcp(ACK, &[0x33; 100]),
            Proto::Udp => udp(&[0x33; 112]),
        };
    })
}

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            there(family, proto, &mut all);
            back(family, proto, &mut all);
        }
        tiny(family, &mut all);
    }
    all
}

/// Of the packet, and of what comes out at a backend: bytes `from` to `to` of the transport.
fn piece(family: Family, whole: &Packet, from: usize, to: usize) -> (Packet, Packet) {
    let more = to < whole.transport().1.len();
    let (part, out) =
        (whole.piece(from, to, more), whole.delivered(family, A).piece(from, to, more));
    (part, out)
}

fn there(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let name = |what: &str| format!("{family:?} {proto:?} fragments: {what}");
    let whole = large(family, proto);
    let len = whole.transport().1.len();
    let first_why = if proto == Proto::Tcp { Outcome::Hash } else { Outcome::New };
    let part = |from, to| piece(family, &whole, from, to);
    let (first, first_out) = part(0, 48);
    let (second, second_out) = part(48, 96);
    let (last, last_out) = part(96, len);
    let begun = |what: &str| Case::new(name(what)).sent(&first, first_why, A, &first_out);
    all.push(begun("in order").sent(&second, Outcome::Fragment, A, &second_out).sent(
        &last,
        Outcome::Fragment,
        A,
        &last_out,
    ));
    all.push(
        begun("the last before the second").sent(&last, Outcome::Fragment, A, &last_out).sent(
            &second,
            Outcome::Fragment,
            A,
            &second_out,
        ),
    );
    all.push(Case::new(name("the second first")).passed(&second).passed(&last));
    all.push(begun("with another id").passed(&second.clone().with(|p| p.id += 1)));
    all.push(
        begun("of another client")
            .passed(&second.clone().with(|p| p.src = (family.client(1), 1).into())),
    );
    // Whatever it says, a fragment behind the first has no ports: the backend's host sorts overlaps out.
    let (over, over_out) = part(24, 72);
    all.push(begun("overlapping").sent(&over, Outcome::Fragment, A, &over_out));
    all.push(begun("the first one twice").sent(&first, Outcome::Hash, A, &first_out).sent(
        &second,
        Outcome::Fragment,
        A,
        &second_out,
    ));
    all.push(begun("time to live 2").sent(
        &second.clone().with(|p| p.ttl = 2),
        Outcome::Fragment,
        A,
        &second_out.clone().with(|p| p.ttl = 1),
    ));
    all.push(begun("time to live 1, no error about a later one").dropped(
        &second.clone().with(|p| p.ttl = 1),
        &[Outcome::Fragment, Outcome::TtlExpired],
        Some(A),
    ));
    all.push(
        begun("the rest follows where the first went").swap(Maps::default().to(B, true)).sent(
            &second,
            Outcome::Fragment,
            A,
            &second_out,
        ),
    );
    all.push(
        begun("of a backend that is gone")
            .swap(Maps::default().to(B, true).state(A, 0))
            .passed(&second),
    );
    all.push(Case::new(name("whole, by a fragment header")).sent(
        &whole.piece(0, len, false),
        first_why,
        A,
        &whole.delivered(family, A).piece(0, len, false),
    ));
    all.push(
        Case::new(name("nobody is up"))
            .maps(Maps::default().nobody_up(false))
            .dropped(&first, &[Outcome::NoBackend], None)
            .passed(&second),
    );
    let elsewhere = first.clone().with(|p| p.dst.set_port(9));
    all.push(
        begun("its id once more, for another port of the host").passed(&elsewhere).passed(&second),
    );
    all.push(begun("forgotten after a minute").then(older).passed(&second));
}

/// The first fragment came 61 s ago.
fn older(world: &mut World) {
    use sticky_common::types::{Fragment, FragmentKey, tick};
    let mut map = world.map::<FragmentKey, Fragment>(sticky_common::maps::FRAGMENTS);
    let all: Vec<_> = map.iter().collect::<Result<_, _>>().unwrap();
    assert!(!all.is_empty());
    for (key, fragment) in all {
        let seen = fragment.seen - tick::from_secs(61);
        map.insert(key, Fragment { seen, ..fragment }, 0).unwrap();
    }
}

fn back(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let name = |what: &str| format!("{family:?} {proto:?} fragments of a reply: {what}");
    let open = Packet::opening(family, proto);
    let whole = open.delivered(family, A).answer(match proto {
        Proto::Tcp => tcp_at(ACK, 7001, 1001, &[0x44; 100]),
        Proto::Udp => udp(&[0x44; 112]),
    });
    let len = whole.transport().1.len();
    let seen = whole.restored(family.frontend());
    let (first, first_out) = (whole.piece(0, 48, true), seen.piece(0, 48, true));
    let (last, last_out) = (whole.piece(48, len, false), seen.piece(48, len, false));
    let case = |what: &str| Case::new(name(what)).forwarded(&open, Outcome::New, A);
    all.push(case("in order").replied(&first, &first_out).replied(&last, &last_out));
    all.push(case("the last first").reply_passed(&last));
    all.push(
        case("with another id")
            .replied(&first, &first_out)
            .reply_passed(&last.clone().with(|p| p.id += 1)),
    );
    all.push(
        case("its id once more, from another port")
            .replied(&first, &first_out)
            .reply_passed(&first.clone().with(|p| p.src.set_port(9)))
            .reply_passed(&last),
    );
    all.push(Case::new(name("of no flow")).reply_passed(&first).reply_passed(&last));
    all.push(
        case("forgotten after a minute")
            .replied(&first, &first_out)
            .then(older)
            .reply_passed(&last),
    );
}

/// First fragments that are too short for what is read (RFC 1858), and later ones that would overwrite it.
fn tiny(family: Family, all: &mut Vec<Case>) {
    let whole = Packet::segment(family, SYN, b"").with(|p| {
        p.body = tcp(SYN, &[1; 60]);
    });
    for len in [8, 16] {
        all.push(
            Case::new(format!("{family:?} Tcp fragments: a first one of {len} bytes"))
                .passed(&whole.piece(0, len, true))
                .passed(&whole.piece(len, 48, true)),
        );
    }
    let datagram = large(family, Proto::Udp);
    let out = datagram.delivered(family, A);
    all.push(
        Case::new(format!("{family:?} Udp fragments: a first one of 8 bytes"))
            .sent(&datagram.piece(0, 8, true), Outcome::New, A, &out.piece(0, 8, true))
            .sent(&datagram.piece(8, 48, true), Outcome::Fragment, A, &out.piece(8, 48, true)),
    );
    // Its second fragment begins in the header: it goes where the first one went, and says nothing to us.
    let mut other = whole.clone();
    other.dst.set_port(9);
    let mut out = whole.delivered(family, A);
    let piece = whole.piece(0, 40, true);
    let case = Case::new(format!("{family:?} Tcp fragments: one that overwrites the flags")).sent(
        &piece,
        Outcome::New,
        A,
        &out.piece(0, 40, true),
    );
    out.src = other.src;
    out.dst.set_port(TARGET);
    all.push(case.sent(
        &whole.piece(8, 48, true),
        Outcome::Fragment,
        A,
        // Behind the first fragment's ports nothing is changed; the checksum is in these bytes, as it came.
        &later(&whole, family),
    ));
}

/// A later fragment with the checksum in it, which stays as it is.
fn later(whole: &Packet, family: Family) -> Packet {
    let bytes = whole.transport();
    whole
        .delivered(family, A)
        .with(|p| p.body = super::packet::Body::Raw(bytes.0, bytes.1))
        .piece(8, 48, true)
}

//! Headers at their edges: extension headers, cut short at every byte, lengths that lie.

use sticky_common::outcome::Outcome;

use super::case::Case;
use super::packet::{Body, Packet};
use super::places::{BACKENDS, FAMILIES, Family, Over, PROTOS, Proto};

const A: u32 = BACKENDS[0];

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const ESP: u8 = 50;
const AUTHENTICATION: u8 = 51;
const NO_NEXT: u8 = 59;
const DESTINATION: u8 = 60;
const MOBILITY: u8 = 135;

/// An extension header of `units` times eight bytes: all but its first byte, and options that are padding.
fn extension(kind: u8, units: u8) -> (u8, Vec<u8>) {
    let len = usize::from(units) * 8;
    let mut bytes = vec![0; len - 1];
    match kind {
        // Nothing of it is left to visit.
        ROUTING => bytes[0] = units - 1,
        AUTHENTICATION => bytes[0] = units * 2 - 2,
        FRAGMENT => {}
        _ => {
            bytes[0] = units - 1;
            bytes[1] = 1;
            bytes[2] = (len - 4) as u8;
        }
    }
    (kind, bytes)
}

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for proto in PROTOS {
        extensions(proto, &mut all);
        for family in FAMILIES {
            cut(family, proto, &mut all);
            lies(family, proto, &mut all);
        }
    }
    others(&mut all);
    all
}

fn extensions(proto: Proto, all: &mut Vec<Case>) {
    let open = Packet::opening(Family::V6, proto);
    let with = |kinds: &[(u8, u8)]| {
        let extensions = kinds.iter().map(|(kind, units)| extension(*kind, *units)).collect();
        open.clone().with(|p| p.extensions = extensions)
    };
    for (what, kinds) in [
        ("hop-by-hop", &[(HOP_BY_HOP, 1)][..]),
        ("a long hop-by-hop", &[(HOP_BY_HOP, 5)]),
        ("destination options", &[(DESTINATION, 1)]),
        ("routing", &[(ROUTING, 1)]),
        ("a long routing header", &[(ROUTING, 3)]),
        ("authentication", &[(AUTHENTICATION, 2)]),
        ("a fragment header of a whole packet", &[(FRAGMENT, 1)]),
        ("two", &[(HOP_BY_HOP, 1), (DESTINATION, 2)]),
        (
            "all six of RFC 8200",
            &[
                (HOP_BY_HOP, 1),
                (DESTINATION, 1),
                (ROUTING, 1),
                (FRAGMENT, 1),
                (AUTHENTICATION, 2),
                (DESTINATION, 1),
            ],
        ),
        ("the same one six times", &[(DESTINATION, 1); 6]),
        ("400 bytes", &[(DESTINATION, 25), (DESTINATION, 25)]),
    ] {
        let name = format!("V6 {proto:?}: extension headers, {what}");
        all.push(Case::new(name).forwarded(&with(kinds), Outcome::New, A));
    }
    for (what, kinds) in [
        ("seven", &[(DESTINATION, 1); 7][..]),
        ("ten", &[(DESTINATION, 1); 10]),
        ("longer than is walked", &[(DESTINATION, 32), (DESTINATION, 32)]),
        ("mobility", &[(MOBILITY, 1)]),
        ("encrypted", &[(ESP, 1)]),
        ("nothing behind", &[(NO_NEXT, 1)]),
    ] {
        let name = format!("V6 {proto:?}: extension headers, {what}");
        all.push(Case::new(name).passed(&with(kinds)));
    }
    let name = format!("V6 {proto:?}: extension header cut");
    let frame = with(&[(HOP_BY_HOP, 1), (DESTINATION, 2)]).frame(Over::FromClient);
    let mut case = Case::new(name);
    for len in 54..frame.len() {
        case = case.unread_frame(frame[..len].to_vec());
    }
    all.push(case);
    let name = format!("V6 {proto:?}: an extension header that is longer than the packet");
    let mut frame = with(&[(DESTINATION, 1)]).frame(Over::FromClient);
    frame[55] = 40;
    all.push(Case::new(name).unread_frame(frame));
}

/// A frame that ends before its packet does is the host's to drop.
fn cut(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let open = Packet::opening(family, proto);
    let frame = open.frame(Over::FromClient);
    for (what, at) in [("link", 14), ("IP", 14 + family.header()), ("transport", frame.len())] {
        let from = match what {
            "link" => 14,
            "IP" => 15,
            _ => 14 + family.header() + 1,
        };
        let mut case = Case::new(format!("{family:?} {proto:?}: cut in the {what} header"));
        for len in from..=at.min(frame.len() - 1) {
            case = case.unread_frame(frame[..len].to_vec());
        }
        all.push(case);
    }
    let tagged = open.with(|p| p.tags = vec![[0x88, 0xa8, 0, 5], [0x81, 0, 0, 6]]);
    let frame = tagged.frame(Over::FromClient);
    let mut case = Case::new(format!("{family:?} {proto:?}: cut with two tags"));
    for len in 14..frame.len() {
        case = case.unread_frame(frame[..len].to_vec());
    }
    all.push(case);
}

fn lies(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let open = Packet::opening(family, proto);
    let frame = open.frame(Over::FromClient);
    let l4 = 14 + family.header();
    let case = |what: &str| Case::new(format!("{family:?} {proto:?}: {what}"));
    let changed = |at: usize, bytes: &[u8]| {
        let mut frame = frame.clone();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let length = match family {
        Family::V4 => 16,
        Family::V6 => 18,
    };
    for (what, value) in [
        ("0", 0_u16),
        ("1", 1),
        ("7", 7),
        ("19", 19),
        ("more than there is", 1500),
        ("65535", 65535),
    ] {
        let frame = changed(length, &value.to_be_bytes());
        all.push(case(&format!("IP length {what}")).unread_frame(frame));
    }
    all.push(case("another version").unread_frame(changed(14, &[0x55])));
    match (family, proto) {
        (Family::V4, _) => {
            for ihl in [0, 1, 4] {
                let frame = changed(14, &[0x40 | ihl]);
                all.push(case(&format!("header length {ihl}")).unread_frame(frame));
            }
            all.push(case("header length 15").unread_frame(changed(14, &[0x4f])));
        }
        (Family::V6, _) => {}
    }
    match proto {
        Proto::Tcp => {
            for offset in [0, 1, 4, 15] {
                let frame = changed(l4 + 12, &[offset << 4]);
                all.push(case(&format!("data offset {offset}")).unread_frame(frame));
            }
        }
        Proto::Udp => {
            for len in [0_u16, 7, 14, 1000] {
                let frame = changed(l4 + 4, &len.to_be_bytes());
                all.push(case(&format!("UDP length {len}")).unread_frame(frame));
            }
        }
    }
    // Link padding behind a short packet is no part of it, but goes on as it came.
    let padded = |mut frame: Vec<u8>| {
        frame.extend([0xee; 17]);
        frame
    };
    let out = open.delivered(family, A).frame(Over::ToBackend);
    all.push(case("padded").sent_frame(padded(frame.clone()), Outcome::New, A, padded(out)));
}

/// Protocols that have no frontend.
fn others(all: &mut Vec<Case>) {
    for family in FAMILIES {
        for number in [0_u8, 2, 4, 41, 46, 47, 50, 89, 103, 112, 132, 136, 253, 255] {
            if family == Family::V6 && number == 0 {
                continue;
            }
            let packet = Packet::new(
                family.client_end(),
                family.frontend(),
                Body::Raw(number, Packet::opening(family, Proto::Tcp).transport().1),
            );
            all.push(Case::new(format!("{family:?}: protocol {number}")).passed(&packet));
        }
    }
    let tcp = Packet::opening(Family::V4, Proto::Tcp).frame(Over::FromClient);
    for kind in [[0x08, 0x06], [0x88, 0x47], [0x88, 0x64], [0x88, 0xcc], [0x00, 0x2e], [0x86, 0xdd]]
    {
        let mut frame = tcp.clone();
        frame[12..14].copy_from_slice(&kind);
        all.push(Case::new(format!("link protocol {kind:02x?}")).unread_frame(frame));
    }
    let three = Packet::opening(Family::V4, Proto::Tcp)
        .with(|p| p.tags = vec![[0x88, 0xa8, 0, 5], [0x81, 0, 0, 6], [0x81, 0, 0, 7]]);
    all.push(Case::new("three tags").unread_frame(three.frame(Over::FromClient)));
}

//! What every network carries: TCP and UDP over both versions, both ways, options, tags, sizes and checksums.

use sticky_common::outcome::Outcome;
use sticky_common::types::BackendId;

use super::case::Case;
use super::maps::Maps;
use super::packet::{ACK, Body, FIN, PSH, Packet, RST, SYN, tcp, tcp_at, udp};
use super::places::{BACKENDS, FAMILIES, Family, PROTOS, SECOND};

const A: u32 = BACKENDS[0];

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            let open = Packet::opening(family, proto);
            let back = open.delivered(family, A).answer(match proto {
                super::places::Proto::Tcp => tcp(SYN | ACK, b""),
                super::places::Proto::Udp => udp(b"answer"),
            });
            let name = |what: &str| format!("{family:?} {proto:?}: {what}");
            all.push(
                Case::new(name("there and back"))
                    .forwarded(&open, Outcome::New, A)
                    .replied(&back, &back.restored(family.frontend())),
            );
            all.push(Case::new(name("a reply of no flow passes")).reply_passed(&back));
            all.push(Case::new(name("time to live 2")).forwarded(
                &open.clone().with(|p| p.ttl = 2),
                Outcome::New,
                A,
            ));
            for (what, tags) in [
                ("a tag", vec![[0x81, 0x00, 0x20, 0x05]]),
                ("two tags", vec![[0x88, 0xa8, 0, 5], [0x81, 0x00, 0, 6]]),
            ] {
                all.push(Case::new(name(what)).forwarded(
                    &open.clone().with(|p| p.tags = tags.clone()),
                    Outcome::New,
                    A,
                ));
            }
        }
        tcp_flags(family, &mut all);
        udp_sums(family, &mut all);
    }
    for len in [4, 20, 40] {
        for proto in PROTOS {
            let open = Packet::opening(Family::V4, proto).with(|p| {
                p.options = [vec![7, len as u8 - 1, 4], vec![0; len - 3]].concat();
            });
            all.push(Case::new(format!("V4 {proto:?}: {len} bytes of options")).forwarded(
                &open,
                Outcome::New,
                A,
            ));
        }
    }
    all
}

fn tcp_flags(family: Family, all: &mut Vec<Case>) {
    for (what, flags, why) in [
        ("a SYN", SYN, Outcome::New),
        ("a SYN with data", SYN | PSH, Outcome::New),
        ("an ACK of no flow", ACK, Outcome::Hash),
        ("data", PSH | ACK, Outcome::Hash),
        ("a FIN", FIN | ACK, Outcome::Hash),
        ("a RST", RST, Outcome::Hash),
        ("no flag", 0, Outcome::Hash),
        ("a SYN-ACK", SYN | ACK, Outcome::Hash),
        ("SYN and FIN", SYN | FIN, Outcome::Hash),
        ("all flags", 0x1f, Outcome::Hash),
    ] {
        let payload: &[u8] = if flags & PSH != 0 { b"odd" } else { b"" };
        let packet = Packet::segment(family, flags, payload);
        all.push(Case::new(format!("{family:?} TCP: {what}")).forwarded(&packet, why, A));
    }
    let open = Packet::segment(family, SYN, b"");
    let back = |flags, seq, ack, data: &[u8]| {
        open.delivered(family, A).answer(tcp_at(flags, seq, ack, data))
    };
    let there = |flags, seq, ack, data: &[u8]| {
        Packet::segment(family, 0, b"").with(|p| p.body = tcp_at(flags, seq, ack, data))
    };
    let mut whole =
        Case::new(format!("{family:?} TCP: a whole connection")).forwarded(&open, Outcome::New, A);
    for (client, packet) in [
        (false, back(SYN | ACK, 7000, 1001, b"")),
        (true, there(ACK, 1001, 7001, b"")),
        (true, there(ACK | PSH, 1001, 7001, b"request")),
        (false, back(ACK, 7001, 1008, b"")),
        (false, back(ACK | PSH, 7001, 1008, b"a response")),
        (true, there(FIN | ACK, 1008, 7011, b"")),
        (false, back(FIN | ACK, 7011, 1009, b"")),
        (true, there(ACK, 1009, 7012, b"")),
        (false, back(ACK, 7012, 1009, b"")),
    ] {
        whole = if client {
            whole.forwarded(&packet, Outcome::Hash, A)
        } else {
            whole.replied(&packet, &packet.restored(family.frontend()))
        };
    }
    // The ports serve another connection, which did not come through the frontend.
    let direct = back(SYN, 1, 0, b"");
    let direct_answer = back(SYN | ACK, 9000, 1, b"");
    all.push(whole.reply_passed(&direct_answer).reply_passed(&direct));
    let again = Maps::default().with(|m| m.backends[0].id = BackendId::new(A, 2).0);
    all.push(
        Case::new(format!("{family:?} TCP: another backend with the address of one that is gone"))
            .forwarded(&open, Outcome::New, A)
            .swap(again)
            .forwarded(&open.clone().with(|p| p.dst.set_port(SECOND)), Outcome::Repinned, A),
    );
    all.push(
        Case::new(format!("{family:?} TCP: two frontends on one port of the backends"))
            .forwarded(&open, Outcome::New, A)
            .dropped(&open.clone().with(|p| p.dst.set_port(SECOND)), &[Outcome::Collision], None)
            .dropped(
                &open.clone().with(|p| p.dst.set_ip(family.second_vip())),
                &[Outcome::Collision],
                None,
            )
            .forwarded(
                &open.clone().with(|p| {
                    p.dst.set_port(SECOND);
                    p.src.set_port(40_001);
                }),
                Outcome::Pinned,
                A,
            )
            .replied(
                &back(SYN | ACK, 1, 1001, b"").with(|p| p.dst.set_port(40_001)),
                &back(SYN | ACK, 1, 1001, b"")
                    .with(|p| p.dst.set_port(40_001))
                    .restored(std::net::SocketAddr::new(family.vip(), SECOND)),
            ),
    );
}

/// A payload that makes the sum of a datagram zero, which is sent as 0xffff.
fn zero_sum(packet: &Packet) -> Packet {
    let probe = packet.clone().with(|p| p.body = udp(&[0, 0, 1, 2, 3]));
    let bytes = probe.transport().1;
    let made = packet.clone().with(|p| p.body = udp(&[bytes[6], bytes[7], 1, 2, 3]));
    assert_eq!(made.transport().1[6..8], [0xff, 0xff]);
    made
}

fn udp_sums(family: Family, all: &mut Vec<Case>) {
    let open = Packet::datagram(family, b"query");
    let name = |what: &str| format!("{family:?} UDP: {what}");
    let before = zero_sum(&open);
    all.push(Case::new(name("0xffff before")).forwarded(&before, Outcome::New, A));
    // The payload of what makes the sum zero behind the rewrite.
    let after = zero_sum(&open.delivered(family, A));
    let packet = open.clone().with(|p| p.body = after.body.clone());
    all.push(Case::new(name("0xffff behind")).forwarded(&packet, Outcome::New, A));
    let back = open.delivered(family, A).answer(udp(b""));
    let restored = zero_sum(&back.restored(family.frontend()));
    let reply = back.with(|p| p.body = restored.body.clone());
    all.push(
        Case::new(name("0xffff in a reply"))
            .forwarded(&open, Outcome::New, A)
            .replied(&reply, &reply.restored(family.frontend())),
    );
    let unsummed = Body::Udp { payload: b"no sum".to_vec(), summed: false };
    let none = open.clone().with(|p| p.body = unsummed.clone());
    let none_back = none.delivered(family, A).answer(unsummed);
    all.push(
        Case::new(name("no checksum"))
            .forwarded(&none, Outcome::New, A)
            .replied(&none_back, &none_back.restored(family.frontend())),
    );
    let empty = open.clone().with(|p| p.body = udp(b""));
    all.push(Case::new(name("no payload")).forwarded(&empty, Outcome::New, A));
    let full = open.with(|p| p.body = udp(&[0xa5; 1400]));
    all.push(Case::new(name("1400 bytes")).forwarded(&full, Outcome::New, A));
    let jumbo = full.clone().with(|p| p.body = udp(&[0x5a; 8901]));
    all.push(Case::new(name("a jumbo frame")).forwarded_by_wire(&jumbo, Outcome::New, A));
}

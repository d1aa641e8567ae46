//! ICMP errors about flows, both ways; what our own programs answer; echo.

use sticky_common::outcome::Outcome;

use super::case::Case;
use super::maps::Maps;
use super::packet::{ACK, Body, PSH, Packet, RST, SYN, tcp, tcp_at, udp};
use super::places::{BACKENDS, FAMILIES, Family, NARROW, NARROW_MTU, PROTOS, Proto};

const A: u32 = BACKENDS[0];
const B: u32 = BACKENDS[1];

/// An error of some kind that quotes a packet.
fn error(about: &Packet, kind: [u8; 2], word: [u8; 4], quote: usize) -> Packet {
    let quoted = about.ip();
    let rest = quoted[..quote.min(quoted.len())].to_vec();
    Packet::new(about.dst, about.src, Body::Icmp { codes: kind, word, rest })
}

/// Kinds of errors, and what is in their second word.
fn kinds(family: Family) -> Vec<(&'static str, [u8; 2], [u8; 4])> {
    match family {
        Family::V4 => vec![
            ("host unreachable", [3, 1], [0; 4]),
            ("port unreachable", [3, 3], [0; 4]),
            ("fragmentation needed", [3, 4], [0, 0, 0x05, 0x14]),
            ("time exceeded", [11, 0], [0; 4]),
            ("parameter problem", [12, 0], [20, 0, 0, 0]),
        ],
        Family::V6 => vec![
            ("unreachable", [1, 0], [0; 4]),
            ("port unreachable", [1, 4], [0; 4]),
            ("too big", [2, 0], [0, 0, 0x05, 0x14]),
            ("time exceeded", [3, 0], [0; 4]),
            ("parameter problem", [4, 1], [0, 0, 0, 6]),
        ],
    }
}

/// Kinds that say no error about a flow.
fn others(family: Family) -> Vec<(&'static str, [u8; 2])> {
    match family {
        Family::V4 => {
            vec![("echo", [8, 0]), ("echo reply", [0, 0]), ("redirect", [5, 1]), ("quench", [4, 0])]
        }
        Family::V6 => vec![("echo", [128, 0]), ("echo reply", [129, 0]), ("unknown", [5, 0])],
    }
}

fn opened(name: String, family: Family, proto: Proto) -> (Case, Packet, Packet) {
    let open = Packet::opening(family, proto);
    let out = open.delivered(family, A);
    let back = out.answer(match proto {
        Proto::Tcp => tcp_at(PSH | ACK, 7000, 1001, &[7; 64]),
        Proto::Udp => udp(&[7; 64]),
    });
    let case = Case::new(name).forwarded(&open, Outcome::New, A);
    (case, back, open)
}

pub fn about_flows() -> Vec<Case> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            for (what, kind, word) in kinds(family) {
                both_ways(family, proto, what, kind, word, usize::MAX, &mut all);
            }
            // A quotation of all lengths: eight bytes of the transport header are the least that is understood.
            let (what, kind, word) = kinds(family).swap_remove(0);
            for quote in 8..=64 {
                let what = format!("{what}, {quote} bytes of transport quoted");
                both_ways(family, proto, &what, kind, word, family.header() + quote, &mut all);
            }
            for quote in 0..family.header() + 8 {
                let name = format!("{family:?} {proto:?}: only {quote} bytes quoted");
                let (case, back, _) = opened(name, family, proto);
                let seen = back.restored(family.frontend());
                let packet = error(&seen, kind, word, quote);
                // What the backend itself gets wrong stays as it is, too.
                let sent = back.answer(back.body.clone());
                let reply = error(&sent, kind, word, quote);
                all.push(case.passed(&packet).reply_passed(&reply));
            }
            of_no_flow(family, proto, &mut all);
        }
        for (what, codes) in others(family) {
            let (case, back, _) = opened(format!("{family:?}: {what}"), family, Proto::Tcp);
            let seen = back.restored(family.frontend());
            all.push(case.passed(&error(&seen, codes, [0, 1, 0, 2], usize::MAX)));
        }
    }
    all
}

fn both_ways(
    family: Family,
    proto: Proto,
    what: &str,
    kind: [u8; 2],
    word: [u8; 4],
    quote: usize,
    all: &mut Vec<Case>,
) {
    let (case, back, open) = opened(format!("{family:?} {proto:?}: {what}"), family, proto);
    // A router on the client's side about what the backend sent, as the client's side sees it.
    let seen = back.restored(family.frontend());
    let router = std::net::SocketAddr::new(family.client(5), 0);
    let packet = error(&seen, kind, word, quote).with(|p| p.src = router);
    let mut out = packet.clone();
    out.ttl -= 1;
    out.dst = back.src;
    out.body = quoting(kind, word, &Packet { ttl: seen.ttl, ..back.clone() }, &seen, quote);
    let case = case.sent(&packet, Outcome::IcmpError, A, &out);
    // The backend, or a router in front of it, about what it got.
    let got = open.clone().with(|p| p.body = longer(proto)).delivered(family, A);
    let reply = error(&got, kind, word, quote);
    let mut restored = reply.clone();
    restored.ttl -= 1;
    restored.src = family.frontend();
    let sent = got.clone().with(|p| p.dst = family.frontend());
    restored.body = quoting(kind, word, &sent, &got, quote);
    all.push(case.replied(&reply, &restored));
}

fn longer(proto: Proto) -> Body {
    match proto {
        Proto::Tcp => tcp_at(PSH | ACK, 1001, 7001, &[9; 64]),
        Proto::Udp => udp(&[9; 64]),
    }
}

/// The error that quotes `new`; where a checksum is cut in two, its half stays as it was in `old`.
fn quoting(kind: [u8; 2], word: [u8; 4], new: &Packet, old: &Packet, quote: usize) -> Body {
    let (mut bytes, was) = (new.ip(), old.ip());
    let header = if new.src.is_ipv4() { 20 } else { 40 };
    let check = header + if matches!(new.body, Body::Tcp { .. }) { 16 } else { 6 };
    let quote = quote.min(bytes.len());
    if quote == check + 1 {
        bytes[check] = was[check];
    }
    bytes.truncate(quote);
    Body::Icmp { codes: kind, word, rest: bytes }
}

fn of_no_flow(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let name = |what: &str| format!("{family:?} {proto:?}: {what}");
    let (what, kind, word) = kinds(family).swap_remove(2);
    let open = Packet::opening(family, proto);
    let seen = open.answer(longer(proto));
    let packet = error(&seen, kind, word, usize::MAX);
    all.push(Case::new(name(&format!("{what} of no flow"))).passed(&packet));
    let other_client =
        error(&seen.clone().with(|p| p.dst.set_port(40_001)), kind, word, usize::MAX);
    all.push(
        Case::new(name(&format!("{what} of another flow")))
            .forwarded(&open, Outcome::New, A)
            .passed(&other_client),
    );
    let got = open.delivered(family, A).with(|p| p.body = longer(proto));
    all.push(Case::new(name(&format!("{what} of no flow, of a backend"))).reply_passed(&error(
        &got,
        kind,
        word,
        usize::MAX,
    )));
    // Its outer address is another than that of what it quotes.
    let elsewhere = packet.clone().with(|p| p.dst.set_ip(family.second_vip()));
    all.push(
        Case::new(name("quotes a packet of someone else"))
            .forwarded(&open, Outcome::New, A)
            .passed(&elsewhere),
    );
    // The owner is found also where the table now says another.
    let mut out = packet.clone();
    out.ttl -= 1;
    let back = open.delivered(family, A).answer(longer(proto));
    out.dst = back.src;
    out.body = quoting(kind, word, &back, &seen, usize::MAX);
    all.push(
        Case::new(name(&format!("{what} after its slot moved")))
            .forwarded(&open, Outcome::New, A)
            .swap(Maps::default().to(B, true))
            .sent(&packet, Outcome::IcmpError, A, &out),
    );
}

pub fn of_our_own() -> Vec<Case> {
    let mut all = Vec::new();
    for family in FAMILIES {
        for proto in PROTOS {
            let name = |what: &str| format!("{family:?} {proto:?}: {what}");
            let open = Packet::opening(family, proto);
            let gap = Maps::default().nobody_up(false);
            let refusing = Maps::default().nobody_up(true);
            let none = [Outcome::NoBackend];
            all.push(Case::new(name("nobody, at first")).maps(gap).dropped(&open, &none, None));
            let refused = [Outcome::NoBackend, Outcome::Refused];
            let refusal = match proto {
                Proto::Tcp => host_answer(&open, tcp_reset(RST | ACK, 0, 1001)),
                Proto::Udp => unreachable(family, &open),
            };
            all.push(
                Case::new(name("nobody, later"))
                    .maps(refusing.clone())
                    .answered(&open, &refused, None, &refusal)
                    .answered(&open, &refused, None, &refusal),
            );
            // Someone is there again.
            all.push(
                Case::new(name("somebody again"))
                    .maps(refusing)
                    .answered(&open, &refused, None, &refusal)
                    .swap(Maps::default())
                    .forwarded(&open, Outcome::New, A),
            );
            expiry(family, proto, &mut all);
            too_big(family, proto, &mut all);
        }
        resets(family, &mut all);
    }
    all
}

/// From the frontend, as a host sends it: nothing of the packet it answers but the addresses.
fn host_answer(to: &Packet, body: Body) -> Packet {
    to.answer(body).with(|p| (p.id, p.label) = (0, 0))
}

fn tcp_reset(flags: u8, seq: u32, ack: u32) -> Body {
    Body::Tcp { flags, seq, ack, window: 0, options: Vec::new(), payload: Vec::new() }
}

fn unreachable(family: Family, about: &Packet) -> Packet {
    let codes = if family == Family::V4 { [3, 3] } else { [1, 4] };
    our_error(about, codes, 0)
}

/// An error of ours: it quotes the IP header and what a client needs to know the flow.
fn our_error(about: &Packet, codes: [u8; 2], mtu: u32) -> Packet {
    let header = about.ip().len() - about.transport().1.len();
    let quote = header + if matches!(about.body, Body::Tcp { .. }) { 20 } else { 8 };
    host_answer(
        about,
        Body::Icmp { codes, word: mtu.to_be_bytes(), rest: about.ip()[..quote].to_vec() },
    )
}

fn resets(family: Family, all: &mut Vec<Case>) {
    let nobody = || Maps::default().nobody_up(true);
    let refused = [Outcome::NoBackend, Outcome::Refused];
    for (what, flags, data, answer) in [
        ("a SYN", SYN, &b""[..], tcp_reset(RST | ACK, 0, 1001)),
        ("a SYN with data", SYN | PSH, b"12345", tcp_reset(RST | ACK, 0, 1006)),
        ("an ACK", ACK, b"", tcp_reset(RST, 5001, 0)),
        ("data", ACK | PSH, b"1234567", tcp_reset(RST, 5001, 0)),
        ("a FIN", ACK | 1, b"", tcp_reset(RST, 5001, 0)),
        ("a FIN without ACK", 1, b"12", tcp_reset(RST | ACK, 0, 1003)),
        ("no flag", 0, b"123", tcp_reset(RST | ACK, 0, 1003)),
        ("a long segment", ACK | PSH, &[3; 1400], tcp_reset(RST, 5001, 0)),
    ] {
        let packet = Packet::segment(family, flags, data);
        let name = format!("{family:?} TCP: nobody, {what}");
        all.push(Case::new(name).maps(nobody()).answered(
            &packet,
            &refused,
            None,
            &host_answer(&packet, answer),
        ));
    }
    let reset = Packet::segment(family, RST, b"");
    all.push(Case::new(format!("{family:?} TCP: nobody, a reset")).maps(nobody()).dropped(
        &reset,
        &[Outcome::NoBackend],
        None,
    ));
    let tagged = Packet::segment(family, SYN, b"").with(|p| p.tags = vec![[0x81, 0, 0, 5]]);
    all.push(Case::new(format!("{family:?} TCP: nobody, a tagged SYN")).maps(nobody()).dropped(
        &tagged,
        &[Outcome::NoBackend],
        None,
    ));
    let long = Packet::segment(family, SYN, b"").with(|p| {
        if family == Family::V4 {
            p.options = vec![7, 7, 4, 0, 0, 0, 0, 0];
        } else {
            p.extensions = vec![(60, vec![0, 1, 4, 0, 0, 0, 0])];
        }
    });
    let answer = host_answer(&long, tcp_reset(RST | ACK, 0, 1001));
    all.push(
        Case::new(format!("{family:?} TCP: nobody, more of an IP header"))
            .maps(nobody())
            .answered(&long, &refused, None, &answer),
    );
}

fn expiry(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let codes = if family == Family::V4 { [11, 0] } else { [3, 0] };
    let open = Packet::opening(family, proto);
    for ttl in [0, 1] {
        let name = format!("{family:?} {proto:?}: time to live {ttl}");
        let packet = open.clone().with(|p| p.ttl = ttl);
        all.push(Case::new(name).answered(
            &packet,
            &[Outcome::New, Outcome::TtlExpired],
            Some(A),
            &our_error(&packet, codes, 0),
        ));
    }
    let back = open.delivered(family, A).answer(match proto {
        Proto::Tcp => tcp(SYN | ACK, b""),
        Proto::Udp => udp(b"answer"),
    });
    let last = back.clone().with(|p| p.ttl = 1);
    all.push(
        Case::new(format!("{family:?} {proto:?}: time to live 1 in a reply"))
            .forwarded(&open, Outcome::New, A)
            .reply_answered(
                &last,
                &[Outcome::Reply, Outcome::TtlExpired],
                &our_error(&last, codes, 0),
            ),
    );
    // No error about an error.
    let (_, kind, word) = kinds(family).swap_remove(0);
    let about = open.answer(longer(proto));
    let icmp = error(&about, kind, word, usize::MAX).with(|p| p.ttl = 1);
    all.push(
        Case::new(format!("{family:?} {proto:?}: time to live 1 of an error"))
            .forwarded(&open, Outcome::New, A)
            .dropped(&icmp, &[Outcome::IcmpError, Outcome::TtlExpired], Some(A)),
    );
}

fn too_big(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let codes = if family == Family::V4 { [3, 4] } else { [2, 0] };
    let of = |ip_len: usize| {
        let header = family.header();
        let body = match proto {
            Proto::Tcp => tcp(ACK, &vec![1; ip_len - header - 20]),
            Proto::Udp => udp(&vec![1; ip_len - header - 8]),
        };
        Packet::opening(family, proto).with(|p| {
            p.df = true;
            p.body = body;
        })
    };
    let why = if proto == Proto::Tcp { Outcome::Hash } else { Outcome::New };
    let maps = || Maps::default().to(NARROW, false);
    let fits = of(NARROW_MTU);
    all.push(
        Case::new(format!("{family:?} {proto:?}: as large as the link takes"))
            .maps(maps())
            .forwarded(&fits, why, NARROW),
    );
    let large = of(NARROW_MTU + 1);
    all.push(
        Case::new(format!("{family:?} {proto:?}: larger than the link takes"))
            .maps(maps())
            .answered(
                &large,
                &[why, Outcome::TooBig],
                Some(NARROW),
                &our_error(&large, codes, NARROW_MTU as u32),
            ),
    );
}

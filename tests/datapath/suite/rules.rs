//! Who may connect, and how often.

use sticky::control::plan::Rule;
use sticky_common::outcome::Outcome;
use sticky_common::types::addr;

use super::case::Case;
use super::maps::{Maps, mapped};
use super::packet::{ACK, PSH, Packet, tcp};
use super::places::{BACKENDS, FAMILIES, Family, PROTOS, Proto, octets};

const A: u32 = BACKENDS[0];
const RULES: u32 = 16;

/// Rules of the first client's prefixes.
fn rules(family: Family, prefixes: &[(u8, bool)]) -> Maps {
    let base = if family == Family::V4 { addr::V4_PREFIX } else { 0 };
    let rules = prefixes
        .iter()
        .map(|(prefix, admits)| Rule {
            addr: addr::masked(&mapped(family.client(0)), base + prefix),
            prefix: base + prefix,
            admits: *admits,
        })
        .collect();
    Maps::default().with(|m| m.rules = vec![(RULES, rules)]).each(|f| f.rules = RULES)
}

pub fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for family in FAMILIES {
        let host = octets(family.client(0)).len() as u8 * 8;
        let net = if family == Family::V4 { 24 } else { 64 };
        for proto in PROTOS {
            let name = |what: &str| format!("{family:?} {proto:?}: {what}");
            let open = Packet::opening(family, proto);
            let neighbour = open.clone().with(|p| p.src.set_ip(family.client(1)));
            let denied = [Outcome::Denied];
            all.push(
                Case::new(name("one is denied"))
                    .maps(rules(family, &[(host, false)]))
                    .dropped(&open, &denied, None)
                    .forwarded(&neighbour, Outcome::New, A),
            );
            all.push(
                Case::new(name("a network is denied"))
                    .maps(rules(family, &[(net, false)]))
                    .dropped(&open, &denied, None)
                    .dropped(&neighbour, &denied, None),
            );
            all.push(
                Case::new(name("one of a denied network is allowed"))
                    .maps(rules(family, &[(net, false), (host, true)]))
                    .forwarded(&open, Outcome::New, A)
                    .dropped(&neighbour, &denied, None),
            );
            all.push(
                Case::new(name("only one is allowed"))
                    .maps(rules(family, &[(0, false), (host, true)]))
                    .forwarded(&open, Outcome::New, A)
                    .dropped(&neighbour, &denied, None),
            );
            all.push(
                Case::new(name("denied while it is connected"))
                    .forwarded(&open, Outcome::New, A)
                    .swap(rules(family, &[(host, false)]))
                    .dropped(&open, &denied, None),
            );
            rate(family, proto, &mut all);
        }
    }
    all
}

/// One connection a second, and no more at once.
fn rate(family: Family, proto: Proto, all: &mut Vec<Case>) {
    let limited = [Outcome::RateLimited];
    let maps = || Maps::default().each(|f| f.interval = 1_000_000_000);
    let open = Packet::opening(family, proto);
    let from = |port: u16| open.clone().with(|p| p.src.set_port(port));
    let neighbour = open.clone().with(|p| p.src.set_ip(family.client(1)));
    let case = |what: &str| Case::new(format!("{family:?} {proto:?}: {what}")).maps(maps());
    let second = if family == Family::V4 { Outcome::New } else { Outcome::RateLimited };
    let first = case("a second connection in the same second")
        .forwarded(&open, Outcome::New, A)
        .dropped(&from(40_001), &limited, None);
    // Those of one prefix are one client: with IPv6 its network.
    all.push(match second {
        Outcome::New => first.forwarded(&neighbour, Outcome::New, A),
        _ => first.dropped(&neighbour, &limited, None),
    });
    if proto == Proto::Tcp {
        let data = open.clone().with(|p| p.body = tcp(ACK | PSH, b"data"));
        all.push(
            case("data counts for nothing")
                .forwarded(&open, Outcome::New, A)
                .forwarded(&data, Outcome::Hash, A)
                .forwarded(&data, Outcome::Hash, A),
        );
    } else {
        all.push(
            case("further datagrams count for nothing")
                .forwarded(&open, Outcome::New, A)
                .forwarded(&open, Outcome::Hash, A)
                .forwarded(&open, Outcome::Hash, A),
        );
    }
}

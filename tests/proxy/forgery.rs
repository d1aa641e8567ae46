//! A cookie is a key, not a hint (P9): whatever is wrong with it, it counts as absent.

use std::collections::HashSet;

use crate::backend::Backend;
use crate::client::{Connection, get};
use crate::proxy::{Bench, learn, service};

fn three() -> [Backend; 3] {
    ["a", "b", "c"].map(Backend::start)
}

/// Where requests with this cookie go, over one connection; each must succeed.
fn owners(connection: &mut Connection, cookie: &str, times: usize) -> HashSet<String> {
    let header = format!("session=1; sticky_lb={cookie}");
    (0..times)
        .map(|_| {
            let response = connection.request("GET /", &[("Cookie", &header)], b"").unwrap();
            assert_eq!(response.status, 200, "{cookie}");
            response.text()
        })
        .collect()
}

#[test]
fn cut_flipped_and_respelled_cookies_pin_nobody() {
    let backends = three();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), learn)]);
    let good = get(bench.addr, "/ping", &[]).value("sticky_lb").unwrap();
    let mut connection = Connection::open(bench.addr);
    assert_eq!(owners(&mut connection, &good, 30).len(), 1, "the good one pins");
    let mut bad: Vec<String> = (0..good.len()).map(|at| good[..at].to_owned()).collect();
    for at in 0..good.len() {
        for bit in 0..7 {
            let mut bytes = good.clone().into_bytes();
            bytes[at] ^= 1 << bit;
            bad.extend(
                String::from_utf8(bytes)
                    .ok()
                    .filter(|v| v.bytes().all(|b| b.is_ascii_graphic() && b != b';')),
            );
        }
    }
    bad.extend([
        format!("{good}="),
        format!("\"{good}\""),
        format!("{good}A"),
        "x".repeat(8192),
        String::new(),
    ]);
    let everywhere: HashSet<_> =
        bad.iter().flat_map(|bad| owners(&mut connection, bad, 1)).collect();
    assert_eq!(everywhere.len(), 3);
    // Each kind alone pins nobody either.
    let flipped =
        if good.starts_with('A') { good.replacen('A', "B", 1) } else { format!("A{}", &good[1..]) };
    for bad in [&good[..good.len() - 4], &format!("{good}="), &flipped] {
        assert_eq!(owners(&mut connection, bad, 60).len(), 3, "{bad}");
    }
}

#[test]
fn replayed_to_another_service_it_is_nothing() {
    let backends = three();
    let all = backends.each_ref();
    let other = service("other", &all, |c| {
        learn(c);
        c.hosts = vec![sticky::model::HostPattern::Exact("other.local".to_owned())];
    });
    let bench = Bench::new(vec![service("s", &all, learn), other]);
    let good = get(bench.addr, "/ping", &[]).value("sticky_lb").unwrap();
    let cookie = format!("session=1; sticky_lb={good}");
    let seen: HashSet<_> = (0..60)
        .map(|_| get(bench.addr, "/", &[("Host", "other.local"), ("Cookie", &cookie)]).text())
        .collect();
    assert_eq!(seen.len(), 3);
}

#[test]
fn past_its_time_it_is_expired() {
    let backends = three();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), learn)]);
    let short = get(bench.addr, "/set", &[("x-set", "session=1; Max-Age=1")]);
    let cookie = short.value("sticky_lb").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2100));
    assert_eq!(owners(&mut Connection::open(bench.addr), &cookie, 60).len(), 3);
    let reasons: Vec<_> = bench.proxy.service("s").unwrap().reasons().collect();
    let expired = reasons.iter().find(|(reason, _)| *reason == sticky::proxy::Reason::Expired);
    assert_eq!(expired.map(|(_, count)| *count), Some(60), "{reasons:?}");
}

#[test]
fn the_first_that_opens_counts_and_a_thousand_do_no_harm() {
    let backends = three();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), learn)]);
    let good = get(bench.addr, "/ping", &[]).value("sticky_lb").unwrap();
    let noise = format!("sticky_lb={}; ", "A".repeat(40)).repeat(1000);
    let mut connection = Connection::open(bench.addr);
    let mut ask = |cookie: &str| {
        let response = connection.request("GET /", &[("Cookie", cookie)], b"").unwrap();
        assert_eq!(response.status, 200);
        response.text()
    };
    let pinned: HashSet<_> =
        (0..30).map(|_| ask(&format!("session=1; {noise}sticky_lb={good}"))).collect();
    assert_eq!(pinned.len(), 1);
    let free: HashSet<_> = (0..60).map(|_| ask(&format!("session=1; {noise}"))).collect();
    assert_eq!(free.len(), 3);
    // Beyond the limit of a head, it is the client's mistake, not ours.
    let huge = format!("session={}", "A".repeat(100_000));
    assert_eq!(get(bench.addr, "/", &[("Cookie", &huge)]).status, 431);
}

//! A cookie is a key, not a hint (P9): whatever is wrong with it, it counts as absent.

use std::collections::HashSet;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::general_purpose::{GeneralPurpose, NO_PAD, PAD};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use sticky::keys::{Keys, Nonces, generate};
use sticky::model::{CookieMode, HostPattern, ServiceConfig};
use sticky::proxy::Reason;
use sticky::proxy::seal::{self, Attributes, Lifetime, Pin};

use crate::backend::Backend;
use crate::client::{Connection, HOST, get};
use crate::proxy::{Bench, cookie, learn, service, settings};

fn three() -> [Backend; 3] {
    ["a", "b", "c"].map(Backend::start)
}

/// A proxy with three backends, a connection to it, and a cookie that pins.
struct Target {
    bench: Bench,
    connection: Connection,
    good: String,
    _backends: [Backend; 3],
}

impl Target {
    fn new() -> Self {
        Self::with(crate::proxy::keys(), learn)
    }

    fn with(keys: Keys, edit: impl FnOnce(&mut ServiceConfig)) -> Self {
        let backends = three();
        let bench = Bench::start(settings(), keys);
        bench.publish(vec![service("s", &backends.each_ref(), edit)]);
        let good = get(bench.addr, "/ping", &[]).value("sticky_lb").unwrap();
        let connection = Connection::open(bench.addr);
        let mut target = Self { bench, connection, good, _backends: backends };
        let cookie = target.good.clone();
        assert_eq!(target.ask(cookie.as_bytes()), (200, true), "the good one pins");
        target
    }

    /// Requests so far that went where a cookie said.
    fn pinned(&self) -> u64 {
        let reasons = self.bench.proxy.service("s").unwrap();
        reasons.reasons().find(|(reason, _)| *reason == Reason::Pinned).map_or(0, |(_, n)| n)
    }

    /// The status of a request with these cookies beside the application's, and whether they chose its backend.
    fn ask_line(&mut self, cookies: &[u8]) -> (u16, bool) {
        let before = self.pinned();
        let head = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nCookie: session=1; ");
        self.connection.write(&[head.as_bytes(), cookies, b"\r\n\r\n"].concat());
        let response = self.connection.response(false).expect("an answer, whatever the cookie");
        if response.status >= 400 {
            self.connection = Connection::open(self.bench.addr);
        }
        (response.status, self.pinned() > before)
    }

    fn ask(&mut self, value: &[u8]) -> (u16, bool) {
        self.ask_line(&[b"sticky_lb=", value].concat())
    }

    /// A bad value is served, and chooses nothing.
    fn refuses(&mut self, value: &[u8]) {
        let text = String::from_utf8_lossy(value).into_owned();
        assert_eq!(self.ask(value), (200, false), "{text}");
    }
}

#[test]
fn cut_anywhere_and_with_any_bit_flipped() {
    let mut target = Target::new();
    let good = target.good.clone().into_bytes();
    for at in 0..good.len() {
        target.refuses(&good[..at]);
        target.refuses(&good[at + 1..]);
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            // These end the header, or the cookie, or are blanks around it.
            if !matches!(bytes[at], b'\r' | b'\n' | b';' | b' ' | b'\t') {
                let (status, pinned) = target.ask(&bytes);
                // What no header may hold is the client's mistake.
                assert!(!pinned && (status == 200 || status == 400), "{at} {bit}: {status}");
            }
        }
    }
    let at = target.bench.proxy.backends();
    assert!(at.iter().all(|backend| backend.requests > 100), "pinned after all: {at:?}");
}

#[test]
fn other_spellings_of_the_same_bytes() {
    let mut target = Target::new();
    let good = target.good.clone();
    let strict = GeneralPurpose::new(&URL_SAFE, NO_PAD);
    let bytes = strict.decode(&good).unwrap();
    let mut spellings = vec![
        GeneralPurpose::new(&URL_SAFE, PAD).encode(&bytes),
        GeneralPurpose::new(&STANDARD, PAD).encode(&bytes),
        GeneralPurpose::new(&STANDARD, NO_PAD).encode(&bytes),
        good.bytes().map(|byte| format!("{byte:02x}")).collect(),
        good.bytes().map(|byte| format!("%{byte:02X}")).collect(),
        format!("{good}="),
        format!("{good}%3D"),
        format!("\"{good}\""),
        format!("{good}A"),
        format!("{good},{good}"),
        format!("{good}\u{0b}"),
        good.to_ascii_lowercase(),
        good.to_ascii_uppercase(),
        "A".repeat(8192),
        good.repeat(8192 / good.len()),
        String::new(),
        "=".to_owned(),
    ];
    // The bits of the last digit that no byte needs.
    if !good.len().is_multiple_of(4) {
        let digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let last = |digit| format!("{}{digit}", &good[..good.len() - 1]);
        spellings.extend(digits.chars().map(last));
    }
    for spelling in spellings.iter().filter(|spelling| **spelling != good) {
        let (status, pinned) = target.ask(spelling.as_bytes());
        assert!(!pinned && (status == 200 || status == 400), "{spelling}: {status}");
    }
    for name in ["Sticky_lb", "STICKY_LB", "sticky_lb ", "sticky_lb2", "__Host-sticky_lb"] {
        let line = format!("{name}={good}");
        assert_eq!(target.ask_line(line.as_bytes()), (200, name == "sticky_lb "), "{name}");
    }
}

/// Lines of a key file: the hash key and one cookie key each.
fn two_files() -> (String, String) {
    let [old, new] = [0, 1].map(|_| generate().unwrap());
    let line = |text: &str, kind| text.lines().find(|l| l.starts_with(kind)).unwrap().to_owned();
    let file = |text| format!("{}\n{}\n", line(&old, "hash"), line(text, "cookie"));
    (file(&old), file(&new))
}

#[test]
fn of_a_retired_key_of_another_service_and_past_their_time() {
    let (old, new) = two_files();
    let keys = Keys::parse(&new).unwrap();
    let mut target = Target::with(Keys::parse(&new).unwrap(), learn);
    let service = sticky_common::maglev::identity(keys.hash, b"s");
    let pin = Pin { service, task: "id-a".to_owned(), attributes: Attributes::default() };
    let seal = |keys: &Keys, name: &str, pin: &Pin| {
        let place = (pin.service, pin.task.as_str());
        seal::seal(keys, &Nonces::default(), name, place, &pin.attributes).unwrap().text()
    };
    let sealed = |pin: &Pin| seal(&keys, "sticky_lb", pin);
    assert_eq!(target.ask(sealed(&pin).as_bytes()), (200, true), "as the proxy makes them");
    let retired = seal(&Keys::parse(&old).unwrap(), "sticky_lb", &pin);
    target.refuses(retired.as_bytes());
    target.refuses(seal(&keys, "sticky_lb_0a0b0c", &pin).as_bytes());
    target.refuses(sealed(&Pin { service: service ^ 1, ..pin.clone() }).as_bytes());
    target.refuses(sealed(&Pin { task: "id-z".to_owned(), ..pin.clone() }).as_bytes());
    target.refuses(sealed(&Pin { task: String::new(), ..pin.clone() }).as_bytes());
    for lifetime in [
        Lifetime { max_age: Some(1_000_000_000), expires: None },
        Lifetime { max_age: None, expires: Some(1_000_000_000) },
        Lifetime { max_age: Some(0), expires: Some(u64::MAX) },
    ] {
        let attributes = Attributes { lifetime, ..Attributes::default() };
        target.refuses(sealed(&Pin { attributes, ..pin.clone() }).as_bytes());
    }
    let reasons: Vec<_> = target.bench.proxy.service("s").unwrap().reasons().collect();
    let count =
        |wanted| reasons.iter().find(|(reason, _)| *reason == wanted).map_or(0, |(_, n)| *n);
    // Two name tasks that there are not; the rest is nothing at all.
    assert_eq!((count(Reason::Expired), count(Reason::Repinned)), (3, 2), "{reasons:?}");
    assert_eq!(count(Reason::Invalid), 3, "{reasons:?}");
}

#[test]
fn replayed_to_another_service_it_is_nothing() {
    let backends = three();
    let all = backends.each_ref();
    let other = service("other", &all, |c| {
        learn(c);
        c.hosts = vec![HostPattern::Exact("other.local".to_owned())];
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
    let cookie = format!("session=1; sticky_lb={}", short.value("sticky_lb").unwrap());
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let mut connection = Connection::open(bench.addr);
    let seen: HashSet<_> = (0..60)
        .map(|_| connection.request("GET /", &[("Cookie", &cookie)], b"").unwrap().text())
        .collect();
    assert_eq!(seen.len(), 3);
    let reasons: Vec<_> = bench.proxy.service("s").unwrap().reasons().collect();
    let expired = reasons.iter().find(|(reason, _)| *reason == Reason::Expired);
    assert_eq!(expired.map(|(_, count)| *count), Some(60), "{reasons:?}");
}

#[test]
fn the_first_that_opens_counts_and_a_thousand_do_no_harm() {
    let mut target = Target::new();
    let good = target.good.clone();
    let long = "A".repeat(40);
    for bad in ["", "x", &good[..40], &long] {
        let noise = format!("sticky_lb={bad}; ").repeat(1000);
        assert_eq!(target.ask_line(format!("{noise}sticky_lb={good}").as_bytes()), (200, true));
        assert_eq!(target.ask_line(noise.as_bytes()), (200, false));
    }
    // Beyond the limit of a head, it is the client's mistake, not ours.
    assert_eq!(target.ask_line("A".repeat(100_000).as_bytes()), (431, false));
    assert_eq!(target.ask_line(format!("sticky_lb={good}").as_bytes()), (200, true));
}

/// What somebody might make of a good cookie, or of nothing.
fn forged(good: String) -> impl Strategy<Value = Vec<u8>> {
    let bytes = good.clone().into_bytes();
    let length = bytes.len();
    let changed = (proptest::collection::vec((0..length, any::<u8>()), 1..6), Just(bytes.clone()))
        .prop_map(|(changes, mut bytes)| {
            changes.into_iter().for_each(|(at, byte)| bytes[at] = byte);
            bytes
        });
    let spliced = (0..length, 0..length, "[A-Za-z0-9_=+/. -]{0,40}", Just(good.clone())).prop_map(
        |(from, to, middle, good)| format!("{}{middle}{}", &good[..from], &good[to..]).into_bytes(),
    );
    let digits = "[A-Za-z0-9_-]{0,300}".prop_map(String::into_bytes);
    let noise = proptest::collection::vec(any::<u8>(), 0..400);
    let mine =
        (proptest::collection::vec(any::<u8>(), 0..120), Just(good)).prop_map(|(sealed, good)| {
            // Under the id of a key that there is.
            let code = GeneralPurpose::new(&URL_SAFE, NO_PAD);
            let id = code.decode(&good).unwrap()[..4].to_vec();
            code.encode([id, sealed].concat()).into_bytes()
        });
    prop_oneof![changed, spliced, digits, noise, mine]
}

fn never_a_choice(edit: fn(&mut ServiceConfig)) {
    let target = std::cell::RefCell::new(Target::with(crate::proxy::keys(), edit));
    let good = target.borrow().good.clone();
    let mut runner =
        TestRunner::new(Config { cases: 1500, failure_persistence: None, ..Config::default() });
    let result = runner.run(&forged(good.clone()), |mut value| {
        value.retain(|byte| !matches!(byte, b'\r' | b'\n'));
        let first = value.split(|byte| *byte == b';').next().unwrap_or_default();
        prop_assume!(first.trim_ascii() != good.as_bytes());
        let (status, pinned) = target.borrow_mut().ask(&value);
        prop_assert!(!pinned && matches!(status, 200 | 400), "{status}, pinned: {pinned}");
        Ok(())
    });
    result.unwrap();
}

#[test]
fn nothing_forged_ever_chooses_when_learning() {
    never_a_choice(learn);
}

#[test]
fn nothing_forged_ever_chooses_when_inserting() {
    never_a_choice(|c| c.cookie = cookie(CookieMode::Insert, &[]));
}

#[test]
fn a_header_is_no_better() {
    let backends = three();
    let edit = |c: &mut ServiceConfig| c.header = Some("mcp-session-id".to_owned());
    let other = |c: &mut ServiceConfig| {
        edit(c);
        c.hosts = vec![HostPattern::Exact("other.local".to_owned())];
    };
    let all = backends.each_ref();
    let bench = Bench::new(vec![service("s", &all, edit), service("other", &all, other)]);
    let first = get(bench.addr, "/reply", &[("x-reply", "Mcp-Session-Id: abc")]);
    let good = first.header("mcp-session-id").unwrap().to_owned();
    let pinned = |service: &str| {
        let stats = bench.proxy.service(service).unwrap();
        stats.reasons().find(|(reason, _)| *reason == Reason::Pinned).map_or(0, |(_, n)| n)
    };
    let mut connection = Connection::open(bench.addr);
    let mut ask = |host: &str, value: &str| {
        let headers = [("Host", host), ("Mcp-Session-Id", value)];
        let response = connection.request("GET /headers", &headers, b"").unwrap();
        assert_eq!(response.status, 200, "{value}");
        response.text()
    };
    ask(HOST, &good);
    assert_eq!(pinned("s"), 1);
    for at in (0..good.len()).filter(|at| good.as_bytes()[*at] != b'.') {
        ask(HOST, &good[..at]);
        let other = if good.as_bytes()[at] == b'A' { "B" } else { "A" };
        // The application's part is its own: it may be anything.
        if at > 3 {
            ask(HOST, &format!("{}{other}{}", &good[..at], &good[at + 1..]));
        }
    }
    assert_eq!(pinned("s"), 1);
    // To another service it is a value like any other, which its application gets as it is.
    assert!(ask("other.local", &good).contains(&good));
    assert_eq!(pinned("other"), 0);
}

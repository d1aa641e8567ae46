use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::affinity::pinned;
use crate::backend::Backend;
use crate::client::{Connection, get};
use crate::proxy::{Bench, keys, learn, service, settings};

#[test]
fn a_header_of_the_app_carries_affinity_it_never_sees() {
    let backends = ["a", "b", "c"].map(Backend::start);
    let all = backends.each_ref();
    let edit = |c: &mut sticky::model::ServiceConfig| c.header = Some("mcp-session-id".to_owned());
    let bench = Bench::new(vec![service("s", &all, edit)]);
    let first = get(bench.addr, "/reply", &[("x-reply", "Mcp-Session-Id: abc.def")]);
    let id = first.header("mcp-session-id").unwrap().to_owned();
    assert!(id.starts_with("abc.def.") && id.len() > 80, "{id}");
    let home = first.header("x-upstream-addr").map(str::to_owned);
    for _ in 0..20 {
        let next = get(bench.addr, "/headers", &[("Mcp-Session-Id", &id)]);
        assert_eq!(next.header("x-upstream-addr").map(str::to_owned), home);
        assert!(
            next.text().lines().any(|line| line.eq_ignore_ascii_case("mcp-session-id: abc.def"))
        );
    }
    let again = [("Mcp-Session-Id", id.as_str()), ("x-reply", "Mcp-Session-Id: abc.def")];
    assert_eq!(get(bench.addr, "/reply", &again).header("mcp-session-id"), Some(id.as_str()));
    // Without our part, the value's owner; forged, the same as any other value.
    let mut owners = HashSet::new();
    for value in 0..60 {
        let value = format!("plain-{value}.{}", &id[8..40]);
        let headers = [("Mcp-Session-Id", value.as_str())];
        let owner = get(bench.addr, "/", &headers).text();
        assert_eq!(get(bench.addr, "/", &headers).text(), owner);
        owners.insert(owner);
    }
    assert_eq!(owners.len(), 3);
}

#[test]
fn a_full_backend_lets_requests_wait() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |c| c.max_connections = Some(2))]);
    let began = Instant::now();
    let codes: Vec<u16> = std::thread::scope(|scope| {
        let all: Vec<_> =
            (0..8).map(|_| scope.spawn(|| get(bench.addr, "/slow?ms=300", &[]).status)).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    // Two at a time, and the rest for at most the time that a request waits (700 ms here).
    let served = codes.iter().filter(|code| **code == 200).count();
    assert!((4..=6).contains(&served), "{codes:?}");
    assert!(codes.iter().all(|code| matches!(code, 200 | 503)), "{codes:?}");
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[test]
fn a_client_waits_for_its_own_backend_and_gets_no_other() {
    let backends = ["a", "b"].map(Backend::start);
    let bench = Bench::new(vec![service("s", &backends.each_ref(), |c| {
        learn(c);
        c.max_connections = Some(1);
    })]);
    let (jar, home) = pinned(&bench);
    let line = jar.line();
    let ask = |path: &str| {
        let began = Instant::now();
        let response = get(bench.addr, path, &[("Cookie", &line)]);
        (response.status, response.text(), began.elapsed())
    };
    for (busy_ms, want) in [(400, 200), (2000, 503)] {
        std::thread::scope(|scope| {
            let slow = scope.spawn(|| ask(&format!("/slow?ms={busy_ms}")));
            std::thread::sleep(Duration::from_millis(100));
            let began = Instant::now();
            assert_ne!(get(bench.addr, "/", &[]).text(), format!("{home} /"));
            let others = began.elapsed();
            let (status, text, waited) = ask("/");
            assert_eq!(status, want, "{text}");
            assert!(status != 200 || text == format!("{home} /"), "{text}");
            assert!(waited >= Duration::from_millis(200) && others < waited, "{waited:?}");
            assert_eq!(slow.join().unwrap().0, 200);
        });
    }
    assert_eq!(ask("/").1, format!("{home} /"));
}

#[test]
fn who_finds_too_many_waiting_is_told_at_once() {
    let backend = Backend::start("a");
    let mut settings = settings();
    settings.workers = std::num::NonZeroUsize::MIN;
    settings.timeouts.gap = Duration::from_secs(10);
    settings.limits.waiting = 1;
    let bench = Bench::start(settings, keys());
    bench.publish(vec![service("s", &[&backend], |c| c.max_connections = Some(1))]);
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| get(bench.addr, "/slow?ms=1500", &[]).status);
        std::thread::sleep(Duration::from_millis(200));
        let waits = scope.spawn(|| get(bench.addr, "/", &[]).status);
        std::thread::sleep(Duration::from_millis(200));
        let began = Instant::now();
        let third = get(bench.addr, "/", &[]);
        assert_eq!((third.status, third.header("retry-after")), (503, Some("5")));
        assert!(began.elapsed() < Duration::from_millis(800), "{:?}", began.elapsed());
        assert_eq!((slow.join().unwrap(), waits.join().unwrap()), (200, 200));
    });
}

#[test]
fn each_client_has_its_rate() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |c| c.rate = Some(5))]);
    let mut connection = Connection::open(bench.addr);
    let mut codes: Vec<u16> =
        (0..10).map(|_| connection.request("GET /", &[], b"").unwrap().status).collect();
    codes.sort_unstable();
    assert_eq!((codes[0], codes[4], codes[9]), (200, 200, 429), "{codes:?}");
}

#[test]
fn a_backend_that_comes_up_starts_slowly() {
    let backends = ["a", "b"].map(Backend::start);
    let [a, b] = &backends;
    let slow = |c: &mut sticky::model::ServiceConfig| c.slow_start = Duration::from_secs(60);
    let bench = Bench::new(vec![service("s", &[a], slow)]);
    bench.publish(vec![service("s", &[a, b], slow)]);
    let mut connection = Connection::open(bench.addr);
    let hits =
        (0..500).filter(|_| connection.request("GET /", &[], b"").unwrap().text() == "b /").count();
    assert!((1..100).contains(&hits), "{hits} of 500 in the first moments");
}

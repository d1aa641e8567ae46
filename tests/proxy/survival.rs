use sticky::model::CookieMode;

use crate::backend::Backend;
use crate::client::{Connection, Jar};
use crate::proxy::{Bench, cookie, service};

#[test]
fn every_first_session_survives() {
    survive(CookieMode::Learn, &["session"]);
}

#[test]
fn every_first_session_survives_with_a_cookie_of_our_own() {
    survive(CookieMode::Insert, &[]);
}

/// 200 clients, 40 requests each, over 5 backends with sessions in memory. Interlock's configuration keeps 32 of them.
fn survive(mode: CookieMode, names: &[&str]) {
    let backends: Vec<_> = (0..5).map(|i| Backend::start(&format!("b{i}"))).collect();
    let all: Vec<_> = backends.iter().collect();
    let bench = Bench::new(vec![service("s", &all, |c| {
        c.cookie = cookie(mode, names);
    })]);
    let kept: usize = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| (0..50).filter(|_| keeps_its_first_session(bench.addr)).count())
            })
            .collect();
        workers.into_iter().map(|worker| worker.join().unwrap()).sum()
    });
    assert_eq!(kept, 200);
    let used = bench.proxy.backends();
    assert!(used.iter().all(|backend| backend.requests > 400), "uneven: {used:?}");
    assert!(used.iter().all(|backend| backend.in_progress == 0), "{used:?}");
}

fn keeps_its_first_session(addr: std::net::SocketAddr) -> bool {
    let mut connection = Connection::open(addr);
    let mut jar = Jar::default();
    let mut first = None;
    (0..40).all(|at| {
        let line = jar.line();
        let cookies: &[(&str, &str)] = if line.is_empty() { &[] } else { &[("Cookie", &line)] };
        let response = connection.request("GET /ping", cookies, b"").unwrap();
        jar.store(&response);
        let text = response.text();
        let (instance, state) = text.split_once(' ').unwrap();
        let instance = instance.to_owned();
        state == if at == 0 { "new" } else { "known" }
            && *first.get_or_insert(instance.clone()) == instance
    })
}

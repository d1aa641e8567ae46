use std::time::Duration;

use sticky::model::{CookieMode, DrainMode, OnLoss, Service, State};

use crate::backend::Backend;
use crate::client::{Jar, Response, get};
use crate::proxy::{Bench, cookie, keys, learn, service, settings, task};

pub fn three() -> [Backend; 3] {
    ["a", "b", "c"].map(Backend::start)
}

pub fn upstream(response: &Response) -> String {
    response.header("x-upstream-addr").unwrap().to_owned()
}

pub fn instance(response: &Response) -> String {
    response.text().split(' ').next().unwrap().to_owned()
}

/// A client with a session, and the name of its backend.
pub fn pinned(bench: &Bench) -> (Jar, String) {
    let mut jar = Jar::default();
    let first = jar.get(bench.addr, "/ping");
    assert!(first.cookie("sticky_lb").is_some(), "{first:?}");
    (jar, instance(&first))
}

fn with_state(service: Service, name: &str, state: State) -> Service {
    let mut service = service;
    for backend in &mut service.backends {
        if backend.name == name {
            backend.state = state;
        }
    }
    service
}

#[test]
fn a_client_stays_where_its_session_is() {
    let backends = three();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), learn)]);
    let (mut jar, first) = pinned(&bench);
    let addr = upstream(&jar.get(bench.addr, "/ping"));
    for _ in 0..30 {
        let next = jar.get(bench.addr, "/ping");
        assert_eq!((instance(&next), upstream(&next)), (first.clone(), addr.clone()));
        assert_eq!(next.cookie("sticky_lb"), None, "a bare re-send changes nothing");
    }
}

#[test]
fn only_both_cookies_together_count() {
    let backends = three();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), learn)]);
    let first = get(bench.addr, "/ping", &[]);
    let ours = format!("sticky_lb={}", first.value("sticky_lb").unwrap());
    let seen: std::collections::HashSet<_> =
        (0..40).map(|_| upstream(&get(bench.addr, "/", &[("Cookie", &ours)]))).collect();
    assert_eq!(seen.len(), 3, "alone it is not honoured");
    let both = format!("{ours}; session=anything");
    let seen: std::collections::HashSet<_> =
        (0..40).map(|_| upstream(&get(bench.addr, "/", &[("Cookie", &both)]))).collect();
    assert_eq!(seen.len(), 1);
}

#[test]
fn without_the_apps_cookie_nothing_is_set() {
    let backends = three();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), learn)]);
    let response = get(bench.addr, "/set", &[("x-set", "other=1; Path=/")]);
    assert_eq!(response.cookie("sticky_lb"), None);
    assert_eq!(response.all("set-cookie").count(), 1);
}

#[test]
fn a_lost_backend_moves_its_clients_once_and_keeps_the_rest_of_their_time() {
    let backends = three();
    let all = backends.each_ref();
    let bench = Bench::new(vec![service("s", &all, learn)]);
    let (mut jar, first) = pinned(&bench);
    let rest: Vec<_> = all.into_iter().filter(|b| b.name != first).collect();
    std::thread::sleep(Duration::from_millis(1100));
    bench.publish(vec![service("s", &rest, learn)]);
    let moved = jar.get(bench.addr, "/ping");
    let header = moved.cookie("sticky_lb").expect("a new pin").to_owned();
    assert_ne!(instance(&moved), first);
    assert!(header.contains("Path=/"), "{header}");
    let left: u64 =
        header.split("Max-Age=").nth(1).unwrap().split(';').next().unwrap().parse().unwrap();
    assert!((86_390..86_400).contains(&left), "{header}");
    for _ in 0..10 {
        let next = jar.get(bench.addr, "/ping");
        assert_eq!(instance(&next), instance(&moved));
        assert_eq!(next.cookie("sticky_lb"), None);
    }
}

#[test]
fn every_state_of_the_backend() {
    let backends = three();
    let all = backends.each_ref();
    let bench = Bench::new(vec![service("s", &all, learn)]);
    let (jar, first) = pinned(&bench);
    let cases = [
        (State::Up, true),
        (State::Draining(DrainMode::Sessions), true),
        (State::Draining(DrainMode::Connections), false),
        (State::Down, false),
        (State::Starting, false),
    ];
    for (state, stays) in cases {
        bench.publish(vec![with_state(service("s", &all, learn), &first, state)]);
        let response = jar.clone().get(bench.addr, "/ping");
        assert_eq!(instance(&response) == first, stays, "{state:?}");
        assert_eq!(response.cookie("sticky_lb").is_none(), stays, "{state:?}");
        let strangers: Vec<_> = (0..60).map(|_| instance(&get(bench.addr, "/ping", &[]))).collect();
        assert_eq!(strangers.contains(&first), state == State::Up, "{state:?}");
    }
}

#[test]
fn strict_says_503_rather_than_move() {
    let backends = three();
    let all = backends.each_ref();
    let strict = |c: &mut sticky::model::ServiceConfig| {
        learn(c);
        c.on_loss = OnLoss::Strict;
    };
    let bench = Bench::new(vec![service("s", &all, strict)]);
    let (jar, first) = pinned(&bench);
    bench.publish(vec![with_state(service("s", &all, strict), &first, State::Down)]);
    let response = jar.clone().get(bench.addr, "/ping");
    assert_eq!((response.status, response.header("retry-after")), (503, Some("5")));
    assert_eq!(get(bench.addr, "/ping", &[]).status, 200, "new clients are served");
    let ending = State::Draining(DrainMode::Connections);
    bench.publish(vec![with_state(service("s", &all, strict), &first, ending)]);
    let response = jar.clone().get(bench.addr, "/ping");
    assert!(response.status == 200 && response.cookie("sticky_lb").is_some(), "{response:?}");
}

#[test]
fn strict_holds_for_clients_by_address_too() {
    let backends = three();
    let all = backends.each_ref();
    let strict = |c: &mut sticky::model::ServiceConfig| {
        c.ip_hash = true;
        c.on_loss = OnLoss::Strict;
    };
    let bench = Bench::new(vec![service("s", &all, strict)]);
    let home = instance(&get(bench.addr, "/ping", &[]));
    bench.publish(vec![with_state(service("s", &all, strict), &home, State::Down)]);
    assert_eq!(get(bench.addr, "/ping", &[]).status, 503);
    bench.publish(vec![service("s", &all, strict)]);
    assert_eq!(instance(&get(bench.addr, "/ping", &[])), home);
    let ending = State::Draining(DrainMode::Connections);
    bench.publish(vec![with_state(service("s", &all, strict), &home, ending)]);
    let moved = get(bench.addr, "/ping", &[]);
    assert!(moved.status == 200 && instance(&moved) != home, "{moved:?}");
}

#[test]
fn scaling_moves_nobody_whose_task_lives() {
    let backends: Vec<_> = (0..9).map(|i| Backend::start(&format!("b{i}"))).collect();
    let all: Vec<_> = backends.iter().collect();
    for mode in [CookieMode::Learn, CookieMode::Insert] {
        let edit = |c: &mut sticky::model::ServiceConfig| c.cookie = cookie(mode, &["session"]);
        let bench = Bench::new(vec![service("s", &all[..5], edit)]);
        let mut clients: Vec<_> = (0..40).map(|_| pinned(&bench)).collect();
        for size in [6, 9, 5] {
            bench.publish(vec![service("s", &all[..size], edit)]);
            for (jar, first) in &mut clients {
                assert_eq!(instance(&jar.get(bench.addr, "/ping")), *first, "{mode:?} at {size}");
            }
        }
    }
}

#[test]
fn removing_the_label_ends_it_at_once() {
    let backends = three();
    let all = backends.each_ref();
    let bench = Bench::new(vec![service("s", &all, learn)]);
    let (jar, _) = pinned(&bench);
    bench.publish(vec![service("s", &all, |_| {})]);
    let seen: std::collections::HashSet<_> =
        (0..40).map(|_| upstream(&get(bench.addr, "/", &[("Cookie", &jar.line())]))).collect();
    assert_eq!(seen.len(), 3);
    bench.publish(vec![service("s", &all, learn)]);
    assert_eq!(jar.clone().get(bench.addr, "/ping").cookie("sticky_lb"), None, "and back");
}

#[test]
fn insert_needs_no_cookie_of_the_app() {
    let backends = three();
    let insert = |c: &mut sticky::model::ServiceConfig| {
        c.cookie = cookie(CookieMode::Insert, &[]);
        c.context_root = Some("/app".to_owned());
    };
    let bench = Bench::new(vec![service("s", &backends.each_ref(), insert)]);
    let mut jar = Jar::default();
    let first = jar.get(bench.addr, "/app/x");
    let header = first.cookie("sticky_lb").unwrap();
    let (_, attributes) = header.split_once(';').unwrap();
    assert_eq!(attributes, " HttpOnly; SameSite=Lax; Path=/app");
    for _ in 0..20 {
        let next = jar.get(bench.addr, "/app/x");
        assert_eq!(upstream(&next), upstream(&first));
        assert_eq!(next.cookie("sticky_lb"), None);
    }
}

#[test]
fn hash_mode_follows_the_value_and_sets_nothing() {
    let backends = three();
    let all = backends.each_ref();
    let hash =
        |c: &mut sticky::model::ServiceConfig| c.cookie = cookie(CookieMode::Hash, &["session"]);
    let bench = Bench::new(vec![service("s", &all, hash)]);
    let mut owners = std::collections::HashSet::new();
    for value in 0..60 {
        let line = format!("session=v{value}");
        let first = get(bench.addr, "/ping", &[("Cookie", &line)]);
        assert_eq!(first.cookie("sticky_lb"), None);
        assert_eq!(upstream(&get(bench.addr, "/", &[("Cookie", &line)])), upstream(&first));
        owners.insert(upstream(&first));
    }
    assert_eq!(owners.len(), 3);
    assert_eq!(get(bench.addr, "/ping", &[]).cookie("sticky_lb"), None);
}

#[test]
fn the_label_says_which_cookie_is_hashed_and_an_empty_one_is_none() {
    let backends = three();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), |c| {
        c.cookie = cookie(CookieMode::Hash, &["A", "B"]);
    })]);
    let owner = |line: &str| upstream(&get(bench.addr, "/", &[("Cookie", line)]));
    let mut owners = std::collections::HashSet::new();
    for value in 0..60 {
        let home = owner(&format!("A={value}"));
        for other in 0..4 {
            assert_eq!(owner(&format!("B={other}; A={value}")), home, "the label's order");
        }
        assert_eq!(owner(&format!("A=; B={value}")), owner(&format!("B={value}")));
        owners.insert(home);
    }
    assert_eq!(owners.len(), 3);
    let nobody: std::collections::HashSet<_> = (0..60).map(|_| owner("A=; B=")).collect();
    assert_eq!(nobody.len(), 3, "no session yet: by load");
}

#[test]
fn ip_hash_gives_what_the_table_says() {
    use sticky::clients::ClientTable;
    let backends = three();
    let all = backends.each_ref();
    let settings = sticky::proxy::Settings {
        trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()],
        ..settings()
    };
    let bench = Bench::start(settings, keys());
    bench.publish(vec![service("s", &all, |c| c.ip_hash = true)]);
    for last in 0..100 {
        let client = format!("198.51.100.{last}");
        let want = bench.table.look("s", client.parse().unwrap()).unwrap().backend;
        for _ in 0..2 {
            let response = get(bench.addr, "/", &[("X-Forwarded-For", &client)]);
            assert_eq!(format!("id-{}", instance(&response)), want);
        }
    }
    assert_eq!(bench.table.clients(), 100);
    let lost = &all[0].name;
    bench.publish(vec![with_state(service("s", &all, |c| c.ip_hash = true), lost, State::Down)]);
    for last in 0..100 {
        let response = get(bench.addr, "/", &[("X-Forwarded-For", &format!("198.51.100.{last}"))]);
        assert_ne!(instance(&response), *lost);
    }
}

#[test]
fn sticky_to_the_version_before_the_task() {
    let backends = ["a1", "a2", "b1", "b2"].map(Backend::start);
    let [a1, a2, b1, b2] = &backends;
    let both =
        |a: &[&Backend], b: &[&Backend]| vec![service("va", a, learn), service("vb", b, learn)];
    let bench = Bench::new(both(&[a1, a2], &[b1, b2]));
    let mut clients: Vec<_> = (0..30).map(|_| pinned(&bench)).collect();
    // Everybody whose task goes stays with the version.
    bench.publish(both(&[a2], &[b2]));
    for (jar, first) in &mut clients {
        let now = instance(&jar.get(bench.addr, "/ping"));
        assert_eq!(now, format!("{}2", &first[..1]));
    }
    // A whole version goes: they move to the other.
    bench.publish(both(&[], &[b2]));
    for (jar, _) in &mut clients {
        assert_eq!(instance(&jar.get(bench.addr, "/ping")), "b2");
    }
}

#[test]
fn a_task_that_comes_at_the_address_of_another_inherits_nobody() {
    let backends = three();
    let [a, b, c] = &backends;
    let bench = Bench::new(vec![service("s", &[a, b], learn)]);
    let (jar, first) = pinned(&bench);
    let mut next = service("s", &[a, b, c], learn);
    for backend in &mut next.backends {
        if backend.name == first {
            // The same address, another task.
            *backend = sticky::model::Backend { id: "id-new".to_owned(), ..backend.clone() };
        }
    }
    next.backends.push(task(c, State::Up));
    bench.publish(vec![next]);
    assert!(jar.clone().get(bench.addr, "/ping").cookie("sticky_lb").is_some(), "re-pinned");
}

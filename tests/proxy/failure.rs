//! What goes wrong behind the proxy, and what the client is told in what time.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sticky::model::State;
use sticky::proxy::{Settings, Timeouts};

use crate::backend::Backend;
use crate::client::{Connection, Jar, get, send};
use crate::proxy::{Bench, keys, learn, service, settings, task};

fn two() -> [Backend; 2] {
    ["a", "b"].map(Backend::start)
}

#[test]
fn a_dead_backend_costs_a_new_client_nothing() {
    let backends = two();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), |_| {})]);
    backends[0].kill();
    for i in 0..50 {
        let response = send(bench.addr, "POST /echo", &[], format!("body {i}").as_bytes());
        assert_eq!((response.status, response.text()), (200, format!("body {i}")));
    }
    assert_eq!(backends[1].seen("POST /echo"), 50);
    assert!(bench.proxy.service("s").unwrap().retries() >= 3);
}

#[test]
fn a_backend_that_refuses_is_left_alone_for_a_while() {
    let backends = two();
    let edit = |c: &mut sticky::model::ServiceConfig| {
        c.max_fails = 2;
        c.fail_timeout = Duration::from_secs(60);
    };
    let bench = Bench::new(vec![service("s", &backends.each_ref(), edit)]);
    backends[0].kill();
    for _ in 0..40 {
        assert_eq!(get(bench.addr, "/", &[]).status, 200);
    }
    assert_eq!(bench.proxy.service("s").unwrap().retries(), 2);
    // The last one is asked whatever happened.
    backends[1].kill();
    for _ in 0..5 {
        assert_eq!(get(bench.addr, "/", &[]).status, 502);
    }
}

#[test]
fn after_fail_timeout_it_is_tried_again() {
    let backends = two();
    let edit = |c: &mut sticky::model::ServiceConfig| {
        c.max_fails = 1;
        c.fail_timeout = Duration::from_millis(400);
    };
    let bench = Bench::new(vec![service("s", &backends.each_ref(), edit)]);
    let retries = || bench.proxy.service("s").unwrap().retries();
    backends[0].kill();
    let began = Instant::now();
    while retries() == 0 {
        assert_eq!(get(bench.addr, "/", &[]).status, 200);
    }
    while began.elapsed() < Duration::from_millis(300) {
        assert_eq!(get(bench.addr, "/", &[]).status, 200);
    }
    assert_eq!(retries(), 1, "left alone meanwhile");
    std::thread::sleep(Duration::from_millis(200));
    while retries() == 1 && began.elapsed() < Duration::from_secs(5) {
        assert_eq!(get(bench.addr, "/", &[]).status, 200);
    }
    assert_eq!(retries(), 2);
}

#[test]
fn a_pinned_client_moves_off_a_killed_backend_without_an_error() {
    let backends = two();
    let all = backends.each_ref();
    let bench = Bench::new(vec![service("s", &all, learn)]);
    let mut jar = Jar::default();
    let first = jar.get(bench.addr, "/ping").text();
    let (lost, left) = if first.starts_with('a') { (all[0], all[1]) } else { (all[1], all[0]) };
    lost.kill();
    let moved = jar.get(bench.addr, "/ping");
    assert_eq!((moved.status, &moved.text()[..1]), (200, left.name.as_str()));
    assert!(moved.cookie("sticky_lb").is_some());
    for _ in 0..5 {
        assert!(jar.get(bench.addr, "/ping").text().starts_with(&left.name));
    }
}

#[test]
fn all_dead_is_502_and_none_is_503_after_a_while() {
    let backends = two();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), |_| {})]);
    backends.iter().for_each(Backend::kill);
    let response = get(bench.addr, "/", &[]);
    assert_eq!(response.status, 502);
    assert!(response.header("x-request-id").is_some());
    bench.publish(vec![service("s", &[], |_| {})]);
    let began = Instant::now();
    let response = get(bench.addr, "/", &[]);
    assert_eq!((response.status, response.header("retry-after")), (503, Some("5")));
    assert!((600..3000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

#[test]
fn a_request_waits_for_the_next_task_of_a_stop_first_update() {
    let backends = two();
    let [a, b] = &backends;
    let bench = Bench::start(settings(), keys());
    let with = |backend, state| {
        let mut s = service("s", &[], |_| {});
        s.backends = vec![task(backend, state)];
        vec![s]
    };
    bench.publish(with(a, State::Draining(sticky::model::DrainMode::Connections)));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| send(bench.addr, "POST /echo", &[], b"patience"));
        std::thread::sleep(Duration::from_millis(200));
        bench.publish(with(b, State::Starting));
        std::thread::sleep(Duration::from_millis(200));
        bench.publish(with(b, State::Up));
        let response = waits.join().unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "patience"));
    });
    assert_eq!((a.seen("POST /echo"), b.seen("POST /echo")), (0, 1));
}

#[test]
fn what_was_sent_is_repeated_only_if_that_is_safe() {
    let backends = two();
    let bench = Bench::new(vec![service("s", &backends.each_ref(), |_| {})]);
    let total = |what: &str| backends.iter().map(|b| b.seen(what)).sum::<u64>();
    // Both close after reading the request: a GET is tried once at each, a POST at one.
    assert_eq!(get(bench.addr, "/die", &[]).status, 502);
    assert_eq!((backends[0].seen("GET /die"), backends[1].seen("GET /die")), (1, 1));
    assert_eq!(send(bench.addr, "POST /die", &[], b"once").status, 502);
    assert_eq!(total("POST /die"), 1);
    assert_eq!(send(bench.addr, "POST /die", &[], b"").status, 502);
    assert_eq!(total("POST /die"), 2);
    assert_eq!(send(bench.addr, "PUT /die", &[], b"body").status, 502);
    assert_eq!(total("PUT /die"), 1);
    assert_eq!(get(bench.addr, "/garbage", &[]).status, 502);
}

#[test]
fn a_connection_the_backend_closed_meanwhile_is_no_failure() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    for i in 0..20 {
        let mut connection = Connection::open(bench.addr);
        assert_eq!(connection.request("GET /", &[], b"").unwrap().status, 200);
        backend.cut();
        let response = connection.request("POST /echo", &[], b"x").unwrap();
        assert_eq!(response.status, 200, "round {i}");
    }
}

#[test]
fn connections_to_backends_are_used_again() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    for path in ["/", "/large?bytes=300000", "/ping", "/headers"].repeat(20) {
        let mut connection = Connection::open(bench.addr);
        assert_eq!(connection.request(&format!("GET {path}"), &[], b"").unwrap().status, 200);
        let echoed = connection.request("POST /echo", &[], &[7; 70_000]).unwrap();
        assert_eq!(echoed.body.len(), 70_000);
        assert_eq!(connection.request("GET /", &[], b"").unwrap().status, 200);
    }
    // One per worker is enough, as nothing is asked at the same time.
    assert!(
        backend.state.connections.load(Ordering::SeqCst) <= 2,
        "{:?}",
        backend.state.connections
    );
}

#[test]
fn a_response_that_breaks_off_ends_the_connection() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    assert!(connection.request("GET /half", &[], b"").is_none(), "no whole response");
    assert_eq!(get(bench.addr, "/", &[]).status, 200);
}

#[test]
fn a_backend_that_answers_before_the_body_is_relayed() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let response = send(bench.addr, "POST /early", &[], &[1; 1000]);
    assert_eq!((response.status, response.text().as_str()), (413, "no"));
}

/// A proxy that closes on a client which is still sending resets the connection, answer and all.
#[test]
fn an_answer_before_the_end_of_an_upload_arrives() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    for (path, host, status) in
        [("/early", "demo.local", 413), ("/x", "unknown", 404), ("/x", "a/b", 400)]
    {
        let mut connection = Connection::open(bench.addr);
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 30000000\r\n\r\n");
        connection.write(head.as_bytes());
        // A client that looks at the answer only when it has sent all.
        for _ in 0..30 {
            let mut stream = connection.stream();
            std::io::Write::write_all(&mut stream, &[0; 1_000_000]).expect("not reset");
        }
        let response = connection.response(false).unwrap();
        assert_eq!(response.status, status);
        let mut rest = Vec::new();
        assert_eq!(std::io::Read::read_to_end(&mut connection.reader, &mut rest).unwrap(), 0);
    }
}

#[test]
fn slow_clients_are_cut_off() {
    let backend = Backend::start("a");
    let timeouts = Timeouts {
        header: Duration::from_millis(300),
        idle: Duration::from_millis(900),
        body: Duration::from_millis(300),
        ..settings().timeouts
    };
    let bench = Bench::start(Settings { timeouts, ..settings() }, keys());
    bench.publish(vec![service("s", &[&backend], |_| {})]);
    let ended = |connection: &mut Connection, least: u64, most: u64| {
        let began = Instant::now();
        assert!(connection.response(false).is_none());
        let took = began.elapsed().as_millis();
        assert!((u128::from(least)..u128::from(most)).contains(&took), "{took} ms");
    };
    let mut head = Connection::open(bench.addr);
    head.write(b"GET / HTTP/1.1\r\nHost:");
    ended(&mut head, 200, 800);
    let mut idle = Connection::open(bench.addr);
    assert_eq!(idle.request("GET /", &[], b"").unwrap().status, 200);
    ended(&mut idle, 800, 1600);
    let mut second = Connection::open(bench.addr);
    assert_eq!(second.request("GET /slow?ms=500", &[], b"").unwrap().status, 200);
    second.write(b"GET /");
    ended(&mut second, 200, 900);
    let mut body = Connection::open(bench.addr);
    body.write(b"POST /echo HTTP/1.1\r\nHost: demo.local\r\nContent-Length: 10\r\n\r\n12345");
    assert_eq!(body.response(false).unwrap().status, 408);
}

//! Updates of a service under load: nobody sees an error, and nothing is done twice.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use sticky::model::{DrainMode, State};

use crate::backend::Backend;
use crate::client::{Connection, Jar};
use crate::proxy::{Bench, learn, service, task};

/// A client that never stops: every other one keeps its session, GETs and POSTs by turns.
fn load(addr: SocketAddr, number: usize, stop: &AtomicBool, posts: &AtomicU64) -> usize {
    let mut jar = Jar::default();
    let mut connection = Connection::open(addr);
    let mut done = 0;
    while !stop.load(Ordering::SeqCst) {
        let line = jar.line();
        let cookies: &[(&str, &str)] = if line.is_empty() { &[] } else { &[("Cookie", &line)] };
        let post = done % 2 == 1;
        let response = if post {
            posts.fetch_add(1, Ordering::SeqCst);
            connection.request("POST /echo", cookies, b"once")
        } else {
            connection.request("GET /ping", cookies, b"")
        };
        let response = response.expect("a reset, or a response that broke off");
        assert_eq!(response.status, 200, "client {number}, post: {post}");
        if number.is_multiple_of(2) {
            jar.store(&response);
        }
        done += 1;
        std::thread::sleep(Duration::from_millis(3));
    }
    done
}

/// What Swarm does with a task that ends: ordered to stop, then stopped, then gone.
fn replace(start_first: bool) {
    let old: Vec<_> = (0..5).map(|i| Backend::start(&format!("old{i}"))).collect();
    let new: Vec<_> = (0..5).map(|i| Backend::start(&format!("new{i}"))).collect();
    let mut states: HashMap<&str, State> =
        old.iter().map(|b| (b.name.as_str(), State::Up)).collect();
    let bench = Bench::new(Vec::new());
    let publish = |states: &HashMap<&str, State>| {
        let mut s = service("s", &[], learn);
        let all = old.iter().chain(&new);
        s.backends = all.filter_map(|b| Some(task(b, *states.get(b.name.as_str())?))).collect();
        bench.publish(vec![s]);
        std::thread::sleep(Duration::from_millis(60));
    };
    publish(&states);
    let (stop, posts) = (AtomicBool::new(false), AtomicU64::new(0));
    let done: usize = std::thread::scope(|scope| {
        let (stop, posts, addr) = (&stop, &posts, bench.addr);
        let clients: Vec<_> =
            (0..40).map(|n| scope.spawn(move || load(addr, n, stop, posts))).collect();
        std::thread::sleep(Duration::from_millis(200));
        for (old, new) in old.iter().zip(&new) {
            if start_first {
                states.insert(&new.name, State::Starting);
                publish(&states);
                states.insert(&new.name, State::Up);
                publish(&states);
            }
            states.insert(&old.name, State::Draining(DrainMode::Connections));
            publish(&states);
            // Swarm gives it seconds; what it has it finishes.
            let id = format!("id-{}", old.name);
            let ended = || {
                let all = bench.proxy.backends();
                Ok(all.iter().all(|b| b.backend != id || b.in_progress == 0))
            };
            sticky_tests::wait::until_true("the last request", Duration::from_secs(5), ended)
                .unwrap();
            old.kill();
            states.remove(old.name.as_str());
            publish(&states);
            if !start_first {
                states.insert(&new.name, State::Up);
                publish(&states);
            }
        }
        std::thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::SeqCst);
        clients.into_iter().map(|client| client.join().unwrap()).sum()
    });
    assert!(done > 400, "{done} requests are no load");
    let executed: u64 = old.iter().chain(&new).map(|b| b.seen("POST /echo")).sum();
    assert_eq!(executed, posts.load(Ordering::SeqCst));
}

#[test]
fn start_first() {
    replace(true);
}

#[test]
fn stop_first() {
    replace(false);
}

/// Who loses a backend in an update goes to one that stays, so that it moves once; who is new goes anywhere.
#[test]
fn a_client_is_not_moved_to_a_backend_that_is_next() {
    let backends: Vec<_> = (0..5).map(|i| Backend::start(&format!("b{i}"))).collect();
    let bench = Bench::new(Vec::new());
    let publish = |ended: usize, newest: State| {
        let mut s = service("s", &[], learn);
        s.backends = backends.iter().map(|b| task(b, State::Up)).collect();
        s.backends[4].state = newest;
        for backend in &mut s.backends[..4] {
            backend.outgoing = true;
        }
        for backend in &mut s.backends[..ended] {
            backend.state = State::Draining(DrainMode::Connections);
        }
        bench.publish(vec![s]);
    };
    publish(0, State::Starting);
    let mut jars: Vec<Jar> = (0..40).map(|_| Jar::default()).collect();
    let all = |jars: &mut [Jar]| -> Vec<String> {
        let got = |jar: &mut Jar| {
            let answer = jar.get(bench.addr, "/ping").text();
            answer.split(' ').next().unwrap_or_default().to_owned()
        };
        jars.iter_mut().map(got).collect()
    };
    let first = all(&mut jars);
    // Swarm orders the old task to end as soon as the new one runs, which is before it answers.
    publish(1, State::Starting);
    assert_eq!(all(&mut jars), first);
    publish(2, State::Up);
    for (before, after) in first.iter().zip(all(&mut jars)) {
        let ended = ["b0", "b1"].contains(&before.as_str());
        assert_eq!(after, if ended { "b4" } else { before });
    }
    let new = all(&mut (0..40).map(|_| Jar::default()).collect::<Vec<_>>());
    assert!((2..5).all(|i| new.contains(&format!("b{i}"))), "new ones go anywhere: {new:?}");
    assert!(!new.iter().any(|name| ["b0", "b1"].contains(&name.as_str())), "{new:?}");
    // Nobody comes in its place: there is nothing to wait for.
    publish(3, State::Down);
    assert_eq!(all(&mut jars), ["b3"; 40]);
}

//! Clients that leave while their request is in progress: the backend is told, for it works for nobody.

use std::io::Read;
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

use socket2::SockRef;

use crate::backend::Backend;
use crate::client::Connection;
use crate::proxy::{Bench, service};

const SLOW: &str = "GET /slow?ms=20000 HTTP/1.1\r\nHost: demo.local\r\n\r\n";
const QUIET: &str = "GET /quiet?ms=20000 HTTP/1.1\r\nHost: demo.local\r\n\r\n";
const UPLOAD: &str =
    "POST /slow?ms=20000 HTTP/1.1\r\nHost: demo.local\r\nContent-Length: 4\r\n\r\nbody";
/// Enough for a request to be on its way.
const MOMENT: Duration = Duration::from_millis(150);

/// How a client leaves.
type End = fn(&TcpStream);

#[test]
fn a_backend_is_told_that_its_client_has_left() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let ways: [(&str, End); 3] = [
        ("closed", |_| {}),
        ("reset", |stream| SockRef::from(stream).set_linger(Some(Duration::ZERO)).unwrap()),
        ("its half closed", |stream| stream.shutdown(Shutdown::Write).unwrap()),
    ];
    for request in [SLOW, QUIET, UPLOAD] {
        for (way, end) in ways {
            let mut client = Connection::open(bench.addr);
            // One that has carried others.
            assert_eq!(client.request("GET /", &[], b"").unwrap().status, 200);
            client.write(request.as_bytes());
            std::thread::sleep(MOMENT);
            let told = Instant::now();
            end(client.stream());
            let half = (way == "its half closed").then_some(client);
            ends(&backend);
            assert!(told.elapsed() < Duration::from_secs(5), "{request} {way}");
            drop(half);
        }
    }
    let stats = bench.proxy.service("s").unwrap();
    // Counted a moment after the connection is closed: those that no head of an answer had come to.
    std::thread::sleep(MOMENT);
    let left: u64 = stats.codes().filter(|(code, _)| *code == 499).map(|(_, count)| count).sum();
    assert_eq!(left, 6);
}

#[test]
fn one_that_is_ahead_of_its_answers_gets_them_in_order() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut client = Connection::open(bench.addr);
    for _ in 0..2 {
        client.write(b"GET /slow?ms=300 HTTP/1.1\r\nHost: demo.local\r\n\r\n");
        std::thread::sleep(MOMENT);
        let next = |path| format!("GET {path} HTTP/1.1\r\nHost: demo.local\r\n\r\n");
        client.write(next("/1").as_bytes());
        client.write((next("/2") + &next("/3")).as_bytes());
        for text in ["a", "a /1", "a /2", "a /3"] {
            assert_eq!(client.response(false).unwrap().text(), text);
        }
    }
    // And is seen to leave in a later one.
    client.write(SLOW.as_bytes());
    std::thread::sleep(MOMENT);
    let told = Instant::now();
    drop(client);
    ends(&backend);
    assert!(told.elapsed() < Duration::from_secs(5));
}

/// Waits for the end of the connection that the backend took last.
fn ends(backend: &Backend) {
    let last = backend.state.open.lock().unwrap().pop().unwrap();
    last.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!((&last).read_to_end(&mut Vec::new()).unwrap(), 0);
}

//! Connections that nobody used for a while: only the socket is kept of them, and nobody may notice.

use std::io::Read;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::Connection;
use crate::proxy::{Bench, keys, service, settings};

/// Longer than anything is kept.
const SILENCE: Duration = Duration::from_millis(400);

fn silence() {
    std::thread::sleep(SILENCE);
}

#[test]
fn a_quiet_connection_goes_on() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    silence();
    for _ in 0..2 {
        assert_eq!(connection.request("GET /", &[], b"").unwrap().status, 200);
        silence();
    }
    let body = vec![b'x'; 100_000];
    assert_eq!(connection.request("POST /echo", &[], &body).unwrap().body, body);
    silence();
    let request = b"GET /echo HTTP/1.1\r\nHost: demo.local\r\n\r\n";
    let (begin, end) = request.split_at(20);
    // In parts, then several at once, of which the last is in parts.
    connection.write(begin);
    silence();
    connection.write(end);
    assert_eq!(connection.response(false).unwrap().status, 200);
    silence();
    connection.write(&[request, request, begin].concat());
    for _ in 0..2 {
        assert_eq!(connection.response(false).unwrap().status, 200);
    }
    silence();
    connection.write(end);
    assert_eq!(connection.response(false).unwrap().status, 200);
    silence();
    let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(connection.request("GET /ws", &headers, b"").unwrap().status, 101);
    let mut back = [0; 5];
    connection.reader.read_exact(&mut back).unwrap();
    silence();
    connection.write(b"again");
    connection.reader.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"again");
}

#[test]
fn a_client_that_reads_late_gets_everything() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    connection.write(b"GET /large?n=8000000 HTTP/1.1\r\nHost: demo.local\r\n\r\n");
    silence();
    silence();
    assert_eq!(connection.response(false).unwrap().body.len(), 8_000_000);
    silence();
    assert_eq!(connection.request("GET /", &[], b"").unwrap().status, 200);
}

#[test]
fn its_times_go_on() {
    let backend = Backend::start("a");
    let mut settings = settings();
    settings.timeouts.idle = Duration::from_millis(1000);
    settings.timeouts.header = Duration::from_millis(600);
    let bench = Bench::start(settings, keys());
    bench.publish(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    let mut closes = |bytes: &[u8], ms: std::ops::Range<u128>| {
        let began = Instant::now();
        connection.write(bytes);
        connection.reader.read_to_end(&mut Vec::new()).unwrap();
        let took = began.elapsed().as_millis();
        assert!(ms.contains(&took), "{took} ms");
        connection = Connection::open(bench.addr);
    };
    let request = b"GET / HTTP/1.1\r\nHost: demo.local\r\n\r\n";
    closes(b"", 550..2000);
    closes(request, 950..2500);
    closes(b"GET / HT", 550..2000);
    closes(&[&request[..], b"GET / HT"].concat(), 550..2500);
    // Its clock is not looked at while a request is in progress.
    closes(b"GET /slow?ms=500 HTTP/1.1\r\nHost: demo.local\r\n\r\n", 1450..3500);
}

#[test]
fn a_drain_closes_it() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    assert_eq!(connection.request("GET /", &[], b"").unwrap().status, 200);
    silence();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let began = Instant::now();
    assert_eq!(runtime.block_on(bench.proxy.drain(Duration::from_secs(10))), 0);
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(connection.reader.read_to_end(&mut Vec::new()).unwrap(), 0, "closed, not reset");
}

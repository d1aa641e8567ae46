use std::io::Read;
use std::net::Shutdown;
use std::time::Duration;

use crate::backend::Backend;
use crate::client::Connection;
use crate::proxy::{Bench, service};

fn open(bench: &Bench) -> Connection {
    let mut connection = Connection::open(bench.addr);
    let headers = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Key", "x"),
    ];
    let response = connection.request("GET /ws", &headers, b"").unwrap();
    assert_eq!(response.status, 101);
    assert_eq!(response.header("upgrade"), Some("websocket"));
    assert!(response.header("connection").unwrap().eq_ignore_ascii_case("upgrade"));
    let mut hello = [0; 5];
    connection.reader.read_exact(&mut hello).unwrap();
    assert_eq!(&hello, b"hello");
    connection
}

fn echoes(connection: &mut Connection, text: &[u8]) {
    connection.write(text);
    let mut back = vec![0; text.len()];
    connection.reader.read_exact(&mut back).unwrap();
    assert_eq!(back, text);
}

#[test]
fn bytes_go_both_ways_until_both_are_done() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = open(&bench);
    for size in [1, 100, 100_000] {
        echoes(&mut connection, &vec![b'w'; size]);
    }
    assert_eq!(bench.proxy.backends()[0].in_progress, 1);
    // Who has said all still hears the rest.
    connection.stream().shutdown(Shutdown::Write).unwrap();
    let mut rest = Vec::new();
    connection.reader.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"goodbye!");
    let ended = || Ok(bench.proxy.backends()[0].in_progress == 0);
    sticky_tests::wait::until_true("the tunnel's end", Duration::from_secs(5), ended).unwrap();
}

#[test]
fn tunnels_outlive_changes_of_the_routes() {
    let backends = ["a", "b"].map(Backend::start);
    let [a, b] = &backends;
    let bench = Bench::new(vec![service("s", &[a], |_| {})]);
    let mut open: Vec<_> = (0..100).map(|_| open(&bench)).collect();
    bench.publish(vec![service("s", &[a, b], |_| {})]);
    bench.publish(vec![service("s", &[b], |_| {})]);
    for connection in &mut open {
        echoes(connection, b"still there");
    }
}

#[test]
fn a_refused_upgrade_is_an_ordinary_response() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    let response = connection.request("GET /plain", &headers, b"").unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "a /plain"));
    assert_eq!(connection.request("GET /again", &[], b"").unwrap().text(), "a /again");
}

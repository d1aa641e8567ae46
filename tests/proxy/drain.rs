use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use crate::backend::Backend;
use crate::client::{Connection, HOST};
use crate::proxy::{Bench, service};

fn drain(bench: &Bench, timeout: Duration) -> usize {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(bench.proxy.drain(timeout))
}

#[test]
fn requests_in_progress_finish_and_idle_connections_close() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut idle = Connection::open(bench.addr);
    assert_eq!(idle.request("GET /", &[], b"").unwrap().status, 200);
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            let mut connection = Connection::open(bench.addr);
            connection.request("GET /slow?ms=600", &[], b"").unwrap()
        });
        std::thread::sleep(Duration::from_millis(200));
        let began = Instant::now();
        assert_eq!(drain(&bench, Duration::from_secs(10)), 0);
        assert!((200..3000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
        let response = busy.join().unwrap();
        assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    });
    let mut end = Vec::new();
    assert_eq!(idle.reader.read_to_end(&mut end).unwrap(), 0, "closed, not reset");
    assert!(TcpStream::connect(bench.addr).is_err());
}

#[test]
fn a_request_on_its_way_when_it_begins_is_answered() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let [silent, begun, mut kept] = std::array::from_fn(|_| Connection::open(bench.addr));
    begun.write(b"GET ");
    assert_eq!(kept.request("GET /", &[], b"").unwrap().status, 200);
    kept.write(b"GET ");
    std::thread::scope(|scope| {
        let drained = scope.spawn(|| drain(&bench, Duration::from_secs(10)));
        while TcpStream::connect(bench.addr).is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
        // Time to do something wrong.
        std::thread::sleep(Duration::from_millis(100));
        silent.write(b"GET ");
        for mut connection in [silent, begun, kept] {
            connection.write(b"/late ");
            connection.write(format!("HTTP/1.1\r\nHost: {HOST}\r\n\r\n").as_bytes());
            let response = connection.response(false).unwrap();
            assert_eq!((response.status, response.header("connection")), (200, Some("close")));
        }
        assert_eq!(drained.join().unwrap(), 0);
    });
}

#[test]
fn what_does_not_end_is_cut_after_the_time() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    let headers = [("Connection", "Upgrade"), ("Upgrade", "websocket")];
    assert_eq!(connection.request("GET /ws", &headers, b"").unwrap().status, 101);
    let began = Instant::now();
    assert_eq!(drain(&bench, Duration::from_millis(500)), 1);
    assert!((450..2000).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());
}

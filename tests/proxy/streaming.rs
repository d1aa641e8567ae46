use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use sticky::proxy::Settings;

use crate::backend::Backend;
use crate::client::Connection;
use crate::proxy::{Bench, keys, service, settings};

/// Resident memory of this process, in MB.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

const SIZE: u64 = 2 << 30;
/// Both sides and the test's own buffers; a proxy that collects bodies would need all of [`SIZE`].
const ROOM: u64 = 48;

#[test]
fn downloads_and_uploads_do_not_fill_memory() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let before = memory();
    let mut most = before;
    let mut connection = Connection::open(bench.addr);
    connection
        .write(format!("GET /large?bytes={SIZE} HTTP/1.1\r\nHost: demo.local\r\n\r\n").as_bytes());
    assert_eq!(connection.head().unwrap().status, 200);
    // Slower than the backend: what is not read must wait there.
    std::thread::sleep(Duration::from_millis(300));
    most = most.max(memory());
    let (mut left, mut piece) = (SIZE, vec![0; 1 << 20]);
    while left > 0 {
        let n = connection.reader.read(&mut piece).unwrap();
        assert!(n > 0, "{left} bytes are missing");
        left -= n as u64;
        if left % 64 == 0 {
            most = most.max(memory());
        }
    }
    connection.write(
        format!("POST /upload?x HTTP/1.1\r\nHost: demo.local\r\nContent-Length: {SIZE}\r\n\r\n")
            .as_bytes(),
    );
    for _ in 0..SIZE >> 20 {
        connection.stream().write_all(&piece).unwrap();
        most = most.max(memory());
    }
    let response = connection.response(false).unwrap();
    assert_eq!(response.text(), SIZE.to_string().len().to_string());
    assert!(most < before + ROOM, "{before} MB before, {most} MB at most");
}

#[test]
fn chunked_bodies_and_expect_100() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    connection.write(
        b"POST /echo HTTP/1.1\r\nHost: demo.local\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
    );
    assert_eq!(connection.response(false).unwrap().text(), "hello world");
    connection.write(
        b"POST /echo HTTP/1.1\r\nHost: demo.local\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    );
    assert_eq!(connection.head().unwrap().status, 100);
    connection.write(b"after");
    assert_eq!(connection.response(false).unwrap().text(), "after");
}

#[test]
fn a_stream_of_events_arrives_as_it_is_sent() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    connection.write(b"GET /events HTTP/1.1\r\nHost: demo.local\r\n\r\n");
    assert_eq!(connection.head().unwrap().status, 200);
    let mut seen = String::new();
    let mut first = None;
    while !seen.contains("event 2") {
        let mut piece = [0; 256];
        let n = connection.reader.read(&mut piece).unwrap();
        assert!(n > 0, "ended after {seen}");
        seen += std::str::from_utf8(&piece[..n]).unwrap();
        if seen.contains("event 0") {
            first.get_or_insert(seen.contains("event 2"));
        }
    }
    assert_eq!(first, Some(false), "the first was held back until the last");
}

/// Who sends need not read meanwhile what comes back.
#[test]
fn an_upload_goes_on_while_its_answer_waits() {
    // More than the sockets on the way hold.
    const SIZE: usize = 64 << 20;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let backend = Backend { name: "a".to_owned(), addr, state: Arc::default() };
    let (arrived, arrives) = mpsc::channel();
    std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        drop(listener);
        let mut answers = stream.try_clone().unwrap();
        let mut reader = BufReader::new(stream);
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        std::thread::spawn(move || {
            write!(answers, "HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n").unwrap();
            answers.write_all(&vec![7; SIZE]).unwrap();
        });
        arrived.send(std::io::copy(&mut reader.take(SIZE as u64), &mut std::io::sink())).unwrap();
    });
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    connection.stream().set_write_timeout(Some(Duration::from_secs(10))).unwrap();
    connection.write(
        format!("POST / HTTP/1.1\r\nHost: demo.local\r\nContent-Length: {SIZE}\r\n\r\n").as_bytes(),
    );
    connection.stream().write_all(&vec![1; SIZE]).unwrap();
    let upload = arrives.recv_timeout(Duration::from_secs(10)).unwrap();
    assert_eq!(upload.unwrap(), SIZE as u64);
    let response = connection.response(false).unwrap();
    assert_eq!((response.status, response.body.len()), (200, SIZE));
}

/// Nobody waits for all of what somebody else reads by the same thread.
#[test]
fn others_are_answered_during_a_download() {
    const SIZE: u64 = 1 << 28;
    let backend = Backend::start("a");
    let bench = Bench::start(Settings { workers: NonZeroUsize::MIN, ..settings() }, keys());
    bench.publish(vec![service("s", &[&backend], |_| {})]);
    let mut download = Connection::open(bench.addr);
    download.write(format!("GET /large?n={SIZE} HTTP/1.1\r\nHost: demo.local\r\n\r\n").as_bytes());
    let read = Arc::new(AtomicU64::new(0));
    let counted = read.clone();
    let reader = std::thread::spawn(move || {
        let mut piece = vec![0; 65_536];
        while counted.load(Ordering::Relaxed) < SIZE {
            let n = download.reader.read(&mut piece).unwrap();
            assert_ne!(n, 0, "cut");
            counted.fetch_add(n as u64, Ordering::Relaxed);
        }
    });
    let mut other = Connection::open(bench.addr);
    for _ in 0..10 {
        let before = read.load(Ordering::Relaxed);
        assert_eq!(other.request("GET /", &[], b"").unwrap().status, 200);
        assert!(read.load(Ordering::Relaxed) < SIZE, "it was at {before} when this one was asked");
    }
    reader.join().unwrap();
}

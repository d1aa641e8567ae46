//! Requests that two servers may read differently. The backend must see the requests that the proxy saw, one for one:
//! what it reads beyond them was smuggled past every rule of ours.

use std::io::Read;
use std::net::Shutdown;

use crate::backend::Backend;
use crate::client::Connection;
use crate::proxy::{Bench, service};

/// What stands behind each of them, for a server that ends the body early.
const INNER: &str = "GET /smuggled HTTP/1.1\r\nHost: demo.local\r\n\r\n";

/// Header lines about the body, and the body. `@` is the inner request, `#` its length in hex.
const BODIES: &[(&str, &str)] = &[
    // Two lengths, or none that is a number.
    ("Content-Length: 3\r\nContent-Length: 4", "abcd@"),
    ("Content-Length: 3, 4", "abcd@"),
    ("Content-Length: 3\r\nContent-Length: 3", "abc@"),
    ("Content-Length: 3, 3", "abc@"),
    ("Content-Length: +3", "abc@"),
    ("Content-Length: -3", "abc@"),
    ("Content-Length: 0x3", "abc@"),
    ("Content-Length: 3 4", "abc@"),
    ("Content-Length: 3e0", "abc@"),
    ("Content-Length:", "abc@"),
    ("Content-Length: ", "@"),
    ("Content-Length: 99999999999999999999", "abc@"),
    ("Content-Length: \u{663}", "abc@"),
    ("Content-Length : 3", "abc@"),
    ("Content-Length\t: 3", "abc@"),
    (" Content-Length: 3", "abc@"),
    ("X: y\r\n Content-Length: 3", "abc@"),
    ("Content-Length:\r\n 3", "abc@"),
    ("Content_Length: 3", "@"),
    // A length and chunks.
    ("Content-Length: 4\r\nTransfer-Encoding: chunked", "0\r\n\r\n@"),
    ("Transfer-Encoding: chunked\r\nContent-Length: 4", "0\r\n\r\n@"),
    ("Content-Length: 0\r\nTransfer-Encoding: chunked", "3\r\nabc\r\n0\r\n\r\n@"),
    // Something that one takes for `chunked` and another does not.
    ("Transfer-Encoding: xchunked", "0\r\n\r\n@"),
    ("Transfer-Encoding: chunked, identity", "0\r\n\r\n@"),
    ("Transfer-Encoding: identity, chunked", "0\r\n\r\n@"),
    ("Transfer-Encoding: chunked, chunked", "0\r\n\r\n@"),
    ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", "0\r\n\r\n@"),
    ("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked", "0\r\n\r\n@"),
    ("Transfer-Encoding: identity\r\nContent-Length: 3", "abc@"),
    ("Transfer-Encoding: \"chunked\"", "0\r\n\r\n@"),
    ("Transfer-Encoding: chunked;q=1", "0\r\n\r\n@"),
    ("Transfer-Encoding: CHUNKED", "0\r\n\r\n@"),
    ("Transfer-Encoding:\tchunked", "0\r\n\r\n@"),
    ("Transfer-Encoding:\u{b}chunked", "0\r\n\r\n@"),
    ("Transfer-Encoding: chunked\u{b}", "0\r\n\r\n@"),
    ("Transfer-Encoding:\u{a0}chunked", "0\r\n\r\n@"),
    ("Transfer-Encoding : chunked", "0\r\n\r\n@"),
    ("Transfer-Encoding\u{0}: chunked", "0\r\n\r\n@"),
    ("Transfer-Encoding:\r\n chunked", "0\r\n\r\n@"),
    ("Transfer-Encoding: \nchunked", "0\r\n\r\n@"),
    ("X: y\nTransfer-Encoding: chunked", "0\r\n\r\n@"),
    ("X: y\rTransfer-Encoding: chunked", "0\r\n\r\n@"),
    ("X: y\u{0}\r\nTransfer-Encoding: chunked", "0\r\n\r\n@"),
    ("Transfer_Encoding: chunked\r\nContent-Length: 5", "0\r\n\r\n@"),
    ("Transfer-Encoding: chunked\r\nConnection: Transfer-Encoding", "0\r\n\r\n@"),
    ("Content-Length: 3\r\nConnection: Content-Length", "abc@"),
    // Chunks that are none.
    ("Transfer-Encoding: chunked", "0x3\r\nabc\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "+3\r\nabc\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "-1\r\nabc\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "3_\r\nabc\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", " 3\r\nabc\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "3 \r\nabc\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "3;ext=\"\n\r\nabc\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "3\nabc\n0\n\n@"),
    ("Transfer-Encoding: chunked", "3\r\nabcd\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "\r\nabc\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "10000000000000003\r\nabc\r\n0\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "#\r\n@\r\n0\r\n\r\n"),
    ("Transfer-Encoding: chunked", "0\r\nContent-Length: 9\r\nHost: x\r\n\r\n@"),
    ("Transfer-Encoding: chunked", "0\r\n@"),
];

/// First lines.
const LINES: &[&str] = &[
    "POST / HTTP/1.1",
    "POST / HTTP/1.0",
    "GET / HTTP/1.1",
    "POST  / HTTP/1.1",
    "POST / HTTP/1.32",
    "POST / HTTP/2.0",
    "POST / HTTP/1.1 HTTP/1.0",
    "POST /\u{0} HTTP/1.1",
    "POST\t/ HTTP/1.1",
    "POST /a b HTTP/1.1",
    "\r\n\r\nPOST / HTTP/1.1",
    "POST http://demo.local/ HTTP/1.1",
    "POST http://other/ HTTP/1.1",
];

/// Status codes in the order they came, as far as the stream can be read.
fn codes(stream: &[u8]) -> Vec<u16> {
    let text = String::from_utf8_lossy(stream);
    let lines = text.split("HTTP/1.").skip(1).filter_map(|rest| rest.get(2..5)?.parse().ok());
    lines.collect()
}

#[test]
fn the_backend_sees_what_the_proxy_saw() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let forwarded = || bench.proxy.backends()[0].requests;
    let length = format!("{:x}", INNER.len());
    let firsts = LINES.iter().map(|line| (*line, "Content-Length: 3", "abc@"));
    let bodies = BODIES.iter().flat_map(|(lines, body)| {
        ["POST / HTTP/1.1", "POST / HTTP/1.0"].map(|first| (first, *lines, *body))
    });
    for (first, lines, body) in bodies.chain(firsts) {
        let body = body.replace('#', &length).replace('@', INNER);
        let request = format!("{first}\r\nHost: demo.local\r\n{lines}\r\n\r\n{body}");
        let (before, seen) = (forwarded(), backend.total());
        let mut connection = Connection::open(bench.addr);
        connection.write(request.as_bytes());
        // It may be closed already.
        let _ = connection.stream().shutdown(Shutdown::Write);
        let mut answers = Vec::new();
        // A reset is an end like any other.
        let _ = connection.reader.read_to_end(&mut answers);
        let codes = codes(&answers);
        assert!(codes.iter().all(|code| *code < 500), "{request:?}: {codes:?}");
        let settled = || Ok(bench.proxy.backends()[0].in_progress == 0);
        let limit = std::time::Duration::from_secs(5);
        sticky_tests::wait::until_true("the last request's end", limit, settled).unwrap();
        assert!(backend.total() - seen <= forwarded() - before, "{request:?}: smuggled, {codes:?}");
    }
    // None of them left something behind on a connection that others use.
    let mut connection = Connection::open(bench.addr);
    for _ in 0..20 {
        assert_eq!(connection.request("GET /mine", &[], b"").unwrap().text(), "a /mine");
    }
}

//! Backends that are killed, fall silent or talk nonsense: what the client is told, and in what time.

use std::io::Read;
use std::net::Shutdown;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use sticky::model::Service;
use sticky::proxy::{Settings, Timeouts};

use crate::backend::Backend;
use crate::client::{Connection, Jar, Response, get, send};
use crate::demo::Demo;
use crate::proxy::{Bench, keys, learn, service, settings};

/// A service of the demo application and `other`.
fn both(demo: &Demo, other: &Backend) -> Service {
    let mut service = service("s", &[other], learn);
    service.backends.push(demo.task(other));
    service
}

/// A client that belongs to the demo application.
fn client(bench: &Bench) -> Jar {
    loop {
        let mut jar = Jar::default();
        if jar.get(bench.addr, "/ping").text().contains("\"instance\":\"demo\"") {
            return jar;
        }
    }
}

fn ask(connection: &mut Connection, head: &str, jar: &Jar, body: &[u8]) -> Option<Response> {
    connection.request(head, &[("Cookie", &jar.line())], body)
}

fn soon<T>(what: impl FnOnce() -> T) -> T {
    let began = Instant::now();
    let result = what();
    assert!(began.elapsed() < Duration::from_secs(2), "took {:?}", began.elapsed());
    result
}

#[test]
fn killed_before_the_response() {
    for (head, body, status) in [
        ("GET /slow?x=1&ms=9000", &b""[..], 200),
        ("POST /slow?x=1&ms=9000", b"once", 502),
        ("POST /slow?x=1&ms=9000", b"", 502),
    ] {
        let (mut demo, other) = (Demo::start(), Backend::start("b"));
        let bench = Bench::new(vec![both(&demo, &other)]);
        let jar = client(&bench);
        let mut connection = Connection::open(bench.addr);
        let response = std::thread::scope(|scope| {
            let asks = scope.spawn(|| ask(&mut connection, head, &jar, body).unwrap());
            std::thread::sleep(Duration::from_millis(200));
            assert!(!asks.is_finished());
            demo.process.kill();
            soon(|| asks.join().unwrap())
        });
        assert_eq!(response.status, status, "{head}");
        let method = head.split(' ').next().unwrap();
        let repeated = other.seen(&format!("{method} /slow"));
        assert_eq!(repeated, u64::from(status == 200), "{head}: safe to repeat, or never");
        assert_eq!(response.cookie("sticky_lb").is_some(), status == 200, "moved");
    }
}

#[test]
fn killed_on_connect() {
    let (mut demo, other) = (Demo::start(), Backend::start("b"));
    let bench = Bench::new(vec![both(&demo, &other)]);
    let jar = client(&bench);
    demo.process.kill();
    // Nothing was sent to the dead one, so that anything may go elsewhere.
    let mut connection = Connection::open(bench.addr);
    for head in ["POST /echo", "GET /ping"] {
        let body: &[u8] = if head.starts_with("POST") { b"once" } else { b"" };
        let response = soon(|| ask(&mut connection, head, &jar, body).unwrap());
        assert_eq!(response.status, 200, "{head}");
        assert!(response.cookie("sticky_lb").is_some(), "{head}: moved");
    }
    assert_eq!(other.seen("POST /echo"), 1);
}

#[test]
fn killed_in_the_middle_of_a_response() {
    let (mut demo, other) = (Demo::start(), Backend::start("b"));
    let bench = Bench::new(vec![both(&demo, &other)]);
    let jar = client(&bench);
    let mut connection = Connection::open(bench.addr);
    let head = format!(
        "GET /large?bytes=1000000000 HTTP/1.1\r\nHost: demo.local\r\nCookie: {}\r\n\r\n",
        jar.line()
    );
    connection.write(head.as_bytes());
    assert_eq!(connection.head().unwrap().status, 200);
    demo.process.kill();
    let rest = soon(|| std::io::copy(&mut connection.reader, &mut std::io::sink()));
    assert!(rest.unwrap_or(0) < 1_000_000_000, "the client sees that it is not whole");
    let moved = soon(|| ask(&mut Connection::open(bench.addr), "GET /ping", &jar, b"").unwrap());
    assert_eq!(moved.status, 200);
    assert!(moved.cookie("sticky_lb").is_some());
}

/// Closed by the backend while nobody uses it: it is closed here at once, and not only when idle ones are looked through.
#[test]
fn idle_ones_that_a_backend_closes_are_closed() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    for closed in 1..=3 {
        assert_eq!(get(bench.addr, "/ping", &[]).status, 200);
        let mut stream = backend.state.open.lock().unwrap().pop().unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
        assert_eq!(stream.read(&mut [0]).unwrap(), 0, "{closed}");
    }
    assert_eq!(backend.state.connections.load(Ordering::SeqCst), 3);
}

fn impatient(edit: impl FnOnce(&mut Timeouts)) -> (Bench, Backend) {
    let backend = Backend::start("a");
    let mut timeouts = settings().timeouts;
    edit(&mut timeouts);
    let bench = Bench::start(Settings { timeouts, ..settings() }, keys());
    bench.publish(vec![service("s", &[&backend], |_| {})]);
    (bench, backend)
}

#[test]
fn silent_ones_are_504() {
    let (bench, backend) = impatient(|t| t.response = Duration::from_millis(700));
    assert_eq!(soon(|| get(bench.addr, "/silent", &[]).status), 504);
    assert_eq!(soon(|| send(bench.addr, "POST /silent", &[], b"body").status), 504);
    assert_eq!(
        (backend.seen("GET /silent"), backend.seen("POST /silent")),
        (1, 1),
        "not asked again"
    );
    assert_eq!(get(bench.addr, "/slow?ms=100", &[]).status, 200, "slow is not silent");
    // One that does not even take the request: more than the sockets hold.
    let began = Instant::now();
    let mut connection = Connection::open(bench.addr);
    connection
        .write(b"POST /deaf HTTP/1.1\r\nHost: demo.local\r\nContent-Length: 100000000\r\n\r\n");
    let stream = connection.stream().try_clone().unwrap();
    let sends =
        std::thread::spawn(
            move || {
                while std::io::Write::write_all(&mut &stream, &[0; 65_536]).is_ok() {}
            },
        );
    assert_eq!(soon(|| connection.response(false).unwrap().status), 504);
    // Whoever does not stop sending is cut off a moment later.
    sends.join().unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn a_long_upload_is_not_silence() {
    let (bench, _backend) = impatient(|t| t.response = Duration::from_millis(200));
    let mut connection = Connection::open(bench.addr);
    connection.write(b"POST /echo HTTP/1.1\r\nHost: demo.local\r\nContent-Length: 6\r\n\r\n");
    for byte in b"slowly" {
        std::thread::sleep(Duration::from_millis(120));
        connection.write(&[*byte]);
    }
    assert_eq!(connection.response(false).unwrap().text(), "slowly");
}

#[test]
fn silence_in_the_middle_of_a_body_ends_the_response() {
    let (bench, _backend) = impatient(|t| t.silence = Duration::from_millis(300));
    let mut connection = Connection::open(bench.addr);
    assert!(soon(|| connection.request("GET /quiet?ms=5000", &[], b"")).is_none());
    assert_eq!(get(bench.addr, "/quiet?ms=100", &[]).text(), "halfrest");
    assert_eq!(
        get(bench.addr, "/quiet-events?ms=900", &[]).text(),
        "halfrest",
        "events take their time"
    );
    let stats = bench.proxy.backends();
    assert!(stats.iter().all(|backend| backend.in_progress == 0), "{stats:?}");
}

#[test]
fn garbage_is_502_and_passes_no_line_between_requests() {
    let (bench, _backend) = impatient(|_| {});
    let cases = [
        r"\x16\x03 this is no HTTP\r\n\r\n".to_owned(),
        r"HTTP/1.1 999999 Odd\r\n\r\n".to_owned(),
        r"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n".to_owned(),
        r"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab".to_owned(),
        r"HTTP/1.1 200 OK\r\nno colon\r\n\r\n".to_owned(),
        r"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_owned(),
        r"HTTP/1.1 200 OK".to_owned(),
        String::new(),
    ];
    for case in cases {
        let status = soon(|| get(bench.addr, "/raw", &[("x-raw", &case)]).status);
        assert_eq!(status, 502, "{case}");
    }
    assert_eq!(get(bench.addr, "/huge-head", &[]).status, 502);
    // What comes after a whole response is nobody's: the next request gets its own.
    let more = r"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    for _ in 0..20 {
        let mut connection = Connection::open(bench.addr);
        assert_eq!(connection.request("GET /raw", &[("x-raw", more)], b"").unwrap().text(), "ok");
        assert_eq!(connection.request("GET /x", &[], b"").unwrap().text(), "a /x");
    }
    // A body that breaks its own rules has begun already: it is cut off, never ended as if it were whole.
    for body in [r"zz\r\n", r"5\r\nhel", r"5\r\nhelloX\r\n0\r\n\r\n"] {
        let raw = format!(r"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        let mut connection = Connection::open(bench.addr);
        let response = connection.request("GET /raw", &[("x-raw", &raw)], b"");
        assert!(response.is_none_or(|response| response.status == 502), "{body}");
    }
}

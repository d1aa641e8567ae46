//! What backends may answer, byte for byte: the client gets it whole, and nobody gets what belongs to somebody else.

use std::io::Read;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sticky_tests::wait::until_true;

use crate::backend::Backend;
use crate::client::{Connection, Response};
use crate::proxy::{Bench, service};

fn bench(backend: &Backend) -> Bench {
    Bench::new(vec![service("s", &[backend], |_| {})])
}

/// Has the backend say this, in pieces of `size` bytes.
fn say(client: &mut Connection, method: &str, raw: &[&str], size: usize) -> Option<Response> {
    let raw: Vec<String> =
        raw.iter().map(|raw| raw.replace('\r', "\\r").replace('\n', "\\n")).collect();
    let lines: Vec<_> = raw.iter().map(|raw| ("X-Raw", raw.as_str())).collect();
    client.request(&format!("{method} /say?size={size}"), &lines, b"")
}

fn connections(backend: &Backend) -> u64 {
    backend.state.connections.load(Ordering::SeqCst)
}

/// An ordinary request has the ordinary answer.
fn goes_on(client: &mut Connection, about: &str) {
    let next = client.request("GET /next", &[], b"").map(|next| next.text());
    assert_eq!(next.as_deref(), Some("a /next"), "behind {about}");
}

#[test]
fn an_answer_is_whole_however_it_comes() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let mut client = Connection::open(bench.addr);
    let abc = "abc0123456789";
    let answers = [
        (200, "GET", "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nabc0123456789", abc),
        (200, "GET", "HTTP/1.1 200 OK\r\nContent-Length: 13, 13\r\n\r\nabc0123456789", abc),
        (
            200,
            "GET",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
             3;x=y\r\nabc\r\n00A\r\n0123456789\r\n0\r\nX-Late: 1\r\n\r\n",
            abc,
        ),
        // A length beside chunks says nothing.
        (
            200,
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n\
             D\r\nabc0123456789\r\n0\r\n\r\n",
            abc,
        ),
        // What only tells that another one will come.
        (
            200,
            "GET",
            "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\nabc0123456789",
            abc,
        ),
        (200, "GET", "HTTP/1.0 200 OK\r\nConnection: Keep-Alive\r\nContent-Length: 0\r\n\r\n", ""),
        (204, "GET", "HTTP/1.1 204 No Content\r\n\r\n", ""),
        (304, "GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 13\r\n\r\n", ""),
        (200, "HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n", ""),
        (200, "HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
    ];
    for (status, method, raw, body) in answers {
        for size in [1, 2, 5, 1000] {
            let answer = say(&mut client, method, &[raw], size).expect(raw);
            assert_eq!((answer.status, answer.text().as_str()), (status, body), "{raw:?}");
            assert!(answer.header("x-late").is_none() && answer.header("link").is_none());
            goes_on(&mut client, raw);
        }
    }
    assert_eq!(connections(&backend), 1, "each was used again");
}

#[test]
fn a_reason_of_its_own_passes() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let client = Connection::open(bench.addr);
    client.write(
        b"GET /say HTTP/1.1\r\nHost: demo.local\r\nConnection: close\r\n\
          X-Raw: HTTP/1.1 299 Almost fine\\r\\nContent-Length: 0\\r\\n\\r\\n\r\n\r\n",
    );
    let mut answer = String::new();
    client.stream().read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 299 Almost fine\r\n"), "{answer}");
}

#[test]
fn one_that_says_that_it_closes_is_not_used_again() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let mut client = Connection::open(bench.addr);
    for (number, raw) in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 3\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\nConnection: x, Close\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        "HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc",
    ]
    .into_iter()
    .enumerate()
    {
        let answer = say(&mut client, "GET", &[raw], 1000).expect(raw);
        assert_eq!((answer.status, answer.text().as_str()), (200, "abc"), "{raw:?}");
        goes_on(&mut client, raw);
        // Nothing but the next one came on a new connection, which the one after that is on too.
        assert_eq!(connections(&backend), 2 + number as u64, "{raw:?}");
    }
    // Without a length it is all that comes.
    let raw = [("X-Raw", "HTTP/1.1 200 OK\\r\\n\\r\\nall")];
    let answer = client.request("GET /raw", &raw, b"").unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "all"));
    goes_on(&mut client, "an answer that ends with the connection");
}

/// Whoever has the connection next would take it for the answer.
#[test]
fn bytes_that_nobody_asked_for_are_nobodys() {
    const ASKED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc";
    const FORGED: &str = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged";
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let mut client = Connection::open(bench.addr);
    goes_on(&mut client, "nothing");
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for answer in [ASKED, chunked] {
        let both = format!("{answer}{FORGED}");
        let all: [&[&str]; 3] = [&[&both], &[answer, FORGED], &[answer, "x"]];
        for (number, raw) in all.into_iter().enumerate() {
            let before = connections(&backend);
            let body = say(&mut client, "GET", raw, 1000).unwrap().text();
            assert_eq!(body, "abc", "{raw:?}");
            if number > 0 {
                // What comes later is seen while the connection is idle.
                std::thread::sleep(Duration::from_millis(150));
            }
            goes_on(&mut client, raw[0]);
            assert_eq!(connections(&backend), before + 1, "{raw:?}");
        }
    }
    for status in ["204 No Content", "304 Not Modified"] {
        let both = format!("HTTP/1.1 {status}\r\nContent-Length: 6\r\n\r\nforged");
        assert_eq!(say(&mut client, "GET", &[&both], 1000).unwrap().text(), "");
        goes_on(&mut client, &both);
    }
}

#[test]
fn what_is_no_answer_is_told_as_such() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let mut client = Connection::open(bench.addr);
    for raw in [
        "SSH-2.0-OpenSSH\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nContent-Length : 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\nX: y\r\n Content-Length: 1\r\n\r\na",
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
        // It was not asked for.
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nabc",
    ] {
        for size in [3, 1000] {
            let answer = say(&mut client, "GET", &[raw], size).expect(raw);
            assert_eq!(answer.status, 502, "{raw:?}");
            goes_on(&mut client, raw);
        }
    }
    for body in
        ["\r\nabc", "x\r\nabc", "3\nabc", "3\r\nabcd\r\n0\r\n\r\n", "3\r\nabc\r\n0\r\nx y\r\n\r\n"]
    {
        let mut client = Connection::open(bench.addr);
        let raw = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
        // It has begun, so that it can only break off.
        assert!(say(&mut client, "GET", &[&raw], 1000).is_none(), "{body:?}");
        goes_on(&mut Connection::open(bench.addr), body);
    }
}

#[test]
fn a_get_may_have_a_body_and_trailers_stay_here() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let mut client = Connection::open(bench.addr);
    for method in ["GET", "POST"] {
        client.write(
            format!(
                "{method} /echo HTTP/1.1\r\nHost: demo.local\r\nTrailer: x\r\n\
                 Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\nx: y\r\n\r\n"
            )
            .as_bytes(),
        );
        assert_eq!(client.response(false).unwrap().text(), "abcde", "{method}");
        goes_on(&mut client, method);
    }
    assert_eq!(connections(&backend), 1);
}

/// The rest of the upload would be the beginning of the next request.
#[test]
fn one_that_answers_before_it_has_all_is_not_used_again() {
    let backend = Backend::start("a");
    let bench = bench(&backend);
    let mut client = Connection::open(bench.addr);
    client.write(b"POST /soon HTTP/1.1\r\nHost: demo.local\r\nContent-Length: 100\r\n\r\nhalf");
    assert_eq!(client.response(false).unwrap().text(), "soon");
    goes_on(&mut Connection::open(bench.addr), "an early answer");
    assert_eq!(connections(&backend), 2);
    let closed = || Ok(bench.proxy.backends()[0].in_progress == 0);
    until_true("the end of the upload", Duration::from_secs(5), closed).unwrap();
}

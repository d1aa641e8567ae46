//! A thousand WebSockets and a thousand streams of events, through everything that changes around them.

use std::io::{BufRead, Read};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use sticky::model::{CookieMode, OnLoss, Service, ServiceConfig};

use crate::backend::Backend;
use crate::client::Connection;
use crate::demo::Demo;
use crate::proxy::{Bench, cookie, learn, service};

const EACH: usize = 1000;

fn websocket(bench: &Bench) -> Connection {
    let mut connection = Connection::open(bench.addr);
    let headers = [
        ("Connection", "Upgrade"),
        ("Upgrade", "websocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    assert_eq!(connection.request("GET /ws", &headers, b"").unwrap().status, 101);
    connection
}

/// A text message there and back (RFC 6455, section 5.2), masked by zeros.
fn echoes(connection: &mut Connection, text: &str) {
    let length = u8::try_from(text.len()).unwrap();
    connection.write(&[&[0x81, 0x80 | length, 0, 0, 0, 0], text.as_bytes()].concat());
    let mut back = vec![0; 2 + text.len()];
    connection.reader.read_exact(&mut back).unwrap();
    assert_eq!(back, [&[0x81, length], text.as_bytes()].concat());
}

fn events(bench: &Bench) -> Connection {
    let mut connection = Connection::open(bench.addr);
    connection.write(b"GET /events?ms=700 HTTP/1.1\r\nHost: demo.local\r\n\r\n");
    let head = connection.head().unwrap();
    assert_eq!((head.status, head.header("content-type")), (200, Some("text/event-stream")));
    connection
}

/// The number of the next event.
fn next(connection: &mut Connection) -> u64 {
    let mut line = String::new();
    loop {
        line.clear();
        assert!(connection.reader.read_line(&mut line).unwrap() > 0, "the stream ended");
        if let Some(number) = line.trim().strip_prefix("data: ") {
            return number.parse().unwrap();
        }
    }
}

#[test]
fn idle_ones_survive_scaling_and_every_change_of_configuration() {
    // Three descriptors for each: the client's, and two of the proxy.
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, most, most).unwrap();
    let (demo, others) = (Demo::start(), ["b", "c", "d"].map(Backend::start));
    let [b, c, d] = &others;
    let of = |rest: &[&Backend], edit: &dyn Fn(&mut ServiceConfig)| -> Vec<Service> {
        let mut all = service("s", rest, edit);
        all.backends.insert(0, demo.task(b));
        vec![all]
    };
    let bench = Bench::new(of(&[], &|_| {}));
    let mut sockets: Vec<_> = (0..EACH).map(|_| websocket(&bench)).collect();
    let mut streams: Vec<_> = (0..EACH).map(|_| events(&bench)).collect();
    sockets.iter_mut().for_each(|socket| echoes(socket, "before"));
    assert_eq!(bench.proxy.backends()[0].in_progress, 2 * EACH as u32);

    let began = Instant::now();
    bench.publish(of(&[b], &|_| {}));
    bench.publish(of(&[b, c, d], &learn));
    bench.publish(of(&[d], &|c| c.cookie = cookie(CookieMode::Insert, &[])));
    bench.publish(of(&[], &|c| {
        c.ip_hash = true;
        c.on_loss = OnLoss::Strict;
        c.max_connections = Some(1);
        c.deny = vec!["127.0.0.0/8".parse().unwrap()];
    }));
    bench.publish(of(&[], &|c| {
        c.hosts = Vec::new();
        c.default_backend = true;
        c.context_root = Some("/elsewhere".to_owned());
    }));
    // The service is taken away while its tasks still run.
    bench.publish(Vec::new());
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());

    sockets.iter_mut().for_each(|socket| echoes(socket, "after"));
    for stream in &mut streams {
        for number in 0..3 {
            assert_eq!(next(stream), number, "every event, once");
        }
    }
    drop((sockets, streams));
    bench.publish(of(&[], &|_| {}));
    let ended = || Ok(bench.proxy.backends()[0].in_progress == 0);
    sticky_tests::wait::until_true("their end", Duration::from_secs(10), ended).unwrap();
}

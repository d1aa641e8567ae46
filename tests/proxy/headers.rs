use std::io::{Read, Write};
use std::net::TcpListener;

use sticky::proxy::Settings;

use crate::backend::Backend;
use crate::client::{Connection, get};
use crate::proxy::{Bench, keys, learn, service, settings};

/// Head lines as the backend saw them, names in lower case, sorted.
fn seen(bench: &Bench, headers: &[(&str, &str)]) -> Vec<String> {
    let text = get(bench.addr, "/headers", headers).text();
    let mut lines: Vec<_> = text
        .lines()
        .map(|line| match line.split_once(':') {
            Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
            None => line.to_owned(),
        })
        .collect();
    lines.sort();
    lines
}

const CLAIMS: [(&str, &str); 11] = [
    ("X-Request-ID", "claimed"),
    ("X-Real-IP", "203.0.113.66"),
    ("X-Forwarded-For", "203.0.113.9"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "front"),
    ("X-Forwarded-Port", "444"),
    ("Forwarded", "for=203.0.113.9"),
    ("Connection", "close, X-Hop"),
    ("X-Hop", "1"),
    ("TE", "trailers"),
    ("Origin", "http://elsewhere"),
];

#[test]
fn what_is_sent_again_says_the_same() {
    let backends = ["a", "b"].map(Backend::start);
    let bench = Bench::new(vec![service("s", &backends.each_ref(), |_| {})]);
    let told = |dies_at: &str| {
        let headers: Vec<_> = CLAIMS.into_iter().chain([("X-Dies-At", dies_at)]).collect();
        let mut lines = seen(&bench, &headers);
        // Of each request its own.
        lines.retain(|line| !line.starts_with("x-request-id: ") && !line.starts_with("x-dies-at"));
        lines
    };
    let once = told("nobody");
    while backends[0].seen("GET /headers") < 3 {
        assert_eq!(told("a"), once);
    }
}

#[test]
fn the_backend_learns_the_truth_from_us() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut lines = seen(&bench, &CLAIMS);
    let id = lines.iter().position(|line| line.starts_with("x-request-id: ")).unwrap();
    let id = lines.remove(id);
    assert_eq!(id.len(), "x-request-id: ".len() + 32, "{id}");
    let port = bench.addr.port();
    assert_eq!(
        lines,
        [
            "GET /headers HTTP/1.1".to_owned(),
            "forwarded: for=127.0.0.1;host=demo.local;proto=http".to_owned(),
            "host: demo.local".to_owned(),
            "origin: http://elsewhere".to_owned(),
            "x-forwarded-for: 127.0.0.1".to_owned(),
            "x-forwarded-host: demo.local".to_owned(),
            format!("x-forwarded-port: {port}"),
            "x-forwarded-proto: http".to_owned(),
            "x-real-ip: 127.0.0.1".to_owned(),
        ]
    );
}

#[test]
fn a_trusted_proxy_is_believed() {
    let backend = Backend::start("a");
    let trusting = Settings { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..settings() };
    let bench = Bench::start(trusting, keys());
    bench.publish(vec![service("s", &[&backend], |_| {})]);
    assert_eq!(
        seen(&bench, &CLAIMS),
        [
            "GET /headers HTTP/1.1",
            "forwarded: for=203.0.113.9, for=127.0.0.1;host=demo.local;proto=http",
            "host: demo.local",
            "origin: http://elsewhere",
            "x-forwarded-for: 203.0.113.9, 127.0.0.1",
            "x-forwarded-host: front",
            "x-forwarded-port: 444",
            "x-forwarded-proto: https",
            "x-real-ip: 203.0.113.9",
            "x-request-id: claimed",
        ]
    );
    assert_eq!(get(bench.addr, "/", &CLAIMS).header("x-request-id"), Some("claimed"));
}

#[test]
fn our_cookie_is_between_the_client_and_us() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], learn)]);
    let good = get(bench.addr, "/ping", &[]).value("sticky_lb").unwrap();
    let cookies = |line: &str| -> Vec<String> {
        let lines = seen(&bench, &[("Cookie", line)]);
        lines.iter().filter_map(|line| Some(line.strip_prefix("cookie: ")?.to_owned())).collect()
    };
    assert_eq!(cookies(&format!("session=1; sticky_lb={good}; b=2")), ["session=1; b=2"]);
    assert_eq!(cookies(&format!("sticky_lb={good}; session=1")), ["session=1"]);
    // Alone it does not count, and is ours all the same; cut, it still names our key.
    assert_eq!(cookies(&format!("sticky_lb={good}")), [""; 0]);
    assert_eq!(cookies(&format!("session=1; sticky_lb={}", &good[..20])), ["session=1"]);
    // The application may have one of this name for itself.
    assert_eq!(cookies("session=1; sticky_lb=mine"), ["session=1; sticky_lb=mine"]);
    assert_eq!(cookies("a=1;b=\"2 3\" ; =;;c"), ["a=1;b=\"2 3\" ; =;;c"]);
}

#[test]
fn names_that_look_like_ours_do_not_pass() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let claims = [
        ("X_Forwarded_For", "203.0.113.9"),
        ("X-Real_IP", "203.0.113.9"),
        ("X_Forwarded_Prefix", "/evil"),
        ("X_Request_ID", "1"),
        ("My_Header", "1"),
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAoAAAAAIAAAAA"),
    ];
    let lines = seen(&bench, &claims).join("\n");
    assert!(lines.contains("my_header: 1"), "{lines}");
    for gone in ["203.0.113.9", "evil", "request_id", "upgrade", "http2", "connection"] {
        assert!(!lines.contains(gone), "{gone} in {lines}");
    }
}

#[test]
fn responses_say_who_answered() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let reply = [
        ("x-reply", "Connection: keep-alive, X-Private"),
        ("x-reply", "X-Private: 1"),
        ("x-reply", "Keep-Alive: timeout=5"),
        ("x-reply", "X-Upstream-Addr: forged"),
        ("x-reply", "X-Mine: 1"),
    ];
    let response = get(bench.addr, "/reply", &reply);
    assert_eq!(response.header("x-request-id").unwrap().len(), 32);
    assert_eq!(response.header("x-proxy-id"), Some("proxy-under-test"));
    assert!(response.header("x-server-info").unwrap().starts_with("sticky/"));
    let addr = backend.addr.to_string();
    assert_eq!(response.all("x-upstream-addr").collect::<Vec<_>>(), [addr.as_str()]);
    let time = response.header("x-upstream-response-time").unwrap();
    assert!(time.parse::<f64>().unwrap() < 5.0 && time.split('.').nth(1).unwrap().len() == 3);
    assert_eq!(response.header("x-mine"), Some("1"));
    for gone in ["x-private", "keep-alive", "connection"] {
        assert_eq!(response.header(gone), None, "{gone}");
    }
}

#[test]
fn info_headers_can_be_hidden() {
    let backend = Backend::start("a");
    let bench = Bench::start(Settings { hide_info_headers: true, ..settings() }, keys());
    bench.publish(vec![service("s", &[&backend], |_| {})]);
    let response = get(bench.addr, "/", &[]);
    for (name, _) in &response.headers {
        assert!(!name.starts_with("x-"), "{name}");
    }
}

#[test]
fn http_1_0_and_absolute_targets() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    connection.write(b"GET /x HTTP/1.0\r\nHost: demo.local\r\n\r\n");
    let response = connection.response(false).unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "a /x"));
    let mut connection = Connection::open(bench.addr);
    connection.write(b"GET http://demo.local/x?y HTTP/1.1\r\nHost: ignored\r\n\r\n");
    let response = connection.response(false).unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "a /x?y"));
}

#[test]
fn the_proxy_protocol_in_and_out() {
    use sticky::model::ProxyProtocol;
    let backend = Backend::start("a");
    let trusting = Settings { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..settings() };
    let bench = Bench::start(trusting, keys());
    bench.publish(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    connection.write(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n");
    let text = connection.request("GET /headers", &[], b"").unwrap().text();
    assert!(text.contains("x-real-ip: 203.0.113.7"), "{text}");
    assert!(text.contains("x-forwarded-port: 80"), "{text}");
    // The peer behind it is a stranger, whatever it says.
    let claim = [("X-Forwarded-For", "198.51.100.9")];
    let text = connection.request("GET /headers", &claim, b"").unwrap().text();
    assert!(text.contains("x-forwarded-for: 203.0.113.7\n"), "{text}");
    let mut broken = Connection::open(bench.addr);
    broken.write(b"PROXY nonsense\r\n");
    assert!(broken.response(false).is_none());

    bench.publish(vec![service("s", &[&backend], |c| c.proxy_protocol = Some(ProxyProtocol::V1))]);
    let mut connection = Connection::open(bench.addr);
    connection.write(b"PROXY TCP4 203.0.113.8 198.51.100.1 4712 80\r\n");
    for _ in 0..2 {
        let text = connection.request("GET /headers", &[], b"").unwrap().text();
        assert!(
            text.contains("\nx-preface: PROXY TCP4 203.0.113.8 198.51.100.1 4712 80"),
            "{text}"
        );
    }
}

/// Version 2, byte by byte: both ends, then the request behind it on the same connection.
#[test]
fn version_2_of_the_proxy_protocol() {
    use sticky::model::{ProxyProtocol, Service, State};
    let backend = Backend::start("a");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let target = sticky::model::Backend {
        addr: Some(listener.local_addr().unwrap()),
        ..crate::proxy::task(&backend, State::Up)
    };
    let empty = service("s", &[], |c| c.proxy_protocol = Some(ProxyProtocol::V2));
    let trusting = Settings { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..settings() };
    let bench = Bench::start(trusting, keys());
    bench.publish(vec![Service { backends: vec![target], ..empty }]);
    let preface = |from: [u8; 4], port: u16| {
        let head = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
        [&head[..], &from, &[198, 51, 100, 1], &port.to_be_bytes(), &80_u16.to_be_bytes()].concat()
    };
    let want = preface([203, 0, 113, 7], 4711);
    let mut connection = Connection::open(bench.addr);
    connection.write(&want);
    connection.write(b"GET /x HTTP/1.1\r\nHost: demo.local\r\n\r\n");
    let (mut stream, _) = listener.accept().unwrap();
    let mut seen = vec![0; want.len() + 6];
    stream.read_exact(&mut seen).unwrap();
    assert_eq!(seen, [&want[..], b"GET /x"].concat());
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(connection.response(false).unwrap().status, 200);
}

#[test]
fn strangers_cannot_speak_the_proxy_protocol() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let mut connection = Connection::open(bench.addr);
    connection.write(b"PROXY TCP4 203.0.113.7 198.51.100.1 4711 80\r\n");
    connection.write(b"GET / HTTP/1.1\r\nHost: demo.local\r\n\r\n");
    assert_eq!(connection.response(false).map(|response| response.status), Some(400));
}

#[test]
fn one_listener_takes_both_families() {
    let backend = Backend::start("a");
    let both = Settings { http: Some("[::]:0".parse().unwrap()), ..settings() };
    let bench = Bench::start(both, keys());
    bench.publish(vec![service("s", &[&backend], |_| {})]);
    for host in ["127.0.0.1", "::1"] {
        let addr = std::net::SocketAddr::new(host.parse().unwrap(), bench.addr.port());
        let text = get(addr, "/headers", &[]).text();
        assert!(text.contains(&format!("\nx-real-ip: {host}")), "{text}");
    }
}

#[test]
fn a_head_has_at_most_100_lines() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let names: Vec<String> = (0..100).map(|number| format!("x-{number}")).collect();
    let lines: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    // The first is the host.
    assert_eq!(get(bench.addr, "/", &lines[..99]).status, 200);
    assert_eq!(get(bench.addr, "/", &lines).status, 431);
}

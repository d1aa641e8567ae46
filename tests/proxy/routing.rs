use std::io::ErrorKind;
use std::net::TcpStream;

use sticky::model::{BackendMode, CookieMode, HostPattern, Redirect};
use sticky::proxy::Settings;

use crate::backend::Backend;
use crate::client::{Jar, get, send};
use crate::proxy::{Bench, cookie, keys, learn, service, settings};

fn host(bench: &Bench, host: &str, path: &str) -> (u16, String) {
    let response = get(bench.addr, path, &[("Host", host)]);
    (response.status, response.text())
}

#[test]
fn hosts_wildcards_roots_and_the_default() {
    let backends = ["exact", "wild", "deep", "app", "api", "rest"].map(Backend::start);
    let [exact, wild, deep, app, api, rest] = &backends;
    let hosts = |names: &[&str]| -> Vec<_> {
        let pattern = |name: &&str| match name.strip_prefix("*.") {
            Some(domain) => HostPattern::Wildcard(domain.to_owned()),
            None => HostPattern::Exact((*name).to_owned()),
        };
        names.iter().map(pattern).collect()
    };
    let bench = Bench::new(vec![
        service("exact", &[exact], |c| c.hosts = hosts(&["a.example.com", "b.example.org"])),
        service("wild", &[wild], |c| c.hosts = hosts(&["*.example.com"])),
        service("deep", &[deep], |c| c.hosts = hosts(&["*.x.example.com"])),
        service("app", &[app], |c| {
            c.hosts = hosts(&["a.example.com"]);
            c.context_root = Some("/app".to_owned());
        }),
        service("api", &[api], |c| {
            c.hosts = hosts(&["a.example.com"]);
            c.context_root = Some("/app/api".to_owned());
            c.context_root_rewrite = true;
        }),
        service("rest", &[rest], |c| {
            c.hosts = Vec::new();
            c.default_backend = true;
        }),
    ]);
    let cases = [
        ("a.example.com", "/x?q=1", "exact /x?q=1"),
        ("A.Example.COM:8080", "/", "exact /"),
        ("a.example.com.", "/", "exact /"),
        ("b.example.org", "/", "exact /"),
        ("z.example.com", "/", "wild /"),
        ("z.y.example.com", "/", "wild /"),
        ("z.x.example.com", "/", "deep /"),
        ("a.example.com", "/app", "app /app"),
        ("a.example.com", "/app/x", "app /app/x"),
        ("a.example.com", "/apple", "exact /apple"),
        ("a.example.com", "/app/api/x?y", "api /x?y"),
        ("a.example.com", "/app/api", "api /"),
        ("a.example.com", "/app/apis", "app /app/apis"),
        ("example.com", "/", "rest /"),
        ("unknown.org", "/y", "rest /y"),
    ];
    for (name, path, want) in cases {
        assert_eq!(host(&bench, name, path), (200, want.to_owned()), "{name}{path}");
    }
}

#[test]
fn an_unknown_host_is_404_and_no_host_400() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![service("s", &[&backend], |_| {})]);
    let response = get(bench.addr, "/", &[("Host", "other")]);
    assert_eq!(response.status, 404);
    assert_eq!(response.header("x-request-id").unwrap().len(), 32);
    assert!(response.text().starts_with("404: "));
    assert_eq!(get(bench.addr, "/", &[("Host", "a"), ("Host", "b")]).status, 400);
    assert_eq!(send(bench.addr, "TRACE /", &[], b"").status, 405);
}

#[test]
fn a_snapshot_is_in_force_at_once() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let bench = Bench::new(Vec::new());
    assert_eq!(get(bench.addr, "/", &[]).status, 404);
    bench.publish(vec![service("s", &[&a], |_| {})]);
    assert_eq!(get(bench.addr, "/", &[]).text(), "a /");
    bench.publish(vec![service("s", &[&b], |_| {})]);
    assert_eq!(get(bench.addr, "/", &[]).text(), "b /");
    let counted = bench.proxy.backends();
    assert_eq!((counted.len(), counted[0].requests, counted[0].in_progress), (1, 1, 0));
}

#[test]
fn services_of_one_host_share_it_by_weight_or_size() {
    let backends = ["a", "b", "c", "d"].map(Backend::start);
    let [a, b, c, d] = &backends;
    let share = |bench: &Bench| {
        let hits = (0..800).filter(|_| get(bench.addr, "/", &[]).text() == "d /").count();
        hits as f64 / 800.0
    };
    let bench = Bench::new(vec![service("v1", &[a, b, c], |_| {}), service("v2", &[d], |_| {})]);
    let by_size = share(&bench);
    assert!((0.15..0.35).contains(&by_size), "{by_size}");
    let weigh = |weight| move |c: &mut sticky::model::ServiceConfig| c.weight = Some(weight);
    bench.publish(vec![service("v1", &[a, b, c], weigh(1)), service("v2", &[d], weigh(9))]);
    let by_weight = share(&bench);
    assert!((0.82..0.97).contains(&by_weight), "{by_weight}");
}

#[test]
fn redirects_and_ssl_only() {
    let backend = Backend::start("a");
    let bench = Bench::new(vec![
        service("old", &[&backend], |c| {
            c.redirects = vec![Redirect {
                source: "old.example.com".to_owned(),
                target: "https://new.example.com".to_owned(),
            }];
        }),
        service("tls", &[&backend], |c| {
            c.hosts = vec![HostPattern::Exact("tls.example.com".to_owned())];
            c.ssl_only = true;
        }),
        service("gone", &[], |c| {
            c.hosts = Vec::new();
            c.redirects = vec![Redirect {
                source: "gone.example.com".to_owned(),
                target: "http://new.example.com:8080".to_owned(),
            }];
        }),
    ]);
    let moved = get(bench.addr, "/p?q=1", &[("Host", "old.example.com")]);
    assert_eq!(
        (moved.status, moved.header("location")),
        (302, Some("https://new.example.com/p?q=1"))
    );
    let moved = get(bench.addr, "/", &[("Host", "gone.example.com")]);
    let target = Some("http://new.example.com:8080/");
    assert_eq!((moved.status, moved.header("location")), (302, target), "it needs no host");
    let secure = get(bench.addr, "/p?q=1", &[("Host", "tls.example.com:8080")]);
    assert_eq!(
        (secure.status, secure.header("location")),
        (308, Some("https://tls.example.com/p?q=1"))
    );
    // Nobody trusts this peer.
    let claim = [("Host", "tls.example.com"), ("X-Forwarded-Proto", "https")];
    assert_eq!(get(bench.addr, "/", &claim).status, 308);
}

#[test]
fn a_trusted_proxy_says_what_was_https() {
    let backend = Backend::start("a");
    let trusting = Settings { trusted_proxies: vec!["127.0.0.0/8".parse().unwrap()], ..settings() };
    let bench = Bench::start(trusting, keys());
    bench.publish(vec![service("s", &[&backend], |c| {
        c.ssl_only = true;
        c.cookie = cookie(CookieMode::Insert, &[]);
    })]);
    assert_eq!(get(bench.addr, "/x", &[]).status, 308);
    // The first of a list is the one next to the client.
    for (proto, status) in [
        ("http", 308),
        ("http, https", 308),
        ("", 308),
        (", https", 308),
        ("https,https", 200),
        ("https , http", 200),
    ] {
        let response = get(bench.addr, "/x", &[("X-Forwarded-Proto", proto)]);
        assert_eq!(response.status, status, "{proto}");
    }
    let secure = get(bench.addr, "/x", &[("X-Forwarded-Proto", "HTTPS")]);
    assert_eq!((secure.status, secure.text().as_str()), (200, "a /x"));
    let ours = secure.cookie("sticky_lb").unwrap();
    assert!(ours.contains("; Secure") && ours.contains("; Path=/"), "{ours}");
}

#[test]
fn an_instance_of_a_cluster_serves_its_services() {
    let backend = Backend::start("a");
    let east = Settings { service_cluster: Some("east".to_owned()), ..settings() };
    let bench = Bench::start(east, keys());
    let of = |name: &str, cluster: &str| {
        service(name, &[&backend], |c| {
            c.hosts = vec![HostPattern::Exact(name.to_owned())];
            c.service_cluster = Some(cluster.to_owned());
        })
    };
    bench.publish(vec![of("here", "east"), of("there", "west")]);
    assert_eq!(host(&bench, "here", "/").0, 200);
    assert_eq!(host(&bench, "there", "/").0, 404);
}

#[test]
fn a_version_of_weight_0_keeps_its_clients_and_gets_no_others() {
    let backends = ["a", "b"].map(Backend::start);
    let [a, b] = &backends;
    let both = |weight| {
        vec![
            service("va", &[a], |c| {
                learn(c);
                c.weight = Some(weight);
            }),
            service("vb", &[b], |c| {
                learn(c);
                c.weight = Some(1);
            }),
        ]
    };
    let bench = Bench::new(both(1));
    let mut known = loop {
        let mut jar = Jar::default();
        if jar.get(bench.addr, "/ping").text() == "a new" {
            break jar;
        }
    };
    bench.publish(both(0));
    for _ in 0..20 {
        assert_eq!(get(bench.addr, "/ping", &[]).text(), "b new");
        assert_eq!(known.get(bench.addr, "/ping").text(), "a known");
    }
}

#[test]
fn clusters_modes_and_address_lists() {
    let backend = Backend::start("a");
    let only = |name: &str, edit: fn(&mut sticky::model::ServiceConfig)| {
        service(name, &[&backend], |c| {
            c.hosts = vec![HostPattern::Exact(name.to_owned())];
            edit(c);
        })
    };
    let bench = Bench::new(vec![
        only("elsewhere", |c| c.service_cluster = Some("east".to_owned())),
        only("vip", |c| {
            c.backend_mode = BackendMode::Vip;
            c.ip_hash = true;
        }),
        only("denied", |c| c.deny = vec!["127.0.0.0/8".parse().unwrap()]),
        only("allowed", |c| c.allow = vec!["198.51.100.0/24".parse().unwrap()]),
    ]);
    assert_eq!(host(&bench, "elsewhere", "/").0, 404);
    assert_eq!(host(&bench, "vip", "/").0, 200);
    assert_eq!(host(&bench, "denied", "/").0, 403);
    assert_eq!(host(&bench, "allowed", "/").0, 403);
    assert_eq!(bench.table.clients(), 0);
}

#[test]
fn before_there_are_routes_connections_are_refused_and_not_answered() {
    let bench = Bench::start(settings(), keys());
    let early = TcpStream::connect(bench.addr).map_err(|error| error.kind());
    assert_eq!(early.err(), Some(ErrorKind::ConnectionRefused));
    bench.publish(Vec::new());
    assert_eq!(host(&bench, "nobody.local", "/").0, 404);
}

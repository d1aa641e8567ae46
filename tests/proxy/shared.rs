//! Services that share a host and path: each goes by its own labels.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use sticky::model::{CookieAffinity, CookieMode, HostPattern, ServiceConfig};
use sticky::proxy::Settings;

use crate::backend::Backend;
use crate::client::{Response, get};
use crate::proxy::{Bench, cookie, keys, service, settings};

/// A proxy that believes `X-Forwarded-*`.
fn trusting() -> Bench {
    let trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    Bench::start(Settings { trusted_proxies, ..settings() }, keys())
}

fn from(bench: &Bench, client: &str) -> Response {
    get(bench.addr, "/", &[("X-Forwarded-For", client)])
}

#[test]
fn only_the_version_that_wants_https_redirects() {
    let [a, b] = &["a", "b"].map(Backend::start);
    let bench = trusting();
    bench.publish(vec![service("v1", &[a], |c| c.ssl_only = true), service("v2", &[b], |_| {})]);
    let all = |proto| -> HashSet<(u16, String)> {
        let ask = |_| get(bench.addr, "/", &[("X-Forwarded-Proto", proto)]);
        (0..60).map(ask).map(|response| (response.status, response.text())).collect()
    };
    let (a, b) = ((200, "a /".to_owned()), (200, "b /".to_owned()));
    assert_eq!(all("http"), [(308, String::new()), b.clone()].into());
    assert_eq!(all("https"), [a, b].into());
}

#[test]
fn a_version_for_some_addresses_leaves_the_others_to_the_rest() {
    let [a, b] = &["a", "b"].map(Backend::start);
    let bench = trusting();
    let only = |c: &mut ServiceConfig| c.allow = vec!["198.51.100.0/24".parse().unwrap()];
    let deny = |c: &mut ServiceConfig| c.deny = vec!["203.0.113.9/32".parse().unwrap()];
    bench.publish(vec![service("v1", &[a], deny), service("v2", &[b], only)]);
    let seen = |client: &str| -> HashSet<String> {
        (0..40).map(|_| from(&bench, client).text()).collect()
    };
    assert_eq!(seen("203.0.113.7"), ["a /".to_owned()].into());
    assert_eq!(seen("198.51.100.7"), ["a /".to_owned(), "b /".to_owned()].into());
    assert_eq!(from(&bench, "203.0.113.9").status, 403);
}

#[test]
fn who_is_not_admitted_does_not_wait_for_a_backend() {
    let bench = trusting();
    let deny = |c: &mut ServiceConfig| c.deny = vec!["203.0.113.9/32".parse().unwrap()];
    bench.publish(vec![service("s", &[], deny)]);
    let began = Instant::now();
    assert_eq!(from(&bench, "203.0.113.9").status, 403);
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert_eq!(from(&bench, "203.0.113.7").status, 503);
}

#[test]
fn the_clients_of_one_prefix_get_one_version() {
    let [a, b] = &["a", "b"].map(Backend::start);
    let bench = trusting();
    let by_network = |c: &mut ServiceConfig| {
        c.ip_hash = true;
        c.ip_prefix = sticky::model::IpPrefix { v4: 24, v6: 64 };
        // No records: the hash alone decides.
        c.affinity_ttl = Duration::ZERO;
    };
    bench.publish(vec![service("v1", &[a], by_network), service("v2", &[b], by_network)]);
    let seen = |network: &str| -> HashSet<String> {
        (1..40).map(|host| from(&bench, &format!("{network}.{host}")).text()).collect()
    };
    let all: HashSet<String> = (0..40)
        .flat_map(|n| {
            let one = seen(&format!("10.0.{n}"));
            assert_eq!(one.len(), 1, "10.0.{n}.0/24: {one:?}");
            one
        })
        .collect();
    assert_eq!(all.len(), 2, "networks differ");
}

#[test]
fn versions_share_one_cookie_on_a_host_whatever_other_hosts_they_have() {
    let [a, b] = &["a", "b"].map(Backend::start);
    let on = |hosts: &'static [&str]| {
        move |c: &mut ServiceConfig| {
            c.hosts = hosts.iter().map(|host| HostPattern::Exact((*host).to_owned())).collect();
            c.context_root = Some("/app".to_owned());
            let insert = cookie(CookieMode::Insert, &[]);
            c.cookie = insert.map(|cookie| CookieAffinity { own_name: None, ..cookie });
        }
    };
    let both = || {
        vec![
            service("v1", &[a], on(&["one.example.com", "two.example.com"])),
            service("v2", &[b], on(&["one.example.com"])),
        ]
    };
    let bench = Bench::new(both());
    let ask = |host, cookies: &str| get(bench.addr, "/app", &[("Host", host), ("Cookie", cookies)]);
    let ours = |response: &Response| {
        let line = response.all("set-cookie").next()?;
        Some(line.split(';').next()?.to_owned())
    };
    let new = |host| -> HashSet<(String, String)> {
        (0..40)
            .map(|_| {
                let response = ask(host, "x=y");
                let pin = ours(&response).unwrap();
                (pin.split('=').next().unwrap().to_owned(), response.text())
            })
            .collect()
    };
    let (one, two) = (new("one.example.com"), new("two.example.com"));
    let names: HashSet<&String> = one.iter().map(|(name, _)| name).collect();
    assert_eq!((one.len(), names.len()), (2, 1), "{one:?}");
    assert_eq!(two.len(), 1, "{two:?}");
    assert!(two.iter().all(|(name, _)| !names.contains(name)), "{two:?}");
    // With a Domain the cookie of one host comes to the other: it counts there, and is the one that goes on.
    let pin = ours(&ask("two.example.com", "x=y")).unwrap();
    for _ in 0..20 {
        let response = ask("one.example.com", &pin);
        assert_eq!((response.text().as_str(), ours(&response)), ("a /app", None));
    }
    let view = bench.proxy.cookie("v1", pin.split('=').nth(1).unwrap()).unwrap();
    assert_eq!(view.backend.as_deref(), Some("id-a"));
    let [c] = &["c"].map(Backend::start);
    let mut moved = both();
    moved[0].backends = service("v1", &[c], |_| {}).backends;
    bench.publish(moved);
    let response = ask("one.example.com", &pin);
    assert_eq!(response.text(), "c /app", "to the version before the task");
    let again = ours(&response).unwrap();
    assert_eq!(again.split('=').next(), pin.split('=').next());
    assert_eq!(ask("two.example.com", &again).text(), "c /app");
}

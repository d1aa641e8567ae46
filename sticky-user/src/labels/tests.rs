use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{HostPattern, IpPrefix, Proto, Publish, Redirect};

fn map(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// The configuration of a service with hosts and these labels, and what is reported.
fn reading(labels: &[(&str, &str)]) -> Reading {
    let mut labels = map(labels);
    labels.entry(label::HOSTS.to_owned()).or_insert_with(|| "demo.local".to_owned());
    read(&labels, &Instance::default())
}

fn config(labels: &[(&str, &str)]) -> ServiceConfig {
    let reading = reading(labels);
    assert_eq!(reading.errors, [], "{labels:?}");
    reading.config.expect("no value is wrong")
}

#[test]
fn every_label_takes_effect() {
    let secs = Duration::from_secs;
    let host = |name: &str| HostPattern::Exact(name.to_owned());
    let hosts = config(&[(label::HOSTS, "A.com, *.b.com.,a.com")]).hosts;
    assert_eq!(hosts, [host("a.com"), HostPattern::Wildcard("b.com".to_owned())]);
    assert_eq!(config(&[(label::PORT, "8080")]).port, Some(8080));
    assert_eq!(config(&[(label::NETWORK, "demo")]).network.as_deref(), Some("demo"));
    assert_eq!(config(&[(label::CONTEXT_ROOT, "/app/")]).context_root.as_deref(), Some("/app"));
    assert_eq!(config(&[(label::CONTEXT_ROOT, "/")]).context_root, None);
    assert!(
        config(&[(label::CONTEXT_ROOT, "/a"), (label::CONTEXT_ROOT_REWRITE, "True")])
            .context_root_rewrite
    );
    assert!(config(&[(label::IP_HASH, "true")]).ip_hash);
    assert!(!config(&[(label::IP_HASH, "false")]).ip_hash);
    assert!(config(&[(label::DEFAULT_BACKEND, "true")]).default_backend);
    let redirects =
        config(&[(label::REDIRECTS, "http://old.com,http://new.com; o.com,https://n.com:8443/;")])
            .redirects;
    let redirect = |source: &str, target: &str| Redirect {
        source: source.to_owned(),
        target: target.to_owned(),
    };
    assert_eq!(
        redirects,
        [redirect("old.com", "http://new.com"), redirect("o.com", "https://n.com:8443")]
    );
    assert_eq!(config(&[(label::BACKEND_MODE, "vip")]).backend_mode, BackendMode::Vip);
    assert_eq!(
        config(&[(label::SERVICE_CLUSTER, "east")]).service_cluster.as_deref(),
        Some("east")
    );
    assert_eq!(config(&[(label::MAX_FAILS, "0")]).max_fails, 0);
    assert_eq!(config(&[(label::FAIL_TIMEOUT, "1m 5s")]).fail_timeout, secs(65));
    let ip = |name, value| config(&[(label::IP_HASH, "true"), (name, value)]);
    assert_eq!(ip(label::AFFINITY_TTL, "0").affinity_ttl, Duration::ZERO);
    assert_eq!(ip(label::AFFINITY_TTL, "90m").affinity_ttl, secs(5400));
    assert_eq!(ip(label::IP_PREFIX, "24, 56").ip_prefix, IpPrefix { v4: 24, v6: 56 });
    let listen = ip(label::LISTEN, "8080/tcp,53/udp,443:8443/tcp,99").listen;
    let publish = |port, target, proto| Publish { port, target, proto };
    assert_eq!(
        listen,
        [
            publish(8080, 8080, Proto::Tcp),
            publish(53, 53, Proto::Udp),
            publish(443, 8443, Proto::Tcp),
            publish(99, 99, Proto::Tcp)
        ]
    );
    assert_eq!(config(&[(label::DRAIN, "sessions")]).drain, DrainMode::Sessions);
    assert_eq!(config(&[(label::ON_LOSS, "strict")]).on_loss, OnLoss::Strict);
    assert_eq!(config(&[(label::WEIGHT, "9")]).weight, Some(9));
    let health = config(&[
        (label::HEALTH_PATH, "/up?deep=1"),
        (label::HEALTH_INTERVAL, "5s"),
        (label::HEALTH_TIMEOUT, "250ms"),
        (label::HEALTH_RISE, "1"),
        (label::HEALTH_FALL, "9"),
    ])
    .health;
    let timeout = Duration::from_millis(250);
    let path = Some("/up?deep=1".to_owned());
    assert_eq!(health, HealthConfig { path, interval: secs(5), timeout, rise: 1, fall: 9 });
    let v2 = Some(ProxyProtocol::V2);
    assert_eq!(config(&[(label::PROXY_PROTOCOL, "v2")]).proxy_protocol, v2);
    assert_eq!(config(&[(label::HEADER, "X-Id")]).header.as_deref(), Some("X-Id"));
    assert_eq!(config(&[(label::RATE, "20")]).rate, Some(20));
    assert_eq!(config(&[(label::SLOW_START, "30s")]).slow_start, secs(30));
    assert_eq!(config(&[(label::MAX_CONNECTIONS, "9")]).max_connections, Some(9));
    let nets: Vec<String> = config(&[(label::ALLOW, "10.1.2.3/8, 2001:db8::1")])
        .allow
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(nets, ["10.0.0.0/8", "2001:db8::1/128"]);
    assert_eq!(config(&[(label::DENY, "198.51.100.7")]).deny.len(), 1);
    assert_eq!(config(&[(label::WEBSOCKET, "/ws,/chat")]), config(&[]));
    let https = Instance { https: true, ..Instance::default() };
    let ssl = read(&map(&[(label::HOSTS, "a.com"), (label::SSL_ONLY, "true")]), &https);
    assert_eq!(ssl.errors, []);
    assert!(ssl.config.is_some_and(|config| config.ssl_only));
}

#[test]
fn what_is_not_served_yet_is_read_and_said_so() {
    for (name, value) in [
        (label::SSL_CERT, "cert"),
        (label::SSL_KEY, "key"),
        (label::SSL_PASSTHROUGH, "true"),
        (label::SSL_BACKEND, "true"),
        (label::SSL_BACKEND_VERIFY, "required"),
        (label::SSL_BACKEND_VERIFY, "none"),
    ] {
        let reading = reading(&[(name, value)]);
        assert!(reading.config.is_some(), "{name}");
        assert_eq!(reading.errors.len(), 1, "{name}");
        assert!(reading.errors[0].message.starts_with("is not served yet"), "{name}");
    }
    assert_eq!(reading(&[(label::SSL_BACKEND, "false")]).errors, []);
    let limited = reading(&[(label::IP_HASH, "true"), (label::MAX_CONNECTIONS, "9")]);
    assert!(limited.errors[0].message.contains("layer 4"), "{:?}", limited.errors);
    assert_eq!(reading(&[(label::IP_HASH, "true"), (label::DENY, "198.51.100.0/24")]).errors, []);
}

#[test]
fn cookies_learn_insert_or_hash_under_a_name_of_their_own() {
    let cookie = |labels: &[(&str, &str)]| config(labels).cookie.expect("cookie affinity");
    let learn = cookie(&[(label::SESSION_COOKIE, "A, B")]);
    assert_eq!((learn.names.join(" "), learn.mode), ("A B".to_owned(), CookieMode::Learn));
    assert_eq!(learn.own_name, None);
    let insert = cookie(&[(label::COOKIE_MODE, "insert"), (label::COOKIE_NAME, "mine")]);
    assert_eq!((insert.names.len(), insert.own_name.as_deref()), (0, Some("mine")));
    assert_eq!(config(&[]).cookie, None);
}

#[test]
fn every_wrong_value_is_one_error_with_a_hint() {
    for (name, values) in [
        (
            label::HOSTS,
            &[
                "",
                " , ",
                "a b",
                "http://a.com",
                "a.com:80",
                "*",
                "a.*.com",
                "-a.com",
                "bücher.de",
                "a..b",
            ][..],
        ),
        (label::PORT, &["", "0", "65536", "http", "8080/tcp", "8080:80", "-1"]),
        (label::NETWORK, &["", "a b"]),
        (label::CONTEXT_ROOT, &["", "app", "http://a/app", "/a b", "/a?b", "/a//b", "/a/../b"]),
        (label::CONTEXT_ROOT_REWRITE, &["yes", "treu", "1", ""]),
        (label::SESSION_COOKIE, &["", "a b", "a=b", "a;b", "é"]),
        (label::IP_HASH, &["yes", "ture", "0", "ip_hash"]),
        (label::SSL_ONLY, &["on"]),
        (label::SSL_CERT, &["", "a b"]),
        (label::SSL_KEY, &[""]),
        (label::SSL_PASSTHROUGH, &["y"]),
        (label::SSL_BACKEND, &["https"]),
        (label::SSL_BACKEND_VERIFY, &["true", "optional"]),
        (label::WEBSOCKET, &["", "ws", "/a,b"]),
        (
            label::REDIRECTS,
            &[
                "",
                ";",
                "a.com",
                "a.com,b.com",
                "a.com,http://b.com/x",
                "a/b,http://c.com",
                "a.com,ftp://b.com",
                "a.com,https://a.com",
            ],
        ),
        (label::BACKEND_MODE, &["default", "tasks", "VIP", ""]),
        (label::DEFAULT_BACKEND, &["demo"]),
        (label::SERVICE_CLUSTER, &["a b"]),
        (label::MAX_FAILS, &["-1", "three", "1.5"]),
        (label::FAIL_TIMEOUT, &["10", "0", "ten", "-1s"]),
        (label::AFFINITY_TTL, &["3600", "1 hour ago", "400d", "-1h", "", "99999999999999999999s"]),
        (label::IP_PREFIX, &["24", "0,64", "33,64", "24,129", "a,b", "24,56,1", "/24,/56"]),
        (
            label::LISTEN,
            &["", "0/tcp", "8080/sctp", "tcp/8080", "1:2:3/tcp", "70000/udp", "8080/TCPP"],
        ),
        (label::COOKIE_NAME, &["", "a b", "a;"]),
        (label::COOKIE_MODE, &["lern", "sticky", "Learn"]),
        (label::HEADER, &["", "a:", "a b"]),
        (label::DRAIN, &["session", "none"]),
        (label::ON_LOSS, &["fail-over", "503"]),
        (label::WEIGHT, &["-1", "10%", "0.5"]),
        (label::HEALTH_PATH, &["", "health", "http://a/b", "/a b"]),
        (label::HEALTH_INTERVAL, &["2", "0", "0s", "x"]),
        (label::HEALTH_TIMEOUT, &["1", "0"]),
        (label::HEALTH_RISE, &["0", "x"]),
        (label::HEALTH_FALL, &["0", "1001"]),
        (label::SLOW_START, &["30", "x"]),
        (label::MAX_CONNECTIONS, &["0", "many"]),
        (label::PROXY_PROTOCOL, &["2", "V2", "true"]),
        (label::ALLOW, &["", "10.0.0.0/33", "a.com", "10.0.0.0-10.0.0.9"]),
        (label::DENY, &["300.1.1.1"]),
        (label::RATE, &["0", "10/s", "fast"]),
    ] {
        for value in values {
            let reading = reading(&[(name, value)]);
            assert!(reading.config.is_none(), "{name}={value} is taken");
            let errors: Vec<_> =
                reading.errors.iter().filter(|error| error.label == name).collect();
            assert_eq!(errors.len(), 1, "{name}={value}: {:?}", reading.errors);
            assert!(!errors[0].message.is_empty() && !errors[0].hint.is_empty());
            assert_eq!(errors[0].value, *value);
        }
        assert!(!values.is_empty());
    }
}

#[test]
fn hints_name_the_nearest_valid_spelling() {
    for (name, value, hint) in [
        (label::IP_HASH, "ture", "`true`"),
        (label::IP_HASH, "yes", "`true`"),
        (label::DRAIN, "session", "`sessions`"),
        (label::ON_LOSS, "fail-over", "`failover`"),
        (label::COOKIE_MODE, "lern", "`learn`"),
        (label::PORT, "8080/tcp", "`8080`"),
        (label::HOSTS, "http://a.com/x", "`a.com`"),
        (label::AFFINITY_TTL, "3600", "`3600s`"),
        (label::CONTEXT_ROOT, "app", "`/app`"),
        (label::IP_PREFIX, "24", "`24,64`"),
        (label::REDIRECTS, "a.com,b.com", "`http://b.com`"),
    ] {
        let reading = reading(&[(name, value)]);
        assert!(reading.errors[0].hint.contains(hint), "{name}={value}: {:?}", reading.errors);
    }
}

#[test]
fn an_unknown_label_is_reported_and_the_service_served() {
    let reading = reading(&[("com.docker.lb.iphash", "true"), ("com.docker.stack.namespace", "x")]);
    assert!(reading.config.is_some());
    assert_eq!(reading.errors.len(), 1);
    assert_eq!(reading.errors[0].hint, "did you mean `com.docker.lb.ip_hash`?");
}

#[test]
fn conflicts_are_reported_and_the_service_served_without_the_part() {
    for (labels, reported) in [
        (&[(label::BACKEND_MODE, "vip"), (label::IP_HASH, "true")][..], &[label::IP_HASH][..]),
        (&[(label::BACKEND_MODE, "vip"), (label::SESSION_COOKIE, "A")], &[label::SESSION_COOKIE]),
        (&[(label::COOKIE_MODE, "learn")], &[label::COOKIE_MODE]),
        (
            &[(label::COOKIE_MODE, "hash"), (label::COOKIE_NAME, "x")],
            &[label::COOKIE_MODE, label::COOKIE_NAME],
        ),
        (&[(label::SESSION_COOKIE, "A"), (label::HEADER, "X-Id")], &[label::HEADER]),
        (&[(label::LISTEN, "8080/tcp")], &[label::LISTEN]),
        (&[(label::AFFINITY_TTL, "1m")], &[label::AFFINITY_TTL]),
        (&[(label::SSL_ONLY, "true")], &[label::SSL_ONLY]),
        (&[(label::CONTEXT_ROOT_REWRITE, "true")], &[label::CONTEXT_ROOT_REWRITE]),
        (&[(label::HEALTH_TIMEOUT, "5s")], &[label::HEALTH_TIMEOUT]),
    ] {
        let reading = reading(labels);
        let names: Vec<&str> = reading.errors.iter().map(|error| error.label.as_str()).collect();
        assert_eq!(names, reported, "{labels:?}");
        assert!(reading.config.is_some(), "{labels:?}");
    }
    let vip = reading(&[(label::BACKEND_MODE, "vip"), (label::IP_HASH, "true")]).config.unwrap();
    assert!(!vip.ip_hash);
    let nowhere = read(&map(&[(label::PORT, "80")]), &Instance::default());
    assert_eq!(nowhere.errors[0].label, label::HOSTS);
    let redirects = map(&[(label::REDIRECTS, "a.com,http://b.com"), (label::CONTEXT_ROOT, "/x")]);
    let moved = read(&redirects, &Instance::default());
    let names: Vec<&str> = moved.errors.iter().map(|error| error.label.as_str()).collect();
    assert_eq!(names, [label::CONTEXT_ROOT, label::HOSTS], "redirects need no hosts");
}

#[test]
fn a_service_is_for_the_instances_of_its_cluster() {
    let named = Instance { cluster: Some("east".to_owned()), https: false };
    let east = map(&[(label::SERVICE_CLUSTER, " east")]);
    let none = map(&[(label::HOSTS, "a.com")]);
    assert!(named.serves(&east) && !named.serves(&none));
    assert!(Instance::default().serves(&none) && !Instance::default().serves(&east));
    let wrong = map(&[(label::SERVICE_CLUSTER, "two names")]);
    assert!(named.serves(&wrong) && read(&wrong, &named).config.is_none(), "it is reported");
}

#[test]
fn the_last_good_configuration_holds_until_the_labels_are_right_again() {
    let mut memory = Memory::default();
    let wrong = || reading(&[(label::PORT, "x")]);
    assert!(memory.settle("a", wrong()).config.is_none());
    memory.settle("a", reading(&[(label::PORT, "80")]));
    let held = memory.settle("a", wrong());
    assert_eq!(held.config.and_then(|config| config.port), Some(80));
    assert_eq!(held.errors.len(), 1);
    memory.keep(&std::collections::HashSet::new());
    assert!(memory.settle("a", wrong()).config.is_none());
}

#[test]
fn labels_on_the_container_are_found() {
    let container = map(&[(label::IP_HASH, "true"), ("maintainer", "x")]);
    let errors = wrong_level(&container);
    assert_eq!(errors.len(), 1);
    assert!(errors[0].hint.contains("--label"));
}

proptest! {
    #[test]
    fn no_value_panics_and_what_is_not_taken_is_reported(
        labels in prop::collection::btree_map(prop::sample::select(ALL.to_vec()), ".{0,24}|[0-9a-z:/.,;*-]{0,24}", 0..8),
        stranger in "(com\\.docker\\.lb|sticky)\\.[a-z_.é]{0,20}",
    ) {
        let mut labels: BTreeMap<String, String> = labels.into_iter().map(|(k, v)| (k.to_owned(), v)).collect();
        labels.insert(stranger, "x".to_owned());
        let reading = read(&labels, &Instance::default());
        prop_assert!(reading.config.is_some() || !reading.errors.is_empty());
        for error in &reading.errors {
            prop_assert!(!error.message.is_empty() && !error.hint.is_empty());
        }
        // The same labels are always read in the same way.
        prop_assert_eq!(&reading, &read(&labels, &Instance::default()));
    }
}

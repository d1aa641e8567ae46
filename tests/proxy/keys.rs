//! Who opens whose cookies.

use crate::affinity::{instance, pinned, three, upstream};
use crate::client::{Response, get};
use crate::proxy::{Bench, keys, learn, service, settings};

#[test]
fn another_node_and_a_restart_open_the_same_cookies() {
    let backends = three();
    let all = backends.each_ref();
    let text = sticky::keys::generate().unwrap();
    let keys = || sticky::keys::Keys::parse(&text).unwrap();
    let node = |keys| {
        let bench = Bench::start(settings(), keys);
        bench.publish(vec![service("s", &all, learn)]);
        bench
    };
    let first_node = node(keys());
    let mut clients: Vec<_> = (0..20).map(|_| pinned(&first_node)).collect();
    let second_node = node(keys());
    drop(first_node);
    for (jar, first) in &mut clients {
        assert_eq!(instance(&jar.get(second_node.addr, "/ping")), *first);
    }
    let stranger = node(self::keys());
    let (jar, _) = &clients[0];
    let response = jar.clone().get(stranger.addr, "/ping");
    assert_eq!(response.status, 200);
    assert!(response.cookie("sticky_lb").is_some(), "to this node the client is a new one");
}

#[test]
fn after_a_rotation_old_cookies_open_and_new_ones_use_the_new_key() {
    let backends = three();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("keys");
    std::fs::write(&path, sticky::keys::generate().unwrap()).unwrap();
    let bench = Bench::start(settings(), sticky::keys::file::load(&path).unwrap());
    bench.publish(vec![service("s", &backends.each_ref(), learn)]);
    let (mut jar, first) = pinned(&bench);
    let id = |response: &Response| response.value("sticky_lb").unwrap()[..5].to_owned();
    let before = id(&get(bench.addr, "/ping", &[]));
    sticky::keys::file::rotate(&path).unwrap();
    sticky::keys::file::reload(&path, &bench.keys).unwrap();
    assert_eq!(instance(&jar.get(bench.addr, "/ping")), first);
    assert_ne!(id(&get(bench.addr, "/ping", &[])), before);
    // The old key is retired: its cookies are nothing.
    let text = std::fs::read_to_string(&path).unwrap();
    let kept: Vec<_> = text.lines().take(text.lines().count() - 1).collect();
    std::fs::write(&path, kept.join("\n")).unwrap();
    sticky::keys::file::reload(&path, &bench.keys).unwrap();
    let cookies = jar.line();
    let seen: std::collections::HashSet<_> =
        (0..60).map(|_| upstream(&get(bench.addr, "/", &[("Cookie", &cookies)]))).collect();
    assert_eq!(seen.len(), 3);
}

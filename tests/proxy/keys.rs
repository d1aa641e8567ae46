//! Who opens whose cookies.

use sticky::keys::Keys;
use sticky::model::{CookieMode, ServiceConfig};

use crate::affinity::{instance, pinned, three, upstream};
use crate::client::{Response, get};
use crate::proxy::{Bench, cookie, keys, learn, service, settings};

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

#[test]
fn hashed_values_and_headers_are_the_same_on_every_node() {
    let backends = three();
    let all = backends.each_ref();
    let text = sticky::keys::generate().unwrap();
    let node = |edit: &dyn Fn(&mut ServiceConfig)| {
        let bench = Bench::start(settings(), Keys::parse(&text).unwrap());
        bench.publish(vec![service("s", &all, edit)]);
        bench
    };
    let hash = |c: &mut ServiceConfig| c.cookie = cookie(CookieMode::Hash, &["A", "B"]);
    let [one, two] = [node(&hash), node(&hash)];
    for value in 0..30 {
        let header = [("Cookie", &*format!("x=y; B=v{value}"))];
        assert_eq!(upstream(&get(one.addr, "/", &header)), upstream(&get(two.addr, "/", &header)));
    }
    let header = |c: &mut ServiceConfig| c.header = Some("mcp-session-id".to_owned());
    let [one, two] = [node(&header), node(&header)];
    for value in 0..30 {
        let issued =
            get(one.addr, "/reply", &[("x-reply", &format!("Mcp-Session-Id: id-{value}"))]);
        let id = issued.header("mcp-session-id").unwrap();
        for node in [&one, &two] {
            let next = get(node.addr, "/headers", &[("Mcp-Session-Id", id)]);
            assert_eq!(upstream(&next), upstream(&issued));
            assert!(
                next.text().contains(&format!("mcp-session-id: id-{value}")),
                "{}",
                next.text()
            );
        }
        // One that no node issued.
        let plain = format!("plain-{value}");
        let plain = [("Mcp-Session-Id", plain.as_str())];
        assert_eq!(upstream(&get(one.addr, "/", &plain)), upstream(&get(two.addr, "/", &plain)));
    }
}

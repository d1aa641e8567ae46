//! A mistake in the service file costs only what it must, and is told in one line.

use std::time::Duration;

use serde_json::Value;
use sticky_tests::demo::HTTP_PORT;
use sticky_tests::load;
use sticky_tests::topology::vip;
use sticky_tests::{http, wait};

use crate::fixture::{FileNode, service};

#[test]
fn a_wrong_port_an_unknown_label_and_a_duplicate_frontend() -> anyhow::Result<()> {
    let hash = ("com.docker.lb.ip_hash", "true");
    let node = FileNode::start(4, |backends| {
        let publish = ["8080:8080/tcp"];
        [
            service(
                "good",
                &publish,
                &backends[..1],
                &[("com.docker.lb.hosts", "good.local"), hash],
            ),
            service(
                "port",
                &[],
                &backends[1..2],
                &[("com.docker.lb.hosts", "port.local"), ("com.docker.lb.port", "80800")],
            ),
            service(
                "label",
                &[],
                &backends[2..3],
                &[
                    ("com.docker.lb.hosts", "label.local"),
                    ("com.docker.lb.sticky_sesion_cookie", "session"),
                ],
            ),
            service(
                "late",
                &publish,
                &backends[3..],
                &[("com.docker.lb.hosts", "late.local"), hash],
            ),
        ]
        .concat()
    })?;
    node.sticky.wait_up("good", 1, Duration::from_secs(10))?;
    node.sticky.wait_up("late", 1, Duration::from_secs(10))?;

    let instance = |host: &'static str| -> anyhow::Result<(u16, String)> {
        let answer =
            node.net.clients.block_on(|| http::get(None, vip(80), host, "/ping", &[]))??;
        Ok((answer.status, answer.header("x-instance").to_owned()))
    };
    let name = |index: usize| sticky_tests::demo::backend_name(&node.file.addresses[index]);
    let visits = load::visit(&node.net.clients, 0..20, vip(HTTP_PORT))?;
    assert!(
        visits.values().all(|visit| visit.instance == name(0)),
        "the first in the file keeps the frontend"
    );
    assert_eq!(instance("good.local")?, (200, name(0)));
    assert_eq!(
        instance("label.local")?,
        (200, name(2)),
        "an unknown label does not stop the service"
    );
    assert_eq!(
        instance("late.local")?,
        (200, name(3)),
        "without its frontend a service still has its host"
    );
    assert_eq!(instance("port.local")?.0, 404, "a service that never was right is left out");

    let status = node.sticky.status()?;
    let errors = |service: &str| -> Vec<Value> {
        let all = status["services"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|entry| entry["name"] == service);
        all.flat_map(|entry| entry["errors"].as_array().cloned().unwrap_or_default()).collect()
    };
    assert!(errors("good").is_empty(), "{status}");
    let [port] = &errors("port")[..] else { panic!("one error of the port: {status}") };
    assert_eq!((&port["label"], &port["value"]), (&"com.docker.lb.port".into(), &"80800".into()));
    let [label] = &errors("label")[..] else { panic!("one error of the label: {status}") };
    assert_eq!(label["label"], "com.docker.lb.sticky_sesion_cookie");
    assert!(label["hint"].to_string().contains("com.docker.lb.sticky_session_cookie"), "{label}");
    let [late] = &errors("late")[..] else { panic!("one error of the frontend: {status}") };
    assert!(late["message"].to_string().contains("8080"), "{late}");

    for (service, word) in [("port", "80800"), ("label", "sticky_sesion_cookie"), ("late", "8080")]
    {
        let said = |line: &str| {
            (line.contains("WARN") || line.contains("ERROR"))
                && line.contains(word)
                && line.contains(service)
        };
        wait::until_true(&format!("a line about {service}"), Duration::from_secs(2), || {
            Ok(node.sticky.log().iter().any(|line| said(&line.text)))
        })?;
        let lines = node.sticky.log().iter().filter(|line| said(&line.text)).count();
        assert_eq!(lines, 1, "one line about {service}");
    }

    let refused = node
        .sticky
        .sticky(&["check-config", &node.file.path().display().to_string()])
        .expect_err("three mistakes");
    let refused = refused.to_string();
    assert!(refused.contains("exit status: 1"), "{refused}");
    for word in ["80800", "sticky_sesion_cookie", "late"] {
        assert!(refused.contains(word), "check-config does not name {word}: {refused}");
    }
    Ok(())
}

//! Each label of layer 7 with a right value and then with a wrong one: what was right stays in force, and what is wrong is
//! told in the status, the log and the metrics.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::Value;
use sticky_tests::wait;

use crate::node::{LIMIT, Node, Place, backend, get, stdout};

/// A label without its family, a right value, a wrong one, and what the hint names.
const INTERLOCK: [[&str; 4]; 20] = [
    ["hosts", "s0.local", "http://s0.local:80/x", "`s0.local`"],
    ["port", "8080", "8080/tcp", "`8080`"],
    ["network", "demo", "two nets", "one name"],
    ["context_root", "/app", "app", "`/app`"],
    ["context_root_rewrite", "true", "yes", "`true`"],
    ["sticky_session_cookie", "session", "ses sion", "`session`"],
    ["ip_hash", "true", "ture", "`true`"],
    ["ssl_only", "false", "on", "`true`"],
    ["ssl_cert", "cert", "a cert", "one name"],
    ["ssl_key", "key", "a key", "one name"],
    ["ssl_passthrough", "false", "n", "`false`"],
    ["ssl_backend", "false", "flase", "`false`"],
    ["ssl_backend_tls_verify", "none", "non", "`none`"],
    ["websocket_endpoints", "/ws", "ws", "`/ws`"],
    ["redirects", "old.local,http://new.local", "old.local,new.local", "`http://new.local`"],
    ["backend_mode", "task", "tasks", "`task`"],
    ["default_backend", "false", "falsch", "`false`"],
    ["service_cluster", "east", "two names", "one name"],
    ["max_fails", "3", "three", "whole number"],
    ["fail_timeout", "10s", "10", "`10s`"],
];
const OURS: [[&str; 4]; 20] = [
    ["affinity_ttl", "1h", "3600", "`3600s`"],
    ["ip_prefix", "24,64", "24", "`24,64`"],
    ["l4.listen", "8081/tcp", "8081/tcpp", "`tcp`"],
    ["cookie.name", "mine", "m;ine", "`mine`"],
    ["cookie.mode", "insert", "insrt", "`insert`"],
    ["header", "X-Id", "X Id", "`XId`"],
    ["drain", "sessions", "session", "`sessions`"],
    ["on_loss", "strict", "stric", "`strict`"],
    ["weight", "3", "30%", "whole number"],
    ["health.path", "/up", "up", "`/up`"],
    ["health.interval", "2s", "2", "`2s`"],
    ["health.timeout", "1s", "1", "`1s`"],
    ["health.rise", "2", "0", "from 1"],
    ["health.fall", "3", "0", "from 1"],
    ["slow_start", "1s", "1", "`1s`"],
    ["max_connections", "9", "0", "from 1"],
    ["proxy_protocol", "v1", "V1", "`v1`"],
    ["allow", "127.0.0.0/8", "127.0.0.0/33", "`10.0.0.0/8`"],
    ["deny", "198.51.100.7", "300.1.1.1", "`10.0.0.0/8`"],
    ["rate", "1000", "10/s", "whole number"],
];

struct Case {
    host: String,
    label: String,
    values: [&'static str; 2],
    hint: &'static str,
}

fn cases() -> Vec<Case> {
    let families = [("com.docker.lb.", INTERLOCK), ("sticky.", OURS)];
    let rows = families.into_iter().flat_map(|(family, rows)| rows.map(|row| (family, row)));
    rows.enumerate()
        .map(|(at, (family, [label, right, wrong, hint]))| Case {
            host: format!("s{at}.local"),
            label: format!("{family}{label}"),
            values: [right, wrong],
            hint,
        })
        .collect()
}

/// The file of services: one for each case, with its label right (0) or wrong (1).
fn write(place: &Place, cases: &[Case], backend: SocketAddr, which: usize) -> anyhow::Result<()> {
    let mut text = String::new();
    for Case { host, label, values, .. } in cases {
        text += &format!(
            "[[service]]\nname = \"{host}\"\nbackends = [\"{backend}\"]\n[service.labels]\n"
        );
        // The node is one of a cluster, and serves no others.
        if !label.ends_with(".service_cluster") {
            text += "\"com.docker.lb.service_cluster\" = \"east\"\n";
        }
        if !label.ends_with(".hosts") {
            text += &format!("\"com.docker.lb.hosts\" = \"{host}\"\n");
        }
        // What some labels need beside them.
        match &label[..] {
            "sticky.affinity_ttl" | "sticky.ip_prefix" | "sticky.l4.listen" => {
                text += "\"com.docker.lb.ip_hash\" = \"true\"\n";
            }
            "com.docker.lb.context_root_rewrite" => {
                text += "\"com.docker.lb.context_root\" = \"/app\"\n"
            }
            "sticky.cookie.name" => {
                text += "\"com.docker.lb.sticky_session_cookie\" = \"session\"\n"
            }
            _ => {}
        }
        let value = match values[which] {
            // The one right port is that of the backend.
            "8080" => backend.port().to_string(),
            "8081/tcp" => format!("8081:{}/tcp", backend.port()),
            value => value.to_owned(),
        };
        text += &format!("\"{label}\" = \"{value}\"\n");
    }
    Ok(std::fs::write(place.dir.join("services.toml"), text)?)
}

/// Status of a request for this host, below `/app` as one root wants.
fn ask(node: &Node, host: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(node.http)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET /app HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

fn services(place: &Place) -> anyhow::Result<Vec<Value>> {
    let status: Value = serde_json::from_str(&stdout(&place.sticky(&["status", "--json"])?))?;
    Ok(status["services"].as_array().cloned().unwrap_or_default())
}

/// What is said of each service; some labels are right and have no effect here.
fn mistakes(services: &[Value]) -> Vec<Value> {
    services.iter().map(|service| service["errors"].clone()).collect()
}

#[test]
fn wrong_values_keep_what_was_right_and_are_told_everywhere() -> anyhow::Result<()> {
    let (place, cases, backend) = (Place::new()?, cases(), backend()?);
    write(&place, &cases, backend, 0)?;
    let node = place.start(&["--service-cluster", "east"])?;
    let served = |when: &str| -> anyhow::Result<()> {
        for Case { host, label, values, .. } in &cases {
            let answer = ask(&node, host)?;
            assert!(answer.starts_with("HTTP/1.1 200"), "{when}, {label}={}: {answer}", values[0]);
            assert_eq!(
                answer.contains("sticky_lb="),
                label.ends_with("session_cookie")
                    || label.ends_with("mode") && label.starts_with("sticky"),
                "{label}"
            );
            assert_eq!(answer.contains("mine="), label.ends_with("cookie.name"), "{label}");
        }
        Ok(())
    };
    served("right")?;
    let before = mistakes(&services(&place)?);
    write(&place, &cases, backend, 1)?;
    let all = wait::until("every mistake in the status", Duration::from_secs(10), || {
        let all = services(&place)?;
        let told = |s: &Value| s["errors"].as_array().is_some_and(|errors| !errors.is_empty());
        Ok(if all.len() == cases.len() && all.iter().all(told) {
            Ok(all)
        } else {
            Err(format!("{all:?}"))
        })
    })?;
    let metrics = get(node.admin, "/metrics")?;
    let log: Vec<Value> = node
        .process
        .log()
        .iter()
        .filter_map(|line| serde_json::from_str(&line.text).ok())
        .collect();
    for Case { host, label, values: [_, wrong], hint } in &cases {
        let service = all.iter().find(|service| service["name"] == **host).unwrap_or(&Value::Null);
        let errors = service["errors"].as_array().cloned().unwrap_or_default();
        let error = errors.iter().find(|e| e["label"] == **label && e["value"] == *wrong);
        let Some(error) = error else { anyhow::bail!("{label}={wrong}: {errors:?}") };
        assert!(error["hint"].as_str().is_some_and(|text| text.contains(hint)), "{hint}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        let metric = format!("sticky_config_errors{{service=\"{host}\"}} 1");
        assert!(metrics.contains(&metric), "{metric} is not in the metrics");
        let said = log.iter().any(|line| {
            line["service"] == **host && line["label"] == **label && line["value"] == *wrong
        });
        assert!(said, "{label}={wrong} is not in the log");
    }
    served("wrong")?;
    write(&place, &cases, backend, 0)?;
    wait::until("the mistakes to be forgotten", Duration::from_secs(10), || {
        let now = mistakes(&services(&place)?);
        Ok(if now == before { Ok(()) } else { Err(format!("{now:?}")) })
    })?;
    served("right again")
}

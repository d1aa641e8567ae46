//! What can be seen of a running sticky.

use serde_json::Value;

use crate::node::{Place, backend, get, stderr, stdout};

#[test]
fn status_where_and_the_admin_address_agree() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?, backend()?])?;
    let node = place.start(&[])?;
    let served = get(node.http, "/")?;

    let question = ["where", "127.0.0.1", "--service", "demo"];
    let line = stdout(&place.sticky(&question)?);
    let mut as_json = question.to_vec();
    as_json.push("--json");
    let answer: Value = serde_json::from_str(&stdout(&place.sticky(&as_json)?))?;
    let addr = answer["backend"]["addr"].as_str().unwrap_or_default().to_owned();
    assert!(served.ends_with(&addr), "{answer} but served by {served}");
    assert_eq!(answer["reason"], "pinned");
    assert_eq!(answer["path"], "proxy");
    assert!(line.contains(&addr), "{line}");

    let status: Value = serde_json::from_str(&stdout(&place.sticky(&["status", "--json"])?))?;
    let backends = status["services"][0]["backends"].as_array().cloned().unwrap_or_default();
    assert_eq!(backends.len(), 2);
    for backend in &backends {
        assert_eq!(backend["requests"], u64::from(backend["addr"] == *addr), "{backend}");
    }
    let state = get(node.admin, "/api/v1/state")?;
    let state: Value = serde_json::from_str(state.split("\r\n\r\n").nth(1).unwrap_or_default())?;
    assert_eq!(state, status);
    let table = stdout(&place.sticky(&["status"])?);
    assert!(table.contains("demo.local") && !table.contains('\x1b'), "{table}");
    Ok(())
}

#[test]
fn asking_changes_nothing() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?, backend()?])?;
    let _node = place.start(&[])?;
    let question = ["where", "198.51.100.7", "--service", "demo", "--json"];
    let first = stdout(&place.sticky(&question)?);
    assert!(first.contains("\"new\""), "{first}");
    assert_eq!(stdout(&place.sticky(&question)?), first, "the first question left a record");
    Ok(())
}

#[test]
fn a_cookie_is_read_and_a_forged_one_is_not() -> anyhow::Result<()> {
    let place = Place::new()?;
    let label = "\"com.docker.lb.sticky_session_cookie\" = \"session\"";
    place.serve_by(label, &[backend()?, backend()?])?;
    let node = place.start(&[])?;
    let served = get(node.http, "/")?;
    let cookie = served.lines().find_map(|line| line.strip_prefix("set-cookie: sticky_lb="));
    let cookie = cookie.and_then(|rest| rest.split(';').next()).unwrap_or_default();
    let ask = |cookie: &str| -> anyhow::Result<Value> {
        let question = ["where", "198.51.100.7", "--service", "demo", "--json", "--cookie", cookie];
        Ok(serde_json::from_str(&stdout(&place.sticky(&question)?))?)
    };
    let answer = ask(cookie)?;
    assert_eq!(answer["reason"], "pinned", "{answer}, {served}");
    let addr = answer["backend"]["addr"].as_str().unwrap_or_default();
    assert!(served.ends_with(addr), "{answer} but served by {served}");
    let other = if cookie.starts_with('A') { 'B' } else { 'A' };
    let forged = ask(&format!("{other}{}", &cookie[1..]))?;
    assert_eq!((&forged["reason"], &forged["backend"]), (&"invalid".into(), &Value::Null));
    Ok(())
}

#[test]
fn an_unknown_service_is_answered_with_those_that_are_known() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let _node = place.start(&[])?;
    let output = place.sticky(&["where", "198.51.100.7", "--service", "dmo"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("no service dmo; known are: demo"), "{}", stderr(&output));
    Ok(())
}

#[test]
fn metrics_are_real() -> anyhow::Result<()> {
    let place = Place::new()?;
    place.serve(&[backend()?])?;
    let node = place.start(&[])?;
    get(node.http, "/")?;
    let metrics = get(node.admin, "/metrics")?;
    for line in [
        "sticky_build_info{version=\"",
        "\nsticky_generation ",
        "\nsticky_clients_max 1000000\n",
        "\nsticky_backend_up{service=\"demo\",backend=\"demo.1\"} 1\n",
        "\nsticky_config_errors{service=\"demo\"} 0\n",
        "\nsticky_update_seconds_bucket{le=\"+Inf\"} ",
        "\nsticky_http_requests_total{service=\"demo\",code=\"200\"} 1\n",
        "\nsticky_http_request_seconds_bucket{le=\"+Inf\",service=\"demo\"} 1\n",
        "\nsticky_affinity_total{service=\"demo\",reason=\"new\"} 1\n",
        "\nsticky_retries_total{service=\"demo\"} 0\n",
    ] {
        assert!(metrics.contains(line), "{line:?} is missing:\n{metrics}");
    }
    assert!(get(node.admin, "/readyz")?.starts_with("HTTP/1.1 200"));
    assert!(get(node.admin, "/healthz")?.starts_with("HTTP/1.1 200"));
    assert!(get(node.admin, "/")?.contains("demo.local"));
    assert!(get(node.admin, "/nothing")?.starts_with("HTTP/1.1 404"));
    Ok(())
}

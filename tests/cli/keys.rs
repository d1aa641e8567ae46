//! One key file for several nodes: who opens whose cookies, through restarts and rotations.

use std::fs::{self, Permissions};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use nix::sys::signal::Signal;
use sticky_tests::wait;

use crate::access_log::ask;
use crate::node::{LIMIT, Node, Place, backend, get, stdout};

const COOKIE: &str = "\"com.docker.lb.sticky_session_cookie\" = \"session\"";

struct Client {
    cookie: String,
    home: String,
}

fn client(to: SocketAddr) -> anyhow::Result<Client> {
    let answer = get(to, "/")?;
    let line = answer.lines().find_map(|line| line.strip_prefix("set-cookie: sticky_lb="));
    let cookie = line.and_then(|rest| rest.split(';').next()).unwrap_or_default().to_owned();
    Ok(Client { cookie, home: body(&answer).to_owned() })
}

fn body(answer: &str) -> &str {
    answer.rsplit("\r\n\r\n").next().unwrap_or_default()
}

/// Whether this node sends each client home.
fn keeps(node: &Node, clients: &[Client]) -> anyhow::Result<bool> {
    for Client { cookie, home } in clients {
        let answer = ask(node.http, "/", &format!("cookie: session=1; sticky_lb={cookie}\r\n"))?;
        if body(&answer) != home {
            return Ok(false);
        }
    }
    Ok(true)
}

fn node(place: &Place, backends: &[SocketAddr], keys: &Path) -> anyhow::Result<Node> {
    place.serve_by(COOKIE, backends)?;
    place.start(&["--cookie-key-file", &keys.to_string_lossy()])
}

#[test]
fn two_nodes_a_restart_and_a_rotation() -> anyhow::Result<()> {
    let places = [Place::new()?, Place::new()?];
    let file = places[0].dir.join("keys");
    fs::write(&file, stdout(&places[0].sticky(&["keys", "generate"])?))?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    let backends = [backend()?, backend()?, backend()?];
    let mut one = node(&places[0], &backends, &file)?;
    let two = node(&places[1], &backends, &file)?;
    let old = (0..10).map(|_| client(one.http)).collect::<Result<Vec<_>, _>>()?;
    assert!(keeps(&one, &old)? && keeps(&two, &old)?, "both nodes");

    one.process.kill();
    drop(one);
    let mut one = node(&places[0], &backends, &file)?;
    assert!(keeps(&one, &old)?, "after kill -9");
    one.process.signal(Signal::SIGTERM)?;
    one.process.wait(LIMIT)?;
    let one = node(&places[0], &backends, &file)?;
    assert!(keeps(&one, &old)?, "after a restart");

    let id = |client: &Client| client.cookie[..5].to_owned();
    assert!(places[0].sticky(&["keys", "rotate", &file.to_string_lossy()])?.status.success());
    for node in [&one, &two] {
        // Each looks at the file once a second.
        wait::until_true("the new key to seal", Duration::from_secs(5), || {
            Ok(id(&client(node.http)?) != id(&old[0]))
        })?;
        assert!(keeps(node, &old)?, "old cookies still open");
    }
    let new = [client(one.http)?, client(two.http)?];
    assert_eq!(id(&new[0]), id(&new[1]));
    assert!(keeps(&one, &new)? && keeps(&two, &new)?);

    // The old key is retired, and a file that is broken afterwards changes nothing.
    let text = fs::read_to_string(&file)?;
    let cookies = text.lines().filter(|line| line.starts_with("cookie")).count();
    assert_eq!(cookies, 2);
    let kept: Vec<_> = text.lines().take(text.lines().count() - 1).collect();
    fs::write(&file, kept.join("\n"))?;
    wait::until_true("the old key to open no more", Duration::from_secs(5), || {
        Ok(!keeps(&one, &old[..1])?)
    })?;
    fs::write(&file, "cookie nonsense")?;
    let mut one = one;
    one.process.wait_line(LIMIT, 0, |line| line.contains("keys not reloaded"))?;
    assert!(keeps(&one, &new)?);
    Ok(())
}

#[test]
fn keys_that_others_may_read_and_keys_of_one_node_are_warned_of() -> anyhow::Result<()> {
    let place = Place::new()?;
    let backends = [backend()?];
    place.serve_by(COOKIE, &backends)?;
    let mut alone = place.start(&[])?;
    alone.process.wait_line(LIMIT, 0, |line| line.contains("keys are local to this node"))?;
    let generated = place.dir.join("state/keys");
    assert_eq!(fs::metadata(&generated)?.permissions().mode() & 0o777, 0o600);
    drop(alone);
    fs::set_permissions(&generated, Permissions::from_mode(0o644))?;
    let mut open = node(&place, &backends, &generated)?;
    open.process.wait_line(LIMIT, 0, |line| line.contains("can be read by others"))?;
    for line in open.process.log() {
        let secret = fs::read_to_string(&generated)?;
        let digits =
            secret.lines().filter_map(|line| line.split(' ').nth(1)).filter(|d| d.len() > 30);
        for digits in digits {
            assert!(!line.text.contains(&digits[..16]), "a key is in the log");
        }
    }
    Ok(())
}

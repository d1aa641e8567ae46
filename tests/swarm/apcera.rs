//! Apcera's documentation, "Using sticky session cookies", with `sticky app` in the place of `apc app`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;
use sticky_tests::command::{both, output};
use sticky_tests::curl::{get, header};
use sticky_tests::demo::IMAGE;
use sticky_tests::names::TempDir;

use crate::fixture::SwarmNode;

const NAME: &str = "my-sticky-app";
const HOST: &str = "my-sticky-app.local";
const REPLICAS: usize = 3;
/// The documentation's `Set-Cookie`, as a request that has the application send it.
const ATTRIBUTES: &str = "value;+expires=Fri,+04-Aug-2017+19:48:43+GMT;+Max-Age=3600";

/// The steps; `node` has no service `my-sticky-app` before and after.
pub fn walk_through(node: &mut SwarmNode) -> anyhow::Result<()> {
    let told = app(
        node,
        &[
            "create",
            NAME,
            "--image",
            IMAGE,
            "--port",
            "8080",
            "--host",
            HOST,
            "--replicas",
            "3",
            "--network",
            "demo",
        ],
    )?;
    assert!(told.contains(&format!("{NAME}: created")), "{told}");
    let tasks = node.swarm.serving(NAME)?;
    assert_eq!(tasks.len(), REPLICAS, "create waits for the tasks");
    follow(node, "none")?;
    let sticky = node.sticky.process()?.id();

    // "By default, the router load balances HTTP requests equally among instances."
    let cookie = |name: &str| format!("/set-cookie?{name}={ATTRIBUTES}");
    let (set, free) = session(node, &cookie("COOKIE_1"))?;
    assert!(ours(&set).is_none() && free.len() > 1, "no stickiness yet: {free:?}\n{set}");

    // apc app update my-sticky-app --sticky-session-cookies=COOKIE_1,COOKIE_2
    let told = app(node, &["update", NAME, "--sticky-session-cookies=COOKIE_1,COOKIE_2"])?;
    assert_eq!(told, format!("{NAME}: com.docker.lb.sticky_session_cookie=COOKIE_1,COOKIE_2\n"));
    follow(node, "cookie")?;
    for name in ["COOKIE_1", "COOKIE_2"] {
        let (set, pinned) = session(node, &cookie(name))?;
        let added = ours(&set).with_context(|| format!("no cookie is added for {name}: {set}"))?;
        let (_, attributes) = added.split_once("; ").unwrap_or_default();
        let attributes: BTreeSet<_> = attributes.split("; ").map(str::to_ascii_lowercase).collect();
        let wanted = ["expires=fri, 04 aug 2017 19:48:43 gmt", "max-age=3600"];
        assert_eq!(attributes, wanted.map(str::to_owned).into(), "{name}");
        assert!(!added.contains(&tasks[0].id) && !added.contains("8080"), "it is sealed: {added}");
        assert_eq!(pinned.len(), 1, "{name}: the same instance each time: {pinned:?}");
    }
    let (set, free) = session(node, &cookie("COOKIE_3"))?;
    assert!(ours(&set).is_none() && free.len() > 1, "only the cookies named: {free:?}");

    // apc app update my-sticky-app --no-sticky-session-cookies, while somebody has a session.
    let dir = TempDir::new()?;
    let jar = dir.join("jar").display().to_string();
    let before = get(&node.net.node, HOST, &cookie("COOKIE_2"), &["-c", &jar])?;
    assert!(ours(&before).is_some(), "{before}");
    let told = app(node, &["update", NAME, "--no-sticky-session-cookies"])?;
    assert_eq!(told, format!("{NAME}: com.docker.lb.sticky_session_cookie taken away\n"));
    follow(node, "none")?;
    assert!(upstreams(node, &jar)?.len() > 1, "a pin of before counts no more");
    assert_eq!(node.swarm.serving(NAME)?, tasks, "no task was restarted");
    assert_eq!(node.sticky.process()?.id(), sticky, "nor was sticky");

    let told = app(node, &["remove", NAME])?;
    assert_eq!(told, format!("{NAME}: removed\n"));
    node.sticky.wait_service(NAME, "gone", Duration::from_secs(15), Value::is_null).map(drop)
}

/// A service that uses much of what Docker has: after an update it is, but for the label, byte for byte what it was.
pub fn the_rest_stays(node: &SwarmNode) -> anyhow::Result<()> {
    let config = node.dir.join("config");
    std::fs::write(&config, "key = 1\n")?;
    node.swarm.docker(&["config", "create", "odd", &config.display().to_string()])?;
    let odd = [
        "--name",
        "odd",
        "--network",
        "name=demo,alias=odd",
        "--replicas",
        "1",
        "--label",
        "com.docker.lb.hosts=odd.local",
        "--label",
        "other.label=a \"b\" <&> é",
        "--container-label",
        "c=d",
        "--env",
        "A=",
        "--limit-memory",
        "300M",
        "--limit-cpu",
        "0.3",
        "--limit-pids",
        "50",
        "--reserve-memory",
        "10M",
        "--cap-add",
        "NET_ADMIN",
        "--cap-drop",
        "MKNOD",
        "--ulimit",
        "nofile=1024:2048",
        "--sysctl",
        "net.core.somaxconn=999",
        "--mount",
        "type=tmpfs,dst=/t,tmpfs-size=65536,tmpfs-mode=01700",
        "--config",
        "source=odd,target=/c,mode=0400",
        "--host",
        "h:192.0.2.9",
        "--dns",
        "192.0.2.53",
        "--dns-option",
        "ndots:2",
        "--hostname",
        "{{.Task.Slot}}",
        "--stop-signal",
        "SIGINT",
        "--log-driver",
        "json-file",
        "--log-opt",
        "max-size=1m",
        "--constraint",
        "node.role==manager",
        "--placement-pref",
        "spread=node.labels.rack",
        "--replicas-max-per-node",
        "9",
        "--restart-delay",
        "3s",
        "--restart-max-attempts",
        "7",
        "--restart-window",
        "1m",
        "--update-delay",
        "2s",
        "--update-max-failure-ratio",
        "0.15",
        "--update-order",
        "start-first",
        "--update-monitor",
        "4s",
        "--rollback-parallelism",
        "0",
        "--endpoint-mode",
        "dnsrr",
        "--publish",
        "mode=host,target=8080,published=8099,protocol=tcp",
        "--init",
        "--read-only",
        "--user",
        "0:0",
        "--no-healthcheck",
        "--isolation",
        "default",
        "--tty",
    ];
    node.swarm.create(&odd)?;
    let inspect = || node.swarm.daemon.api("/services/odd");
    let before = inspect()?;
    app(node, &["update", "odd", "--sticky-session-cookies=A", "--ip-hash"])?;
    let mut after = inspect()?;
    let label = |spec: &Value, name: &str| spec["Spec"]["Labels"][name].clone();
    assert_eq!(label(&after, "com.docker.lb.sticky_session_cookie"), "A");
    assert_eq!(label(&after, "com.docker.lb.ip_hash"), "true");
    assert_eq!(label(&after, "other.label"), "a \"b\" <&> é");
    assert_eq!(after["PreviousSpec"], before["Spec"], "Docker's own way back is kept too");

    // Several at once, of which only one is in time at first.
    let changes = [["--replicas", "0"], ["--no-ip-hash", "--sticky-session-cookies=B"]];
    std::thread::scope(|scope| {
        let racing = changes.map(|change| {
            scope.spawn(move || app(node, &[&["update", "odd"], &change[..]].concat()))
        });
        let stranger = scope.spawn(|| {
            node.swarm.docker(&[
                "service",
                "update",
                "--detach",
                "--label-add",
                "stranger=x",
                "odd",
            ])
        });
        for racer in racing {
            racer.join().expect("it asserts nothing")?;
        }
        // Docker's own command line does not try again.
        drop(stranger.join());
        anyhow::Ok(())
    })?;
    after = inspect()?;
    assert_eq!(after["Spec"]["Mode"]["Replicated"]["Replicas"], 0, "{after}");
    assert_eq!(label(&after, "com.docker.lb.ip_hash"), Value::Null);
    assert_eq!(label(&after, "com.docker.lb.sticky_session_cookie"), "B");
    for part in ["Labels", "Mode"] {
        after["Spec"][part] = before["Spec"][part].clone();
    }
    assert_eq!(after["Spec"].to_string(), before["Spec"].to_string());
    node.swarm.remove("odd")
}

/// `sticky app ARGS`, and what it printed; it must succeed.
fn app(node: &SwarmNode, args: &[&str]) -> anyhow::Result<String> {
    let host = node.swarm.daemon.url();
    output(&mut node.sticky.command(&[&["app", "--docker-host", &host], args].concat()))
}

/// What mistakes are answered with, and the exit codes.
pub fn mistakes(node: &SwarmNode) -> anyhow::Result<()> {
    let failed = |args: &[&str]| -> anyhow::Result<String> {
        let host = node.swarm.daemon.url();
        let mut command = node.sticky.command(&[&["app", "--docker-host", &host], args].concat());
        let error = both(&mut command).err().with_context(|| format!("{args:?} succeeds"))?;
        Ok(error.to_string())
    };
    let create =
        |name, image| ["create", name, "--image", image, "--port", "8080", "--host", "x.local"];
    for (args, code, said) in [
        (&create("demo", IMAGE)[..], 1, "there is a service demo already"),
        (&create("no-image", "no-such-image:1"), 1, "0 of 1 tasks running: No such image"),
        (
            &[&create("x", IMAGE)[..], &["--network", "nowhere"]].concat(),
            1,
            "network nowhere not found",
        ),
        (&["update", "nobody", "--ip-hash"], 1, "there is no service nobody"),
        (&["update", "demo"], 2, "nothing to change"),
        (&["update", "demo", "--ip-hash", "--no-ip-hash"], 2, "cannot be used with"),
        (
            &["update", "demo", "--sticky-session-cookies=A B"],
            2,
            "com.docker.lb.sticky_session_cookie=A B",
        ),
        (&["remove", "nobody"], 1, "there is no service nobody"),
    ] {
        let error = failed(args)?;
        assert!(
            error.contains(said) && error.contains(&format!("exit status: {code}")),
            "{args:?}: {error}"
        );
    }
    app(node, &["remove", "no-image"]).map(drop)
}

/// The list for people and for programs, of the service `demo` with these replicas.
pub fn list(
    node: &SwarmNode,
    affinity: &str,
    cookies: &str,
    replicas: usize,
) -> anyhow::Result<()> {
    let text = app(node, &["list"])?;
    let (head, row) = text.split_once('\n').context("two lines")?;
    let column = |name: &str| head.find(name).with_context(|| format!("no {name} in {head}"));
    for (name, value) in [
        ("NAME", "demo"),
        ("HOSTS", "demo.local"),
        ("AFFINITY", affinity),
        ("COOKIES", cookies),
        ("REPLICAS", &format!("{replicas}/{replicas}")),
    ] {
        let cell = row.get(column(name)?..).unwrap_or_default().split_whitespace().next();
        assert_eq!(cell, Some(value), "{text}");
    }
    let json: Value = serde_json::from_str(&app(node, &["list", "--json"])?)?;
    assert_eq!(json[0]["affinity"], affinity);
    assert_eq!(json[0]["replicas"]["running"], replicas);
    Ok(())
}

/// Waits until sticky has the change.
fn follow(node: &SwarmNode, affinity: &str) -> anyhow::Result<()> {
    let followed = |service: &Value| {
        service["affinity"] == affinity && sticky_tests::sticky::up(service) == REPLICAS
    };
    node.sticky.wait_service(NAME, affinity, Duration::from_secs(15), followed).map(drop)
}

/// Starts a session by `path` and goes on with it: the first answer, and which instances gave it and the others.
fn session(node: &SwarmNode, path: &str) -> anyhow::Result<(String, BTreeSet<String>)> {
    let dir = TempDir::new()?;
    let jar = dir.join("jar").display().to_string();
    let first = get(&node.net.node, HOST, path, &["-c", &jar])?;
    let mut all = upstreams(node, &jar)?;
    all.extend(header(&first, "x-upstream-addr").map(str::to_owned));
    Ok((first, all))
}

fn upstreams(node: &SwarmNode, jar: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    for _ in 0..24 {
        let answer = get(&node.net.node, HOST, "/headers", &["-b", jar])?;
        assert!(answer.contains("< HTTP/1.1 200"), "{answer}");
        all.extend(header(&answer, "x-upstream-addr").map(str::to_owned));
    }
    Ok(all)
}

/// The value of our own `Set-Cookie` in what curl printed.
fn ours(printed: &str) -> Option<&str> {
    let cookies = printed.lines().filter_map(|line| {
        let (name, value) = line.strip_prefix("< ")?.split_once(": ")?;
        name.eq_ignore_ascii_case("set-cookie").then_some(value)
    });
    cookies.map(str::trim).find(|cookie| cookie.starts_with("sticky_lb="))
}

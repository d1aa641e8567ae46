//! From Docker's event to the maps in force, on a private Swarm.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde_json::Value;
use sticky_tests::demo::demo_image;
use sticky_tests::http;
use sticky_tests::process::{Line, Process};
use sticky_tests::sticky::Sticky;
use sticky_tests::swarm::Swarm;
use sticky_tests::topology::{NODE, Topology};

use super::table;
use crate::report::Table;

const NAME: &str = "demo";
const TASKS: usize = 3;
const LIMIT: Duration = Duration::from_secs(30);
const LOOK: Duration = Duration::from_millis(2);

/// How many changes of each kind.
pub struct Changes {
    labels: usize,
    scales: usize,
    deaths: usize,
}

pub const FULL: Changes = Changes { labels: 50, scales: 15, deaths: 8 };
pub const QUICK: Changes = Changes { labels: 2, scales: 1, deaths: 0 };

/// Dropped in this order.
struct Node {
    sticky: Sticky,
    /// `docker events`.
    events: Process,
    swarm: Swarm,
    net: Topology,
}

/// Makes the changes, one after the other.
pub fn measure(binary: &Path, changes: &Changes) -> anyhow::Result<Vec<Table>> {
    let mut node = Node::start(binary)?;
    let [mut labels, mut more, mut less, mut death] = [const { Vec::new() }; 4];
    for number in 0..changes.labels {
        labels.push(node.labels(number)?);
    }
    for _ in 0..changes.scales {
        let started = |event: &Value| event["Type"] == "container" && event["Action"] == "start";
        more.push(node.scale(TASKS + 1, started)?);
        let ordered = |event: &Value| event["Type"] == "service" && event["Action"] == "update";
        less.push(node.scale(TASKS, ordered)?);
    }
    for _ in 0..changes.deaths {
        death.push(node.death()?);
    }
    let mut rows = vec![
        ("labels: a frontend and a host more", labels),
        ("a task more, from its container's start", more),
        ("a task less, from the order", less),
        ("a task killed, from the event of that", death),
    ];
    rows.retain(|(_, all)| !all.is_empty());
    let highest = |all: &[f64]| all.iter().copied().fold(f64::MIN, f64::max);
    let worst = rows.iter().map(|(name, all)| (*name, vec![highest(all)])).collect();
    let worst = table("event-worst", "the worst of these", "ms", None, worst);
    let all = table("event", "from Docker's event to the maps in force", "ms", None, rows);
    Ok(vec![all, worst])
}

impl Node {
    fn start(binary: &Path) -> anyhow::Result<Self> {
        let net = Topology::new()?;
        let swarm = Swarm::start(&net.node, &NODE.to_string(), &demo_image()?)?;
        swarm.docker(&["network", "create", "-d", "overlay", NAME])?;
        let replicas = format!("--replicas={TASKS}");
        swarm.create(&[
            "--name",
            NAME,
            "--network",
            NAME,
            &replicas,
            "--publish=8080:8080",
            "--restart-delay=0s",
            "--label=com.docker.lb.hosts=demo.local",
            "--label=com.docker.lb.ip_hash=true",
            "--label=com.docker.lb.port=8080",
        ])?;
        swarm.wait_running(NAME, TASKS)?;
        let docker = swarm.daemon.url();
        let arguments = ["--iface", "eth0", "--docker-host", &docker, "--http", "[::]:80"];
        let sticky = Sticky::start_binary(binary.to_owned(), &net.node, &arguments)?;
        sticky.wait_up(NAME, TASKS, LIMIT)?;
        let command = swarm.daemon.command(&["events", "--format", "{{json .}}"]);
        let events = Process::spawn("docker events", &command)?;
        let node = Self { sticky, events, swarm, net };
        node.listening()?;
        Ok(node)
    }

    /// Waits until events are heard.
    fn listening(&self) -> anyhow::Result<()> {
        sticky_tests::wait::until_true("docker events to listen", LIMIT, || {
            self.update("--label-add=listening=yes")?;
            Ok(!self.events.log().is_empty())
        })
    }

    fn update(&self, option: &str) -> anyhow::Result<()> {
        let command =
            ["service", "update", "--detach", "--quiet", "--no-resolve-image", option, NAME];
        self.swarm.docker(&command).map(drop)
    }

    /// Another published address and host; ms from the event to the state that shows it.
    fn labels(&mut self, number: usize) -> anyhow::Result<f64> {
        let heard = self.events.log().len();
        let host = format!("demo-{number}.local");
        let listen = 9000 + number % 2;
        self.swarm.docker(&[
            "service",
            "update",
            "--detach",
            "--quiet",
            "--no-resolve-image",
            &format!("--label-add=com.docker.lb.hosts=demo.local,{host}"),
            &format!("--label-add=sticky.l4.listen={listen}:8080/tcp"),
            NAME,
        ])?;
        let shown = self.net.node.block_on(|| shown(&host))??;
        let event = |event: &Value| event["Type"] == "service" && event["Action"] == "update";
        Ok(since(&self.event(heard, event)?, shown))
    }

    /// Another number of tasks; ms from the event of this kind to the line about it.
    fn scale(&mut self, to: usize, kind: fn(&Value) -> bool) -> anyhow::Result<f64> {
        let (heard, logged) = (self.events.log().len(), self.sticky.log().len());
        self.swarm.scale(NAME, to)?;
        let line = self.line(logged, to)?;
        let event = self.event(heard, kind)?;
        self.swarm.wait_running(NAME, to)?;
        self.sticky.wait_up(NAME, to, LIMIT)?;
        Ok(since(&event, line.at))
    }

    /// The end of a container that Swarm did not order; ms from Docker's event to the line about it.
    fn death(&mut self) -> anyhow::Result<f64> {
        let (heard, logged) = (self.events.log().len(), self.sticky.log().len());
        let tasks = self.swarm.serving(NAME)?;
        let task = tasks.first().context("a task that runs")?;
        self.swarm.docker(&["kill", &task.container])?;
        let line = self.line(logged, TASKS - 1)?;
        let event = |event: &Value| event["Type"] == "container" && event["Action"] == "kill";
        let event = self.event(heard, event)?;
        self.sticky.wait_up(NAME, TASKS, LIMIT)?;
        self.swarm.wait_running(NAME, TASKS)?;
        Ok(since(&event, line.at))
    }

    /// The next line that says that there are so many backends now.
    fn line(&mut self, logged: usize, count: usize) -> anyhow::Result<Line> {
        let wanted = format!(" -> {count} backends, generation ");
        self.sticky.process()?.wait_line(LIMIT, logged, |line| line.contains(&wanted))
    }

    fn event(&mut self, heard: usize, kind: fn(&Value) -> bool) -> anyhow::Result<Value> {
        let parse = |line: &str| serde_json::from_str::<Value>(line).unwrap_or_default();
        let line = self.events.wait_line(LIMIT, heard, |line| kind(&parse(line)))?;
        Ok(parse(&line.text))
    }
}

/// When the state shows a host and the frontends that come with it.
async fn shown(host: &str) -> anyhow::Result<Instant> {
    let mut admin = http::Connection::open(None, ([127, 0, 0, 1], 9880).into()).await?;
    let limit = Instant::now() + LIMIT;
    loop {
        let state = admin.get("localhost", "/api/v1/state", &[]).await?.json()?;
        let now = Instant::now();
        let services = state["services"].as_array().map(Vec::as_slice).unwrap_or_default();
        if services.iter().any(|service| service["hosts"][1] == host) {
            return Ok(now);
        }
        anyhow::ensure!(now < limit, "{host} is not served within {LIMIT:?}: {state}");
        tokio::time::sleep(LOOK).await;
    }
}

/// ms from an event, by Docker's clock, to a moment of ours.
fn since(event: &Value, at: Instant) -> f64 {
    let event = Duration::from_nanos(event["timeNano"].as_u64().unwrap_or(0));
    let ago = at.elapsed();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().saturating_sub(ago);
    (at.as_secs_f64() - event.as_secs_f64()) * 1e3
}

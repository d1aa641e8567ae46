//! A node with a private Swarm and sticky.

use std::time::Duration;

use serde_json::Value;
use sticky_tests::demo::demo_image;
use sticky_tests::names::TempDir;
use sticky_tests::sticky::{Sticky, up};
use sticky_tests::swarm::{Swarm, Task};
use sticky_tests::topology::{NODE, Topology};

/// Labels of the documentation's cookie service.
pub const COOKIE: [&str; 3] = [
    "--label=com.docker.lb.hosts=demo.local",
    "--label=com.docker.lb.sticky_session_cookie=session",
    PORT,
];
/// Labels of the documentation's `ip_hash` service.
pub const IP_HASH: [&str; 3] =
    ["--label=com.docker.lb.hosts=demo.local", "--label=com.docker.lb.ip_hash=true", PORT];
const PORT: &str = "--label=com.docker.lb.port=8080";
/// Published ports of the demo application, and its line server.
pub const PUBLISH: [&str; 4] =
    ["--publish=8080:8080", "--publish=9090:9090", "--env", "TCP=0.0.0.0:9090"];

/// The parts; dropped in this order.
pub struct SwarmNode {
    pub sticky: Sticky,
    pub swarm: Swarm,
    pub net: Topology,
    /// For files of a test.
    pub dir: TempDir,
}

impl SwarmNode {
    /// A Swarm with the overlay network `demo`, and sticky watching it.
    pub fn start() -> anyhow::Result<Self> {
        let net = Topology::new()?;
        let swarm = Swarm::start(&net.node, &NODE.to_string(), &demo_image()?)?;
        swarm.docker(&["network", "create", "-d", "overlay", "demo"])?;
        let docker = swarm.daemon.url();
        let arguments = [
            "--iface",
            "eth0",
            "--provider",
            "swarm",
            "--docker-host",
            &docker,
            "--http",
            "[::]:80",
        ];
        let sticky = Sticky::start(&net.node, &arguments)?;
        Ok(Self { sticky, swarm, net, dir: TempDir::new()? })
    }

    /// Creates the service `demo` and waits until it runs and sticky has all of it up with this affinity.
    pub fn deploy(
        &self,
        affinity: &str,
        replicas: usize,
        options: &[&[&str]],
    ) -> anyhow::Result<Vec<Task>> {
        let replicated = format!("--replicas={replicas}");
        let fixed =
            ["--name", "demo", "--network", "demo", &replicated, "--env", "METADATA=demo-sticky"];
        self.swarm.create(&[&fixed[..], &options.concat()].concat())?;
        let tasks = self.swarm.wait_running("demo", replicas)?;
        self.wait(affinity, replicas)?;
        Ok(tasks)
    }

    /// Waits until an update of a service is complete, its old tasks have ended and sticky knows all of that.
    pub fn wait_updated(&self, service: &str, replicas: usize) -> anyhow::Result<Vec<Task>> {
        let path = format!("/services/{service}");
        sticky_tests::wait::until_true("the update to complete", Duration::from_secs(90), || {
            Ok(self.swarm.daemon.api(&path)?["UpdateStatus"]["State"] == "completed")
        })?;
        let tasks = self.swarm.wait_running(service, replicas)?;
        let backends = |entry: &Value| entry["backends"].as_array().map_or(0, Vec::len);
        let limit = Duration::from_secs(20);
        self.sticky.wait_service(service, "the old tasks are gone", limit, |entry| {
            up(entry) == replicas && backends(entry) == replicas
        })?;
        Ok(tasks)
    }

    /// Waits until sticky has `replicas` backends of `demo` up with this affinity.
    pub fn wait(&self, affinity: &str, replicas: usize) -> anyhow::Result<Value> {
        self.sticky.wait_service(
            "demo",
            &format!("{replicas} backends up"),
            Duration::from_secs(20),
            |service| service["affinity"] == affinity && up(service) == replicas,
        )
    }
}

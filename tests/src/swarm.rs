//! A private one-node Swarm, and what its manager says about tasks.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::demo::IMAGE;
use crate::dockerd::Dockerd;
use crate::netns::Netns;
use crate::wait;

/// A Swarm of one node; left and removed with the value.
#[derive(Debug)]
pub struct Swarm {
    pub daemon: Dockerd,
}

/// A task as the manager describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    pub id: String,
    pub slot: u64,
    /// What Swarm wants: `running`, `shutdown`, `remove`…
    pub desired: String,
    /// What is: `running`, `failed`, `complete`…
    pub state: String,
    /// Empty until there is a container.
    pub container: String,
}

impl Task {
    /// Whether it runs and is meant to go on.
    pub fn serves(&self) -> bool {
        self.desired == "running" && self.state == "running"
    }

    /// The name that the demo application in it gives itself: its host name, the first 12 digits of the container's id.
    pub fn instance(&self) -> &str {
        self.container.get(..12).unwrap_or_default()
    }
}

impl Swarm {
    /// Starts a daemon in `netns`, makes it a Swarm that is called `address`, and loads the demo application's image.
    pub fn start(netns: &Netns, address: &str, image: &Path) -> anyhow::Result<Self> {
        let daemon = Dockerd::start(netns)?;
        daemon.docker(&[
            "swarm",
            "init",
            "--advertise-addr",
            address,
            "--task-history-limit",
            "1",
        ])?;
        daemon.docker(&["load", "--quiet", "--input", &image.to_string_lossy()])?;
        Ok(Self { daemon })
    }

    /// Runs `docker` with `args`.
    pub fn docker(&self, args: &[&str]) -> anyhow::Result<String> {
        self.daemon.docker(args)
    }

    /// Creates a service of the demo application from the `options` of `docker service create`, and returns at once.
    pub fn create(&self, options: &[&str]) -> anyhow::Result<()> {
        let fixed = [
            "service",
            "create",
            "--detach",
            "--quiet",
            "--no-resolve-image",
            "--stop-grace-period",
            "2s",
        ];
        self.docker(&[&fixed[..], options, &[IMAGE]].concat()).map(|_| ())
    }

    /// Orders another number of replicas, and returns at once.
    pub fn scale(&self, service: &str, replicas: usize) -> anyhow::Result<()> {
        self.docker(&["service", "scale", "--detach", &format!("{service}={replicas}")]).map(|_| ())
    }

    /// Orders the end of a service and waits for the end of its containers.
    pub fn remove(&self, service: &str) -> anyhow::Result<()> {
        self.docker(&["service", "rm", service])?;
        let filter = format!("label=com.docker.swarm.service.name={service}");
        wait::until_true("the service's containers to end", Duration::from_secs(30), || {
            Ok(self.docker(&["ps", "--quiet", "--filter", &filter])?.trim().is_empty())
        })
    }

    /// All tasks of a service that the manager still knows, in the order of their slots.
    pub fn tasks(&self, service: &str) -> anyhow::Result<Vec<Task>> {
        // {"service":{"NAME":true}}, encoded for a query.
        let filter = format!("%7B%22service%22%3A%7B%22{service}%22%3Atrue%7D%7D");
        let answer = self.daemon.api(&format!("/tasks?filters={filter}"))?;
        let mut tasks: Vec<_> =
            answer.as_array().context("a list of tasks")?.iter().map(task).collect();
        tasks.sort_by(|a, b| (a.slot, &a.id).cmp(&(b.slot, &b.id)));
        Ok(tasks)
    }

    /// The tasks of a service that run and are meant to.
    pub fn serving(&self, service: &str) -> anyhow::Result<Vec<Task>> {
        Ok(self.tasks(service)?.into_iter().filter(Task::serves).collect())
    }

    /// Waits until exactly `replicas` tasks of a service run and no other one does.
    pub fn wait_running(&self, service: &str, replicas: usize) -> anyhow::Result<Vec<Task>> {
        wait::until(&format!("{replicas} tasks of {service}"), Duration::from_secs(60), || {
            let tasks = self.tasks(service)?;
            let running = tasks.iter().filter(|task| task.state == "running").count();
            let serving: Vec<_> = tasks.iter().filter(|task| task.serves()).cloned().collect();
            Ok(if serving.len() == replicas && running == replicas {
                Ok(serving)
            } else {
                Err(format!("{tasks:?}"))
            })
        })
    }

    /// The addresses of a local network's containers by container id.
    pub fn addresses(&self, network: &str) -> anyhow::Result<Vec<(String, String)>> {
        let answer = self.daemon.api(&format!("/networks/{network}"))?;
        let containers = answer["Containers"].as_object().context("a network has containers")?;
        let address = |value: &Value| {
            text(&value["IPv4Address"]).split('/').next().unwrap_or_default().to_owned()
        };
        Ok(containers.iter().map(|(id, value)| (id.clone(), address(value))).collect())
    }
}

fn task(value: &Value) -> Task {
    Task {
        id: text(&value["ID"]),
        slot: value["Slot"].as_u64().unwrap_or_default(),
        desired: text(&value["DesiredState"]),
        state: text(&value["Status"]["State"]),
        container: text(&value["Status"]["ContainerStatus"]["ContainerID"]),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

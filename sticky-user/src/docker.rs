//! Services from the labels of plain containers (`--provider docker`), and the connection to Docker that the Swarm
//! provider uses too.

mod address;
pub(crate) mod client;
pub(crate) mod containers;
pub(crate) mod engine;
pub(crate) mod pace;
#[cfg(test)]
pub(crate) mod tests;
mod tls;

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::{ListContainersOptions, ListNetworksOptions};
use tokio::sync::watch;
use tokio::time::{Instant as Clock, sleep, sleep_until};

use crate::labels::{Instance, Memory};
use crate::model::Snapshot;
use crate::provider::{Found, ProviderStatus, Publisher};
use containers::{Container, Network};
use engine::call;
use pace::{Extent, Pace};

/// Pauses between attempts to reach Docker: the first, and the longest. What its return has changed is to be known at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Follows the containers of one Docker engine, which must be on this host.
#[derive(Debug)]
pub struct Provider {
    docker_host: Option<String>,
    instance: Instance,
    publisher: Publisher,
    memory: Memory,
    pause: Duration,
}

/// What was last seen.
#[derive(Default)]
struct Seen {
    containers: Vec<Container>,
    networks: HashMap<String, Network>,
    /// Containers that were told to stop, and those that have ended.
    stopping: HashSet<String>,
    dead: HashSet<String>,
}

impl Provider {
    /// A provider that starts from what an earlier run found, and where it publishes. `docker_host` is a URL; `None` is
    /// what `DOCKER_HOST` says, or else the local socket. Nothing is asked before [`Provider::run`].
    #[must_use]
    pub fn new(
        docker_host: Option<String>,
        instance: Instance,
        initial: Found,
    ) -> (Self, watch::Receiver<Arc<Found>>) {
        let memory = Memory::of(&initial.snapshot);
        let (publisher, found) = Publisher::new(initial);
        (Self { docker_host, instance, publisher, memory, pause: FIRST_PAUSE }, found)
    }

    /// Follows the containers, and reaches for Docker again whenever it is lost; ends only with its task.
    pub async fn run(mut self) {
        loop {
            let Err(error) = self.follow().await;
            self.publisher.lost(engine::explain(&error));
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    async fn follow(&mut self) -> Result<Infallible> {
        let docker = engine::connect(self.docker_host.as_deref()).await?;
        let actions = [
            "create",
            "start",
            "kill",
            "die",
            "pause",
            "unpause",
            "rename",
            "health_status",
            "connect",
            "disconnect",
            "destroy",
        ];
        // Asked for before the list is, so that nothing falls between; and a second look follows the first.
        let mut events =
            engine::read_ahead(engine::events(&docker, &["container", "network"], &actions));
        let mut seen = Seen::default();
        seen.look(&docker).await?;
        self.pause = FIRST_PAUSE;
        self.publish(&mut seen, Instant::now());
        let mut pace = Pace::new(Instant::now());
        loop {
            let unsettled =
                seen.containers.iter().any(|container| container.unsettled(&seen.stopping));
            tokio::select! {
                event = events.next() => {
                    let event = event.context("the stream of events ended")?.context("GET /events")?;
                    pace.event(Instant::now());
                    if seen.note(event) {
                        self.publish(&mut seen, pace.event_at.unwrap_or_else(Instant::now));
                    }
                }
                () = sleep_until(Clock::from_std(pace.next_look(pace.due(unsettled)))) => {
                    let began = Instant::now();
                    let event_at = pace.event_at.unwrap_or(began);
                    seen.look(&docker).await?;
                    let changed = self.publish(&mut seen, event_at);
                    pace.looked(began, Extent::Whole, changed);
                }
            }
        }
    }

    /// Puts together what was seen and hands it over. Returns whether anything in it is new.
    fn publish(&mut self, seen: &mut Seen, event_at: Instant) -> bool {
        let services = containers::services(seen, &self.instance, &mut self.memory);
        let status = ProviderStatus {
            kind: "docker",
            connected: true,
            error: None,
            last_update: SystemTime::now(),
        };
        self.publisher.found(Snapshot { services }, event_at, status)
    }
}

impl Seen {
    async fn look(&mut self, docker: &Docker) -> Result<()> {
        let statuses = ["created", "restarting", "running", "paused"].map(ToOwned::to_owned);
        let filters = engine::filter("status", Some(&statuses));
        let options =
            ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
        let containers = call("GET /containers/json", docker.list_containers(Some(options)));
        let networks = call("GET /networks", docker.list_networks(None::<ListNetworksOptions>));
        let (containers, networks) = tokio::try_join!(containers, networks)?;
        self.containers = containers.into_iter().filter_map(Container::decode).collect();
        self.networks = networks.into_iter().filter_map(Network::decode).collect();
        let alive: HashSet<&String> =
            self.containers.iter().map(|container| &container.id).collect();
        self.stopping.retain(|id| alive.contains(id));
        self.dead.retain(|id| alive.contains(id));
        Ok(())
    }

    /// What a container's event tells before a list does; whether that is anything.
    fn note(&mut self, event: EventMessage) -> bool {
        let actor = event.actor.unwrap_or_default();
        let id = actor.id.unwrap_or_default();
        let signal = actor.attributes.and_then(|mut attributes| attributes.remove("signal"));
        match event.action.as_deref() {
            Some("die") => self.dead.insert(id),
            // TERM and KILL, as numbers: other signals mean other things to an application.
            Some("kill") if matches!(signal.as_deref(), Some("15" | "9")) => {
                self.stopping.insert(id)
            }
            Some("start") => {
                // A container may live again.
                self.stopping.remove(&id);
                self.dead.remove(&id)
            }
            _ => false,
        }
    }
}

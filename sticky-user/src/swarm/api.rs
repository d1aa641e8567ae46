//! The calls to Docker: only GET, and only on `version`, `info`, `events`, `services`, `tasks`, `nodes`, `networks` and
//! `containers`. Their number does not depend on the number of services.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use http::StatusCode;

use super::decode::{self, Listed};
use super::view::{Addresses, NetworkView, NodeView, ServiceView, TaskView};
use crate::docker::client::{self, Docker, Error, filters};
use crate::docker::engine::{self, Events};

/// The network that joins all containers of overlays to their host.
pub(super) const GWBRIDGE: &str = "docker_gwbridge";

/// The label that Swarm puts on the containers of its tasks.
const TASK: &str = "com.docker.swarm.task.id";
/// More ids than this in a filter cost more than what they leave out.
const MOST_IDS: usize = 200;
/// Each container is looked for through the whole text, so more than this are found by reading all of it once.
const FEW: usize = 32;

const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// A connection to one Docker engine.
#[derive(Debug)]
pub(super) struct Api {
    docker: Docker,
    /// For the events.
    stream: bollard::Docker,
}

impl Api {
    pub(super) async fn connect(host: Option<&str>) -> Result<Self> {
        Ok(Self { docker: Docker::connect(host).await?, stream: engine::connect(host).await? })
    }

    /// The id of this node, if it manages a Swarm. Where a proxy of the socket does not pass `info`, it is the node with
    /// the name of this host.
    pub(super) async fn own_node(&self) -> Result<String> {
        let info: decode::Info = match self.docker.get("/info", &[]).await {
            Err(Error::Denied { .. }) => return self.node_of_this_host().await,
            info => info?,
        };
        let swarm = info.swarm.unwrap_or_default();
        if swarm.control_available != Some(true) {
            bail!(
                "this node is no Swarm manager: run sticky on a manager, or use --provider docker or file:PATH"
            );
        }
        swarm.node_id.filter(|id| !id.is_empty()).context("Docker does not say which node this is")
    }

    async fn node_of_this_host(&self) -> Result<String> {
        let host = std::fs::read_to_string(HOST_NAME).context(HOST_NAME)?;
        let mut nodes = self.nodes().await?.into_iter();
        let own = nodes.find(|(_, node)| node.name == host.trim());
        own.map(|(id, _)| id)
            .context("GET /info is not allowed, and no node has the name of this host")
    }

    /// What happens from now on, without the execs of health checks.
    pub(super) fn events(&self) -> Events {
        let actions = ["create", "update", "remove", "start", "kill", "die", "health_status"];
        engine::events(&self.stream, &["service", "node", "network", "container"], &actions)
    }

    /// The services with these ids, or all.
    pub(super) async fn services(&self, ids: Option<&[String]>) -> Result<Vec<ServiceView>> {
        let services: Vec<_> = self.docker.get("/services", &named("id", ids)).await?;
        Ok(services.into_iter().filter_map(decode::service).collect())
    }

    /// The tasks of these services, or all, whatever state they are in; `None` if one of the services is not known.
    pub(super) async fn tasks(
        &self,
        services: Option<&[String]>,
        listed: &mut Listed,
    ) -> Result<Option<Vec<Arc<TaskView>>>> {
        if services.is_some_and(<[String]>::is_empty) {
            return Ok(Some(Vec::new()));
        }
        let answer = known(self.docker.ask("/tasks", &named("service", services)).await)?;
        let Some((call, answer)) = answer else { return Ok(None) };
        let tasks = listed.read(&answer);
        Ok(Some(tasks.map_err(|error| client::something_else(&call, &error))?))
    }

    pub(super) async fn nodes(&self) -> Result<HashMap<String, NodeView>> {
        let nodes: Vec<_> = self.docker.get("/nodes", &[]).await?;
        Ok(nodes.into_iter().filter_map(decode::node).collect())
    }

    pub(super) async fn networks(&self) -> Result<HashMap<String, NetworkView>> {
        let networks: Vec<_> = self.docker.get("/networks", &[]).await?;
        Ok(networks.into_iter().filter_map(decode::network).collect())
    }

    /// The addresses on `docker_gwbridge`, by container: of these, or of all. There is no such network before the first
    /// overlay.
    pub(super) async fn gwbridge(&self, wanted: Option<&[String]>) -> Result<Addresses> {
        let path = format!("/networks/{GWBRIDGE}");
        if let Some(few) = wanted.filter(|wanted| wanted.len() <= FEW) {
            let mut search = decode::Search::new(few);
            if known(self.docker.read(&path, &[], &mut search).await)?.is_none() {
                return Ok(Addresses::new());
            }
            if let Some(found) = search.found() {
                return Ok(found);
            }
        }
        match known(self.docker.ask(&path, &[]).await)? {
            Some((call, answer)) => Ok(decode::bridge(client::decode(&call, &answer)?, wanted)),
            None => Ok(Addresses::new()),
        }
    }

    /// The addresses of the tasks of this node on its other networks, by container; overlays' among them.
    pub(super) async fn containers(&self) -> Result<Addresses> {
        let listed = self.task_containers(&[]).await?;
        Ok(listed.into_iter().filter_map(decode::container).collect())
    }

    /// The containers of the tasks of this node whose health check fails.
    pub(super) async fn unhealthy(&self) -> Result<HashSet<String>> {
        let listed = self.task_containers(&[("health", "unhealthy")]).await?;
        Ok(listed.into_iter().filter_map(|container| container.id).collect())
    }

    /// The containers of the tasks of this node that also pass these filters.
    async fn task_containers(
        &self,
        more: &[(&str, &str)],
    ) -> Result<Vec<decode::Container>, Error> {
        let all = more.iter().chain(&[("label", TASK)]);
        let filters: HashMap<_, _> = all.map(|(key, value)| (key, [value])).collect();
        let filters = serde_json::json!(filters).to_string();
        self.docker.get("/containers/json", &[("filters", filters)]).await
    }
}

/// Asks for the entries of a list that have one of these values, unless there are too many to be named.
fn named(key: &str, values: Option<&[String]>) -> Vec<(&'static str, String)> {
    let few = values.filter(|values| values.len() <= MOST_IDS);
    few.map(|values| filters(key, values)).into_iter().collect()
}

/// `None` for what Docker does not know.
fn known<T>(answer: Result<T, Error>) -> Result<Option<T>, Error> {
    match answer {
        Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
        answer => answer.map(Some),
    }
}

//! The calls to Docker: only GET, and only on `version`, `info`, `events`, `services`, `tasks`, `nodes`, `networks` and
//! `containers`. Their number does not depend on the number of services.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, Result, bail};
use bollard::Docker;
use bollard::models::ContainerSummary;
use bollard::query_parameters::{ListContainersOptions, ListServicesOptions, ListTasksOptions};

use super::decode;
use super::view::{LocalAddress, NetworkView, NodeView, ServiceView, TaskView};
use crate::docker::engine::{self, Events, call, filter, known};

/// The network that joins all containers of overlays to their host.
pub(super) const GWBRIDGE: &str = "docker_gwbridge";

/// The label that Swarm puts on the containers of its tasks.
const TASK: &str = "com.docker.swarm.task.id";

const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// A connection to one Docker engine.
#[derive(Debug)]
pub(super) struct Api {
    docker: Docker,
}

impl Api {
    pub(super) async fn connect(host: Option<&str>) -> Result<Self> {
        Ok(Self { docker: engine::connect(host).await? })
    }

    /// The id of this node, if it manages a Swarm. Where a proxy of the socket does not pass `info`, it is the node with
    /// the name of this host.
    pub(super) async fn own_node(&self) -> Result<String> {
        let info = match call("GET /info", self.docker.info()).await {
            Err(error) if engine::denied(&error) => return self.node_of_this_host().await,
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
        engine::events(&self.docker, &["service", "node", "network", "container"], &actions)
    }

    /// The services with these ids, or all.
    pub(super) async fn services(&self, ids: Option<&[String]>) -> Result<Vec<ServiceView>> {
        let options =
            ListServicesOptions { filters: filter("id", ids), ..ListServicesOptions::default() };
        let services = call("GET /services", self.docker.list_services(Some(options))).await?;
        Ok(services.into_iter().filter_map(decode::service).collect())
    }

    /// The tasks of these services, or all, whatever state they are in; `None` if one of the services is not known.
    pub(super) async fn tasks(&self, services: Option<&[String]>) -> Result<Option<Vec<TaskView>>> {
        if services.is_some_and(<[String]>::is_empty) {
            return Ok(Some(Vec::new()));
        }
        let options = ListTasksOptions { filters: filter("service", services) };
        let tasks = known(call("GET /tasks", self.docker.list_tasks(Some(options))).await)?;
        Ok(tasks.map(|tasks| tasks.into_iter().filter_map(decode::task).collect()))
    }

    pub(super) async fn nodes(&self) -> Result<HashMap<String, NodeView>> {
        let nodes = call("GET /nodes", self.docker.list_nodes(None)).await?;
        Ok(nodes.into_iter().filter_map(decode::node).collect())
    }

    pub(super) async fn networks(&self) -> Result<HashMap<String, NetworkView>> {
        let networks = call("GET /networks", self.docker.list_networks(None)).await?;
        Ok(networks.into_iter().filter_map(decode::network).collect())
    }

    /// The addresses on `docker_gwbridge`, by container. There is no such network before the first overlay.
    pub(super) async fn gwbridge(&self) -> Result<HashMap<String, Vec<LocalAddress>>> {
        let network = known(
            call("GET /networks/docker_gwbridge", self.docker.inspect_network(GWBRIDGE, None))
                .await,
        )?;
        Ok(network.map(decode::bridge).unwrap_or_default())
    }

    /// The addresses of the tasks of this node on its other networks, by container; overlays' among them.
    pub(super) async fn containers(&self) -> Result<HashMap<String, Vec<LocalAddress>>> {
        let listed = self.list(HashMap::new()).await?;
        Ok(listed.into_iter().filter_map(decode::container).collect())
    }

    /// The containers of the tasks of this node whose health check fails.
    pub(super) async fn unhealthy(&self) -> Result<HashSet<String>> {
        let filters = HashMap::from([("health".to_owned(), vec!["unhealthy".to_owned()])]);
        let listed = self.list(filters).await?;
        Ok(listed.into_iter().filter_map(|container| container.id).collect())
    }

    /// The containers of the tasks of this node that pass `filters`.
    async fn list(
        &self,
        mut filters: HashMap<String, Vec<String>>,
    ) -> Result<Vec<ContainerSummary>> {
        filters.insert("label".to_owned(), vec![TASK.to_owned()]);
        let options =
            ListContainersOptions { filters: Some(filters), ..ListContainersOptions::default() };
        call("GET /containers/json", self.docker.list_containers(Some(options))).await
    }
}

//! The calls to Docker: only GET, and only on `version`, `info`, `events`, `services`, `tasks`, `nodes`, `networks` and
//! `containers`. Their number does not depend on the number of services.

use std::collections::HashMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bollard::Docker;
use bollard::models::EventMessage;
use bollard::query_parameters::{
    EventsOptions, ListContainersOptions, ListServicesOptions, ListTasksOptions,
};
use futures_util::{Stream, StreamExt};
use tokio::time::timeout;

use super::decode;
use super::view::{LocalAddress, NetworkView, NodeView, ServiceView, TaskView};

/// A call that takes longer is an error.
const PATIENCE: Duration = Duration::from_secs(10);
/// More ids than this in a filter cost more than the tasks they leave out.
const MOST_IDS: usize = 200;
/// The network that joins all containers of overlays to their host.
pub(super) const GWBRIDGE: &str = "docker_gwbridge";

pub(super) type Events =
    Pin<Box<dyn Stream<Item = Result<EventMessage, bollard::errors::Error>> + Send>>;

/// A connection to one Docker engine.
#[derive(Debug)]
pub(super) struct Api {
    docker: Docker,
}

impl Api {
    /// Connects, and speaks the newest version that both sides know.
    pub(super) async fn connect(host: Option<&str>) -> Result<Self> {
        let host = host.map(ToOwned::to_owned).or_else(|| std::env::var("DOCKER_HOST").ok());
        let host = host
            .filter(|host| !host.is_empty())
            .unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let docker =
            Docker::connect_with_host(&host).with_context(|| format!("Docker at {host}"))?;
        let docker = call("GET /version", docker.negotiate_version())
            .await
            .with_context(|| format!("Docker at {host}"))?;
        Ok(Self { docker })
    }

    /// The id of this node, if it manages a Swarm.
    pub(super) async fn own_node(&self) -> Result<String> {
        let info = call("GET /info", self.docker.info()).await?;
        let swarm = info.swarm.unwrap_or_default();
        if swarm.control_available != Some(true) {
            bail!(
                "this node is no Swarm manager: run sticky on a manager, or use --provider docker or file:PATH"
            );
        }
        swarm.node_id.filter(|id| !id.is_empty()).context("Docker does not say which node this is")
    }

    /// What happens from now on. The stream ends, or fails, when the connection does.
    pub(super) fn events(&self) -> Events {
        let words =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let filters = HashMap::from([
            ("type".to_owned(), words(&["service", "node", "network", "container"])),
            // Without the execs of health checks.
            (
                "event".to_owned(),
                words(&["create", "update", "remove", "start", "kill", "die", "health_status"]),
            ),
        ]);
        self.docker
            .events(Some(EventsOptions { filters: Some(filters), ..EventsOptions::default() }))
            .boxed()
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
        let filters = filter("label", Some(&["com.docker.swarm.task.id".to_owned()]));
        let options = ListContainersOptions { filters, ..ListContainersOptions::default() };
        let containers =
            call("GET /containers/json", self.docker.list_containers(Some(options))).await?;
        Ok(containers.into_iter().filter_map(decode::container).collect())
    }
}

fn filter(key: &str, values: Option<&[String]>) -> Option<HashMap<String, Vec<String>>> {
    let values = values.filter(|values| values.len() <= MOST_IDS)?;
    Some(HashMap::from([(key.to_owned(), values.to_vec())]))
}

async fn call<T>(
    name: &str,
    answer: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T> {
    match timeout(PATIENCE, answer).await {
        Ok(answer) => answer.with_context(|| name.to_owned()),
        Err(_) => bail!("{name} got no answer in {PATIENCE:?}"),
    }
}

/// `None` for what Docker does not know.
fn known<T>(answer: Result<T>) -> Result<Option<T>> {
    use bollard::errors::Error::DockerResponseServerError;
    match answer {
        Err(error)
            if matches!(
                error.downcast_ref(),
                Some(DockerResponseServerError { status_code: 404, .. })
            ) =>
        {
            Ok(None)
        }
        answer => answer.map(Some),
    }
}

/// An error in few words: the call, and what Docker says or else what is at the bottom of it.
pub(super) fn explain(error: &anyhow::Error) -> String {
    use bollard::errors::Error::DockerResponseServerError;
    let mut words = Vec::new();
    for cause in error.chain() {
        match cause.downcast_ref::<bollard::errors::Error>() {
            None => words.push(cause.to_string()),
            Some(DockerResponseServerError { status_code: 403, .. }) => {
                words.push("is not allowed: let the proxy of the socket pass this call".to_owned());
                break;
            }
            Some(DockerResponseServerError { status_code, message }) => {
                words.push(format!("{status_code}: {message}"));
                break;
            }
            Some(_) => {
                let bottom = error.root_cause().to_string();
                words.push(bottom);
                break;
            }
        }
    }
    words.join(": ")
}

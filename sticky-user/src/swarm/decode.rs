//! From Docker's answers to ours: of each only the fields that matter here, since thousands of tasks are megabytes of text.
//! What lacks an id is passed over.

mod bridge;
mod listed;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use serde::Deserialize;

use super::view::{LocalAddress, NetworkView, NodeView, Phase, PortView, ServiceView, TaskView};
use crate::docker::containers::both;
use crate::model::Proto;
pub(super) use bridge::{Search, bridge};
pub(super) use listed::Listed;

type Labels = Option<BTreeMap<String, String>>;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Info {
    pub(super) swarm: Option<Swarm>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Swarm {
    #[serde(rename = "NodeID")]
    pub(super) node_id: Option<String>,
    pub(super) control_available: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Service {
    #[serde(rename = "ID")]
    id: Option<String>,
    created_at: Option<String>,
    spec: Option<ServiceSpec>,
    endpoint: Option<Endpoint>,
    update_status: Option<UpdateStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceSpec {
    name: Option<String>,
    labels: Labels,
    task_template: Option<TaskTemplate>,
    networks: Option<Vec<Attachment>>,
    endpoint_spec: Option<EndpointSpec>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskTemplate {
    container_spec: Option<ContainerSpec>,
    networks: Option<Vec<Attachment>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ContainerSpec {
    labels: Labels,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Attachment {
    target: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointSpec {
    ports: Option<Vec<Port>>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Endpoint {
    ports: Option<Vec<Port>>,
    #[serde(rename = "VirtualIPs")]
    virtual_ips: Option<Vec<VirtualIp>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct VirtualIp {
    #[serde(rename = "NetworkID")]
    network_id: Option<String>,
    addr: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct UpdateStatus {
    state: Option<String>,
    started_at: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Port {
    protocol: Option<String>,
    target_port: Option<i64>,
    published_port: Option<i64>,
    publish_mode: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Task {
    #[serde(rename = "ID")]
    id: Option<String>,
    #[serde(rename = "ServiceID")]
    service_id: Option<String>,
    created_at: Option<String>,
    slot: Option<u64>,
    #[serde(rename = "NodeID")]
    node_id: Option<String>,
    desired_state: Option<String>,
    status: Option<TaskStatus>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TaskStatus {
    state: Option<String>,
    err: Option<String>,
    container_status: Option<ContainerStatus>,
    port_status: Option<EndpointSpec>,
}

#[derive(Deserialize)]
struct ContainerStatus {
    #[serde(rename = "ContainerID")]
    container_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Node {
    #[serde(rename = "ID")]
    id: Option<String>,
    description: Option<Description>,
    status: Option<NodeStatus>,
    manager_status: Option<NodeStatus>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Description {
    hostname: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NodeStatus {
    state: Option<String>,
    addr: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Network {
    id: Option<String>,
    name: Option<String>,
    driver: Option<String>,
    ingress: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Container {
    pub(super) id: Option<String>,
    network_settings: Option<NetworkSettings>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    networks: Option<HashMap<String, ContainerEnd>>,
}

#[derive(Deserialize)]
struct ContainerEnd {
    #[serde(rename = "IPAddress")]
    v4: Option<String>,
    #[serde(rename = "GlobalIPv6Address")]
    v6: Option<String>,
}

pub(super) fn service(service: Service) -> Option<ServiceView> {
    let spec = service.spec.unwrap_or_default();
    let template = spec.task_template.unwrap_or_default();
    let endpoint = service.endpoint.unwrap_or_default();
    let update = service.update_status.unwrap_or_default();
    let updating = matches!(update.state.as_deref(), Some("updating" | "rollback_started"));
    Some(ServiceView {
        id: service.id?,
        name: spec.name.unwrap_or_default(),
        created_at: time(service.created_at),
        labels: spec.labels.unwrap_or_default(),
        container_labels: template
            .container_spec
            .and_then(|container| container.labels)
            .unwrap_or_default(),
        // Before Swarm has given it its ports, a service has only those it asks for.
        ports: endpoint
            .ports
            .or_else(|| spec.endpoint_spec.and_then(|spec| spec.ports))
            .into_iter()
            .flatten()
            .filter_map(|p| port(&p))
            .collect(),
        networks: [template.networks, spec.networks]
            .into_iter()
            .flatten()
            .flatten()
            .filter_map(|network| network.target)
            .collect(),
        vips: endpoint
            .virtual_ips
            .into_iter()
            .flatten()
            .filter_map(|vip| Some((vip.network_id?, address(&vip.addr?)?)))
            .collect(),
        updating: updating.then(|| time(update.started_at)),
        removed: false,
    })
}

fn task(task: Task) -> Option<TaskView> {
    let status = task.status.unwrap_or_default();
    let state = status.state.unwrap_or_else(|| "new".to_owned());
    let mut ports: Vec<PortView> = status
        .port_status
        .and_then(|status| status.ports)
        .into_iter()
        .flatten()
        .filter_map(|p| port(&p))
        .collect();
    // Docker lists each once for IPv4 and once for IPv6.
    ports.dedup();
    Some(TaskView {
        id: task.id?,
        service: task.service_id?,
        created_at: time(task.created_at),
        slot: task.slot.unwrap_or(0),
        node: task.node_id.unwrap_or_default(),
        container: status
            .container_status
            .and_then(|container| container.container_id)
            .filter(|id| !id.is_empty()),
        // A state that this program does not know is no reason to send clients there.
        phase: phase(&state).unwrap_or(Phase::After),
        wanted: task
            .desired_state
            .and_then(|state| phase(&state))
            .is_some_and(|phase| phase != Phase::After),
        state,
        error: status.err.filter(|error| !error.is_empty()),
        ports,
    })
}

fn phase(state: &str) -> Option<Phase> {
    match state {
        "new" | "allocated" | "pending" | "assigned" | "accepted" | "preparing" | "ready"
        | "starting" => Some(Phase::Before),
        "running" => Some(Phase::Running),
        "complete" | "shutdown" | "failed" | "rejected" | "remove" | "orphaned" => {
            Some(Phase::After)
        }
        _ => None,
    }
}

pub(super) fn node(node: Node) -> Option<(String, NodeView)> {
    let status = node.status.unwrap_or_default();
    let usable = |text: &String| address(text).filter(|addr| !addr.is_unspecified());
    // A manager may show 0.0.0.0 in its status.
    let addr = status.addr.as_ref().and_then(usable);
    let addr = addr
        .or_else(|| node.manager_status.and_then(|manager| manager.addr).as_ref().and_then(usable));
    let name = node.description.and_then(|description| description.hostname).unwrap_or_default();
    Some((node.id?, NodeView { name, addr, down: status.state.as_deref() == Some("down") }))
}

pub(super) fn network(network: Network) -> Option<(String, NetworkView)> {
    let view = NetworkView {
        name: network.name.unwrap_or_default(),
        driver: network.driver.unwrap_or_default(),
        ingress: network.ingress.unwrap_or(false),
    };
    Some((network.id?, view))
}

pub(super) fn container(container: Container) -> Option<(String, Vec<LocalAddress>)> {
    let networks =
        container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut addresses: Vec<LocalAddress> = networks
        .into_iter()
        .filter_map(|(network, endpoint)| {
            let (addr, v6) = both([endpoint.v4, endpoint.v6])?;
            Some(LocalAddress { network, addr, v6 })
        })
        .collect();
    addresses.sort_by(|a, b| a.network.cmp(&b.network));
    Some((container.id?, addresses))
}

/// RFC 3339 in UTC, so that texts sort as times do.
fn time(text: Option<String>) -> String {
    text.unwrap_or_default().trim_end_matches('Z').to_owned()
}

fn port(port: &Port) -> Option<PortView> {
    let number = |number: Option<i64>| number.and_then(|number| u16::try_from(number).ok());
    Some(PortView {
        published: number(port.published_port).unwrap_or(0),
        target: number(port.target_port).filter(|target| *target != 0)?,
        proto: match port.protocol.as_deref() {
            Some("udp") => Some(Proto::Udp),
            Some("sctp") => None,
            _ => Some(Proto::Tcp),
        },
        host_mode: port.publish_mode.as_deref() == Some("host"),
    })
}

/// An address with or without a prefix length or a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.split('/').next()?;
    bare.parse().ok().or_else(|| bare.parse::<std::net::SocketAddr>().ok().map(|addr| addr.ip()))
}

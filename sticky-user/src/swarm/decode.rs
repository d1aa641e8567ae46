//! From the models of Docker's API to ours. What lacks an id is passed over.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

use bollard::models::{
    ContainerSummary, EndpointPortConfig, EndpointPortConfigProtocolEnum as Protocol,
    EndpointPortConfigPublishModeEnum as Mode, Network, NetworkInspect, Node, NodeState, Service,
    ServiceUpdateStatusStateEnum as Update, Task, TaskState,
};

use super::api::GWBRIDGE;
use super::view::{LocalAddress, NetworkView, NodeView, Phase, PortView, ServiceView, TaskView};
use crate::docker::containers::both;
use crate::model::Proto;

pub(super) fn service(service: Service) -> Option<ServiceView> {
    let spec = service.spec.unwrap_or_default();
    let template = spec.task_template.unwrap_or_default();
    let endpoint = service.endpoint.unwrap_or_default();
    let sorted = |labels: Option<HashMap<String, String>>| {
        labels.into_iter().flatten().collect::<BTreeMap<_, _>>()
    };
    let update = service.update_status.unwrap_or_default();
    let updating = matches!(update.state, Some(Update::UPDATING | Update::ROLLBACK_STARTED));
    Some(ServiceView {
        id: service.id?,
        name: spec.name.unwrap_or_default(),
        created_at: time(service.created_at),
        labels: sorted(spec.labels),
        container_labels: sorted(template.container_spec.and_then(|container| container.labels)),
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

pub(super) fn task(task: Task) -> Option<TaskView> {
    let status = task.status.unwrap_or_default();
    let state = status.state.unwrap_or(TaskState::NEW);
    let mut ports: Vec<PortView> = status
        .port_status
        .unwrap_or_default()
        .ports
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
        slot: task.slot.and_then(|slot| u64::try_from(slot).ok()).unwrap_or(0),
        node: task.node_id.unwrap_or_default(),
        container: status
            .container_status
            .and_then(|container| container.container_id)
            .filter(|id| !id.is_empty()),
        phase: match phase(state) {
            // A state that this program does not know is no reason to send clients there.
            None => Phase::After,
            Some(phase) => phase,
        },
        wanted: task.desired_state.and_then(phase).is_some_and(|phase| phase != Phase::After),
        state: state.to_string(),
        error: status.err.filter(|error| !error.is_empty()),
        ports,
    })
}

fn phase(state: TaskState) -> Option<Phase> {
    match state {
        TaskState::NEW
        | TaskState::ALLOCATED
        | TaskState::PENDING
        | TaskState::ASSIGNED
        | TaskState::ACCEPTED
        | TaskState::PREPARING
        | TaskState::READY
        | TaskState::STARTING => Some(Phase::Before),
        TaskState::RUNNING => Some(Phase::Running),
        TaskState::COMPLETE
        | TaskState::SHUTDOWN
        | TaskState::FAILED
        | TaskState::REJECTED
        | TaskState::REMOVE
        | TaskState::ORPHANED => Some(Phase::After),
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
    Some((node.id?, NodeView { name, addr, down: status.state == Some(NodeState::DOWN) }))
}

pub(super) fn network(network: Network) -> Option<(String, NetworkView)> {
    let view = NetworkView {
        name: network.name.unwrap_or_default(),
        driver: network.driver.unwrap_or_default(),
        ingress: network.ingress.unwrap_or(false),
    };
    Some((network.id?, view))
}

/// The containers on a bridge, by id. The sandbox of Docker's routing mesh is no container.
pub(super) fn bridge(network: NetworkInspect) -> HashMap<String, Vec<LocalAddress>> {
    let containers =
        network.containers.into_iter().flatten().filter(|(id, _)| id != "ingress-sbox");
    containers
        .filter_map(|(id, endpoint)| {
            let (addr, v6) = both([endpoint.ipv4_address, endpoint.ipv6_address])?;
            Some((id, vec![LocalAddress { network: GWBRIDGE.to_owned(), addr, v6 }]))
        })
        .collect()
}

pub(super) fn container(container: ContainerSummary) -> Option<(String, Vec<LocalAddress>)> {
    let networks =
        container.network_settings.and_then(|settings| settings.networks).unwrap_or_default();
    let mut addresses: Vec<LocalAddress> = networks
        .into_iter()
        .filter_map(|(network, endpoint)| {
            let (addr, v6) = both([endpoint.ip_address, endpoint.global_ipv6_address])?;
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

fn port(port: &EndpointPortConfig) -> Option<PortView> {
    let number = |number: Option<i64>| number.and_then(|number| u16::try_from(number).ok());
    Some(PortView {
        published: number(port.published_port).unwrap_or(0),
        target: number(port.target_port).filter(|target| *target != 0)?,
        proto: match port.protocol {
            Some(Protocol::UDP) => Some(Proto::Udp),
            Some(Protocol::SCTP) => None,
            _ => Some(Proto::Tcp),
        },
        host_mode: port.publish_mode == Some(Mode::HOST),
    })
}

/// An address with or without a prefix length or a port.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.split('/').next()?;
    bare.parse().ok().or_else(|| bare.parse::<std::net::SocketAddr>().ok().map(|addr| addr.ip()))
}

//! From containers with labels to services with backends.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, PortSummaryTypeEnum};

use super::Seen;
use crate::labels::{self, Instance, Memory};
use crate::model::{Backend, LabelError, Proto, Publish, Service, ServiceConfig, State};
use crate::provider::contest;

/// The little of a container that matters here.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Container {
    pub(super) id: String,
    pub(super) name: String,
    /// Seconds since 1970.
    pub(super) created: i64,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) phase: Phase,
    /// Addresses by network, in the order of their names; the IPv6 one beside one of IPv4.
    pub(super) addresses: BTreeMap<String, (IpAddr, Option<Ipv6Addr>)>,
    pub(super) on_host: bool,
    pub(super) ports: Vec<Port>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Starting,
    Running,
    Paused,
    Unhealthy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) target: u16,
    pub(super) proto: Proto,
    /// On every address of the host; one that is bound to a single address is Docker's alone.
    pub(super) published: Option<u16>,
}

/// A network that containers are on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Network {
    pub(super) bridge: bool,
}

impl Network {
    /// By its name.
    pub(super) fn decode(network: bollard::models::Network) -> Option<(String, Self)> {
        Some((network.name?, Self { bridge: network.driver.as_deref() == Some("bridge") }))
    }
}

impl Container {
    pub(super) fn decode(container: ContainerSummary) -> Option<Self> {
        let settings = container.network_settings.unwrap_or_default();
        let host = container.host_config.unwrap_or_default();
        let status = container.status.unwrap_or_default();
        let address = |text: Option<String>| text.and_then(|text| text.parse::<IpAddr>().ok());
        let addresses =
            settings.networks.into_iter().flatten().filter_map(|(network, endpoint)| {
                let pair = both([endpoint.ip_address, endpoint.global_ipv6_address])?;
                Some((network, pair))
            });
        let ports = container.ports.into_iter().flatten().filter_map(|port| {
            let proto = match port.typ {
                Some(PortSummaryTypeEnum::UDP) => Proto::Udp,
                Some(PortSummaryTypeEnum::SCTP) => return None,
                _ => Proto::Tcp,
            };
            let everywhere = address(port.ip).is_none_or(|addr| addr.is_unspecified());
            Some(Port {
                target: port.private_port,
                proto,
                published: port.public_port.filter(|_| everywhere),
            })
        });
        Some(Self {
            id: container.id?,
            name: container.names.into_iter().flatten().next()?.trim_start_matches('/').to_owned(),
            created: container.created.unwrap_or(0),
            labels: container.labels.into_iter().flatten().collect(),
            phase: match container.state {
                Some(ContainerSummaryStateEnum::RUNNING) if status.contains("(unhealthy)") => {
                    Phase::Unhealthy
                }
                Some(ContainerSummaryStateEnum::RUNNING)
                    if status.contains("(health: starting)") =>
                {
                    Phase::Starting
                }
                Some(ContainerSummaryStateEnum::RUNNING) => Phase::Running,
                Some(ContainerSummaryStateEnum::PAUSED) => Phase::Paused,
                _ => Phase::Starting,
            },
            addresses: addresses.collect(),
            on_host: host.network_mode.as_deref() == Some("host"),
            ports: ports.collect(),
        })
    }

    /// Whether it will soon look different.
    pub(super) fn unsettled(&self, stopping: &HashSet<String>) -> bool {
        self.is_ours() && (self.phase == Phase::Starting || stopping.contains(&self.id))
    }

    /// Whether it has labels of sticky. Tasks of a Swarm are the Swarm provider's.
    fn is_ours(&self) -> bool {
        !self.labels.contains_key("com.docker.swarm.task.id")
            && self.labels.keys().any(|label| labels::is_ours(label))
    }

    /// The service it belongs to: that of its compose file, or itself.
    fn service(&self) -> String {
        let label = |name: &str| self.labels.get(&format!("com.docker.compose.{name}"));
        match (label("project"), label("service")) {
            (Some(project), Some(service)) => format!("{project}_{service}"),
            _ => self.name.clone(),
        }
    }
}

/// The address that Docker's texts give, with or without a prefix length, and the IPv6 one where there are both.
pub(crate) fn both(texts: [Option<String>; 2]) -> Option<(IpAddr, Option<Ipv6Addr>)> {
    let parse = |text: String| text.split('/').next()?.parse::<IpAddr>().ok();
    let [first, second] = texts.map(|text| text.and_then(parse));
    let v6 = match (first, second) {
        (Some(IpAddr::V4(_)), Some(IpAddr::V6(v6))) => Some(v6),
        _ => None,
    };
    Some((first.or(second)?, v6))
}

/// The services of this instance, oldest first. The newest container's labels are those of its service.
pub(super) fn services(seen: &Seen, instance: &Instance, memory: &mut Memory) -> Vec<Arc<Service>> {
    let mut groups: HashMap<String, Vec<&Container>> = HashMap::new();
    let ours = |container: &&Container| container.is_ours() && instance.serves(&container.labels);
    for container in seen.containers.iter().filter(ours) {
        groups.entry(container.service()).or_default().push(container);
    }
    let mut groups: Vec<(String, Vec<&Container>)> = groups.into_iter().collect();
    for (_, containers) in &mut groups {
        containers.sort_by_key(|container| (container.created, &container.id));
    }
    groups.sort_by_key(|(name, containers)| {
        (containers.first().map(|first| first.created), name.clone())
    });
    let mut services: Vec<Arc<Service>> = groups
        .iter()
        .filter_map(|(name, containers)| service(name, containers, seen, instance, memory))
        .map(Arc::new)
        .collect();
    memory.keep(&groups.iter().map(|(name, _)| name.as_str()).collect());
    let others = seen.containers.iter().filter(|container| {
        let service = container.service();
        !services.iter().any(|ours| ours.config.ip_hash && ours.name == service)
    });
    let dockers: HashMap<(u16, Proto), String> = others
        .flat_map(|other| {
            other.ports.iter().filter_map(|p| Some(((p.published?, p.proto), other.service())))
        })
        .collect();
    contest(&mut services, &dockers);
    services
}

fn service(
    name: &str,
    containers: &[&Container],
    seen: &Seen,
    instance: &Instance,
    memory: &mut Memory,
) -> Option<Service> {
    let newest = containers.last()?;
    let settled = memory.settle(name, labels::read(&newest.labels, instance));
    let mut service = Service {
        id: name.to_owned(),
        name: name.to_owned(),
        config: ServiceConfig::default(),
        publish: Vec::new(),
        backends: Vec::new(),
        errors: settled.errors,
    };
    let Some(config) = settled.config else { return Some(service) };
    let ports = || containers.iter().flat_map(|container| &container.ports);
    let targets: BTreeSet<u16> =
        ports().filter(|port| port.proto == Proto::Tcp).map(|port| port.target).collect();
    let port = match (config.port, targets.first()) {
        (Some(port), _) => port,
        (None, Some(target)) if targets.len() == 1 => *target,
        _ => 0,
    };
    // Before it runs, Docker does not list the ports of a container.
    let runs = containers.iter().any(|container| container.phase == Phase::Running);
    if runs && port == 0 && (!config.hosts.is_empty() || config.default_backend) {
        service.errors.push(LabelError {
            label: "com.docker.lb.port".to_owned(),
            value: String::new(),
            message: "is missing, and there is not exactly one port to take instead: its hosts cannot be served".to_owned(),
            hint: "set com.docker.lb.port to the port that the container listens on".to_owned(),
        });
    }
    if config.ip_hash {
        let published = ports().filter_map(|port| {
            Some(Publish { port: port.published?, target: port.target, proto: port.proto })
        });
        service.publish = published.chain(config.listen.iter().copied()).collect();
    }
    service.backends =
        containers.iter().filter_map(|container| backend(container, &config, seen, port)).collect();
    service.config = config;
    Some(service)
}

fn backend(
    container: &Container,
    config: &ServiceConfig,
    seen: &Seen,
    port: u16,
) -> Option<Backend> {
    if seen.dead.contains(&container.id) {
        return None;
    }
    let bridges = container
        .addresses
        .iter()
        .filter(|(network, _)| seen.networks.get(*network).is_some_and(|n| n.bridge));
    let wanted = config.network.as_ref().and_then(|network| container.addresses.get(network));
    let (ip, addr_v6) = match wanted.or_else(|| bridges.map(|(_, pair)| pair).next()) {
        Some((addr, v6)) => (Some(*addr), *v6),
        None if container.on_host => (Some(IpAddr::V4(Ipv4Addr::LOCALHOST)), None),
        None => (None, None),
    };
    let running = match container.phase {
        Phase::Starting => (State::Starting, Some("its container is starting")),
        Phase::Paused => (State::Down, Some("its container is paused")),
        Phase::Unhealthy => (State::Down, Some("its container is unhealthy")),
        Phase::Running if ip.is_none() => {
            (State::Down, Some("it is on no network that this host reaches it on"))
        }
        Phase::Running => (State::Up, None),
    };
    let (state, reason) = match running {
        (State::Up | State::Down, _) if seen.stopping.contains(&container.id) => {
            (State::Draining(config.drain), Some("its container was told to stop"))
        }
        running => running,
    };
    Some(Backend {
        id: container.id.clone(),
        name: container.name.clone(),
        addr: ip.map(|ip| SocketAddr::new(ip, port)),
        node: String::new(),
        addr_v6,
        layer4: !container.on_host,
        weight: 1,
        state,
        reason: reason.map(ToOwned::to_owned),
        outgoing: false,
    })
}

//! The ports of a service: the one for requests, and those that clients connect to.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use super::build::mistake;
use super::view::{Cluster, ServiceView};
use crate::model::{LabelError, Proto, Publish, Service, ServiceConfig};

/// The container's port for requests: the label's, or the only TCP port that is published. 0 if there is none.
pub(super) fn request_port(
    view: &ServiceView,
    config: &ServiceConfig,
    routed: bool,
    errors: &mut Vec<LabelError>,
) -> u16 {
    if let Some(port) = config.port {
        return port;
    }
    let tcp = view.ports.iter().filter(|port| port.proto == Some(Proto::Tcp));
    let targets: BTreeSet<u16> = tcp.map(|port| port.target).collect();
    match (targets.first(), targets.len()) {
        (Some(target), 1) => return *target,
        _ if !routed => {}
        (None, _) => errors.push(mistake(
            "com.docker.lb.port",
            "is missing, and the service publishes no port to take instead: its hosts cannot be served",
            "set com.docker.lb.port to the port that the container listens on",
        )),
        (Some(target), _) => errors.push(mistake(
            "com.docker.lb.port",
            "is missing, and the service publishes several ports: its hosts cannot be served",
            &format!("set com.docker.lb.port, such as `{target}`"),
        )),
    }
    0
}

/// The ports that lead to the service at layer 4: Docker's and those of its label.
pub(super) fn published(
    view: &ServiceView,
    config: &ServiceConfig,
    errors: &mut Vec<LabelError>,
) -> Vec<Publish> {
    let mut ports = Vec::new();
    for port in &view.ports {
        match port.proto {
            // A host-mode port without a fixed number is another one on each task.
            _ if port.published == 0 => {}
            Some(proto) => ports.push(Publish { port: port.published, target: port.target, proto }),
            None => errors.push(LabelError {
                value: format!("{}/sctp", port.published),
                ..mistake(
                    "publish",
                    "is SCTP, which sticky does not carry",
                    "publish it as TCP or UDP",
                )
            }),
        }
    }
    ports.extend(&config.listen);
    ports
}

/// The ports that Docker forwards for services without `ip_hash`, with their owner's name.
pub(super) fn docker_ports(
    cluster: &Cluster,
    services: &[Arc<Service>],
) -> HashMap<(u16, Proto), String> {
    let balanced: HashSet<&str> = services
        .iter()
        .filter(|service| service.config.ip_hash)
        .map(|service| service.id.as_str())
        .collect();
    let others = cluster.services.values().filter(|view| !balanced.contains(view.id.as_str()));
    others
        .flat_map(|view| {
            let ports = view.ports.iter().filter(|port| port.published != 0);
            ports.filter_map(|port| Some(((port.published, port.proto?), view.name.clone())))
        })
        .collect()
}

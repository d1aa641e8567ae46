//! `sticky status`: the state of this node, as JSON for programs and as a table for people.

pub mod table;

use std::collections::HashMap;
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use crate::control::{Counters, InForce, InForceService, Interface};
use crate::drains::Drain;
use crate::firewall::Bypassed;
use crate::model::{Backend, LabelError, Service, ServiceConfig, Snapshot};
use crate::provider::ProviderStatus;

/// The whole answer; the names of its fields are part of the interface to users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub node: String,
    pub version: String,
    /// Counts the map commits of this node.
    pub generation: u64,
    pub datapath: DatapathStatus,
    pub provider: ProviderState,
    /// What the operator drains, such as `node host1`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub drains: Vec<String>,
    pub services: Vec<ServiceStatus>,
    /// The host's rules that do not hold for a frontend at layer 4.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub firewall: Vec<Bypassed>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DatapathStatus {
    pub interfaces: Vec<InterfaceStatus>,
    pub table_size: u32,
    /// Client records that fit; the oldest go when all are taken.
    pub max_clients: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct InterfaceStatus {
    pub name: String,
    /// `native`, `generic`, or `none` while nothing can be attached.
    pub mode: String,
    pub pinned: bool,
    /// Why nothing is attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProviderState {
    /// `swarm`, `docker` or `file`.
    pub kind: String,
    pub connected: bool,
    pub error: Option<String>,
    /// When the source was last read whole; of an earlier run while it could not be read yet.
    pub last_update: String,
    /// From the event to the maps in force, at the last change.
    pub last_update_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    pub name: String,
    pub id: String,
    /// `ip-hash`, `cookie`, `header` or `none`.
    pub affinity: String,
    pub hosts: Vec<String>,
    pub errors: Vec<LabelError>,
    pub frontends: Vec<FrontendStatus>,
    /// Clients with a record.
    pub clients: u64,
    pub backends: Vec<BackendStatus>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct FrontendStatus {
    pub addr: String,
    pub port: u16,
    /// `tcp` or `udp`.
    pub proto: String,
    /// `xdp`, `proxy` or `relay`.
    pub path: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    pub id: String,
    pub name: String,
    pub addr: Option<String>,
    pub node: String,
    /// `up`, `starting`, `draining` or `down`.
    pub state: String,
    pub weight: u32,
    pub slots: u32,
    pub packets: u64,
    pub bytes: u64,
    pub requests: u64,
    /// Why it is not up.
    pub reason: Option<String>,
}

/// What a status is made from.
pub(crate) struct Parts<'a> {
    pub node: &'a str,
    pub table_size: u32,
    pub max_clients: u32,
    pub interfaces: Vec<Interface>,
    pub provider: &'a ProviderStatus,
    pub found: &'a Snapshot,
    pub in_force: Option<&'a InForce>,
    pub counters: &'a Counters,
    pub drains: &'a [Drain],
    /// Requests by service id and backend id.
    pub requests: &'a dyn Fn(&str, &str) -> u64,
}

pub(crate) fn build(parts: &Parts<'_>) -> Status {
    let none = InForceService::default();
    let in_force: HashMap<&str, &InForceService> = parts
        .in_force
        .map(|f| f.services.iter().map(|service| (service.id.as_str(), &**service)).collect())
        .unwrap_or_default();
    let snapshot = parts.in_force.map_or(parts.found, |f| &f.snapshot);
    Status {
        node: parts.node.to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        generation: parts.in_force.map_or(0, |f| f.generation),
        datapath: DatapathStatus {
            interfaces: parts.interfaces.iter().cloned().map(Into::into).collect(),
            table_size: parts.table_size,
            max_clients: parts.max_clients,
        },
        provider: ProviderState {
            kind: parts.provider.kind.to_owned(),
            connected: parts.provider.connected,
            error: parts.provider.error.clone(),
            last_update: rfc3339(parts.provider.last_update),
            last_update_ms: parts
                .in_force
                .map_or(0, |f| u64::try_from(f.took.as_millis()).unwrap_or(u64::MAX)),
        },
        drains: parts.drains.iter().map(ToString::to_string).collect(),
        services: snapshot
            .services
            .iter()
            .map(|s| service(s, in_force.get(s.id.as_str()).unwrap_or(&&none), parts))
            .collect(),
        firewall: Vec::new(),
    }
}

fn service(service: &Service, in_force: &InForceService, parts: &Parts<'_>) -> ServiceStatus {
    ServiceStatus {
        name: service.name.clone(),
        id: service.id.clone(),
        affinity: affinity(&service.config).to_owned(),
        hosts: service.config.hosts.iter().map(ToString::to_string).collect(),
        errors: service.errors.iter().chain(&in_force.errors).cloned().collect(),
        frontends: in_force
            .frontends
            .iter()
            .map(|f| FrontendStatus {
                addr: f.frontend.addr.to_string(),
                port: f.frontend.port,
                proto: f.frontend.proto.as_str().to_owned(),
                path: f.path.as_str().to_owned(),
            })
            .collect(),
        clients: parts.counters.clients.get(&service.id).copied().unwrap_or(0),
        backends: service.backends.iter().map(|b| backend(b, service, in_force, parts)).collect(),
    }
}

fn backend(
    backend: &Backend,
    of: &Service,
    in_force: &InForceService,
    parts: &Parts<'_>,
) -> BackendStatus {
    let (packets, bytes) = parts.counters.backends.get(&backend.id).copied().unwrap_or_default();
    BackendStatus {
        id: backend.id.clone(),
        name: backend.name.clone(),
        addr: backend.addr.map(|addr| addr.to_string()),
        node: backend.node.clone(),
        state: backend.state.as_str().to_owned(),
        weight: backend.weight,
        slots: in_force.slots.get(&backend.id).copied().unwrap_or(0),
        packets,
        bytes,
        requests: (parts.requests)(&of.id, &backend.id),
        reason: backend.reason.clone(),
    }
}

/// The affinity that layer 7 follows first; layer 4 follows `ip_hash` whatever it says.
pub(crate) fn affinity(config: &ServiceConfig) -> &'static str {
    match config {
        ServiceConfig { cookie: Some(_), .. } => "cookie",
        ServiceConfig { header: Some(_), .. } => "header",
        ServiceConfig { ip_hash: true, .. } => "ip-hash",
        _ => "none",
    }
}

impl Status {
    /// Says at each service of layer 4 what a relay that does not work means.
    pub(crate) fn without_relay(&mut self, trouble: &str) {
        for service in self.services.iter_mut().filter(|service| !service.frontends.is_empty()) {
            service.errors.push(LabelError {
                label: "publish".to_owned(),
                value: String::new(),
                message: format!(
                    "clients on this host, and of another IP version than the backends, are not balanced: {trouble}"
                ),
                hint: "the relay needs nftables with NAT in the kernel: nf_tables, nft_redir, nft_ct"
                    .to_owned(),
            });
        }
    }

    /// Whether there are nearly as many clients as can be remembered.
    #[must_use]
    pub fn short_of_records(&self) -> bool {
        let clients: u64 = self.services.iter().map(|service| service.clients).sum();
        // An LRU map begins to evict a little before it is full.
        clients * 10 >= u64::from(self.datapath.max_clients) * 9
    }
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(time).to_string()
}

impl From<Interface> for InterfaceStatus {
    fn from(Interface { name, mode, pinned, problem }: Interface) -> Self {
        Self { name, mode, pinned, problem }
    }
}

#[cfg(test)]
pub(crate) mod tests;

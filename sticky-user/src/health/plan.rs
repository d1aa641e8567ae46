//! What is checked of a backend.

use std::net::SocketAddr;

use crate::model::{
    Backend, BackendMode, HealthConfig, HostPattern, Proto, ProxyProtocol, Service, State,
};

/// How a backend is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Where a TCP connection is enough.
    pub(super) connect: Vec<SocketAddr>,
    pub(super) http: Option<Http>,
    pub(super) config: HealthConfig,
}

/// A GET that is answered with 2xx or 3xx.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Http {
    pub(super) addr: SocketAddr,
    pub(super) path: String,
    pub(super) host: String,
    pub(super) proxy_protocol: Option<ProxyProtocol>,
}

impl Plan {
    /// `None` where its container's state has to do: it has no TCP port, or is not running.
    pub(super) fn of(service: &Service, backend: &Backend) -> Option<Self> {
        let config = &service.config;
        // Docker's virtual address answers whether or not anything is behind it, and not on every host.
        if config.backend_mode == BackendMode::Vip
            || !matches!(backend.state, State::Up | State::Draining(_))
        {
            return None;
        }
        let addr = backend.addr?;
        let routed = !config.hosts.is_empty() || config.default_backend;
        let mut connect = Vec::new();
        if routed && addr.port() != 0 {
            connect.push(addr);
        }
        if config.ip_hash && backend.layer4 {
            let tcp = service.publish.iter().filter(|publish| publish.proto == Proto::Tcp);
            connect.extend(tcp.map(|publish| SocketAddr::new(addr.ip(), publish.target)));
        }
        let mut seen = std::collections::HashSet::new();
        connect.retain(|addr| seen.insert(*addr));
        let asked = *connect.first()?;
        let http = config.health.path.clone().map(|path| {
            connect.retain(|addr| *addr != asked);
            Http {
                addr: asked,
                path,
                host: host(&config.hosts, asked),
                proxy_protocol: config.proxy_protocol,
            }
        });
        Some(Self { connect, http, config: config.health.clone() })
    }
}

/// A host name that the application knows.
fn host(hosts: &[HostPattern], addr: SocketAddr) -> String {
    let exact = hosts.iter().find_map(|host| match host {
        HostPattern::Exact(name) => Some(name.clone()),
        HostPattern::Wildcard(_) => None,
    });
    exact.unwrap_or_else(|| addr.to_string())
}

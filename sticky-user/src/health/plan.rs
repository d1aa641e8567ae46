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
    /// Where a datagram is to bring back no refusal; only of what has nothing else to ask.
    pub(super) datagrams: Vec<SocketAddr>,
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
    /// `None` where its container's state has to do: it has no port of its own, or is not running.
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
        let Some(&asked) = connect.first() else {
            let datagrams = datagrams(service, backend, addr);
            let only = Self { connect, http: None, datagrams, config: config.health.clone() };
            return (!only.datagrams.is_empty()).then_some(only);
        };
        let http = config.health.path.clone().map(|path| {
            connect.retain(|addr| *addr != asked);
            Http {
                addr: asked,
                path,
                host: host(&config.hosts, asked),
                proxy_protocol: config.proxy_protocol,
            }
        });
        Some(Self { connect, http, datagrams: Vec::new(), config: config.health.clone() })
    }
}

/// The UDP ports that packets are sent to.
fn datagrams(service: &Service, backend: &Backend, addr: SocketAddr) -> Vec<SocketAddr> {
    let sent = service.config.ip_hash && backend.layer4;
    let udp = service.publish.iter().filter(|publish| sent && publish.proto == Proto::Udp);
    let mut ports: Vec<_> = udp.map(|publish| publish.target).collect();
    ports.sort_unstable();
    ports.dedup();
    ports.into_iter().map(|port| SocketAddr::new(addr.ip(), port)).collect()
}

/// A host name that the application knows.
fn host(hosts: &[HostPattern], addr: SocketAddr) -> String {
    let exact = hosts.iter().find_map(|host| match host {
        HostPattern::Exact(name) => Some(name.clone()),
        HostPattern::Wildcard(_) => None,
    });
    exact.unwrap_or_else(|| addr.to_string())
}

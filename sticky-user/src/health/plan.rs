//! What is checked of a backend.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use crate::model::{Backend, HealthConfig, HostPattern, Proto, ProxyProtocol, Service, State};

/// How a backend is asked whether it is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Where a TCP connection is enough.
    pub(super) connect: Vec<SocketAddr>,
    pub(super) http: Option<Http>,
    /// Where a datagram is to bring back no refusal; only of what has nothing else to ask.
    pub(super) datagrams: Vec<SocketAddr>,
    /// Where it is asked, once, whether its application answers at its IPv6 address as well.
    pub(super) v6: V6,
    pub(super) config: HealthConfig,
}

/// The ports of an IPv6 address beside one of IPv4; all of them are of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct V6 {
    pub(super) connect: Vec<SocketAddr>,
    pub(super) datagrams: Vec<SocketAddr>,
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
        if !matches!(backend.state, State::Up | State::Draining(_)) {
            return None;
        }
        let addr = backend.addr?;
        let routed = !config.hosts.is_empty() || config.default_backend;
        let v6 = V6::of(service, backend);
        let mut connect = Vec::new();
        if routed && addr.port() != 0 {
            connect.push(addr);
        }
        connect.extend(targets(service, backend, Proto::Tcp, addr.ip()));
        let mut seen = std::collections::HashSet::new();
        connect.retain(|addr| seen.insert(*addr));
        let Some(&asked) = connect.first() else {
            let datagrams = targets(service, backend, Proto::Udp, addr.ip());
            let only = Self { connect, http: None, datagrams, v6, config: config.health.clone() };
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
        Some(Self { connect, http, datagrams: Vec::new(), v6, config: config.health.clone() })
    }
}

impl V6 {
    fn of(service: &Service, backend: &Backend) -> Self {
        let Some(addr) = backend.addr_v6.map(IpAddr::V6) else { return Self::default() };
        let connect = targets(service, backend, Proto::Tcp, addr);
        let udp = if connect.is_empty() { Some(Proto::Udp) } else { None };
        let datagrams = udp.map(|udp| targets(service, backend, udp, addr)).unwrap_or_default();
        Self { connect, datagrams }
    }

    pub(super) fn addr(&self) -> Option<IpAddr> {
        self.connect.iter().chain(&self.datagrams).map(SocketAddr::ip).next()
    }
}

/// The ports that packets are sent to, at an address of a backend.
fn targets(service: &Service, backend: &Backend, proto: Proto, addr: IpAddr) -> Vec<SocketAddr> {
    let sent = service.config.ip_hash && backend.layer4;
    let all = service.publish.iter().filter(|publish| sent && publish.proto == proto);
    let ports: BTreeSet<u16> = all.map(|publish| publish.target).collect();
    ports.into_iter().map(|port| SocketAddr::new(addr, port)).collect()
}

/// A host name that the application knows.
fn host(hosts: &[HostPattern], addr: SocketAddr) -> String {
    let exact = hosts.iter().find_map(|host| match host {
        HostPattern::Exact(name) => Some(name.clone()),
        HostPattern::Wildcard(_) => None,
    });
    exact.unwrap_or_else(|| addr.to_string())
}

//! What sticky knows of the cluster: plain data, no IO. A provider always hands over the whole of it.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// Everything a provider found. The services come oldest first: the older one keeps a contested frontend.
///
/// A service that is as it was is the same `Arc` in the next snapshot, so that whoever made something of it need not look
/// at it again: the cost of a change is that of what changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub services: Vec<Arc<Service>>,
}

impl Snapshot {
    /// Puts `last`'s services in the place of equal ones.
    #[must_use]
    pub fn reusing(mut self, last: &Self) -> Self {
        let by_id = LazyCell::new(|| {
            last.services.iter().map(|known| (known.id.as_str(), known)).collect::<HashMap<_, _>>()
        });
        for (at, service) in self.services.iter_mut().enumerate() {
            // Mostly where it was.
            let there = last.services.get(at).filter(|known| known.id == service.id);
            let known = there.or_else(|| by_id.get(service.id.as_str()).copied());
            if let Some(known) = known.filter(|known| *known == service) {
                *service = Arc::clone(known);
            }
        }
        self
    }
}

/// Whether both are the same services in the same order, as they were or not.
#[must_use]
pub fn in_place(known: &[Arc<Service>], now: &[Arc<Service>]) -> bool {
    let mut pairs = known.iter().zip(now);
    known.len() == now.len()
        && pairs.all(|(known, now)| Arc::ptr_eq(known, now) || known.id == now.id)
}

/// Has `known` be the same as `now`, without touching those that already are.
pub fn take_over(known: &mut Vec<Arc<Service>>, now: &[Arc<Service>]) {
    if known.len() != now.len() {
        *known = now.to_vec();
        return;
    }
    for (known, now) in known.iter_mut().zip(now).filter(|(known, now)| !Arc::ptr_eq(known, now)) {
        *known = Arc::clone(now);
    }
}

/// A service as a user wrote it, with its backends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Swarm's service id; the name with a file provider.
    pub id: String,
    pub name: String,
    pub config: ServiceConfig,
    /// Ports that were published in Docker's way or by `sticky.l4.listen`.
    pub publish: Vec<Publish>,
    pub backends: Vec<Backend>,
    /// Mistakes in its labels, and what makes it unreachable.
    pub errors: Vec<LabelError>,
}

/// The labels, read and checked (contract, section 4).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceConfig {
    pub hosts: Vec<HostPattern>,
    /// The container's port; `None`: the only target port it publishes.
    pub port: Option<u16>,
    pub network: Option<String>,
    /// Path prefix without a trailing slash; `None`: every path.
    pub context_root: Option<String>,
    pub context_root_rewrite: bool,
    pub default_backend: bool,
    pub ssl_only: bool,
    pub redirects: Vec<Redirect>,
    pub backend_mode: BackendMode,
    pub service_cluster: Option<String>,
    pub max_fails: u32,
    pub fail_timeout: Duration,
    pub ip_hash: bool,
    pub cookie: Option<CookieAffinity>,
    /// Affinity by a header that the application issues.
    pub header: Option<String>,
    /// Zero: new connections follow the hash.
    pub affinity_ttl: Duration,
    pub ip_prefix: IpPrefix,
    /// `sticky.l4.listen`; part of the service's `publish` too.
    pub listen: Vec<Publish>,
    pub drain: DrainMode,
    pub on_loss: OnLoss,
    /// Share among services of one host; `None`: its number of up backends.
    pub weight: Option<u32>,
    pub health: HealthConfig,
    pub slow_start: Duration,
    pub max_connections: Option<u32>,
    pub proxy_protocol: Option<ProxyProtocol>,
    pub allow: Vec<IpNet>,
    pub deny: Vec<IpNet>,
    /// New connections or requests per second and client.
    pub rate: Option<u32>,
}

impl Default for ServiceConfig {
    fn default() -> Self {
        Self {
            hosts: Vec::new(),
            port: None,
            network: None,
            context_root: None,
            context_root_rewrite: false,
            default_backend: false,
            ssl_only: false,
            redirects: Vec::new(),
            backend_mode: BackendMode::Task,
            service_cluster: None,
            max_fails: 3,
            fail_timeout: Duration::from_secs(10),
            ip_hash: false,
            cookie: None,
            header: None,
            affinity_ttl: Duration::from_secs(3600),
            ip_prefix: IpPrefix { v4: 32, v6: 64 },
            listen: Vec::new(),
            drain: DrainMode::Connections,
            on_loss: OnLoss::Failover,
            weight: None,
            health: HealthConfig::default(),
            slow_start: Duration::ZERO,
            max_connections: None,
            proxy_protocol: None,
            allow: Vec::new(),
            deny: Vec::new(),
            rate: None,
        }
    }
}

/// A host name in lower case, or all names below a domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum HostPattern {
    Exact(String),
    /// `*.b.com`, kept as `b.com`.
    Wildcard(String),
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(host) => f.write_str(host),
            Self::Wildcard(domain) => write!(f, "*.{domain}"),
        }
    }
}

/// `com.docker.lb.redirects`: requests for `source` are sent to `target`, path and query kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// Host name in lower case.
    pub source: String,
    /// Scheme and authority, no trailing slash.
    pub target: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BackendMode {
    Task,
    Vip,
}

/// Cookie affinity (contract, section 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CookieAffinity {
    /// The application's cookies; may be empty in `insert` mode.
    pub names: Vec<String>,
    pub mode: CookieMode,
    /// Name of our own cookie; `None`: the proxy makes one for each route.
    pub own_name: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum CookieMode {
    Learn,
    Insert,
    Hash,
}

/// How many leading bits of an address make one client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpPrefix {
    pub v4: u8,
    pub v6: u8,
}

/// What a backend that Swarm is ending keeps (contract, section 6.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DrainMode {
    Connections,
    Sessions,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnLoss {
    Failover,
    Strict,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyProtocol {
    V1,
    V2,
}

/// `sticky.health.*`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthConfig {
    /// `None`: a TCP connect is enough.
    pub path: Option<String>,
    pub interval: Duration,
    pub timeout: Duration,
    /// Successes until a backend that was down is up.
    pub rise: u32,
    /// Failures until one that was up is down.
    pub fall: u32,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            path: None,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(1),
            rise: 2,
            fall: 3,
        }
    }
}

/// A port clients connect to, and the backend's port behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Publish {
    pub port: u16,
    pub target: u16,
    pub proto: Proto,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    Tcp,
    Udp,
}

impl Proto {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// IP protocol number (IANA).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A task, or a line of a file of services.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    /// Swarm's task id; affinity is bound to it, not to the address.
    pub id: String,
    /// `demo.1`.
    pub name: String,
    /// Where it answers from this host: address, and the port for requests (0: it has none).
    pub addr: Option<SocketAddr>,
    /// Its IPv6 address for layer 4, where `addr` is of IPv4: the same ports answer there.
    #[serde(default)]
    pub addr_v6: Option<Ipv6Addr>,
    /// Where other ports of it are; ports of `publish` go to this address at layer 4.
    pub node: String,
    /// Whether layer 4 can deliver to it; `false`: only the proxy reaches it, at `addr`.
    pub layer4: bool,
    pub weight: u32,
    pub state: State,
    /// Why it is not up.
    pub reason: Option<String>,
    /// An update will soon put another in its place. It takes new clients all the same, but who has just lost a backend is
    /// spared a second move.
    #[serde(default)]
    pub outgoing: bool,
}

/// Contract, section 6.1. A backend that is gone is no longer in the snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    Starting,
    Up,
    /// Gets no new client; what its own clients may still do depends on the mode.
    Draining(DrainMode),
    Down,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Up => "up",
            Self::Draining(_) => "draining",
            Self::Down => "down",
        }
    }

    /// Whether established connections and requests in progress may go on.
    #[must_use]
    pub const fn alive(self) -> bool {
        !matches!(self, Self::Starting)
    }

    /// Whether new connections and pinned requests of known clients go there.
    #[must_use]
    pub const fn keeps(self) -> bool {
        matches!(self, Self::Up | Self::Draining(DrainMode::Sessions))
    }

    /// Whether new clients go there.
    #[must_use]
    pub const fn takes_new(self) -> bool {
        matches!(self, Self::Up)
    }
}

/// A mistake in the configuration of a service, for the log, the status and the metrics.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LabelError {
    pub label: String,
    pub value: String,
    /// What is wrong.
    pub message: String,
    /// What to do, such as the nearest valid spelling.
    pub hint: String,
}

/// An address, port and protocol that clients connect to, on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Frontend {
    pub addr: IpAddr,
    pub port: u16,
    pub proto: Proto,
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", SocketAddr::new(self.addr, self.port), self.proto.as_str())
    }
}

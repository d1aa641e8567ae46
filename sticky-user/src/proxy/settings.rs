//! What the proxy is told at its start.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use ipnet::IpNet;

/// Settings of a proxy; they hold until it ends.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where plain HTTP is taken; port 0 takes a free one; `None`: nowhere.
    pub http: Option<SocketAddr>,
    /// Threads, each with its own listener and upstream connections.
    pub workers: NonZeroUsize,
    /// Peers whose `X-Forwarded-*` and `X-Request-ID` are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// Leaves out the `x-proxy-id`, `x-server-info`, `x-upstream-*` and `x-request-id` of responses.
    pub hide_info_headers: bool,
    /// `x-proxy-id`: the name of this host.
    pub proxy_id: String,
    /// Serves the services of this cluster besides those of none.
    pub service_cluster: Option<String>,
    pub timeouts: Timeouts,
    pub limits: Limits,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            http: Some(SocketAddr::from((std::net::Ipv6Addr::UNSPECIFIED, 80))),
            workers: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            trusted_proxies: Vec::new(),
            hide_info_headers: false,
            proxy_id: String::from("sticky"),
            service_cluster: None,
            timeouts: Timeouts::default(),
            limits: Limits::default(),
        }
    }
}

/// How long each phase may take.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// From the first byte of a request's head to its end.
    pub header: Duration,
    /// A client's connection without a request.
    pub idle: Duration,
    /// A request's body without a byte.
    pub body: Duration,
    /// Bytes sent to a client and not acknowledged (TCP_USER_TIMEOUT).
    pub write: Duration,
    /// A connection to a backend.
    pub connect: Duration,
    /// From the whole request sent to the head of the response; and a request's body that the backend does not take.
    pub response: Duration,
    /// A response's body without a byte from the backend; streams of events may be silent for ever.
    pub silence: Duration,
    /// An upstream connection without a request.
    pub upstream_idle: Duration,
    /// A request for a service that has no backend just now (stop-first update).
    pub gap: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            body: Duration::from_secs(60),
            write: Duration::from_secs(75),
            connect: Duration::from_secs(2),
            response: Duration::from_secs(60),
            silence: Duration::from_secs(300),
            upstream_idle: Duration::from_secs(60),
            gap: Duration::from_secs(5),
        }
    }
}

/// What one client or backend may take up.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a request's or response's head.
    pub head: usize,
    /// Idle upstream connections kept per backend and worker; more of them for seconds, where more were in use.
    pub idle_per_backend: usize,
    /// Backends tried for one request.
    pub attempts: usize,
    /// Requests waiting for a backend of their service to appear, per worker.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { head: 64 * 1024, idle_per_backend: 256, attempts: 5, waiting: 10_000 }
    }
}

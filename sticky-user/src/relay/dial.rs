//! From a client to a connected backend: the same choice as in XDP, and another one if that refuses.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tracing::debug;

use super::Shared;
use super::routes::{Backend, Route, Routes};
use super::stats::Refusal;
use crate::model::{Frontend, Proto};

/// Backends tried for one connection.
const ATTEMPTS: usize = 3;
/// For each of them; on a bridge an answer takes microseconds, and one lost SYN is sent again after a second.
const CONNECT: Duration = Duration::from_secs(3);
/// Keys looked up until one gives another backend than those tried.
const LOOKS: usize = 32;

/// Who asks, and for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    pub(super) client: SocketAddr,
    pub(super) frontend: Frontend,
    /// A process of this host, whose address can be ours towards the backend too.
    pub(super) local: bool,
}

impl Call {
    /// The address to connect from, for the backend to see its client (P5).
    fn source(&self, backend: IpAddr) -> Option<SocketAddr> {
        let ip = self.client.ip();
        let ours = self.local && !ip.is_loopback() && ip.is_ipv4() == backend.is_ipv4();
        ours.then(|| SocketAddr::new(ip, 0))
    }
}

/// Whether this client may have one more connection, as far as labels say.
pub(super) fn admit(shared: &Shared, route: &Route, call: &Call) -> Result<(), Refusal> {
    let (service, ip) = (&route.service, call.client.ip());
    if !service.admits(ip) {
        return Err(Refusal::Denied);
    }
    match service.rate {
        Some(rate) if !service.buckets.take(service.client(ip), rate, shared.now_ms()) => {
            Err(Refusal::Rate)
        }
        _ => Ok(()),
    }
}

/// The backend of this client now; the choice is remembered, as in XDP. `None`: no backend is up.
pub(super) fn choose(shared: &Shared, route: &Route, call: &Call) -> Option<Arc<Backend>> {
    let choice = shared.clients.choose(&route.service.id, call.client.ip())?;
    debug!(
        service = route.service.stats.name, client = %call.client, backend = choice.backend,
        reason = choice.reason.as_str(), "relay chose"
    );
    route.service.stats.chose(choice.reason);
    route.service.backends.get(&choice.backend).cloned()
}

/// Waits for a backend while the service may still get one, and connects to it.
pub(super) async fn connect(
    shared: &Shared,
    call: &Call,
) -> Result<(Route, Arc<Backend>, TcpStream), Refusal> {
    let mut routes = shared.routes.subscribe();
    loop {
        let now = Arc::clone(&routes.borrow_and_update());
        let route = now.get(&call.frontend).ok_or(Refusal::NoBackend)?;
        if let Some(first) = choose(shared, &route, call) {
            let (backend, stream) = try_several(shared, &now, &route, call, first).await?;
            return Ok((route, backend, stream));
        }
        let patience = tokio::time::sleep_until(route.service.patience());
        tokio::select! {
            changed = routes.changed() => changed.map_err(|_| Refusal::NoBackend)?,
            () = patience => return Err(Refusal::NoBackend),
        }
    }
}

async fn try_several(
    shared: &Shared,
    routes: &Routes,
    route: &Route,
    call: &Call,
    first: Arc<Backend>,
) -> Result<(Arc<Backend>, TcpStream), Refusal> {
    let mut tried: Vec<Arc<Backend>> = Vec::new();
    let mut next = Some(first);
    while let Some(backend) = next {
        let to = SocketAddr::new(backend.ip(&call.frontend), route.target);
        let connecting = timeout(CONNECT, open(routes, call, to));
        match connecting.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok((backend, stream)),
            Err(error) => debug!(
                service = route.service.stats.name, backend = backend.id, addr = %to, %error,
                "a backend cannot be connected to"
            ),
        }
        tried.push(backend);
        next = if tried.len() < ATTEMPTS { another(shared, route, call, &tried) } else { None };
        if next.is_some() {
            route.service.stats.retried();
        }
    }
    Err(Refusal::Unreachable)
}

/// A backend that was not tried yet, drawn by the table: the client's record stays as it is.
fn another(
    shared: &Shared,
    route: &Route,
    call: &Call,
    tried: &[Arc<Backend>],
) -> Option<Arc<Backend>> {
    (0..LOOKS).find_map(|look| {
        let key = format!("{}/{look}", route.service.client(call.client.ip()));
        let choice = shared.clients.hashed(&route.service.id, key.as_bytes())?;
        let backend = route.service.backends.get(&choice.backend)?;
        (!tried.iter().any(|t| t.id == backend.id)).then(|| Arc::clone(backend))
    })
}

async fn open(routes: &Routes, call: &Call, to: SocketAddr) -> io::Result<TcpStream> {
    not_to_ourselves(routes, to, Proto::Tcp)?;
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if let Some(source) = call.source(to.ip()) {
        // Lets the kernel choose a port by the whole connection, and not one of 28,000 for all.
        setsockopt(&socket, sockopt::IpBindAddressNoPort, &true)?;
        socket.bind(source)?;
    }
    socket.connect(to).await
}

/// A socket whose datagrams go to this backend and come from it only.
pub(super) fn open_udp(
    routes: &Routes,
    call: &Call,
    to: SocketAddr,
) -> io::Result<tokio::net::UdpSocket> {
    not_to_ourselves(routes, to, Proto::Udp)?;
    let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    if let Some(source) = call.source(to.ip()) {
        SockRef::from(&socket).bind(&source.into())?;
    }
    socket.connect(&to.into())?;
    tokio::net::UdpSocket::from_std(socket.into())
}

/// A backend that is itself a frontend would come back to us, and so on.
fn not_to_ourselves(routes: &Routes, to: SocketAddr, proto: Proto) -> io::Result<()> {
    let frontend = Frontend { addr: to.ip(), port: to.port(), proto };
    match routes.get(&frontend) {
        Some(_) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is a frontend itself")),
        None => Ok(()),
    }
}

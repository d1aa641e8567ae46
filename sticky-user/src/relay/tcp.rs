//! TCP: one port for all frontends, since a redirected connection still knows where it was going.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::debug;

use super::dial::{self, Call};
use super::parcel::Label;
use super::pipe::{Pipe, reset};
use super::routes::{Backend, Route};
use super::stats::Refusal;
use super::succession::Leaving;
use super::{Shared, preface};
use crate::model::{Frontend, Proto};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Tries to find a port that is free in both families.
const TRIES: usize = 16;
/// When out of descriptors, connections are accepted again after this.
const BREATH: Duration = Duration::from_millis(20);
/// A peer that went away silently is noticed after about six minutes; one that is only silent may stay so.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(300))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// The listeners, and the port that they have in common.
pub(super) struct Port {
    pub(super) number: u16,
    pub(super) listeners: Vec<TcpListener>,
}

/// Opens a port of our own. A host without IPv6 has no frontends of it either.
pub(super) fn open() -> io::Result<Port> {
    for _ in 0..TRIES {
        let v4 = listen(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)?;
        let number = v4.local_addr()?.port();
        match listen(IpAddr::V6(Ipv6Addr::UNSPECIFIED), number) {
            Ok(v6) => return Ok(Port { number, listeners: vec![v4, v6] }),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(_) => return Ok(Port { number, listeners: vec![v4] }),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free in IPv4 and IPv6"))
}

fn listen(ip: IpAddr, port: u16) -> io::Result<TcpListener> {
    let addr = SocketAddr::new(ip, port);
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts until the process ends.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) {
    loop {
        match listener.accept().await {
            Ok((stream, client)) => {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move { carry(&shared, stream, client).await });
            }
            Err(error) => {
                debug!(%error, "the relay cannot accept");
                tokio::time::sleep(BREATH).await;
            }
        }
    }
}

async fn carry(shared: &Shared, client: TcpStream, from: SocketAddr) {
    let Ok(call) = call(&client, from) else {
        // Nobody gets here but by our rules, unless they are just being changed.
        return reset(&client);
    };
    let routes = Arc::clone(&shared.routes.borrow());
    let Some(route) = routes.get(&call.frontend) else { return reset(&client) };
    let stats = Arc::clone(&route.service.stats);
    let refuse = |why: Refusal| {
        stats.refuse(why);
        let (service, reason) = (&stats.name, why.as_str());
        debug!(service, client = %from, frontend = %call.frontend, reason, "relay refused");
    };
    let _open = stats.open();
    let permit = Arc::clone(&shared.room).try_acquire_owned().map_err(|_| Refusal::Full);
    let admitted = permit.and_then(|permit| dial::admit(shared, &route, &call).map(|()| permit));
    let permit = match admitted {
        Ok(permit) => permit,
        Err(why) => {
            refuse(why);
            return reset(&client);
        }
    };
    let connected = tokio::select! {
        connected = dial::connect(shared, &call) => connected,
        () = shared.cut.cancelled() => return reset(&client),
    };
    let (route, backend, mut upstream) = match connected {
        Ok(connected) => connected,
        Err(why) => {
            refuse(why);
            return reset(&client);
        }
    };
    backend.stats.connections.fetch_add(1, Ordering::Relaxed);
    if let Err(error) = begin(&route, &call, &client, &mut upstream).await {
        debug!(service = stats.name, client = %from, backend = backend.id, %error, "relay broke off");
        reset(&client);
        return reset(&upstream);
    }
    let label =
        Label { service: route.service.id.clone(), backend: backend.id.clone(), client: from };
    serve_pipe(shared, label, Pipe::new(client, upstream), &backend, permit).await;
}

/// What comes before the client's first byte.
async fn begin(
    route: &Route,
    call: &Call,
    client: &TcpStream,
    upstream: &mut TcpStream,
) -> io::Result<()> {
    prepare(client)?;
    prepare(upstream)?;
    if let Some(version) = route.service.proxy_protocol {
        let to = SocketAddr::new(call.frontend.addr, call.frontend.port);
        upstream.write_all(&preface(version, call.client, to)).await?;
    }
    Ok(())
}

/// Carries a connection until it is over, its backend is gone, or a successor takes it.
pub(super) async fn serve_pipe(
    shared: &Shared,
    label: Label,
    mut pipe: Pipe,
    backend: &Backend,
    permit: OwnedSemaphorePermit,
) {
    let why = tokio::select! {
        done = pipe.run(backend) => match done {
            Ok(()) => return,
            Err(error) => error.to_string(),
        },
        () = backend.gone.cancelled() => "the backend is gone".to_owned(),
        () = shared.cut.cancelled() => "sticky ends".to_owned(),
        () = shared.leaving.cancelled() => match shared.leave.get() {
            Some(leave) => match leave.send(Leaving { label, pipe, permit }) {
                Ok(()) => return,
                Err(mpsc::error::SendError(Leaving { pipe, .. })) => return pipe.reset(),
            },
            None => "nobody takes it over".to_owned(),
        },
    };
    let Label { client, .. } = label;
    debug!(%client, backend = backend.id, why, "relay broke off");
    // What one side does not know to be over, it is told.
    pipe.reset();
}

fn call(stream: &TcpStream, from: SocketAddr) -> io::Result<Call> {
    let socket = SockRef::from(stream);
    let original =
        if from.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() }?;
    let to = original.as_socket().ok_or(io::ErrorKind::InvalidData)?;
    let frontend = Frontend { addr: to.ip(), port: to.port(), proto: Proto::Tcp };
    // What a process of this host sends is redirected to loopback, what comes by an interface to an address of that.
    let local = stream.local_addr()?.ip().is_loopback();
    Ok(Call { client: from, frontend, local })
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&KEEPALIVE)
}

//! TCP: one port for all frontends, since a redirected connection still knows where it was going.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tracing::debug;

use super::counted::Counted;
use super::dial::{self, Call};
use super::stats::Refusal;
use super::{Shared, preface};
use crate::model::{Frontend, Proto};

/// Connections that wait to be accepted.
const BACKLOG: i32 = 4096;
/// Bytes read at once in each direction.
const BUFFER: usize = 16 * 1024;
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

async fn carry(shared: &Shared, mut client: TcpStream, from: SocketAddr) {
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
    let permit = shared.room.try_acquire().map_err(|_| Refusal::Full);
    let admitted = permit.and_then(|permit| dial::admit(shared, route, &call).map(|()| permit));
    let _permit = match admitted {
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
    let both = async {
        prepare(&client)?;
        prepare(&upstream)?;
        if let Some(version) = route.service.proxy_protocol {
            let to = SocketAddr::new(call.frontend.addr, call.frontend.port);
            upstream.write_all(&preface(version, from, to)).await?;
        }
        let mut left = Counted { stream: &mut client, written: &backend.stats.to_client };
        let mut right = Counted { stream: &mut upstream, written: &backend.stats.to_backend };
        tokio::io::copy_bidirectional_with_sizes(&mut left, &mut right, BUFFER, BUFFER).await
    };
    let ended = tokio::select! {
        ended = both => ended.map(|_| ()),
        () = backend.gone.cancelled() => Err(io::Error::other("the backend is gone")),
        () = shared.cut.cancelled() => Err(io::Error::other("sticky ends")),
    };
    if let Err(error) = ended {
        debug!(service = stats.name, client = %from, backend = backend.id, %error, "relay broke off");
        // What one side does not know to be over, it is told.
        reset(&client);
        reset(&upstream);
    }
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

/// Has the stream end with RST when it is dropped.
fn reset(stream: &TcpStream) {
    if let Err(error) = stream.set_zero_linger() {
        debug!(%error, "a connection ends without RST");
    }
}

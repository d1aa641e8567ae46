//! Listening sockets: one per worker on the same address, so that the kernel spreads the connections.
//!
//! They are bound at the start, so that an address that cannot be had is an error then, and listen when there are routes.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Connections that may wait to be accepted.
pub(super) const BACKLOG: i32 = 4096;

/// The sockets of the one before us for `addr`, or else our own, for `count` workers or, if there are more sockets than
/// that, for as many.
pub(super) fn open(
    addr: SocketAddr,
    count: usize,
    mut inherited: Vec<TcpListener>,
) -> io::Result<Vec<TcpListener>> {
    inherited.retain(|listener| listener.local_addr().is_ok_and(|of| of == addr));
    if inherited.is_empty() {
        return bind(addr, count);
    }
    let sockets = inherited.iter().cycle().take(count.max(inherited.len()));
    sockets.map(TcpListener::try_clone).collect()
}

/// Takes connections from now on.
pub(super) fn listen(listener: &TcpListener) -> io::Result<()> {
    SockRef::from(listener).listen(BACKLOG)
}

/// `count` sockets on `addr`. `[::]` takes both families; port 0 takes one free port for all.
fn bind(addr: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut all = Vec::with_capacity(count);
    let mut addr = addr;
    for _ in 0..count {
        let listener = socket(addr)?;
        addr = listener.local_addr()?;
        all.push(listener);
    }
    Ok(all)
}

fn socket(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    Ok(socket.into())
}

//! Listening sockets: one per worker on the same address, so that the kernel spreads the connections.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// `count` sockets on `addr`. `[::]` takes both families; port 0 takes one free port for all.
pub(super) fn bind(addr: SocketAddr, count: usize) -> io::Result<Vec<TcpListener>> {
    let mut all = Vec::with_capacity(count);
    let mut addr = addr;
    for _ in 0..count {
        let listener = open(addr)?;
        addr = listener.local_addr()?;
        all.push(listener);
    }
    Ok(all)
}

fn open(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

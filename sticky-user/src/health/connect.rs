//! A connection to a backend that is asked.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::time::sleep;

use crate::netlink::Netlink;

/// A backend on this host answers in far less: the first of these pauses, each twice as long as the one before.
const NEAR: Duration = Duration::from_millis(50);

/// Tries a second time beside the first after `again`: the kernel sends a lost SYN again only after a second (RFC 6298 2.1),
/// by when most checks are over, and one lost packet says nothing of a backend. What waits for the backend's link address is
/// sent anew: a container often has the address of one that has just ended, and that the kernel still asks for.
pub(super) async fn connect(addr: SocketAddr, again: Duration) -> io::Result<TcpStream> {
    let first = once(addr);
    let second = async {
        sleep(again).await;
        once(addr).await
    };
    tokio::pin!(first, second);
    let mut pause = NEAR;
    loop {
        tokio::select! {
            // Where all of this was late, the connection may be there.
            biased;
            connected = &mut first => return connected,
            connected = &mut second => return connected,
            () = sleep(pause) => {
                pause *= 2;
                if forget_unanswered(addr.ip()) {
                    first.set(once(addr));
                }
            }
        }
    }
}

async fn once(addr: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM.nonblocking(), None)?;
    match socket.connect(&addr.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => return Err(error),
        _ => {}
    }
    // One on this host has answered by now, as a rule: then there is nothing to wait for.
    if socket.peer_addr().is_ok() {
        return Ok(socket.into());
    }
    let stream = tokio::net::TcpStream::from_std(socket.into())?;
    stream.writable().await?;
    match stream.take_error()? {
        Some(error) => Err(error),
        None => stream.into_std(),
    }
}

/// What cannot be asked of the kernel waits as long as it does.
fn forget_unanswered(addr: IpAddr) -> bool {
    Netlink::connect().and_then(|mut netlink| netlink.forget_unanswered(addr)).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn a_lost_syn_is_sent_again_before_the_kernel_does() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        // Room for one that waits; SYNs of others are dropped.
        socket.listen(0).unwrap();
        let addr = socket.local_addr().unwrap().as_socket().unwrap();
        let _waiting = once(addr).await.unwrap();
        let asking = tokio::spawn(connect(addr, Duration::from_millis(200)));
        sleep(Duration::from_millis(50)).await;
        assert!(!asking.is_finished());
        let _accepted = socket.accept().unwrap();
        let connected = timeout(Duration::from_millis(850), asking).await;
        connected.expect("not the kernel's own second try").unwrap().unwrap();
    }
}

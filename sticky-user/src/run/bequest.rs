//! Listening sockets go from one sticky to the next. One that is closed resets who waits in its queue and whose handshake
//! is on its way; one that changes hands does not.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use tracing::debug;

use crate::socket::Beside;

/// What the place for them is called.
const WHAT: &str = "listeners";
/// They are there before the answer that the control socket is free. Only a predecessor that knows nothing of this is
/// waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where they are waited for; to be made before the one before is asked for anything.
pub(super) fn expect(control: &Path) -> io::Result<Beside> {
    Beside::new(control, WHAT)
}

/// What the one before has brought. Without them we listen beside it.
pub(super) async fn take(from: Beside) -> Vec<TcpListener> {
    let stream = match from.came(PATIENCE).await {
        Ok(stream) => stream,
        Err(error) => {
            debug!(%error, "the one before brought no listening sockets");
            return Vec::new();
        }
    };
    let mut all = Vec::new();
    loop {
        match receive(&stream) {
            Ok(Some(listener)) => all.push(listener),
            Ok(None) => return all,
            Err(error) => {
                debug!(%error, "not all listening sockets came over");
                return all;
            }
        }
    }
}

/// Gives them to a successor that waits; they stay ours too.
///
/// # Errors
/// Nobody waits.
pub(super) fn give(control: &Path, listeners: &[TcpListener]) -> io::Result<()> {
    let to = Beside::connect(control, WHAT)?;
    // One that does not read shall not hold us up.
    to.set_nonblocking(true)?;
    for listener in listeners {
        let socket = [listener.as_fd()];
        let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !control.push(SendAncillaryMessage::ScmRights(&socket)) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        // A descriptor needs a byte that it comes with.
        sendmsg(&to, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    }
    Ok(())
}

fn receive(from: impl AsFd) -> io::Result<Option<TcpListener>> {
    let mut byte = [0];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut byte)];
    if recvmsg(from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes == 0 {
        return Ok(None);
    }
    let mut sockets = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let socket = sockets.next().ok_or(io::ErrorKind::InvalidData)?;
    Ok(Some(socket.into()))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    #[tokio::test]
    async fn who_waits_at_a_socket_that_changes_hands_is_served() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("sticky.sock");
        let before =
            [TcpListener::bind("127.0.0.1:0").unwrap(), TcpListener::bind("127.0.0.1:0").unwrap()];
        let addrs = before.each_ref().map(|listener| listener.local_addr().unwrap());
        let waits = TcpStream::connect(addrs[0]).unwrap();

        let place = expect(&control).unwrap();
        give(&control, &before).unwrap();
        drop(before);
        let after = take(place).await;
        let same: Vec<_> = after.iter().map(|listener| listener.local_addr().unwrap()).collect();
        assert_eq!(same, addrs);
        let (_, client) = after[0].accept().unwrap();
        assert_eq!(client, waits.local_addr().unwrap());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_brings_none_is_not_waited_for_long() {
        let dir = tempfile::tempdir().unwrap();
        let control = dir.path().join("sticky.sock");
        assert!(take(expect(&control).unwrap()).await.is_empty());
        assert!(give(&control, &[]).is_err(), "nobody waits any more");
    }
}

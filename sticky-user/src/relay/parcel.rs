//! An open connection on its way from one sticky to the next, which go by different processes and share a host.
//!
//! One message each: the length of what follows, with the two sockets; who is talking to whom, as JSON; and what was read
//! from one side and not yet written to the other.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::cmsg_space;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;

use super::pipe::{Pipe, Way};

/// Longest message: both directions held up, and the text.
const LONGEST: usize = 1 << 20;

/// Who is talking to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Label {
    /// Service id and backend id.
    pub(super) service: String,
    pub(super) backend: String,
    pub(super) client: SocketAddr,
}

#[derive(Serialize, Deserialize)]
struct Head {
    label: Label,
    to_backend: Length,
    to_client: Length,
}

#[derive(Serialize, Deserialize)]
struct Length {
    held: usize,
    ended: bool,
}

impl Length {
    fn of(way: &Way) -> Self {
        Self { held: way.held.len(), ended: way.ended }
    }
}

/// Hands a connection over.
///
/// # Errors
/// The other one is gone.
pub(super) fn send(to: &mut UnixStream, label: Label, pipe: &Pipe) -> io::Result<()> {
    let (to_backend, to_client) = (&pipe.to_backend, &pipe.to_client);
    let head = Head { label, to_backend: Length::of(to_backend), to_client: Length::of(to_client) };
    let head = serde_json::to_vec(&head)?;
    let mut body = u32::try_from(head.len()).map_err(io::Error::other)?.to_be_bytes().to_vec();
    body.extend([head, to_backend.held.clone(), to_client.held.clone()].concat());
    let length = u32::try_from(body.len()).map_err(io::Error::other)?.to_be_bytes();
    let sockets = [pipe.client.as_fd(), pipe.upstream.as_fd()];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&sockets)) {
        return Err(io::ErrorKind::OutOfMemory.into());
    }
    let sent = sendmsg(&*to, &[IoSlice::new(&length)], &mut control, SendFlags::NOSIGNAL)?;
    to.write_all(length.get(sent..).unwrap_or_default())?;
    to.write_all(&body)
}

/// The next connection; `None`: there are no more.
///
/// # Errors
/// The other one sends something else, or is gone in the middle.
pub(super) fn receive(from: &mut UnixStream) -> io::Result<Option<(Label, Received)>> {
    let mut length = [0; 4];
    let mut space = [MaybeUninit::uninit(); cmsg_space!(ScmRights(2))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(&mut length)];
    let got = recvmsg(&*from, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    if got == 0 {
        return Ok(None);
    }
    let mut sockets = control.drain().flat_map(|message| match message {
        RecvAncillaryMessage::ScmRights(sockets) => sockets.collect::<Vec<_>>(),
        _ => Vec::new(),
    });
    let both = sockets.next().zip(sockets.next()).ok_or(io::ErrorKind::InvalidData)?;
    from.read_exact(length.get_mut(got..).unwrap_or_default())?;
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body)?;
    let (size, rest) = body.split_first_chunk::<4>().ok_or(io::ErrorKind::InvalidData)?;
    let (head, rest) = rest
        .split_at_checked(u32::from_be_bytes(*size) as usize)
        .ok_or(io::ErrorKind::InvalidData)?;
    let Head { label, to_backend, to_client } = serde_json::from_slice(head)?;
    let (first, second) =
        rest.split_at_checked(to_backend.held).ok_or(io::ErrorKind::InvalidData)?;
    if second.len() != to_client.held {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let received = Received {
        client: both.0,
        upstream: both.1,
        to_backend: Way { held: first.to_vec(), ended: to_backend.ended },
        to_client: Way { held: second.to_vec(), ended: to_client.ended },
    };
    Ok(Some((label, received)))
}

/// A connection that is not served by a runtime yet.
pub(super) struct Received {
    client: OwnedFd,
    upstream: OwnedFd,
    to_backend: Way,
    to_client: Way,
}

impl Received {
    /// To be called inside the runtime that shall serve it.
    ///
    /// # Errors
    /// What came is no TCP connection.
    pub(super) fn unpack(self) -> io::Result<Pipe> {
        let Self { client, upstream, to_backend, to_client } = self;
        let stream = |socket: OwnedFd| TcpStream::from_std(socket.into());
        Ok(Pipe { client: stream(client)?, upstream: stream(upstream)?, to_backend, to_client })
    }
}

#[cfg(test)]
mod tests;

//! A connection to a backend: one request at a time, and its answer. Who asks moves it on, without a task between.

use std::io;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http::{Method, Response, Version};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::task::spawn_local;
use tokio_util::io::poll_read_buf;
use tokio_util::task::AbortOnDropHandle;
use tracing::debug;

use super::framing::{BadChunk, Framing};
use super::head::{self, Ask, BadHead, Head};
use super::outbox::{Outbox, Unsent};
use super::stash::Stash;
use crate::proxy::body::RequestBody;

/// Read at once: most heads with what follows them, and a piece of a long body.
const BUFFER: usize = 8 * 1024;
const LARGE: usize = 64 * 1024;

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub(in crate::proxy) enum LinkError {
    #[error("the backend closed the connection")]
    Closed,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Head(#[from] BadHead),
    #[error(transparent)]
    Chunk(#[from] BadChunk),
    #[error("the client's body broke off")]
    Upload,
}

impl LinkError {
    /// What came is not HTTP.
    pub(in crate::proxy) const fn is_parse(&self) -> bool {
        matches!(self, Self::Head(_) | Self::Chunk(_))
    }
}

pub(super) struct Link {
    half: OwnedReadHalf,
    /// What has come and is not taken; without room until something comes.
    read: BytesMut,
    /// `None`: a request could not be sent, or its rest is.
    outbox: Option<Outbox>,
    /// The rest of a request whose answer has begun. Who does not read the answer may still send.
    rest: Option<AbortOnDropHandle<()>>,
    method: Method,
    /// What is to come of an answer's body.
    body: Framing,
    keeps: bool,
    /// When something came last.
    came: Instant,
    /// The longest head.
    limit: usize,
}

impl Link {
    pub(super) fn new(stream: TcpStream, limit: usize) -> Self {
        let (half, other) = stream.into_split();
        Self {
            half,
            read: BytesMut::new(),
            outbox: Some(Outbox::new(other)),
            rest: None,
            method: Method::GET,
            body: Framing::NONE,
            keeps: true,
            came: Instant::now(),
            limit,
        }
    }

    /// Begins with a request; an error if nothing of it is on its way.
    pub(super) fn send(
        &mut self,
        ask: Ask<'_>,
        body: RequestBody,
        stash: &Stash,
    ) -> io::Result<()> {
        let outbox = self.outbox.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        outbox.begin(ask, body, &mut stash.text.borrow_mut())?;
        self.method = ask.method.clone();
        Ok(())
    }

    /// Ready when the answer's head is here. The rest of the request is sent meanwhile.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        stash: &Stash,
    ) -> Poll<Result<Response<()>, LinkError>> {
        loop {
            if !self.read.is_empty() {
                let Self { read, method, limit, .. } = self;
                if let Some(head) = head::read(read, method, *limit, || stash.headers())? {
                    return Poll::Ready(Ok(self.answered(head)));
                }
            }
            if let Poll::Ready(length) = self.poll_fill(cx, BUFFER, stash) {
                if length? == 0 {
                    return Poll::Ready(Err(LinkError::Closed));
                }
                continue;
            }
            return if self.poll_send(cx) {
                Poll::Pending
            } else {
                Poll::Ready(Err(LinkError::Upload))
            };
        }
    }

    fn answered(&mut self, head: Head) -> Response<()> {
        let mut response = Response::new(());
        *response.status_mut() = head.status;
        *response.version_mut() = Version::HTTP_11;
        *response.headers_mut() = head.headers;
        if let Some(reason) = head.reason {
            response.extensions_mut().insert(reason);
        }
        (self.body, self.keeps) = (head.framing, head.keeps);
        if let Some(outbox) = self.outbox.take_if(|outbox| !outbox.is_empty()) {
            self.rest = Some(AbortOnDropHandle::new(spawn_local(outbox.finish())));
        }
        response
    }

    /// The next piece of the answer's body; `None`: that was all.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        stash: &Stash,
    ) -> Poll<Option<Result<Bytes, LinkError>>> {
        while !self.body.is_over() {
            if let Some(piece) = self.body.take(&mut self.read).map_err(LinkError::Chunk)? {
                return Poll::Ready(Some(Ok(piece)));
            }
            if self.body.is_over() {
                break;
            }
            let wanted = self.body.left().and_then(|left| usize::try_from(left).ok());
            let room = wanted.unwrap_or(LARGE).clamp(BUFFER, LARGE);
            if ready!(self.poll_fill(cx, room, stash)).map_err(LinkError::Io)? == 0
                && !self.body.close()
            {
                return Poll::Ready(Some(Err(LinkError::Closed)));
            }
        }
        Poll::Ready(None)
    }

    /// What is to come of the answer's body.
    pub(super) const fn body(&self) -> Framing {
        self.body
    }

    /// When something came last.
    pub(super) const fn came(&self) -> Instant {
        self.came
    }

    /// Whether it can carry another request: the last one is sent, and its answer read, to the end.
    pub(super) fn is_free(&self) -> bool {
        let sent = self.outbox.as_ref().is_some_and(Outbox::is_empty);
        sent && self.keeps && self.body.is_over() && self.read.is_empty()
    }

    /// Whether nothing has come that nobody asked for, not even its end.
    pub(super) fn is_quiet(&self) -> bool {
        let read = self.half.try_read(&mut [0]);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether it is quiet; from now on its end wakes this.
    pub(super) fn rest(&self, waker: &Waker) -> bool {
        loop {
            if self.half.as_ref().poll_read_ready(&mut Context::from_waker(waker)).is_pending() {
                return true;
            }
            if !self.is_quiet() {
                return false;
            }
        }
    }

    /// The socket, and what was read of it and belongs to another protocol.
    pub(super) fn into_stream(self) -> Option<(TcpStream, Bytes)> {
        let stream = self.half.reunite(self.outbox?.into_half()).ok()?;
        Some((stream, self.read.freeze()))
    }

    /// Gives back the memory of one that is free.
    pub(super) fn give_back(&mut self, stash: &Stash) {
        stash.put_read(mem::take(&mut self.read));
    }

    /// Reads once, for up to this many bytes; 0 if it has ended.
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        room: usize,
        stash: &Stash,
    ) -> Poll<io::Result<usize>> {
        if self.read.capacity() == 0 {
            self.read = stash.read();
        }
        if self.read.capacity() - self.read.len() < room / 2 {
            self.read.reserve(room);
        }
        let length = poll_read_buf(Pin::new(&mut self.half), cx, &mut self.read);
        if self.read.is_empty() {
            self.give_back(stash);
        }
        let length = ready!(length);
        self.came = Instant::now();
        Poll::Ready(length)
    }

    /// Sends what can be sent of the request; false if the client's body broke off.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(outbox) = &mut self.outbox else { return true };
        let Poll::Ready(Err(error)) = outbox.poll(cx) else { return true };
        self.outbox = None;
        debug!(%error, "a request was not sent whole");
        // A backend may have answered before it closed.
        matches!(error, Unsent::Refused(_))
    }
}

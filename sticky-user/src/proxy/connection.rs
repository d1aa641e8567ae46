//! A client's connection: its requests and its end.

mod io;

use std::future::poll_fn;
use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::Poll;

use bytes::{Buf, BytesMut};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tracing::debug;

use self::io::Io;
use super::forwarded::Peer;
use super::preface::{self, Preface};
use super::request;
use super::settings::Limits;
use super::worker::{Open, Worker};

/// What a connection is doing, for its deadlines and its end.
#[derive(Debug)]
pub(super) struct Phase {
    doing: AtomicU8,
    /// A part of the last request's body was not read.
    unread: AtomicBool,
    /// It has been idle for so long that what HTTP keeps for it is better given back.
    quiet: AtomicBool,
}

impl Phase {
    /// The last request is done, and nobody has looked at the clock since.
    const DONE: u8 = 0;
    /// No byte of a request.
    const IDLE: u8 = 1;
    /// A part of a request's head.
    const HEAD: u8 = 2;
    /// A request in progress.
    const BUSY: u8 = 3;
    /// It carries something else than HTTP, of which either side may be done before the other.
    const TUNNEL: u8 = 4;

    const fn new() -> Self {
        Self {
            doing: AtomicU8::new(Self::HEAD),
            unread: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
        }
    }

    /// A request is here, with a body to read or none.
    pub(super) fn busy(&self, body: bool) {
        self.set(Self::BUSY);
        self.unread.store(body, Ordering::Relaxed);
    }

    /// The request's body has been read to its end.
    pub(super) fn read(&self) {
        self.unread.store(false, Ordering::Relaxed);
    }

    pub(super) fn done(&self) {
        self.set(Self::DONE);
    }

    /// The connection was upgraded.
    pub(super) fn tunnelled(&self) {
        self.set(Self::TUNNEL);
    }

    fn is_idle(&self) -> bool {
        matches!(self.get(), Self::DONE | Self::IDLE)
    }

    /// A new connection, or one with a part of a request.
    fn is_head(&self) -> bool {
        self.get() == Self::HEAD
    }

    /// Whether it has been idle for long; told once.
    fn is_quiet(&self) -> bool {
        self.quiet.load(Ordering::Relaxed) && self.quiet.swap(false, Ordering::Relaxed)
    }

    fn set(&self, phase: u8) {
        self.doing.store(phase, Ordering::Relaxed);
    }

    fn get(&self) -> u8 {
        self.doing.load(Ordering::Relaxed)
    }
}

/// The HTTP of all client connections.
pub(super) fn builder(limits: &Limits) -> http1::Builder {
    let mut http = http1::Builder::new();
    // Who left during a request is seen by the socket: hyper would ask for a buffer of 8 kB to look.
    http.max_buf_size(limits.head).max_header_size(limits.head).half_close(true);
    http
}

/// Serves a connection to its end.
pub(super) async fn serve(worker: Rc<Worker>, open: Open, mut stream: TcpStream, mut peer: Peer) {
    let mut ahead = BytesMut::new();
    if peer.trusted {
        let first = introduce(&mut stream, &mut ahead);
        match tokio::time::timeout(worker.timeouts().header, first).await {
            Ok(Ok(Some((source, target)))) => peer = worker.peer(source, target),
            Ok(Ok(None)) => {}
            Ok(Err(error)) => return debug!(%error, "no valid PROXY protocol"),
            Err(_) => return debug!("nothing came"),
        }
    }
    let phase = Arc::new(Phase::new());
    let io = Io::new(stream, ahead.freeze(), phase.clone(), worker.timeouts());
    let (peer, served, state) = (Rc::new(peer), worker.clone(), phase.clone());
    let service = service_fn(move |incoming| request::answer(&served, &peer, &state, incoming));
    // A connection has either: HTTP, with its buffers, is there only when there is something to read or to answer.
    let (mut waiting, mut http) = (Some((io, service)), None);
    let mut told = false;
    let result = poll_fn(|cx| {
        open.register(cx.waker());
        loop {
            if let Some((io, _)) = &mut waiting {
                match io.poll_begin(cx) {
                    Poll::Ready(begun) => begun?,
                    Poll::Pending if worker.draining() && phase.is_idle() => {
                        return Poll::Ready(Ok(()));
                    }
                    Poll::Pending => return Poll::Pending,
                }
            }
            if let Some((io, service)) = waiting.take() {
                let connection = worker.http.serve_connection(TokioIo::new(io), service);
                http = Some(Box::new(connection.with_upgrades()));
            }
            let Some(connection) = &mut http else { return Poll::Ready(Ok(())) };
            match Pin::new(&mut **connection).poll(cx) {
                Poll::Ready(ended) => return Poll::Ready(ended.map_err(Error::other)),
                // Not while a request's head is on its way: it would be closed.
                Poll::Pending if worker.draining() && !told && !phase.is_head() => {
                    told = true;
                    Pin::new(&mut **connection).graceful_shutdown();
                    continue;
                }
                Poll::Pending if !phase.is_quiet() => return Poll::Pending,
                Poll::Pending => {}
            }
            waiting = http.take().and_then(|http| http.into_parts()).map(|parts| {
                let mut io = parts.io.into_inner();
                io.wait(parts.read_buf);
                (io, parts.service)
            });
        }
    })
    .await;
    if let Err(error) = result {
        debug!(%error, "client connection ended");
    }
}

/// Reads what a trusted peer says of the client before its first request; what comes behind it stays in `ahead`.
async fn introduce(
    stream: &mut TcpStream,
    ahead: &mut BytesMut,
) -> Result<Option<(SocketAddr, SocketAddr)>> {
    loop {
        if stream.read_buf(ahead).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        match preface::read(ahead) {
            Preface::Absent => return Ok(None),
            Preface::Partial => {}
            Preface::Malformed => return Err(ErrorKind::InvalidData.into()),
            Preface::Present(length, ends) => {
                ahead.advance(length);
                return Ok(ends);
            }
        }
    }
}

//! A client's connection: its deadlines, its requests, its end.

use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep};
use tracing::debug;

use super::forwarded::Peer;
use super::preface::{self, Preface};
use super::request;
use super::settings::{Limits, Timeouts};
use super::worker::{Open, Worker};

/// How long a connection is read on after its last answer, for a client that is still sending what nobody wants.
const LINGER: Duration = Duration::from_secs(2);

/// What a connection is doing, for its deadlines and its end.
#[derive(Debug)]
pub(super) struct Phase {
    doing: AtomicU8,
    /// A part of the last request's body was not read.
    unread: AtomicBool,
}

impl Phase {
    /// The last request is done, and nobody has looked at the clock since.
    const DONE: u8 = 0;
    /// No byte of a request.
    const IDLE: u8 = 1;
    /// A part of a request's head.
    const HEAD: u8 = 2;
    /// A request in progress, or a tunnel.
    const BUSY: u8 = 3;

    const fn new() -> Self {
        Self { doing: AtomicU8::new(Self::HEAD), unread: AtomicBool::new(false) }
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
    http.max_buf_size(limits.head).max_header_size(limits.head);
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
    let io = TokioIo::new(Io::new(stream, ahead.freeze(), phase.clone(), worker.timeouts()));
    let (peer, served) = (Rc::new(peer), worker.clone());
    let service = service_fn(move |incoming| {
        request::answer(served.clone(), peer.clone(), phase.clone(), incoming)
    });
    let mut connection = pin!(worker.http.serve_connection(io, service).with_upgrades());
    let mut told = false;
    let result = std::future::poll_fn(|cx| {
        if !told {
            open.register(cx.waker());
            if worker.draining() {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
        }
        connection.as_mut().poll(cx)
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
) -> io::Result<Option<(SocketAddr, SocketAddr)>> {
    loop {
        if stream.read_buf(ahead).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match preface::read(ahead) {
            Preface::Absent => return Ok(None),
            Preface::Partial => {}
            Preface::Malformed => return Err(io::ErrorKind::InvalidData.into()),
            Preface::Present(length, ends) => {
                ahead.advance(length);
                return Ok(ends);
            }
        }
    }
}

/// The socket, closed when a request's head or the next request takes too long.
struct Io {
    stream: TcpStream,
    /// Read before HTTP began.
    ahead: Bytes,
    phase: Arc<Phase>,
    header: Duration,
    idle: Duration,
    /// Since when it is idle, or a head has begun.
    since: Instant,
    /// Looks now and then rather than being set for each request.
    alarm: Pin<Box<Sleep>>,
    /// Until when it is read on, once its own side is shut.
    linger: Option<Pin<Box<Sleep>>>,
}

impl Io {
    fn new(stream: TcpStream, ahead: Bytes, phase: Arc<Phase>, timeouts: &Timeouts) -> Self {
        let (header, idle) = (timeouts.header, timeouts.idle);
        // A new connection owes its first request as soon as one that has begun.
        let alarm = Box::pin(tokio::time::sleep(header));
        Self { stream, ahead, phase, header, idle, since: Instant::now(), alarm, linger: None }
    }

    /// Looks at the time; ready when it is up.
    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.phase.get() {
            Phase::BUSY => return Poll::Pending,
            Phase::DONE => {
                self.phase.set(Phase::IDLE);
                self.since = Instant::now();
            }
            _ => {}
        }
        let limit = if self.phase.get() == Phase::HEAD { self.header } else { self.idle };
        while self.alarm.as_mut().poll(cx).is_ready() {
            let (now, due) = (Instant::now(), self.since + limit);
            if due <= now {
                return Poll::Ready(());
            }
            // A head that begins meanwhile must not be found late.
            self.alarm.as_mut().reset(due.min(now + self.header));
        }
        Poll::Pending
    }
}

impl AsyncRead for Io {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ahead.is_empty() {
            let length = this.ahead.len().min(buf.remaining());
            buf.put_slice(&this.ahead.split_to(length));
            return Poll::Ready(Ok(()));
        }
        let before = buf.filled().len();
        match Pin::new(&mut this.stream).poll_read(cx, buf) {
            Poll::Ready(result) => {
                let waited = matches!(this.phase.get(), Phase::DONE | Phase::IDLE);
                if waited && buf.filled().len() > before {
                    this.phase.set(Phase::HEAD);
                    this.since = Instant::now();
                }
                Poll::Ready(result)
            }
            Poll::Pending => match this.poll_deadline(cx) {
                Poll::Ready(()) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
                Poll::Pending => Poll::Pending,
            },
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Closed with something unread, a socket is reset, and the client may lose the answer that came early.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let linger = match &mut this.linger {
            Some(linger) => linger,
            None => {
                ready!(Pin::new(&mut this.stream).poll_shutdown(cx))?;
                if !this.phase.unread.load(Ordering::Relaxed) {
                    return Poll::Ready(Ok(()));
                }
                this.linger.insert(Box::pin(tokio::time::sleep(LINGER)))
            }
        };
        let mut rest = [MaybeUninit::uninit(); 16 * 1024];
        loop {
            let mut rest = ReadBuf::uninit(&mut rest);
            match Pin::new(&mut this.stream).poll_read(cx, &mut rest) {
                Poll::Ready(Ok(())) if !rest.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return linger.as_mut().poll(cx).map(Ok),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }
}

//! Connections to backends: kept alive, owned by one worker, used again as long as both ends want to.

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};
use tracing::debug;

use super::body::{Progress, RequestBody, Upload};
use super::patience::Patience;
use super::routes::Routes;
use super::settings::{Limits, Timeouts};
use super::wire::Upstream;

/// Silence after which the kernel asks whether the other end is still there.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);

/// What becomes of a request: a response, or the request itself if it was not sent.
type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// Idle connections of one worker, by the backend's pool number.
pub(super) struct Pool {
    idle: RefCell<HashMap<u64, Vec<Idle>>>,
    limit: usize,
    keep: Duration,
    connect: Duration,
    answer: Duration,
    http: http1::Builder,
}

struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// A connection, in use or idle.
struct Link {
    sender: SendRequest<RequestBody>,
    _task: Task,
    /// For an answer.
    patience: Patience,
}

/// What moves the bytes of a connection: ends with it, or it would wait for a backend that nobody waits for any more.
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection in use, to be given back when the response has been read.
pub(super) struct Lease {
    link: Box<Link>,
    /// It has carried requests before.
    pub reused: bool,
    /// How far the request's body is; `None`: it had none.
    pub body: Option<Rc<Upload>>,
    /// Where it goes when it is free; `None`: it is one client's alone.
    key: Option<u64>,
    pool: Rc<Pool>,
}

impl Pool {
    pub(super) fn new(timeouts: &Timeouts, limits: &Limits) -> Rc<Self> {
        let mut http = http1::Builder::new();
        http.max_buf_size(limits.head).max_header_size(limits.head);
        Rc::new(Self {
            idle: RefCell::default(),
            limit: limits.idle_per_backend,
            keep: timeouts.upstream_idle,
            connect: timeouts.connect,
            answer: timeouts.response,
            http,
        })
    }

    /// The connection used last, if that is `now` not longer ago than `oldest`.
    pub(super) fn take(self: &Rc<Self>, key: u64, oldest: Duration, now: Instant) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&key)?;
        let keep = self.keep.min(oldest);
        let young = |idle: &mut Idle| now.saturating_duration_since(idle.since) < keep;
        while let Some(Idle { link, .. }) = connections.pop_if(young) {
            if link.sender.is_ready() {
                return Some(self.lease(link, true, Some(key)));
            }
        }
        None
    }

    fn lease(self: &Rc<Self>, link: Box<Link>, reused: bool, key: Option<u64>) -> Lease {
        Lease { link, reused, body: None, key, pool: self.clone() }
    }

    /// A new connection; one that begins with a `preface` about its client is not given back.
    pub(super) async fn connect(
        self: &Rc<Self>,
        key: u64,
        addr: SocketAddr,
        preface: Option<Vec<u8>>,
    ) -> io::Result<Lease> {
        let mut stream = tokio::time::timeout(self.connect, TcpStream::connect(addr))
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        stream.set_nodelay(true)?;
        SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        if let Some(preface) = &preface {
            stream.write_all(preface).await?;
        }
        let (sender, connection) =
            self.http.handshake(TokioIo::new(Upstream(stream))).await.map_err(io::Error::other)?;
        let task = spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%addr, %error, "upstream connection ended");
            }
        });
        let (key, task) = (preface.is_none().then_some(key), Task(task.abort_handle()));
        let link = Link { sender, _task: task, patience: Patience::new(self.answer) };
        Ok(self.lease(Box::new(link), false, key))
    }

    /// Closes what was idle for too long, and what belongs to backends that are gone.
    pub(super) fn tidy(&self, routes: &Routes) {
        let mut idle = self.idle.borrow_mut();
        if idle.is_empty() {
            return;
        }
        let live = routes.pools();
        idle.retain(|key, connections| {
            let gone = !live.contains(key);
            connections.retain(|idle| {
                !gone && !idle.link.sender.is_closed() && idle.since.elapsed() < self.keep
            });
            !connections.is_empty()
        });
    }
}

impl Lease {
    /// Sends a request `now`, from when the time for its answer counts.
    pub(super) fn send(
        &mut self,
        request: Request<RequestBody>,
        now: Instant,
    ) -> impl Future<Output = Sent> + use<> {
        self.link.patience.begins(now.into());
        self.link.sender.try_send_request(request)
    }

    /// Ready when there was no answer for too long, and then again after as long.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let late = self.link.patience.poll(cx);
        if late.is_ready() {
            self.link.patience.moved();
        }
        late
    }

    /// The response has been read to its end, `now`.
    pub(super) fn give_back(self, now: Instant) {
        // A backend that answers before it has read the request leaves the rest of it on the connection.
        let sent = self.body.is_none_or(|body| body.progress() == Progress::Done);
        let Some(key) = self.key.filter(|_| sent && !self.link.sender.is_closed()) else { return };
        let mut idle = self.pool.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < self.pool.limit {
            connections.push(Idle { link: self.link, since: now });
        }
    }
}

//! Connections to backends: kept alive, owned by one worker, used again as long as both ends want to.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use foldhash::HashMap;
use http::Response;
use hyper::Request;
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

use super::body::{Progress, RequestBody, Upload};
use super::driver::{Driven, Driver, Seat};
use super::patience::Patience;
use super::routes::Routes;
use super::settings::{Limits, Timeouts};
use super::wire::Upstream;

/// Silence after which the kernel asks whether the other end is still there.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);

/// What becomes of a request: a response, or the request itself if it was not sent.
pub(super) type Sent = Result<Response<Incoming>, TrySendError<Request<RequestBody>>>;

/// Idle connections of one worker, by the backend's pool number.
pub(super) struct Pool {
    idle: RefCell<HashMap<u64, Vec<Idle>>>,
    limit: usize,
    keep: Duration,
    connect: Duration,
    answer: Duration,
    http: http1::Builder,
    /// An idle connection wants to be looked at.
    rung: Arc<Notify>,
}

struct Idle {
    link: Box<Link>,
    since: Instant,
}

/// A connection, in use or idle.
struct Link {
    sender: SendRequest<RequestBody>,
    driven: Rc<Driven>,
    /// For an answer.
    patience: Patience,
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
    seat: Seat,
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
            rung: Arc::default(),
        })
    }

    /// The connection used last, if that is `now` not longer ago than `oldest`.
    pub(super) fn take(
        self: &Rc<Self>,
        key: u64,
        oldest: Duration,
        now: Instant,
        driver: &Rc<Driver>,
    ) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&key)?;
        let keep = self.keep.min(oldest);
        let young = |idle: &mut Idle| now.saturating_duration_since(idle.since) < keep;
        while let Some(Idle { link, .. }) = connections.pop_if(young) {
            // Its end may have come, and not been looked at.
            link.driven.drive();
            if link.sender.is_ready() {
                return Some(self.lease(link, true, Some(key), driver));
            }
        }
        None
    }

    fn lease(
        self: &Rc<Self>,
        link: Box<Link>,
        reused: bool,
        key: Option<u64>,
        driver: &Rc<Driver>,
    ) -> Lease {
        let seat = driver.seat(link.driven.clone());
        Lease { link, reused, body: None, key, pool: self.clone(), seat }
    }

    /// A new connection; one that begins with a `preface` about its client is not given back.
    pub(super) async fn connect(
        self: &Rc<Self>,
        key: u64,
        addr: SocketAddr,
        preface: Option<Vec<u8>>,
        driver: &Rc<Driver>,
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
        let http = Box::pin(connection.with_upgrades());
        let driven = Driven::new(http, addr, self.rung.clone());
        let key = preface.is_none().then_some(key);
        let link = Link { sender, driven, patience: Patience::new(self.answer) };
        Ok(self.lease(Box::new(link), false, key, driver))
    }

    /// Waits until backends have closed idle connections, and closes them too.
    pub(super) async fn closed(&self) {
        self.rung.notified().await;
        self.retain(|_, idle| {
            idle.link.driven.drive();
            idle.link.driven.rest();
            !idle.link.sender.is_closed()
        });
    }

    /// Closes what was idle for too long, and what belongs to backends that are gone.
    pub(super) fn tidy(&self, routes: &Routes) {
        if self.idle.borrow().is_empty() {
            return;
        }
        let live = routes.pools();
        self.retain(|key, idle| live.contains(&key) && idle.since.elapsed() < self.keep);
    }

    fn retain(&self, keep: impl Fn(u64, &Idle) -> bool) {
        self.idle.borrow_mut().retain(|key, connections| {
            connections.retain(|idle| keep(*key, idle));
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
        let Self { link, body, key, pool, seat, .. } = self;
        drop(seat);
        // A backend that answers before it has read the request leaves the rest of it on the connection.
        let sent = body.is_none_or(|body| body.progress() == Progress::Done);
        let Some(key) = key.filter(|_| sent && !link.sender.is_closed()) else { return };
        let mut idle = pool.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < pool.limit {
            link.driven.rest();
            connections.push(Idle { link, since: now });
        }
    }
}

//! Connections to backends: kept alive, owned by one worker, used again as long as both ends want to. What is said on one is
//! the `link`'s: it sends what is in its `outbox`, and reads a `head` and what follows it by its `framing`.

mod framing;
mod head;
mod link;
mod outbox;

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use foldhash::HashMap;
use http::{HeaderMap, Response};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::Notify;

pub(super) use self::head::Ask;
use self::link::Link;
pub(super) use self::link::LinkError;
use super::body::RequestBody;
use super::patience::Patience;
use super::routes::Routes;
use super::settings::{Limits, Timeouts};

/// Silence after which the kernel asks whether the other end is still there.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);

/// Idle connections of one worker, by the backend's pool number.
pub(super) struct Pool {
    idle: RefCell<HashMap<u64, Vec<Idle>>>,
    limit: usize,
    keep: Duration,
    connect: Duration,
    answer: Duration,
    /// The longest head of an answer.
    head: usize,
    /// Something has come on an idle connection.
    rung: Arc<Rung>,
    waker: Waker,
}

#[derive(Default)]
struct Rung(Notify);

impl Wake for Rung {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

struct Idle {
    connection: Box<Connection>,
    since: Instant,
}

/// In use or idle.
struct Connection {
    link: Link,
    /// For an answer.
    patience: Patience,
}

/// A connection in use, to be given back when the response has been read.
pub(super) struct Lease {
    connection: Box<Connection>,
    /// It has carried requests before.
    pub reused: bool,
    /// Where it goes when it is free; `None`: it is one client's alone.
    key: Option<u64>,
    pool: Rc<Pool>,
}

impl Pool {
    pub(super) fn new(timeouts: &Timeouts, limits: &Limits) -> Rc<Self> {
        let rung = Arc::new(Rung::default());
        Rc::new(Self {
            idle: RefCell::default(),
            limit: limits.idle_per_backend,
            keep: timeouts.upstream_idle,
            connect: timeouts.connect,
            answer: timeouts.response,
            head: limits.head,
            waker: Waker::from(rung.clone()),
            rung,
        })
    }

    /// The connection used last, if that is `now` not longer ago than `oldest`.
    pub(super) fn take(self: &Rc<Self>, key: u64, oldest: Duration, now: Instant) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&key)?;
        let keep = self.keep.min(oldest);
        let young = |idle: &mut Idle| now.saturating_duration_since(idle.since) < keep;
        while let Some(Idle { connection, .. }) = connections.pop_if(young) {
            // Its end may have come, and not been looked at.
            if connection.link.is_quiet() {
                return Some(self.lease(connection, true, Some(key)));
            }
        }
        None
    }

    fn lease(
        self: &Rc<Self>,
        connection: Box<Connection>,
        reused: bool,
        key: Option<u64>,
    ) -> Lease {
        Lease { connection, reused, key, pool: self.clone() }
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
        let link = Link::new(stream, self.head);
        let connection = Connection { link, patience: Patience::new(self.answer) };
        Ok(self.lease(Box::new(connection), false, preface.is_none().then_some(key)))
    }

    /// Waits until backends have closed idle connections, and closes them too.
    pub(super) async fn closed(&self) {
        self.rung.0.notified().await;
        self.retain(|_, idle| idle.connection.link.rest(&self.waker));
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
    /// Sends a request `now`, from when the time for its answer counts; an error if nothing of it is on its way.
    pub(super) fn send(&mut self, ask: Ask<'_>, body: RequestBody, now: Instant) -> io::Result<()> {
        self.connection.patience.begins(now.into());
        self.connection.link.send(ask, body)
    }

    /// Memory for the headers of the next answer.
    pub(super) fn recycle(&mut self, headers: HeaderMap) {
        self.connection.link.recycle(headers);
    }

    /// Ready when the head of the answer is here.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, LinkError>> {
        self.connection.link.poll_answer(cx)
    }

    /// Ready when there was no answer for too long, and then again after as long.
    pub(super) fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let late = self.connection.patience.poll(cx);
        if late.is_ready() {
            self.connection.patience.moved();
        }
        late
    }

    /// The next piece of the answer's body; `None`: that was all.
    pub(super) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Bytes, LinkError>>> {
        self.connection.link.poll_body(cx)
    }

    /// How many bytes of the answer's body are to come, where that is known.
    pub(super) const fn left(&self) -> Option<u64> {
        self.connection.link.body().left()
    }

    /// The socket, and what was read of it behind the answer's head, for another protocol.
    pub(super) fn into_stream(self) -> Option<(TcpStream, Bytes)> {
        self.connection.link.into_stream()
    }

    /// When something came last.
    pub(super) const fn came(&self) -> Instant {
        self.connection.link.came()
    }

    /// The response has been read to its end.
    pub(super) fn give_back(self) {
        let Self { connection, key, pool, .. } = self;
        let Some(key) = key.filter(|_| connection.link.is_free()) else { return };
        let mut idle = pool.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < pool.limit && connection.link.rest(&pool.waker) {
            let since = connection.link.came();
            connections.push(Idle { connection, since });
        }
    }
}

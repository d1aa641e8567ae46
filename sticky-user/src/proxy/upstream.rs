//! Connections to backends: kept alive, owned by one worker, used again as long as both ends want to. What is said on one is
//! the `link`'s: it sends what is in its `outbox`, and reads a `head` and what follows it by its `framing`.

mod framing;
mod head;
mod link;
mod outbox;
mod stash;

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
use self::stash::Stash;
use super::body::RequestBody;
use super::patience::Patience;
use super::settings::{Limits, Timeouts};

/// Silence after which the kernel asks whether the other end is still there.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);

/// How long a connection that a backend has above its limit stays idle: who needs as many again needs them soon. Closed as
/// they come back, they would be opened anew all the time where more clients than that are busy.
const SPARE: Duration = Duration::from_secs(20);

/// Idle connections of one worker, by the backend's pool number.
pub(super) struct Pool {
    /// Those used last at the end.
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
    stash: Stash,
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
            stash: Stash::default(),
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

    /// Waits until a backend has closed an idle connection.
    pub(super) async fn closed(&self) {
        self.rung.0.notified().await;
    }

    /// Closes what backends have closed.
    pub(super) fn close(&self) {
        self.retain(|_, connections| {
            connections.retain(|idle| idle.connection.link.rest(&self.waker));
        });
    }

    /// Closes what is idle `now` for too long, and what belongs to backends that are gone.
    pub(super) fn tidy(&self, live: impl Fn(u64) -> bool, now: Instant) {
        self.retain(|key, connections| {
            let mut spare = connections.len().saturating_sub(self.limit);
            if !live(key) {
                connections.clear();
            }
            connections.retain(|idle| {
                let keep = if spare > 0 { self.keep.min(SPARE) } else { self.keep };
                spare = spare.saturating_sub(1);
                now.saturating_duration_since(idle.since) < keep
            });
        });
    }

    fn retain(&self, keep: impl Fn(u64, &mut Vec<Idle>)) {
        self.idle.borrow_mut().retain(|key, connections| {
            keep(*key, connections);
            !connections.is_empty()
        });
    }
}

impl Lease {
    /// Sends a request `now`, from when the time for its answer counts; an error if nothing of it is on its way.
    pub(super) fn send(&mut self, ask: Ask<'_>, body: RequestBody, now: Instant) -> io::Result<()> {
        self.connection.patience.begins(now.into());
        self.connection.link.send(ask, body, &self.pool.stash)
    }

    /// Memory for the headers of another answer.
    pub(super) fn recycle(&self, headers: HeaderMap) {
        self.pool.stash.put_headers(headers);
    }

    /// Ready when the head of the answer is here.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, LinkError>> {
        self.connection.link.poll_answer(cx, &self.pool.stash)
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
        self.connection.link.poll_body(cx, &self.pool.stash)
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
        let Self { mut connection, key, pool, .. } = self;
        let Some(key) = key.filter(|_| connection.link.is_free()) else { return };
        if connection.link.rest(&pool.waker) {
            connection.link.give_back(&pool.stash);
            let since = connection.link.came();
            pool.idle.borrow_mut().entry(key).or_default().push(Idle { connection, since });
        }
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::{Duration, Instant};

    use tokio::net::{TcpListener, TcpStream};

    use super::{Pool, SPARE};
    use crate::proxy::settings::{Limits, Timeouts};

    const KEY: u64 = 7;
    const LIMIT: usize = 2;
    const BUSY: usize = 5;

    /// A pool to which so many connections came back at once, and the backend's ends of them.
    async fn pool() -> anyhow::Result<(Rc<Pool>, Vec<TcpStream>)> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let limits = Limits { idle_per_backend: LIMIT, ..Limits::default() };
        let pool = Pool::new(&Timeouts::default(), &limits);
        let (mut leases, mut ends) = (Vec::new(), Vec::new());
        for _ in 0..BUSY {
            leases.push(pool.connect(KEY, listener.local_addr()?, None).await?);
            ends.push(listener.accept().await?.0);
        }
        leases.into_iter().for_each(super::Lease::give_back);
        Ok((pool, ends))
    }

    fn count(pool: &Pool) -> usize {
        pool.idle.borrow().get(&KEY).map_or(0, Vec::len)
    }

    #[tokio::test]
    async fn as_many_as_were_in_use_are_kept_for_seconds_and_a_few_for_longer() -> anyhow::Result<()>
    {
        let (pool, _ends) = pool().await?;
        let keep = Timeouts::default().upstream_idle;
        let mut left = Vec::new();
        for time in [Duration::ZERO, SPARE / 2, SPARE, keep / 2, keep] {
            pool.tidy(|key| key == KEY, Instant::now() + time);
            left.push(count(&pool));
        }
        assert_eq!(left, [BUSY, BUSY, LIMIT, LIMIT, 0]);
        Ok(())
    }

    #[tokio::test]
    async fn who_is_used_again_is_not_spare() -> anyhow::Result<()> {
        let (pool, _ends) = pool().await?;
        let later = Instant::now() + SPARE;
        let mut idle = pool.idle.borrow_mut();
        let used = idle.get_mut(&KEY).into_iter().flatten().rev().take(LIMIT + 1);
        used.for_each(|idle| idle.since = later);
        drop(idle);
        pool.tidy(|key| key == KEY, later);
        assert_eq!(count(&pool), LIMIT + 1);
        Ok(())
    }

    #[tokio::test]
    async fn nothing_is_kept_of_a_backend_that_is_gone() -> anyhow::Result<()> {
        let (pool, _ends) = pool().await?;
        pool.tidy(|key| key != KEY, Instant::now());
        assert_eq!(count(&pool), 0);
        Ok(())
    }
}

//! A worker: one thread with its own listener, connections and upstream pools. No request crosses threads.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{self, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use hyper::server::conn::http1;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::spawn_local;
use tokio::time::Instant;
use tracing::{debug, warn};

use super::connection;
use super::forwarded::Peer;
use super::lines::Lines;
use super::listener::BACKLOG;
use super::random::Random;
use super::repeat::Repeats;
use super::request_ids::RequestIds;
use super::routes::Routes;
use super::settings::Timeouts;
use super::upstream::{KEEPALIVE, Pool};
use super::{Life, Shared};
use crate::keys::Nonces;

/// How often idle upstream connections are looked through.
const TIDY: Duration = Duration::from_secs(5);
/// Backends close many connections one after the other: how long the others are waited for.
const MORE: Duration = Duration::from_millis(50);
/// Pause after accepting failed, such as for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(10);

/// How often a request that waits for a full backend looks again.
const QUEUE_LOOK: Duration = Duration::from_millis(5);

/// What the requests of one thread share.
pub(super) struct Worker {
    pub shared: Arc<Shared>,
    pub pool: Rc<Pool>,
    pub random: Random,
    pub ids: RequestIds,
    pub lines: Lines,
    pub nonces: Nonces,
    pub http: http1::Builder,
    pub repeats: Repeats,
    open: Cell<usize>,
    draining: Cell<bool>,
    waiting: Cell<usize>,
    wakers: RefCell<HashMap<u64, Waker>>,
    next: Cell<u64>,
    emptied: Notify,
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>) -> anyhow::Result<Rc<Self>> {
        let settings = &shared.settings;
        Ok(Rc::new(Self {
            pool: Pool::new(&settings.timeouts, &settings.limits),
            random: Random::new()?,
            ids: RequestIds::default(),
            lines: Lines::default(),
            nonces: Nonces::default(),
            http: connection::builder(&settings.limits),
            repeats: Repeats::default(),
            open: Cell::new(0),
            draining: Cell::new(false),
            waiting: Cell::new(0),
            wakers: RefCell::default(),
            next: Cell::new(0),
            emptied: Notify::new(),
            shared,
        }))
    }

    /// Waits for routes: a client that came before them would be told that its host is unknown. `false`: the end came first.
    async fn may_begin(&self, mut life: watch::Receiver<Life>) -> bool {
        let mut published = self.shared.published.subscribe();
        tokio::select! {
            published = published.wait_for(|published| *published) => published.is_ok(),
            _ = life.wait_for(|life| matches!(life, Life::Ends(_))) => false,
        }
    }

    /// Serves until told to end; returns how many connections were cut then.
    ///
    /// # Errors
    /// The runtime has no room for the socket.
    pub(super) async fn run(
        self: Rc<Self>,
        listener: net::TcpListener,
        mut life: watch::Receiver<Life>,
    ) -> anyhow::Result<usize> {
        if !self.may_begin(life.clone()).await {
            return Ok(0);
        }
        let listener = TcpListener::from_std(listener)?;
        let tidy = spawn_local(self.clone().tidy());
        let deadline = loop {
            tokio::select! {
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => self.take(stream, peer),
                    Err(error) => {
                        warn!(%error, "cannot accept connections");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                },
                changed = life.changed() => match *life.borrow() {
                    Life::Ends(at) => break at,
                    Life::Serving if changed.is_err() => break Instant::now(),
                    Life::Serving => {}
                },
            }
        };
        // Those who wait to be accepted were promised a connection by the kernel; not all who come meanwhile.
        // The kernel is asked: the runtime may not have heard of them yet.
        let listener = listener.into_std()?;
        for _ in 0..BACKLOG {
            let Ok((stream, peer)) = listener.accept() else { break };
            match stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream)) {
                Ok(stream) => self.take(stream, peer),
                Err(error) => debug!(%error, "client connection not set up"),
            }
        }
        drop(listener);
        self.draining.set(true);
        self.wakers.borrow().values().for_each(Waker::wake_by_ref);
        while self.open.get() > 0 {
            if tokio::time::timeout_at(deadline, self.emptied.notified()).await.is_err() {
                break;
            }
        }
        tidy.abort();
        Ok(self.open.get())
    }

    fn take(self: &Rc<Self>, stream: TcpStream, peer: SocketAddr) {
        match self.prepare(&stream, peer) {
            Ok(peer) => {
                // Counted before it runs, so that a drain does not overlook it.
                spawn_local(connection::serve(self.clone(), self.hold(), stream, peer));
            }
            Err(error) => debug!(%error, "client connection not set up"),
        }
    }

    fn prepare(&self, stream: &TcpStream, peer: SocketAddr) -> io::Result<Peer> {
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))?;
        socket.set_tcp_user_timeout(Some(self.timeouts().write))?;
        Ok(self.peer(peer, stream.local_addr()?))
    }

    /// A peer on plain HTTP.
    pub(super) fn peer(&self, peer: SocketAddr, local: SocketAddr) -> Peer {
        Peer::new(peer, local, false, &self.shared.settings.trusted_proxies)
    }

    async fn tidy(self: Rc<Self>) {
        let mut ticks = tokio::time::interval(TIDY);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    let routes = self.shared.routes.load();
                    self.pool.tidy(|key| routes.pools().contains(&key), Instant::now().into());
                }
                () = self.pool.closed() => {
                    tokio::time::sleep(MORE).await;
                    self.pool.close();
                }
            }
        }
    }

    pub(super) fn timeouts(&self) -> &Timeouts {
        &self.shared.settings.timeouts
    }

    pub(super) const fn draining(&self) -> bool {
        self.draining.get()
    }

    /// Waits a moment for a backend that is full; `None` when the time is up or too many wait already.
    pub(super) async fn pause(&self, until: Instant) -> Option<()> {
        if self.waiting.get() >= self.shared.settings.limits.waiting || Instant::now() >= until {
            return None;
        }
        self.waiting.set(self.waiting.get() + 1);
        let _less = Less(&self.waiting);
        tokio::time::sleep(QUEUE_LOOK).await;
        Some(())
    }

    /// Waits for routes other than these; `None` when the time is up or too many wait already.
    pub(super) async fn next_routes(
        &self,
        old: &Arc<Routes>,
        until: Instant,
    ) -> Option<Arc<Routes>> {
        if self.waiting.get() >= self.shared.settings.limits.waiting {
            return None;
        }
        let mut changed = self.shared.published.subscribe();
        let now = self.shared.routes.load_full();
        if !Arc::ptr_eq(&now, old) {
            return Some(now);
        }
        self.waiting.set(self.waiting.get() + 1);
        let _less = Less(&self.waiting);
        tokio::time::timeout_at(until, changed.changed()).await.ok()?.ok()?;
        Some(self.shared.routes.load_full())
    }

    /// Counts something open that a drain waits for.
    pub(super) fn hold(self: &Rc<Self>) -> Open {
        self.open.set(self.open.get() + 1);
        let number = self.next.get();
        self.next.set(number + 1);
        Open { worker: self.clone(), number, registered: Cell::new(false) }
    }
}

/// Takes one off when a wait ends, however it ends.
struct Less<'a>(&'a Cell<usize>);

impl Drop for Less<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// A connection or a tunnel.
pub(super) struct Open {
    worker: Rc<Worker>,
    number: u64,
    registered: Cell<bool>,
}

impl Open {
    /// Wakes this task when the drain begins. A task has one waker for its life.
    pub(super) fn register(&self, waker: &Waker) {
        if !self.registered.replace(true) {
            self.worker.wakers.borrow_mut().insert(self.number, waker.clone());
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        let worker = &self.worker;
        if self.registered.get() {
            worker.wakers.borrow_mut().remove(&self.number);
        }
        worker.open.set(worker.open.get() - 1);
        if worker.open.get() == 0 && worker.draining.get() {
            worker.emptied.notify_one();
        }
    }
}

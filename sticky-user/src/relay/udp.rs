//! UDP: a port for each frontend, since a redirected datagram does not say where it was going; and a socket for each client,
//! by which the backend's answers find it.

mod packet;

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::debug;

use self::packet::Listener;
use super::Shared;
use super::dial::{self, Call};
use super::routes::Backend;
use super::stats::{Open, Refusal};
use crate::model::Frontend;

/// The kernel's own time-outs, after which it no longer knows that an answer belongs to a redirected datagram
/// (nf_conntrack_udp_timeout and nf_conntrack_udp_timeout_stream).
const UNANSWERED: Duration = Duration::from_secs(30);
const IDLE: Duration = Duration::from_secs(120);
/// After an error of the port, datagrams are read again after this.
const BREATH: Duration = Duration::from_millis(20);

/// The open port of a frontend. Dropped, it is closed, and its sessions end.
pub(super) struct Port {
    pub(super) number: u16,
    _open: DropGuard,
}

/// Opens a port and serves it.
pub(super) fn open(shared: &Arc<Shared>, frontend: Frontend) -> io::Result<Port> {
    let listener = Listener::open(frontend.addr.is_ipv4())?;
    let number = listener.port()?;
    let closed = CancellationToken::new();
    let port = Arc::new(Serving {
        shared: Arc::clone(shared),
        frontend,
        listener,
        sessions: Mutex::default(),
        closed: closed.clone(),
        started: Instant::now(),
    });
    tokio::spawn(async move {
        tokio::select! {
            () = Arc::clone(&port).serve() => {}
            () = port.closed.cancelled() => {}
        }
    });
    Ok(Port { number, _open: closed.drop_guard() })
}

/// A client, and the address that its datagrams come to after they were redirected.
type Key = (SocketAddr, IpAddr);

struct Serving {
    shared: Arc<Shared>,
    frontend: Frontend,
    listener: Listener,
    sessions: Mutex<HashMap<Key, Arc<Session>>>,
    closed: CancellationToken,
    started: Instant,
}

/// One client's way to its backend.
struct Session {
    socket: UdpSocket,
    backend: Arc<Backend>,
    /// Milliseconds since the port was opened, of the last datagram in either direction.
    last: AtomicU64,
    answered: AtomicBool,
    _open: Open,
    _permit: OwnedSemaphorePermit,
}

impl Serving {
    async fn serve(self: Arc<Self>) {
        loop {
            match self.listener.receive(|bytes, key| self.forward(bytes, key)).await {
                Ok(()) => {}
                Err(error) => {
                    debug!(frontend = %self.frontend, %error, "the relay cannot receive");
                    tokio::time::sleep(BREATH).await;
                }
            }
        }
    }

    /// Never waits: a datagram that cannot be sent now is lost, as on any full link.
    fn forward(self: &Arc<Self>, bytes: &[u8], key: Key) {
        let known = self.sessions().get(&key).cloned();
        let session = match known {
            Some(session) => session,
            None => match self.begin(key) {
                Some(session) => session,
                None => return,
            },
        };
        session.last.store(self.now(), Ordering::Relaxed);
        // The runtime does not know yet that a new socket can be written to.
        match SockRef::from(&session.socket).send(bytes) {
            Ok(sent) => {
                session.backend.stats.to_backend.fetch_add(sent as u64, Ordering::Relaxed);
            }
            // Says that an earlier one was refused; its session ends itself.
            Err(error) => debug!(frontend = %self.frontend, %error, "a datagram was not sent"),
        }
    }

    fn begin(self: &Arc<Self>, key: Key) -> Option<Arc<Session>> {
        let (client, here) = key;
        let call = Call { client, frontend: self.frontend, local: here.is_loopback() };
        let routes = Arc::clone(&self.shared.routes.borrow());
        let route = routes.get(&self.frontend)?;
        let stats = &route.service.stats;
        let found = (|| {
            dial::admit(&self.shared, &route, &call)?;
            let permit =
                Arc::clone(&self.shared.room).try_acquire_owned().map_err(|_| Refusal::Full)?;
            let backend = dial::choose(&self.shared, &route, &call).ok_or(Refusal::NoBackend)?;
            let to = SocketAddr::new(backend.ip(&self.frontend), route.target);
            let socket = dial::open_udp(&routes, &call, to).map_err(|_| Refusal::Unreachable)?;
            Ok((socket, backend, permit))
        })();
        let (socket, backend, permit) = match found {
            Ok(found) => found,
            Err(why) => {
                stats.refuse(why);
                let (service, reason) = (&stats.name, why.as_str());
                debug!(service, %client, frontend = %self.frontend, reason, "relay refused");
                return None;
            }
        };
        backend.stats.connections.fetch_add(1, Ordering::Relaxed);
        let session = Arc::new(Session {
            socket,
            backend,
            last: AtomicU64::new(self.now()),
            answered: AtomicBool::new(false),
            _open: stats.open(),
            _permit: permit,
        });
        self.sessions().insert(key, Arc::clone(&session));
        let (port, of) = (Arc::clone(self), Arc::clone(&session));
        tokio::spawn(async move {
            let ended = tokio::select! {
                error = port.answer(&of, key) => error,
                () = of.backend.gone.cancelled() => "the backend is gone".to_owned(),
                () = port.closed.cancelled() => "the frontend is gone".to_owned(),
                () = port.shared.cut.cancelled() => "sticky ends".to_owned(),
                () = port.quiet(&of) => "idle".to_owned(),
            };
            debug!(frontend = %port.frontend, %client, backend = of.backend.id, ended, "UDP session ended");
            port.sessions().remove(&key);
        });
        Some(session)
    }

    /// Takes answers to the client, until the backend refuses what was sent to it.
    async fn answer(&self, session: &Session, (client, here): Key) -> String {
        loop {
            let received = session.socket.async_io(Interest::READABLE, || {
                packet::with_buffer(|buffer| {
                    let length = session.socket.try_recv(buffer)?;
                    let answer = buffer.get(..length).unwrap_or_default();
                    match self.listener.send(answer, client, here) {
                        Ok(()) => {
                            session
                                .backend
                                .stats
                                .to_client
                                .fetch_add(length as u64, Ordering::Relaxed);
                        }
                        Err(error) => debug!(%client, %error, "an answer was not sent"),
                    }
                    Ok(())
                })
            });
            if let Err(error) = received.await {
                return error.to_string();
            }
            let now = self.now();
            session.last.store(now, Ordering::Relaxed);
            session.answered.store(true, Ordering::Relaxed);
        }
    }

    /// Ends when nothing was said for long.
    async fn quiet(&self, session: &Session) {
        loop {
            let limit = if session.answered.load(Ordering::Relaxed) { IDLE } else { UNANSWERED };
            let silent = self.now().saturating_sub(session.last.load(Ordering::Relaxed));
            match limit.checked_sub(Duration::from_millis(silent)) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return,
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn sessions(&self) -> MutexGuard<'_, HashMap<Key, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

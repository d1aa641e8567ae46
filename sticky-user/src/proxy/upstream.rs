//! Connections to backends: kept alive, owned by one worker, used again as long as both ends want to.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::{AbortHandle, spawn_local};
use tracing::debug;

use super::body::{Progress, RequestBody, Upload};
use super::settings::{Limits, Timeouts};

/// Silence after which the kernel asks whether the other end is still there.
pub(super) const KEEPALIVE: Duration = Duration::from_secs(60);

/// Idle connections of one worker, by the backend's pool number.
pub(super) struct Pool {
    idle: RefCell<HashMap<u64, Vec<Idle>>>,
    limit: usize,
    keep: Duration,
    connect: Duration,
    http: http1::Builder,
}

struct Idle {
    sender: SendRequest<RequestBody>,
    task: Task,
    since: Instant,
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
    pub sender: SendRequest<RequestBody>,
    task: Task,
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
            http,
        })
    }

    /// The connection used last, if that is not longer ago than `oldest`.
    pub(super) fn take(self: &Rc<Self>, key: u64, oldest: Duration) -> Option<Lease> {
        let mut idle = self.idle.borrow_mut();
        let connections = idle.get_mut(&key)?;
        let keep = self.keep.min(oldest);
        while let Some(Idle { sender, task, .. }) =
            connections.pop_if(|idle| idle.since.elapsed() < keep)
        {
            if sender.is_ready() {
                return Some(Lease {
                    sender,
                    task,
                    reused: true,
                    body: None,
                    key: Some(key),
                    pool: self.clone(),
                });
            }
        }
        None
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
            self.http.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let task = spawn_local(async move {
            if let Err(error) = connection.with_upgrades().await {
                debug!(%addr, %error, "upstream connection ended");
            }
        });
        let (key, task) = (preface.is_none().then_some(key), Task(task.abort_handle()));
        Ok(Lease { sender, task, reused: false, body: None, key, pool: self.clone() })
    }

    /// Closes what was idle for too long, and what belongs to backends that are gone.
    pub(super) fn tidy(&self, live: &HashSet<u64>) {
        self.idle.borrow_mut().retain(|key, connections| {
            let gone = !live.contains(key);
            connections.retain(|idle| {
                !gone && !idle.sender.is_closed() && idle.since.elapsed() < self.keep
            });
            !connections.is_empty()
        });
    }
}

impl Lease {
    /// The response has been read to its end.
    pub(super) fn give_back(self) {
        // A backend that answers before it has read the request leaves the rest of it on the connection.
        let sent = self.body.is_none_or(|body| body.progress() == Progress::Done);
        let Some(key) = self.key.filter(|_| sent && !self.sender.is_closed()) else { return };
        let mut idle = self.pool.idle.borrow_mut();
        let connections = idle.entry(key).or_default();
        if connections.len() < self.pool.limit {
            connections.push(Idle { sender: self.sender, task: self.task, since: Instant::now() });
        }
    }
}

//! The layer-7 half: an HTTP reverse proxy that keeps sessions.
//!
//! Path of a request: `worker` accepts → `connection` reads it → `request` finds its route in `routes`, has `choice` choose a
//! backend (`seal` opens cookies), cleans `headers`, tells the backend who asks (`forwarded`), sends it by `upstream` →
//! `learn` says what happens to our cookie → `body` streams → `exchange` counts and logs. `respond` has every refusal.
//! The client's task moves both ends on.

mod body;
mod choice;
mod connection;
mod cookies;
mod ejection;
mod exchange;
mod forwarded;
mod headers;
mod host;
mod learn;
mod lifetime;
mod lines;
mod listener;
mod metrics;
mod owners;
mod patience;
mod preface;
mod presented;
mod random;
mod rate;
mod reason;
mod recall;
mod repeat;
mod request;
mod request_ids;
mod respond;
mod routes;
pub mod seal;
mod service;
mod settings;
mod stats;
mod tag;
mod tunnel;
mod upstream;
mod warmth;
mod wire;
mod worker;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use arc_swap::ArcSwap;
use http::HeaderValue;
use sticky_common::hash::HashKey;
use tokio::sync::{mpsc, watch};

use crate::clients::ClientTable;
use crate::keys::Keys;
use crate::model::Snapshot;

pub(crate) use preface::write as preface;
pub(crate) use rate::Buckets;
pub use reason::Reason;
pub use settings::{Limits, Settings, Timeouts};
pub use stats::{BackendStats, ServiceStats};

use routes::Routes;
use stats::Registry;
use worker::Worker;

/// `x-server-info`.
const SERVER_INFO: &str = concat!("sticky/", env!("CARGO_PKG_VERSION"), " linux/");

/// A running proxy. Dropped without [`Proxy::drain`], it ends at once.
pub struct Proxy {
    shared: Arc<Shared>,
    registry: Mutex<Registry>,
    life: watch::Sender<Life>,
    /// The listening sockets, for a successor.
    kept: Mutex<Vec<TcpListener>>,
    /// How many connections each worker cut at its end.
    ended: tokio::sync::Mutex<mpsc::UnboundedReceiver<usize>>,
    http: Option<SocketAddr>,
}

/// What all workers read.
struct Shared {
    settings: Settings,
    routes: ArcSwap<Routes>,
    /// True from the first routes on; told with all.
    published: watch::Sender<bool>,
    keys: Arc<ArcSwap<Keys>>,
    hash_key: HashKey,
    clients: Arc<dyn ClientTable>,
    proxy_id: HeaderValue,
    server_info: HeaderValue,
    started: Instant,
}

impl Shared {
    /// Milliseconds from the start to `now`, never 0.
    fn clock_ms(&self, now: Instant) -> u64 {
        let up = now.saturating_duration_since(self.started);
        u64::try_from(up.as_millis()).unwrap_or(u64::MAX).saturating_add(1)
    }
}

/// Whether workers go on.
#[derive(Clone, Copy, Debug)]
enum Life {
    Serving,
    /// What is not done at this time is cut.
    Ends(tokio::time::Instant),
}

/// Requests of a backend, for the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendCount {
    pub service: String,
    pub backend: String,
    pub requests: u64,
    pub in_progress: u32,
}

/// What a cookie of ours says, for `sticky where --cookie`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CookieView {
    pub reason: Reason,
    /// The backend it names, as far as it opens and is for this service.
    pub backend: Option<String>,
}

impl Proxy {
    /// Binds the listeners, or takes those `inherited` that are for the same address, and starts the workers; until the
    /// first [`Proxy::publish`] connections are refused.
    pub fn start(
        settings: Settings,
        keys: Arc<ArcSwap<Keys>>,
        clients: Arc<dyn ClientTable>,
        inherited: Vec<TcpListener>,
    ) -> anyhow::Result<Self> {
        let listeners = match settings.http {
            None => Vec::new(),
            Some(addr) => listener::open(addr, settings.workers.get(), inherited)
                .with_context(|| format!("cannot listen on {addr} for HTTP (--http)"))?,
        };
        let http = listeners.first().map(TcpListener::local_addr).transpose()?;
        let proxy_id = forever(settings.proxy_id.clone())
            .with_context(|| format!("host name {:?} cannot be a header", settings.proxy_id))?;
        let server_info = forever([SERVER_INFO, std::env::consts::ARCH].concat())?;
        let shared = Arc::new(Shared {
            routes: ArcSwap::default(),
            published: watch::Sender::new(false),
            hash_key: keys.load().hash,
            keys,
            clients,
            proxy_id,
            server_info,
            started: Instant::now(),
            settings,
        });
        let kept = copies(&listeners)?;
        let life = watch::Sender::new(Life::Serving);
        let (done, ended) = mpsc::unbounded_channel();
        for (number, listener) in listeners.into_iter().enumerate() {
            let (shared, life, done) = (shared.clone(), life.subscribe(), done.clone());
            std::thread::Builder::new()
                .name(format!("proxy-{number}"))
                .spawn(move || {
                    let cut = run_worker(shared, listener, life).unwrap_or_else(|error| {
                        tracing::error!(error = format!("{error:#}"), "proxy worker ended");
                        0
                    });
                    // Nobody waits when the proxy was dropped.
                    let _ = done.send(cut);
                })
                .context("cannot start a proxy thread")?;
        }
        Ok(Self {
            shared,
            registry: Mutex::default(),
            life,
            kept: Mutex::new(kept),
            ended: tokio::sync::Mutex::new(ended),
            http,
        })
    }

    /// Copies of the listening sockets, which a successor can go on with.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn listeners(&self) -> io::Result<Vec<TcpListener>> {
        copies(&self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Where plain HTTP is taken.
    #[must_use]
    pub const fn http_addr(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Puts a snapshot in force for all requests from now on, waiting ones included.
    pub fn publish(&self, snapshot: &Snapshot) {
        let mut registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        let cluster = self.shared.settings.service_cluster.as_deref();
        let (key, now) = (self.shared.hash_key, self.shared.clock_ms(Instant::now()));
        let last = self.shared.routes.load();
        let routes = Routes::build(snapshot, &last, cluster, key, &mut registry, now);
        self.shared.routes.store(Arc::new(routes));
        // Before the workers are told, which wait for what a socket says that listens.
        if !*self.shared.published.borrow() {
            self.listen();
        }
        self.shared.published.send_replace(true);
    }

    /// Takes connections from now on. One that came before there are routes would be told that its host is unknown.
    fn listen(&self) {
        for listener in self.kept.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if let Err(error) = listener::listen(listener) {
                tracing::error!(%error, "cannot listen for HTTP");
            }
        }
    }

    /// Requests of every backend in force.
    #[must_use]
    pub fn backends(&self) -> Vec<BackendCount> {
        let routes = self.shared.routes.load();
        let count = |service: &service::Service, backend: &service::Backend| BackendCount {
            service: service.id.clone(),
            backend: backend.id.clone(),
            requests: backend.stats.requests.load(Ordering::Relaxed),
            in_progress: backend.stats.in_progress.load(Ordering::Relaxed),
        };
        let services = routes.services.iter();
        services.flat_map(|s| s.backends.iter().map(move |b| count(s, b))).collect()
    }

    /// Counters of a service in force, by id.
    #[must_use]
    pub fn service(&self, id: &str) -> Option<Arc<ServiceStats>> {
        let routes = self.shared.routes.load();
        routes.services.iter().find(|service| service.id == id).map(|service| service.stats.clone())
    }

    /// Registers the `sticky_http_*`, `sticky_affinity` and `sticky_retries` metrics; the registry's prefix is `sticky`.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        metrics::register(&self.shared, registry);
    }

    /// What a value of our cookie says for a service (by id), as if its named cookie came with it.
    #[must_use]
    pub fn cookie(&self, service: &str, value: &str) -> Option<CookieView> {
        let routes = self.shared.routes.load();
        let service = routes.services.iter().find(|s| s.id == service)?;
        service.cookie.as_ref()?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let keys = self.shared.keys.load();
        // A value opens under the name that it was sealed for, and under no other.
        let open = |name| seal::open(&keys, name, value.as_bytes(), now.as_secs());
        let opened = service.own_names.iter().map(|name| open(name));
        Some(match opened.max_by_key(|one| *one != Err(seal::Bad::Invalid))? {
            Ok(pin) if pin.service == service.hash => {
                let at = service.position(&pin.task);
                let stays =
                    at.and_then(|at| service.backends.get(at)).is_some_and(|b| b.state.keeps());
                let reason = if stays { Reason::Pinned } else { Reason::Repinned };
                CookieView { reason, backend: Some(pin.task) }
            }
            Err(seal::Bad::Expired) => CookieView { reason: Reason::Expired, backend: None },
            _ => CookieView { reason: Reason::Invalid, backend: None },
        })
    }

    /// Takes no more connections, finishes the requests, and returns how many connections were cut after `timeout`.
    pub async fn drain(&self, timeout: Duration) -> usize {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.life.send_replace(Life::Ends(tokio::time::Instant::now() + timeout));
        let mut ended = self.ended.lock().await;
        let mut cut = 0;
        while let Some(more) = ended.recv().await {
            cut += more;
        }
        cut
    }
}

/// A value for each response of a process, which nobody needs to count the users of.
fn forever(text: String) -> anyhow::Result<HeaderValue> {
    HeaderValue::from_str(&text)?;
    Ok(HeaderValue::from_static(text.leak()))
}

fn copies(listeners: &[TcpListener]) -> io::Result<Vec<TcpListener>> {
    listeners.iter().map(TcpListener::try_clone).collect()
}

fn run_worker(
    shared: Arc<Shared>,
    listener: TcpListener,
    life: watch::Receiver<Life>,
) -> anyhow::Result<usize> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .context("cannot start the runtime of a proxy thread")?;
    runtime.block_on(async move {
        let worker = Worker::new(shared)?;
        worker.run(listener, life).await
    })
}

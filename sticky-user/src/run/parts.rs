//! Every part, made and tied to the others.

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::Context;
use arc_swap::ArcSwap;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tracing::info;

use super::handover::{self, Hold, Holdable, Succession};
use super::provider::Provider;
use super::{gate, publish};
use crate::admin::{self, Admin};
use crate::clients::ClientTable;
use crate::clients::memory::MemoryTable;
use crate::clients::tables::Tables;
use crate::config::{Config, Interfaces};
use crate::control::reconcile::{self, Inputs};
use crate::control::{self, DataPathView, InForce};
use crate::datapath;
use crate::drains::{self, Drains};
use crate::failure::Failure;
use crate::firewall::Firewall;
use crate::health;
use crate::keys;
use crate::listeners::HostListeners;
use crate::metrics::Metrics;
use crate::netinfo;
use crate::permissions;
use crate::provider::Found;
use crate::proxy::{self, Proxy};
use crate::relay::Relay;
use crate::socket::client::Client;
use crate::socket::{self, Claim, Handover};
use crate::state::{Saver, StateDir};
use crate::views::Views;

/// What the rest of the life of the process needs.
pub(super) struct Parts {
    pub(super) views: Arc<Views>,
    pub(super) proxy: Arc<Proxy>,
    /// `None`: layer 7 only.
    pub(super) relay: Option<Arc<Relay>>,
    pub(super) ready: Arc<AtomicBool>,
    pub(super) in_force: watch::Receiver<Option<Arc<InForce>>>,
    pub(super) hold: Hold,
    pub(super) paused: watch::Sender<bool>,
    /// The socket is free when this task has ended.
    pub(super) socket: JoinHandle<()>,
    pub(super) handover: (mpsc::Sender<Handover>, mpsc::Receiver<Handover>),
    pub(super) predecessor: Option<Client>,
    /// Ends with the thread of the control loop.
    pub(super) control_ended: oneshot::Receiver<()>,
    pub(super) state: StateDir,
    pub(super) places: crate::config::Places,
}

impl Parts {
    pub(super) fn start(config: &Config, runtime: &Runtime) -> Result<Self, Failure> {
        let handle = runtime.handle();
        let _context = runtime.enter();
        let succession = handover::claim(&config.places.socket, config.takeover);
        let Succession { claim, predecessor, listeners } = runtime.block_on(succession)?;
        permissions::addresses(config)?;
        let state = StateDir::open(&config.places.state_dir)?;
        let keys = keys(config, &state)?;
        let hash_key = keys.load().hash;

        let interfaces = runtime.block_on(interfaces(config))?;
        let vips = runtime.block_on(vips(config, &interfaces))?;
        let saved = state.last_snapshot();
        let has_saved = saved.is_some();
        let served = saved.as_ref().map(|saved| saved.snapshot.clone()).unwrap_or_default();
        let (provider, found) = Provider::new(config, saved);
        let drains = Arc::new(Drains::open(state.clone()));
        let (to, drained) = watch::channel(Arc::clone(&found.borrow()));
        handle.spawn(drains::follow(found.clone(), Arc::clone(&drains), to));
        // Before the provider looks, so that the states of the earlier run are known as such.
        let (monitor, effective) = health::Monitor::new(drained, Arc::new(served));
        handle.spawn(monitor.run());
        provider.start()?;

        let data_path = match &*interfaces {
            [] => None,
            _ => Some(start_data_path(config, interfaces, hash_key, handle)?),
        };
        let links = data_path.as_ref().map_or_else(|| never(0), |d| d.changes.clone());
        let (executor, loaded, view) = split(data_path);
        let max = usize::try_from(config.max_clients).unwrap_or(usize::MAX);
        let memory = MemoryTable::new(hash_key, config.table_size.get(), max);
        let tables = Arc::new(Tables::new(loaded, memory));
        let clients: Arc<dyn ClientTable> = tables.clone();
        let node = node_name();
        let settings = proxy_settings(config, &node);
        let proxy = Arc::new(Proxy::start(settings, keys, Arc::clone(&clients), listeners)?);

        let (in_force_sender, in_force) = watch::channel(None);
        let relay = match &view {
            Some(_) => Some(Arc::new(Relay::start(in_force.clone(), Arc::clone(&clients))?)),
            None => None,
        };
        let views = Arc::new(Views {
            node,
            table_size: config.table_size.get(),
            max_clients: config.max_clients,
            found,
            in_force: in_force.clone(),
            data_path: view,
            clients,
            proxy: Arc::clone(&proxy),
            drains,
            relay: relay.clone(),
            firewall: Firewall::default(),
        });
        let metrics = Arc::new(Metrics::new(Arc::clone(&views)));
        let ready = Arc::new(AtomicBool::new(false));
        handle.spawn(publish::follow(publish::To {
            in_force: in_force.clone(),
            tables,
            proxy: Arc::clone(&proxy),
            metrics: Arc::clone(&metrics),
            ready: Arc::clone(&ready),
        }));
        handle.spawn(publish::save(
            Saver::new(state.clone()),
            in_force.clone(),
            views.found.clone(),
        ));

        let mut admin_addr = None;
        if let Some(addr) = config.admin {
            let admin = Admin { views: Arc::clone(&views), metrics, ready: Arc::clone(&ready) };
            let listener = admin::bind(addr).with_context(|| {
                format!("--admin {addr} cannot be listened on; choose another address, or `none`")
            })?;
            admin_addr = listener.local_addr().ok();
            handle.spawn(admin::serve(listener, Arc::new(admin)));
        }
        // Before anything can be in force, so that the log says in this order what listens and that it is ready.
        announce(config, &views, proxy.http_addr(), admin_addr);

        let hold = Hold::default();
        let (paused, gate_paused) = watch::channel(false);
        let executor = executor.map(|inner| -> Box<dyn control::DataPath> {
            Box::new(Holdable { inner, hold: hold.clone() })
        });
        let control = Control {
            effective,
            saved: has_saved,
            paused: gate_paused,
            vips,
            links,
            hash_key,
            executor,
        };
        let control_ended = control.start(in_force_sender, handle)?;

        let handover = mpsc::channel(1);
        let socket = handle.spawn(socket::serve(claim, Arc::clone(&views), handover.0.clone()));
        Ok(Self {
            views,
            proxy,
            relay,
            ready,
            in_force,
            hold,
            paused,
            socket,
            handover,
            predecessor,
            control_ended,
            state,
            places: config.places.clone(),
        })
    }

    /// Answers on the control socket again, after a successor that gave up.
    pub(super) fn serve_again(&mut self, claim: Claim) {
        self.socket =
            tokio::spawn(socket::serve(claim, Arc::clone(&self.views), self.handover.0.clone()));
    }
}

/// What the control loop is started with.
struct Control {
    effective: watch::Receiver<Arc<Found>>,
    saved: bool,
    paused: watch::Receiver<bool>,
    vips: watch::Receiver<Vec<IpAddr>>,
    links: watch::Receiver<u64>,
    hash_key: sticky_common::hash::HashKey,
    executor: Option<Box<dyn control::DataPath>>,
}

impl Control {
    /// On a thread of its own, since commits wait for the kernel.
    fn start(
        mut self,
        in_force: watch::Sender<Option<Arc<InForce>>>,
        handle: &Handle,
    ) -> Result<oneshot::Receiver<()>, Failure> {
        let (alive, ended) = oneshot::channel::<()>();
        let handle = handle.clone();
        // Its own: that of the other parts is taken down while this loop still waits.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .context("no runtime for the control loop")?;
        let thread = std::thread::Builder::new().name("reconcile".to_owned());
        thread
            .spawn(move || {
                // Dropped at the end of the thread, however it ends.
                let _alive = alive;
                let first = runtime.block_on(gate::first(&mut self.effective, self.saved));
                let Some(first) = first else { return };
                let (to, found) = watch::channel(first);
                handle.spawn(gate::forward(self.effective, self.paused, to));
                let inputs = Inputs {
                    found,
                    vips: self.vips,
                    links: self.links,
                    occupied: Box::new(HostListeners::default()),
                    hash_key: self.hash_key,
                    data_path: self.executor,
                };
                reconcile::run(inputs, &in_force, &runtime);
            })
            .context("no thread for the control loop")?;
        Ok(ended)
    }
}

fn keys(config: &Config, state: &StateDir) -> anyhow::Result<Arc<ArcSwap<keys::Keys>>> {
    let (keys, path) = match &config.cookie_key_file {
        Some(path) => (keys::file::load(path)?, path.clone()),
        None => {
            (keys::file::load_or_generate(state.path())?, state.path().join(keys::file::GENERATED))
        }
    };
    let keys = Arc::new(ArcSwap::from_pointee(keys));
    tokio::spawn(keys::file::follow(path, Arc::clone(&keys)));
    Ok(keys)
}

async fn interfaces(config: &Config) -> anyhow::Result<Vec<String>> {
    match &config.interfaces {
        Interfaces::None => Ok(Vec::new()),
        Interfaces::DefaultRoute => Ok(vec![netinfo::default_interface().await?]),
        Interfaces::Named(names) => Ok(names.clone()),
    }
}

async fn vips(
    config: &Config,
    interfaces: &[String],
) -> anyhow::Result<watch::Receiver<Vec<IpAddr>>> {
    if interfaces.is_empty() || !config.vips.is_empty() {
        return Ok(never(config.vips.clone()));
    }
    netinfo::follow_addresses(interfaces.to_vec()).await
}

/// What never changes. A watch whose sender is gone would read as the end of the loop that waits for it.
fn never<T: Send + Sync + 'static>(value: T) -> watch::Receiver<T> {
    let (sender, receiver) = watch::channel(value);
    tokio::spawn(async move { sender.closed().await });
    receiver
}

fn start_data_path(
    config: &Config,
    interfaces: Vec<String>,
    hash_key: sticky_common::hash::HashKey,
    handle: &Handle,
) -> Result<datapath::DataPath, Failure> {
    let settings = datapath::Settings {
        pin_dir: config.places.pin_dir.clone(),
        interfaces,
        mode: match config.xdp_mode {
            crate::config::XdpMode::Auto => datapath::XdpMode::Auto,
            crate::config::XdpMode::Native => datapath::XdpMode::Native,
            crate::config::XdpMode::Generic => datapath::XdpMode::Generic,
        },
        table_size: config.table_size.get(),
        max_clients: config.max_clients,
        hash_key,
        log: tracing::enabled!(target: "sticky_ebpf", tracing::Level::TRACE),
    };
    Ok(datapath::start(&settings, handle)?)
}

type Faces =
    (Option<datapath::Executor>, Option<Arc<dyn ClientTable>>, Option<Arc<dyn DataPathView>>);

fn split(data_path: Option<datapath::DataPath>) -> Faces {
    match data_path {
        Some(datapath::DataPath { executor, clients, view, .. }) => {
            (Some(executor), Some(clients), Some(view))
        }
        None => (None, None, None),
    }
}

fn proxy_settings(config: &Config, node: &str) -> proxy::Settings {
    proxy::Settings {
        http: config.http,
        trusted_proxies: config.trusted_proxies.clone(),
        hide_info_headers: config.hide_info_headers,
        proxy_id: node.to_owned(),
        service_cluster: config.service_cluster.clone(),
        ..proxy::Settings::default()
    }
}

/// The name of this host, which is Docker's name of the node too.
fn node_name() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname")
        .map(|name| name.trim().to_owned())
        .unwrap_or_else(|_| "localhost".to_owned())
}

fn announce(config: &Config, views: &Views, http: Option<SocketAddr>, admin: Option<SocketAddr>) {
    info!(
        version = env!("CARGO_PKG_VERSION"),
        node = views.node,
        pid = std::process::id(),
        "sticky runs"
    );
    if views.data_path.is_none() {
        info!("no interface, layer 7 only");
    }
    let address =
        |addr: Option<SocketAddr>| addr.map_or("none".to_owned(), |addr| addr.to_string());
    info!(
        http = address(http),
        admin = address(admin),
        socket = %config.places.socket.display(),
        "listening"
    );
    let provider = &views.found.borrow().status;
    info!(kind = provider.kind, "provider");
}

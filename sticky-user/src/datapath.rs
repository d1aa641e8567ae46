//! The data path: the only module that knows aya and the maps.
//!
//! Programs, links and maps are pinned, so packets flow while sticky is stopped, killed or upgraded (P8). A start adopts
//! what is there: the maps stay, the links get the new programs in one atomic step.

mod adopt;
mod attach;
mod clients;
mod counters;
mod execute;
mod features;
mod follow;
mod foreign;
mod load;
mod log;
mod migrate;
mod peers;
mod pins;
mod places;
mod probe;
mod sys;
mod tally;
mod tap;
mod whereabouts;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use sticky_common::hash::HashKey;
use tokio::sync::watch;

pub use attach::XdpMode;
pub use clients::Clients;
pub use counters::View;
pub use execute::Executor;
pub use load::OBJECT;
pub use probe::{InterfaceNow, interfaces, probe};
pub use tap::{Directory, Packet, Tap, Tuple, Whose};

/// What the data path needs to know at its start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub pin_dir: PathBuf,
    pub interfaces: Vec<String>,
    pub mode: XdpMode,
    /// Slots per table, one of `sticky_common::maps::TABLE_SIZES`.
    pub table_size: u32,
    /// Client records, and flows.
    pub max_clients: u32,
    pub hash_key: HashKey,
    /// Lets the programs log what a developer wants to see.
    pub log: bool,
}

/// Why the data path cannot be brought up or down.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("missing {capability} to {what}; run as root or grant the capability")]
    NotPermitted { capability: &'static str, what: String },
    #[error(
        "interface {0} is not there; it is attached when it appears, `ip link` lists those that are there"
    )]
    NoInterface(String),
    #[error(
        "interface {name} has the XDP program{program} of someone else, which is left alone: {remedy}, or name other interfaces with --iface"
    )]
    Foreign { name: String, program: String, remedy: String },
    #[error("cannot attach to {name} in {mode} mode: {cause}")]
    Attach { name: String, mode: &'static str, cause: String },
    #[error(
        "the loaded tables have {loaded} slots, not {wanted}; keep --table-size {loaded}, or run `sticky detach` first"
    )]
    TableSize { loaded: u32, wanted: u32 },
    #[error(
        "the loaded maps hold {loaded} clients, not {wanted}; keep --max-clients {loaded}, or run `sticky detach` first"
    )]
    MaxClients { loaded: u32, wanted: u32 },
    #[error(
        "nothing of this version of sticky is loaded in {}; start it with `sticky run`, or say where with --pin-dir",
        .0.display()
    )]
    NotLoaded(PathBuf),
    #[error("process {0} captures already, and there is one capture at a time; end it first")]
    Capturing(u32),
    #[error("{what}: {cause}")]
    Failed { what: String, cause: String },
}

impl Error {
    fn failed(what: impl Into<String>, cause: impl std::fmt::Display) -> Self {
        Self::Failed { what: what.into(), cause: cause.to_string() }
    }
}

/// The three faces of a running data path.
pub struct DataPath {
    /// Carries out plans.
    pub executor: Executor,
    /// Answers for clients.
    pub clients: Arc<Clients>,
    /// Counters and interfaces.
    pub view: Arc<View>,
    /// Counts the changes of this host's links and addresses: when to look again.
    pub changes: watch::Receiver<u64>,
}

/// Loads or adopts, and attaches. `runtime` serves netlink requests; call it outside of any runtime.
pub fn start(settings: &Settings, runtime: &tokio::runtime::Handle) -> Result<DataPath, Error> {
    let pins = pins::Pins::create(&settings.pin_dir)?;
    let earlier = migrate::Earlier::find(&settings.pin_dir, &pins)?;
    let mut loaded = load::load(settings, &pins, runtime)?;
    let maps = Arc::new(loaded.maps()?);
    // Before the programs of this version see a packet: those of another may have left these maps behind.
    let places = places::Places::begin(&maps)
        .map_err(|e| Error::failed("cannot write the places of the frontends", e))?;
    let no_netlink = |e| Error::failed("cannot talk to the kernel's netlink", e);
    // Before the first look, so that nothing is missed after it.
    let changes = follow::changes(runtime).map_err(no_netlink)?;
    let mut netlink = crate::netlink::Netlink::connect().map_err(no_netlink)?;
    let mut hooks = attach::Hooks::new(
        loaded.programs,
        pins.clone(),
        settings.clone(),
        runtime.clone(),
        earlier,
    );
    let links = netlink.links().map_err(|e| Error::failed("cannot list the interfaces", e))?;
    hooks.begin(&links)?;
    let index = Arc::new(ArcSwap::default());
    Ok(DataPath {
        clients: Arc::new(Clients::new(Arc::clone(&maps), Arc::clone(&index), settings.hash_key)),
        view: Arc::new(View::new(Arc::clone(&maps), Arc::clone(&index), hooks.shown())),
        executor: Executor::new(maps, places, hooks, netlink, changes.elsewhere, index, settings),
        changes: changes.links,
    })
}

/// Removes every program, link and map under a pin directory. What was not there is fine.
pub fn detach(pin_dir: &Path) -> Result<usize, Error> {
    pins::remove_all(pin_dir)
}

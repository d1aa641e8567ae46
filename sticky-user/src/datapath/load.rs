//! Loads the programs over the pinned maps, or makes the maps.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::thread;

use aya::maps::lpm_trie::Key as Prefix;
use aya::maps::{Map as AyaMap, MapData, MapInfo, PerCpuArray};
use aya::programs::{Program, ProgramError, SchedClassifier, Xdp};
use aya::{Ebpf, EbpfError, EbpfLoader, Pod};
use aya_obj::generated::bpf_map_type::{BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_ARRAY_OF_MAPS};
use sticky_common::hash::Keyed;
use sticky_common::maps;
use sticky_common::types::{
    Backend, ClientKey, Flow, FlowKey, Frontend, FrontendKeyV4, FrontendKeyV6, Placed, Record,
    RuleKey, Slot, Traffic,
};

use tokio::runtime::Handle;

use super::attach::{Mode, XdpMode};
use super::pins::Pins;
use super::sys::{self, Geometry, Map};
use super::tally::Tally;
use super::{Error, Settings};

/// The kernel half, built by build.rs.
pub static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/sticky-ebpf"));

const DELIVER: &str = "sticky_deliver";
const REPLY: &str = "sticky_reply";

/// All that user space works with.
pub struct Maps {
    /// This process made them.
    pub empty: bool,
    pub frontends_v4: Map<FrontendKeyV4, Frontend>,
    pub frontends_v6: Map<FrontendKeyV6, Frontend>,
    /// One value, a byte for each place.
    pub places: Map<u32, [u8; 1 << maps::PLACE_BITS]>,
    pub placed: Map<u32, Placed>,
    /// Values are descriptors when written, ids when read.
    pub tables: Map<u32, u32>,
    pub table_size: u32,
    pub backends: Map<u32, Backend>,
    pub clients: Map<ClientKey, Record>,
    pub candidates: Map<ClientKey, Record>,
    pub flows: Map<FlowKey, Flow>,
    pub rules: Map<Prefix<RuleKey>, u32>,
    pub service_ids: Map<u32, u64>,
    pub backend_ids: Map<u32, u64>,
    pub backend_stats: PerCpuArray<MapData, [Traffic; maps::BACKENDS_COUNTED as usize]>,
    pub backend_bases: Map<u32, Traffic>,
    pub outcomes: PerCpuArray<MapData, u64>,
    pub tally: Tally,
}

/// The programs, attached nowhere.
pub struct Programs {
    ebpf: Ebpf,
}

/// What a load gives.
pub struct Loaded {
    pub programs: Programs,
    maps: Option<Maps>,
}

impl Loaded {
    pub fn maps(&mut self) -> Result<Maps, Error> {
        self.maps
            .take()
            .ok_or_else(|| Error::failed("cannot open the maps", "they were taken already"))
    }
}

pub fn load(settings: &Settings, pins: &Pins, runtime: &Handle) -> Result<Loaded, Error> {
    let tables_name = tables_pin(settings.table_size);
    let empty = pins.maps().is_empty();
    same_size(settings.max_clients, pins)?;
    make_tables(settings.table_size, pins, &tables_name)?;
    let hash = settings.hash_key.keyed().words();
    let mut loader = EbpfLoader::new();
    for (name, word) in Keyed::GLOBALS.into_iter().zip(&hash) {
        loader.override_global(name, word, true);
    }
    let log_level = if settings.log { u8::MAX } else { 0 };
    loader
        .override_global("TABLE_SIZE", &settings.table_size, true)
        .override_global(aya_log::LEVEL, &log_level, false)
        .map_max_entries(maps::CLIENTS, settings.max_clients)
        .map_max_entries(maps::FLOWS, settings.max_clients)
        .map_pin_path(maps::TABLES, pins.map(&tables_name));
    for name in [
        maps::FRONTENDS_V4,
        maps::FRONTENDS_V6,
        maps::PLACES,
        maps::PLACED,
        maps::BACKENDS,
        maps::BACKEND_STATS,
        maps::BACKEND_BASES,
        maps::OUTCOMES,
        maps::SERVICE_IDS,
        maps::BACKEND_IDS,
        maps::CLIENTS,
        maps::CANDIDATES,
        maps::FLOWS,
        maps::OPENINGS,
        maps::TRANSIENT,
        maps::HANDSHAKES,
        maps::HANDSHAKE_TAGS,
        maps::FRAGMENTS,
        maps::RULES,
        maps::RATES,
        maps::ANSWERS,
        maps::CAPTURE,
        maps::CAPTURE_UNTIL,
        maps::CAPTURED,
    ] {
        loader.map_pin_path(name, pins.map(name));
    }
    let mut ebpf = loader.load(OBJECT).map_err(load_error)?;
    if settings.log {
        super::log::follow(&mut ebpf, runtime);
    }
    let mut programs = Programs { ebpf };
    // Before anything is changed.
    programs.check(settings.mode).map_err(|e| refused(&e))?;
    let ebpf = &programs.ebpf;
    let maps = Maps {
        empty,
        frontends_v4: open(ebpf, maps::FRONTENDS_V4)?,
        frontends_v6: open(ebpf, maps::FRONTENDS_V6)?,
        places: open(ebpf, maps::PLACES)?,
        placed: open(ebpf, maps::PLACED)?,
        tables: open(ebpf, maps::TABLES)?,
        table_size: settings.table_size,
        backends: open(ebpf, maps::BACKENDS)?,
        clients: open(ebpf, maps::CLIENTS)?,
        candidates: open(ebpf, maps::CANDIDATES)?,
        flows: open(ebpf, maps::FLOWS)?,
        rules: open(ebpf, maps::RULES)?,
        service_ids: open(ebpf, maps::SERVICE_IDS)?,
        backend_ids: open(ebpf, maps::BACKEND_IDS)?,
        backend_stats: open_per_cpu(ebpf, maps::BACKEND_STATS)?,
        backend_bases: open(ebpf, maps::BACKEND_BASES)?,
        outcomes: open_per_cpu(ebpf, maps::OUTCOMES)?,
        tally: Tally::default(),
    };
    Ok(Loaded { programs, maps: Some(maps) })
}

/// The kernel does not take a program.
pub fn refused(e: &ProgramError) -> Error {
    Error::failed("the kernel refused a program of sticky", chain(e))
}

/// Pinned under its size, so that another size is noticed before anything is loaded.
fn tables_pin(size: u32) -> String {
    format!("{}-{size}", maps::TABLES)
}

/// A map that is pinned is taken as it is: its size has to be the one that is wanted.
fn same_size(wanted: u32, pins: &Pins) -> Result<(), Error> {
    if !pins.maps().iter().any(|name| name == maps::CLIENTS) {
        return Ok(());
    }
    let there = MapInfo::from_pin(pins.map(maps::CLIENTS))
        .map_err(|e| Error::failed("cannot look at the map of clients", chain(&e)))?;
    match there.max_entries() {
        loaded if loaded == wanted => Ok(()),
        loaded => Err(Error::MaxClients { loaded, wanted }),
    }
}

/// Makes the map of tables, whose inner value size no object file can say.
fn make_tables(size: u32, pins: &Pins, name: &str) -> Result<(), Error> {
    let there = pins.maps();
    if there.iter().any(|n| n == name) {
        return Ok(());
    }
    let other =
        there.iter().find_map(|n| n.strip_prefix(maps::TABLES)?.strip_prefix('-')?.parse().ok());
    if let Some(loaded) = other {
        return Err(Error::TableSize { loaded, wanted: size });
    }
    let made = new_table(size).and_then(|template| {
        let geometry = Geometry {
            kind: BPF_MAP_TYPE_ARRAY_OF_MAPS,
            key: 4,
            value: 4,
            entries: maps::MAX_SERVICES,
        };
        sys::create(&geometry, Some(template.as_fd()))
    });
    let fd = made.map_err(|e| match e.raw_os_error() {
        Some(libc::EPERM) => {
            Error::NotPermitted { capability: "CAP_BPF", what: "create the maps".into() }
        }
        _ => Error::failed("cannot create the map of tables", e),
    })?;
    let data = MapData::from_fd(fd)
        .map_err(|e| Error::failed("cannot open the map of tables", chain(&e)))?;
    data.pin(pins.map(name)).map_err(|e| Error::failed("cannot pin the map of tables", chain(&e)))
}

/// An empty table.
pub fn new_table(size: u32) -> io::Result<OwnedFd> {
    let value = size * size_of::<Slot>() as u32;
    sys::create(&Geometry { kind: BPF_MAP_TYPE_ARRAY, key: 4, value, entries: 1 }, None)
}

fn open<K: Pod, V: Pod>(ebpf: &Ebpf, name: &str) -> Result<Map<K, V>, Error> {
    Ok(Map::new(descriptor(ebpf, name)?))
}

fn open_per_cpu<V: Pod>(ebpf: &Ebpf, name: &str) -> Result<PerCpuArray<MapData, V>, Error> {
    let map = MapData::from_fd(descriptor(ebpf, name)?).map(AyaMap::PerCpuArray);
    let map = map.and_then(PerCpuArray::try_from);
    map.map_err(|e| Error::failed(format!("map {name}"), chain(&e)))
}

/// A descriptor beside the loader's own, which is in the programs that are still to be loaded.
fn descriptor(ebpf: &Ebpf, name: &str) -> Result<OwnedFd, Error> {
    let map =
        ebpf.map(name).ok_or_else(|| Error::failed(format!("map {name}"), "not in the object"))?;
    let data = match map {
        AyaMap::HashMap(m)
        | AyaMap::LruHashMap(m)
        | AyaMap::LpmTrie(m)
        | AyaMap::Array(m)
        | AyaMap::PerCpuArray(m)
        | AyaMap::ArrayOfMaps(m) => m,
        _ => return Err(Error::failed(format!("map {name}"), "is of another kind than expected")),
    };
    data.fd().as_fd().try_clone_to_owned().map_err(|e| Error::failed(format!("map {name}"), e))
}

fn load_error(e: EbpfError) -> Error {
    let text = chain(&e);
    if text.contains("Operation not permitted") {
        return Error::NotPermitted { capability: "CAP_BPF", what: "load the programs".into() };
    }
    Error::failed("cannot load the programs", text)
}

/// An error with its causes, which aya keeps apart.
pub fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn load_one(program: &mut Program) -> Result<(), ProgramError> {
    match program {
        Program::Xdp(xdp) => xdp.load(),
        Program::SchedClassifier(tc) => tc.load(),
        _ => Ok(()),
    }
}

impl Programs {
    /// Loads those that are needed in any case.
    fn check(&mut self, mode: XdpMode) -> Result<(), ProgramError> {
        let first = mode.tries().first().map(|mode| mode.program());
        let needed = |name: &str| [DELIVER, REPLY].contains(&name) || Some(name) == first;
        // Side by side: most of a start is the verifier's.
        thread::scope(|scope| {
            let programs = self.ebpf.programs_mut().filter(|(name, _)| needed(name));
            let loads: Vec<_> =
                programs.map(|(_, program)| scope.spawn(|| load_one(program))).collect();
            loads.into_iter().try_for_each(|load| match load.join() {
                Ok(done) => done,
                Err(panic) => std::panic::resume_unwind(panic),
            })
        })
    }

    /// The one for this mode. One for a mode that comes second is loaded when it is needed: to verify it takes the kernel a
    /// fifth of a second.
    pub fn xdp(&mut self, mode: Mode) -> Result<&mut Xdp, ProgramError> {
        let xdp: &mut Xdp = self.program(mode.program()).try_into()?;
        if xdp.fd().is_err() {
            xdp.load()?;
        }
        Ok(xdp)
    }

    pub fn deliver(&mut self) -> Result<&mut SchedClassifier, ProgramError> {
        self.program(DELIVER).try_into()
    }

    pub fn reply(&mut self) -> Result<&mut SchedClassifier, ProgramError> {
        self.program(REPLY).try_into()
    }

    fn program(&mut self, name: &str) -> &mut Program {
        self.ebpf.program_mut(name).expect("the object is built with this program")
    }
}

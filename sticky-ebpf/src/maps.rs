//! Every map, by the names in `sticky_common::maps`. Sizes of those that hold clients are set at load.

use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LpmTrie, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use sticky_common::maps::*;
use sticky_common::outcome::Outcome;
use sticky_common::types::{
    Backend, ClientKey, Flow, FlowKey, Fragment, FragmentKey, Frontend, FrontendKeyV4,
    FrontendKeyV6, Handshake, Placed, Record, RuleKey, Slot, Traffic, addr,
};

use crate::packet::Packet;
use crate::settings;

#[btf_map]
static FRONTENDS_V4: HashMap<FrontendKeyV4, Frontend, { MAX_FRONTENDS as usize }> = HashMap::new();

#[btf_map]
static FRONTENDS_V6: HashMap<FrontendKeyV6, Frontend, { MAX_FRONTENDS as usize }> = HashMap::new();

#[btf_map]
static PLACES: Array<[u8; 1 << PLACE_BITS], 1> = Array::new();

#[btf_map]
static PLACED: Array<Placed, { 2 << PLACE_BITS }> = Array::new();

/// The inner map is one value, the slots of a whole table, whose size user space sets when it creates this map.
#[btf_map]
static TABLES: ArrayOfMaps<Array<[Slot; 1], 1>, { MAX_SERVICES as usize }> = ArrayOfMaps::new();

#[btf_map]
pub static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();

#[btf_map]
pub static BACKEND_STATS: PerCpuArray<
    [Traffic; BACKENDS_COUNTED as usize],
    { MAX_BACKENDS.div_ceil(BACKENDS_COUNTED) as usize },
> = PerCpuArray::new();

#[btf_map]
static BACKEND_BASES: Array<Traffic, { MAX_BACKENDS as usize }> = Array::new();

#[btf_map]
pub static OUTCOMES: PerCpuArray<u64, { Outcome::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
static SERVICE_IDS: Array<u64, { MAX_SERVICES as usize }> = Array::new();

#[btf_map]
static BACKEND_IDS: Array<u64, { MAX_BACKENDS as usize }> = Array::new();

#[btf_map]
pub static CLIENTS: LruHashMap<ClientKey, Record, { DEFAULT_MAX_CLIENTS as usize }> =
    LruHashMap::new();

#[btf_map]
pub static CANDIDATES: LruHashMap<ClientKey, Record, { MAX_TRANSIENT as usize }> =
    LruHashMap::new();

#[btf_map]
pub static FLOWS: LruHashMap<FlowKey, Flow, { DEFAULT_MAX_CLIENTS as usize }> = LruHashMap::new();

#[btf_map]
pub static TRANSIENT: LruHashMap<FlowKey, Flow, { MAX_TRANSIENT as usize }> = LruHashMap::new();

#[btf_map]
pub static HANDSHAKES: Array<Handshake, { 1 << HANDSHAKE_BITS }> = Array::new();

#[btf_map]
pub static HANDSHAKE_TAGS: Array<[u8; 1 << HANDSHAKE_BITS], 1> = Array::new();

#[btf_map]
pub static FRAGMENTS: LruHashMap<FragmentKey, Fragment, { MAX_FRAGMENTS as usize }> =
    LruHashMap::new();

#[btf_map]
pub static RULES: LpmTrie<RuleKey, u32, { MAX_RULES as usize }> = LpmTrie::new();

#[btf_map]
pub static RATES: LruHashMap<ClientKey, u64, { MAX_RATES as usize }> = LruHashMap::new();

#[btf_map]
pub static ANSWERS: PerCpuArray<u64, 1> = PerCpuArray::new();

/// The byte of a place where a handshake may wait.
#[inline(always)]
pub fn handshake_tag(place: u32) -> Option<&'static mut u8> {
    let tags = HANDSHAKE_TAGS.get_ptr_mut(0)?;
    // SAFETY: map memory stays valid until the program ends, and a byte is read and written whole.
    unsafe { (*tags).get_mut(place as usize) }
}

/// The frontend that a packet is for.
#[inline(always)]
pub fn frontend(packet: &Packet) -> Option<&'static Frontend> {
    let (port, proto) = (packet.dst_port, packet.proto);
    if packet.v4 {
        frontend_v4(addr::v4(&packet.dst), port, proto)
    } else {
        let key = FrontendKeyV6 { addr: packet.dst, port, proto, zero: 0 };
        // SAFETY: map memory stays valid until the program ends.
        unsafe { FRONTENDS_V6.get(key) }
    }
}

/// The frontend at an address of IPv4.
#[inline(always)]
pub fn frontend_v4(addr: [u8; 4], port: [u8; 2], proto: u8) -> Option<&'static Frontend> {
    let key = FrontendKeyV4 { addr, port, proto, zero: 0 };
    let place = key.place(PLACE_BITS);
    let which = *PLACES.get(0)?.get(place as usize)?;
    if which == 0 {
        return None;
    }
    match PLACED.get(Placed::index(place, which)) {
        Some(placed) if placed.key == key.packed() => Some(&placed.frontend),
        // SAFETY: as above.
        _ => unsafe { FRONTENDS_V4.get(key) },
    }
}

/// Slot `index` of a service's table.
#[inline(always)]
pub fn slot(service: u32, index: u32) -> Slot {
    let Some(table) = TABLES.get_value(service, &0) else { return Slot::EMPTY };
    if index >= settings::table_size() {
        return Slot::EMPTY;
    }
    // SAFETY: the value holds `table_size` slots (user space creates it so) and the index is below that; the verifier
    // checks both against the real map.
    unsafe { *table.as_ptr().add(index as usize) }
}

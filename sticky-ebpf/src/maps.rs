//! Every map, by the names in `sticky_common::maps`. Sizes of the last two are set at load.

use aya_ebpf::btf_maps::{Array, ArrayOfMaps, HashMap, LruHashMap, PerCpuArray};
use aya_ebpf::macros::btf_map;
use sticky_common::maps::{DEFAULT_MAX_CLIENTS, MAX_BACKENDS, MAX_FRONTENDS, MAX_SERVICES};
use sticky_common::outcome::Outcome;
use sticky_common::types::{
    Backend, ClientKeyV4, ClientKeyV6, Flow, FlowKeyV4, Frontend, FrontendKeyV4, Record, Slot,
    Traffic,
};

use crate::settings;

#[btf_map]
pub static FRONTENDS_V4: HashMap<FrontendKeyV4, Frontend, { MAX_FRONTENDS as usize }> =
    HashMap::new();

/// The inner map is one value, the slots of a whole table, whose size user space sets when it creates this map.
#[btf_map]
static TABLES: ArrayOfMaps<Array<[Slot; 1], 1>, { MAX_SERVICES as usize }> = ArrayOfMaps::new();

#[btf_map]
pub static BACKENDS: Array<Backend, { MAX_BACKENDS as usize }> = Array::new();

#[btf_map]
pub static BACKEND_STATS: PerCpuArray<Traffic, { MAX_BACKENDS as usize }> = PerCpuArray::new();

#[btf_map]
pub static OUTCOMES: PerCpuArray<u64, { Outcome::COUNT as usize }> = PerCpuArray::new();

#[btf_map]
static SERVICE_IDS: Array<u64, { MAX_SERVICES as usize }> = Array::new();

#[btf_map]
static BACKEND_IDS: Array<u64, { MAX_BACKENDS as usize }> = Array::new();

#[btf_map]
pub static CLIENTS_V4: LruHashMap<ClientKeyV4, Record, { DEFAULT_MAX_CLIENTS as usize }> =
    LruHashMap::new();

/// Only user space asks this one: IPv6 clients come through the proxy.
#[btf_map]
static CLIENTS_V6: LruHashMap<ClientKeyV6, Record, { DEFAULT_MAX_CLIENTS as usize }> =
    LruHashMap::new();

#[btf_map]
pub static FLOWS_V4: LruHashMap<FlowKeyV4, Flow, { DEFAULT_MAX_CLIENTS as usize }> =
    LruHashMap::new();

/// Slot `index` of a service's table.
#[inline(always)]
pub fn slot(service: u32, index: u32) -> Option<Slot> {
    let table = TABLES.get_value(service, &0)?;
    if index >= settings::table_size() {
        return None;
    }
    // SAFETY: the value holds `table_size` slots (user space creates it so) and the index is below that; the verifier
    // checks both against the real map.
    Some(unsafe { *table.as_ptr().add(index as usize) })
}

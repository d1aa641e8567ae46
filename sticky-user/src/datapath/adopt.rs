//! Reads back what an earlier process left in the maps.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use aya::maps::MapData;
use sticky_common::hash::HashKey;
use sticky_common::maglev;
use sticky_common::maps::MAX_SERVICES;
use sticky_common::types::{Backend, BackendId, RuleKey, Slot};

use super::load::Maps;
use super::sys;
use crate::control::plan::{FrontendKey, Loaded, LoadedService, Rule};

/// Where the mark of the hash key is kept.
pub const KEY_MARK: u32 = MAX_SERVICES - 1;
const CHUNK: u32 = 4096;

/// A mark that tells one hash key from another and says nothing of either.
pub fn key_mark(key: HashKey) -> u64 {
    maglev::identity(key, b"hash key").max(1)
}

/// The maps' contents, as the plan knows them.
pub fn read(maps: &Maps) -> io::Result<Loaded> {
    let mut loaded = Loaded::default();
    maps.frontends_v4.for_each(CHUNK, |key, value| {
        loaded.frontends.insert(FrontendKey::V4(*key), *value);
    })?;
    maps.frontends_v6.for_each(CHUNK, |key, value| {
        loaded.frontends.insert(FrontendKey::V6(*key), *value);
    })?;
    maps.rules.for_each(CHUNK, |key, admits| {
        let (bits, RuleKey { rules, addr }) = (key.prefix_len(), key.data());
        let prefix = bits.saturating_sub(RuleKey::RULES_BITS) as u8;
        let rule = Rule { addr, prefix, admits: *admits != 0 };
        loaded.rules.entry(u32::from_be_bytes(rules)).or_default().push(rule);
    })?;
    loaded.rules.values_mut().for_each(|rules| rules.sort_unstable());
    let mut identities = HashMap::new();
    maps.backend_ids.for_each(CHUNK, |index, identity| {
        if *identity != 0 {
            identities.insert(*index, *identity);
        }
    })?;
    let mut backends: HashMap<u32, BTreeMap<u64, Backend>> = HashMap::new();
    maps.backends.for_each(CHUNK, |index, backend| {
        let id = BackendId(backend.id);
        if backend.id != 0 {
            loaded.unused = loaded.unused.max(index + 1);
        }
        match identities.get(index) {
            Some(identity) if backend.flags & Backend::ALIVE != 0 => {
                backends.entry(backend.service).or_default().insert(*identity, *backend);
            }
            _ if backend.id != 0 => {
                loaded.retired.insert(*index, (id.generation(), 0));
            }
            _ => {}
        }
    })?;
    let mut services = Vec::new();
    maps.service_ids.for_each(CHUNK, |index, identity| {
        if *identity != 0 && *index != KEY_MARK {
            services.push((*index, *identity));
        }
    })?;
    for (index, identity) in services {
        let Some(table) = maps.tables.get(&index)? else { continue };
        let table = MapData::from_id(table).map_err(io::Error::other)?;
        let slots: Vec<Slot> = sys::read_single(table.fd().as_fd(), maps.table_size as usize)?;
        let backends = backends.remove(&index).unwrap_or_default();
        let service = LoadedService {
            index,
            moved: slots.iter().any(|slot| slot.unsettled()).then_some(0),
            shares: shares_of(&slots),
            slots: Arc::from(slots),
            backends,
            members: Vec::new(),
            rules: 0,
            wanted: None,
        };
        loaded.services.insert(identity, Arc::new(service));
    }
    // A process that ended half-way through a change left these to no service.
    for orphan in backends.into_values().flat_map(BTreeMap::into_values) {
        let id = BackendId(orphan.id);
        loaded.retired.insert(id.index(), (id.generation(), 0));
    }
    Ok(loaded)
}

fn shares_of(slots: &[Slot]) -> Arc<[(u32, u32)]> {
    let mut shares: BTreeMap<u32, u32> = BTreeMap::new();
    for index in slots.iter().filter_map(|slot| slot.index()) {
        *shares.entry(index).or_default() += 1;
    }
    shares.into_iter().collect()
}

//! Answers for clients from the loaded tables and records, for the proxy and for `where`.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::os::fd::AsFd;
use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use aya::maps::MapData;
use sticky_common::decide::{self, Clock, World};
use sticky_common::hash::{self, HashKey};
use sticky_common::maglev;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Backend, BackendId, ClientKey, Record, Slot, tick};
use tracing::debug;

use super::load::Maps;
use super::sys;
use crate::clients::{Choice, ClientTable, hash_of, masked};
use crate::control::desired::identity;
use crate::control::plan::{Loaded, LoadedService};
use crate::control::reconcile;
use crate::model::IpPrefix;

/// The maps' numbers and the snapshot's names; replaced at each commit.
#[derive(Default)]
pub struct Index {
    /// By identity; each is replaced by itself where no service comes or goes.
    services: BTreeMap<u64, ArcSwap<Service>>,
}

/// What counts as one client, and for how long it is remembered.
struct ClientRules {
    prefix: IpPrefix,
    /// Affinity time in ticks, 0: none.
    ttl: u32,
}

struct Service {
    /// What it was made from.
    source: Arc<LoadedService>,
    rules: ClientRules,
    /// By index in the maps.
    backends: HashMap<u32, (Backend, String)>,
}

impl Index {
    /// Has what is loaded now, in which these services are other than before, by identity. Returns another index where
    /// one does not do with other services in the same places.
    pub fn follow(&self, loaded: &Loaded, changed: &[u64]) -> Option<Self> {
        let other = |identity: &u64| {
            let known = self.services.get(identity)?;
            Some((known, Service::of(loaded.services.get(identity)?)?))
        };
        let Some(others) = changed.iter().map(other).collect::<Option<Vec<_>>>() else {
            return Some(self.after(loaded));
        };
        others.into_iter().for_each(|(known, now)| known.store(Arc::new(now)));
        None
    }

    /// The index of what is loaded now. Services that are loaded as they were are those of this one.
    fn after(&self, loaded: &Loaded) -> Self {
        let services = loaded.services.iter().filter_map(|(identity, service)| {
            let same = self.services.get(identity).map(ArcSwap::load_full);
            let same = same.filter(|known| Arc::ptr_eq(&known.source, service));
            let known = same.or_else(|| Service::of(service).map(Arc::new))?;
            Some((*identity, ArcSwap::new(known)))
        });
        Self { services: services.collect() }
    }

    fn service(&self, id: &str) -> Option<Guard<Arc<Service>>> {
        Some(self.services.get(&identity(id))?.load())
    }

    /// Index in the maps and id of every backend.
    pub fn backends(&self) -> impl Iterator<Item = (u32, String)> {
        self.services.values().flat_map(|service| {
            let service = service.load();
            let backends = service.backends.iter().map(|(at, (_, id))| (*at, id.clone()));
            backends.collect::<Vec<_>>()
        })
    }

    /// Index in the maps and id of every service.
    pub fn services(&self) -> impl Iterator<Item = (u32, String)> {
        self.services.values().filter_map(|service| {
            let source = &service.load().source;
            Some((source.index, source.wanted.as_ref()?.id.to_string()))
        })
    }
}

impl Service {
    /// `None`: nobody says its name any more.
    fn of(loaded: &Arc<LoadedService>) -> Option<Self> {
        let wanted = loaded.wanted.as_ref()?;
        let backends = wanted.backends.iter().filter_map(|backend| {
            let value = loaded.backends.get(&backend.identity)?;
            Some((BackendId(value.id).index(), (*value, backend.id.clone())))
        });
        Some(Self {
            source: Arc::clone(loaded),
            rules: ClientRules { prefix: wanted.prefix, ttl: wanted.ttl },
            backends: backends.collect(),
        })
    }

    fn slot(&self, hash: u64) -> Slot {
        let at = hash::slot(hash, self.source.slots.len() as u32);
        self.source.slots.get(at as usize).copied().unwrap_or(Slot::EMPTY)
    }

    fn named(&self, backend: &Backend, reason: Outcome) -> Option<Choice> {
        let (_, id) = self.backends.get(&BackendId(backend.id).index())?;
        Some(Choice { backend: id.clone(), reason })
    }
}

/// No packet is at hand, so no flow is asked.
impl World for Service {
    fn backend(&self, index: u32) -> Option<&Backend> {
        self.backends.get(&index).map(|(b, _)| b)
    }
    fn has_flow(&self, _: &Backend) -> bool {
        false
    }
}

/// The backends of one question as the kernel has them, for `where`.
struct Loads(HashMap<u32, Backend>);

impl Loads {
    fn of(maps: &Maps, slot: Slot, record: Option<&Record>) -> Self {
        let recorded = record.into_iter().flat_map(|r| r.backends).map(|id| BackendId(id).index());
        let read = |index| Some((index, maps.backends.get(&index).ok()??));
        Self(recorded.chain(slot.index()).filter_map(read).collect())
    }
}

impl World for Loads {
    fn backend(&self, index: u32) -> Option<&Backend> {
        self.0.get(&index)
    }
    fn has_flow(&self, _: &Backend) -> bool {
        false
    }
}

/// Answers for clients, over the maps.
pub struct Clients {
    maps: Arc<Maps>,
    index: Arc<ArcSwap<Index>>,
    key: HashKey,
}

impl Clients {
    pub(super) fn new(maps: Arc<Maps>, index: Arc<ArcSwap<Index>>, key: HashKey) -> Self {
        Self { maps, index, key }
    }

    /// The client that an address stands for, with the hash of it.
    fn client(&self, service: &Service, client: IpAddr) -> (ClientKey, u64) {
        let addr = masked(client, service.rules.prefix);
        (ClientKey { service: service.source.index, addr }, hash_of(self.key, &addr))
    }

    fn record(&self, key: &ClientKey) -> Option<Record> {
        let read = self.maps.clients.get(key).and_then(|known| match known {
            Some(known) => Ok(Some(known)),
            None => self.maps.candidates.get(key),
        });
        read.unwrap_or_else(|e| {
            debug!(error = %e, "cannot read a client record");
            None
        })
    }

    fn write(&self, key: &ClientKey, record: &Record) {
        // Who asks for it has a connection of the client.
        if let Err(e) = self.maps.clients.set(key, record) {
            debug!(error = %e, "cannot write a client record");
        }
        self.maps.tally.wrote();
    }

    /// The slot as the kernel has it.
    fn loaded_slot(&self, service: &Service, hash: u64) -> Option<Slot> {
        let table = MapData::from_id(self.maps.tables.get(&service.source.index).ok()??).ok()?;
        let slots: Vec<Slot> =
            sys::read_single(table.fd().as_fd(), self.maps.table_size as usize).ok()?;
        slots.get(hash::slot(hash, self.maps.table_size) as usize).copied()
    }
}

impl ClientTable for Clients {
    fn choose(&self, service: &str, client: IpAddr) -> Option<Choice> {
        let index = self.index.load();
        let service = index.service(service)?;
        let (key, hash) = self.client(&service, client);
        let record = self.record(&key);
        let now = reconcile::now();
        let clock = Clock { now, ttl: service.rules.ttl };
        let decision = decide::first(service.slot(hash), record.as_ref(), clock, &**service);
        let backend = decision.backend?;
        let next = decide::remember(record.as_ref(), backend, now, &**service);
        if record != Some(next) {
            self.write(&key, &next);
        }
        service.named(backend, decision.reason)
    }

    fn look(&self, service: &str, client: IpAddr) -> Option<Choice> {
        let index = self.index.load();
        let service = index.service(service)?;
        let (key, hash) = self.client(&service, client);
        let record = self.record(&key);
        let slot = self.loaded_slot(&service, hash)?;
        let clock = Clock { now: reconcile::now(), ttl: service.rules.ttl };
        let loads = Loads::of(&self.maps, slot, record.as_ref());
        let decision = decide::first(slot, record.as_ref(), clock, &loads);
        service.named(decision.backend?, decision.reason)
    }

    fn home(&self, service: &str, client: IpAddr) -> Option<String> {
        let index = self.index.load();
        let service = index.service(service)?;
        let record = self.record(&self.client(&service, client).0)?;
        let fresh = tick::since(reconcile::now(), record.seen) <= service.rules.ttl;
        let [id, ..] = record.backends;
        let (_, name) = service.backends.get(&BackendId(id).index()).filter(|(b, _)| b.id == id)?;
        fresh.then(|| name.clone())
    }

    fn hashed(&self, service: &str, key: &[u8]) -> Option<Choice> {
        let index = self.index.load();
        let service = index.service(service)?;
        let slot = service.slot(maglev::identity(self.key, key));
        let backend = service.backend(slot.index()?)?;
        service.named(backend, Outcome::Hash)
    }

    fn knows(&self, service: &str) -> bool {
        self.index.load().service(service).is_some_and(|service| !service.backends.is_empty())
    }
}

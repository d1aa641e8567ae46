//! The client table without a data path (`--iface none`): the same hash, table and decision, in memory.

mod members;
mod records;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use sticky_common::decide::{self, Clock, World};
use sticky_common::hash::HashKey;
use sticky_common::maglev;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Addr, Backend, BackendId, Record, tick};

use self::members::Members;
use self::records::Records;
use super::{Choice, ClientTable, hash_of, masked};
use crate::model::Snapshot;

/// Tables and records of `ip_hash` services.
pub struct MemoryTable {
    key: HashKey,
    table_size: u32,
    services: ArcSwap<HashMap<String, Arc<Members>>>,
    records: Mutex<Records<(u32, Addr)>>,
    started: Instant,
}

impl MemoryTable {
    /// `table_size` is a prime, `max_clients` bounds the records.
    #[must_use]
    pub fn new(key: HashKey, table_size: u32, max_clients: usize) -> Self {
        Self {
            key,
            table_size,
            services: ArcSwap::default(),
            records: Mutex::new(Records::new(max_clients)),
            started: Instant::now(),
        }
    }

    /// Builds the tables of a snapshot; backends that are still there keep their identity, and clients their records.
    pub fn publish(&self, snapshot: &Snapshot) {
        let old = self.services.load();
        let mut next_number = old.values().map(|m| m.number() + 1).max().unwrap_or_default();
        let mut services = HashMap::with_capacity(snapshot.services.len());
        for service in &snapshot.services {
            let previous = old.get(&service.id);
            let number = previous.map_or_else(
                || {
                    next_number += 1;
                    next_number - 1
                },
                |members| members.number(),
            );
            let members =
                Members::build(service, number, previous.map(|m| &**m), self.key, self.table_size);
            services.insert(service.id.clone(), Arc::new(members));
        }
        self.services.store(Arc::new(services));
    }

    /// Records now held.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn now(&self) -> u32 {
        // From 1 on, as the monotonic clock of a host that has booted.
        let nanos = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        tick::from_nanos(nanos.saturating_add(1 << 30))
    }

    fn record(&self, key: &(u32, Addr)) -> Option<Record> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner).get(key)
    }

    fn decide(&self, service: &str, client: IpAddr, remember: bool) -> Option<Choice> {
        let services = self.services.load();
        let members = services.get(service)?;
        let client = masked(client, members.prefix());
        let slot = members.slot(hash_of(self.key, &client));
        let clock = Clock { now: self.now(), ttl: members.ttl() };
        let world = Live(members);
        let key = (members.number(), client);
        let mut records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        let record = records.get(&key);
        let decision = decide::first(slot, record.as_ref(), clock, &world);
        let chosen = decision.backend?;
        if remember {
            let next = decide::remember(record.as_ref(), chosen, clock.now, &world);
            records.put(key, next);
        }
        drop(records);
        let backend = members.name(BackendId(chosen.id).index())?.to_owned();
        Some(Choice { backend, reason: decision.reason })
    }
}

impl ClientTable for MemoryTable {
    fn choose(&self, service: &str, client: IpAddr) -> Option<Choice> {
        self.decide(service, client, true)
    }

    fn look(&self, service: &str, client: IpAddr) -> Option<Choice> {
        self.decide(service, client, false)
    }

    fn home(&self, service: &str, client: IpAddr) -> Option<String> {
        let services = self.services.load();
        let members = services.get(service)?;
        let record = self.record(&(members.number(), masked(client, members.prefix())))?;
        let fresh = tick::since(self.now(), record.seen) <= members.ttl();
        let [id, ..] = record.backends;
        let index = BackendId(id).index();
        let there = members.backend(index).is_some_and(|backend| backend.id == id);
        members.name(index).filter(|_| fresh && there).map(str::to_owned)
    }

    fn hashed(&self, service: &str, key: &[u8]) -> Option<Choice> {
        let services = self.services.load();
        let members = services.get(service)?;
        let index = members.slot(maglev::identity(self.key, key)).index()?;
        let backend = members.name(index)?.to_owned();
        Some(Choice { backend, reason: Outcome::Hash })
    }

    fn knows(&self, service: &str) -> bool {
        self.services.load().get(service).is_some_and(|members| !members.is_empty())
    }
}

/// The backends of one service as the decision sees them; there are no flows to tell apart at layer 7.
struct Live<'a>(&'a Members);

impl World for Live<'_> {
    fn backend(&self, index: u32) -> Option<&Backend> {
        self.0.backend(index)
    }

    fn has_flow(&self, _: &Backend) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;

//! Turns a plan into map writes, in the plan's order.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use arc_swap::ArcSwap;
use aya::maps::lpm_trie::Key as Prefix;
use sticky_common::hash::{self, HashKey};
use sticky_common::types::{Backend, BackendId, ClientKey, Record, RuleKey};

use super::Settings;
use super::adopt;
use super::attach::Hooks;
use super::clients::Index;
use super::counters;
use super::follow::Elsewhere;
use super::load::{self, Maps};
use super::places::Places;
use super::sys;
use super::tally::CHUNK;
use super::whereabouts::Whereabouts;
use crate::clients::hash_of;
use crate::control::plan::{FrontendKey, Loaded, Plan, Rule};
use crate::control::settle::Known;
use crate::control::{Census, DataPath, Error, Moved, Reach};
use crate::netlink::{Link, Netlink};
use crate::parallel;

/// Writes the maps; there is one.
pub struct Executor {
    maps: Arc<Maps>,
    places: Places,
    hooks: Hooks,
    netlink: Netlink,
    index: Arc<ArcSwap<Index>>,
    table_size: u32,
    hash_key: HashKey,
    key_mark: u64,
    rekeyed: bool,
    /// Links at the last look, and where addresses are while these do not change.
    links: HashMap<u32, Link>,
    whereabouts: Whereabouts,
    elsewhere: Arc<Elsewhere>,
}

impl Executor {
    pub(super) fn new(
        maps: Arc<Maps>,
        places: Places,
        hooks: Hooks,
        netlink: Netlink,
        elsewhere: Arc<Elsewhere>,
        index: Arc<ArcSwap<Index>>,
        settings: &Settings,
    ) -> Self {
        Self {
            maps,
            places,
            hooks,
            netlink,
            index,
            table_size: settings.table_size,
            hash_key: settings.hash_key,
            key_mark: adopt::key_mark(settings.hash_key),
            rekeyed: false,
            links: HashMap::new(),
            whereabouts: Whereabouts::default(),
            elsewhere,
        }
    }

    fn write(&mut self, plan: &Plan) -> io::Result<()> {
        let maps = &self.maps;
        backends(maps, &plan.backends)?;
        for (index, identity) in &plan.service_ids {
            if *identity != 0 {
                maps.service_ids.set(index, identity)?;
            }
        }
        // The kernel clears the memory of each, which takes longer than all else.
        let tables = parallel::map(&plan.tables, |(service, slots)| {
            let table = load::new_table(self.table_size)?;
            sys::fill_single(table.as_fd(), slots)?;
            Ok((*service, table))
        });
        let tables = tables.into_iter().collect::<io::Result<Vec<_>>>()?;
        // The commit point.
        let (indices, fds): (Vec<u32>, Vec<u32>) =
            tables.iter().map(|(s, t)| (*s, t.as_raw_fd() as u32)).unzip();
        maps.tables.set_all(&indices, &fds)?;
        for (number, rules) in &plan.gone_first {
            rules.iter().try_for_each(|rule| maps.rules.delete(&rule_key(*number, rule)))?;
        }
        for (number, rules) in &plan.rules {
            let set =
                |rule: &Rule| maps.rules.set(&rule_key(*number, rule), &u32::from(rule.admits));
            rules.iter().try_for_each(set)?;
        }
        for (key, frontend) in &plan.frontends {
            match key {
                FrontendKey::V4(key) => maps.frontends_v4.set(key, frontend)?,
                FrontendKey::V6(key) => maps.frontends_v6.set(key, frontend)?,
            }
        }
        for key in &plan.gone_frontends {
            match key {
                FrontendKey::V4(key) => maps.frontends_v4.delete(key)?,
                FrontendKey::V6(key) => maps.frontends_v6.delete(key)?,
            }
        }
        self.places.follow(maps, &plan.frontends, &plan.gone_frontends)?;
        for (number, rules) in &plan.gone_rules {
            rules.iter().try_for_each(|rule| maps.rules.delete(&rule_key(*number, rule)))?;
        }
        for service in &plan.gone_tables {
            maps.tables.delete(service)?;
            maps.service_ids.set(service, &0)?;
        }
        for backend in &plan.retired {
            maps.backends.set(&BackendId(backend.id).index(), backend)?;
        }
        if self.rekeyed || maps.service_ids.get(&adopt::KEY_MARK)? != Some(self.key_mark) {
            maps.service_ids.set(&adopt::KEY_MARK, &self.key_mark)?;
            self.rekeyed = false;
        }
        Ok(())
    }
}

impl DataPath for Executor {
    fn loaded(&mut self) -> Result<Loaded, Error> {
        if self.maps.empty {
            return Ok(Loaded::default());
        }
        let read = adopt::read(&self.maps).map_err(|e| failed("read the maps", &e))?;
        let mark =
            self.maps.service_ids.get(&adopt::KEY_MARK).map_err(|e| failed("read the maps", &e))?;
        self.rekeyed = mark.is_some_and(|m| m != 0 && m != self.key_mark);
        Ok(read)
    }

    fn look(&mut self) -> Result<Moved, Error> {
        let links =
            self.netlink.links().map_err(|e| Error(format!("cannot list the interfaces: {e}")))?;
        // A new container's link leads nowhere that was not asked for in vain.
        let another = |index: &u32| links.get(index) != self.links.get(index);
        let again = self.elsewhere.namespaces.swap(false, Ordering::AcqRel);
        let lost = self.elsewhere.routes.swap(false, Ordering::AcqRel)
            || self.whereabouts.devices().iter().any(another);
        let moved = Moved { all: lost, addrs: self.whereabouts.look(&links, again) };
        if lost {
            self.whereabouts.forget();
        }
        self.links = links;
        self.hooks.follow_clients(&self.links);
        Ok(moved)
    }

    fn reach(&mut self, addrs: &[IpAddr]) -> Result<HashMap<IpAddr, Reach>, Error> {
        let (links, hooks) = (&self.links, &self.hooks);
        let found = self
            .whereabouts
            .find(addrs, &mut self.netlink, links, |addr, index| {
                let link = links.get(&index)?;
                if link.name == "lo" {
                    return Some(format!("{addr} is an address of this host"));
                }
                hooks.faces_clients(&link.name).then(|| format!(
                    "{addr} is on an interface that clients come in by, so its replies to them would not pass this host"
                ))
            })
            .map_err(|e| failed("look for the routes to the backends", &e))?;
        self.hooks.follow_backends(self.whereabouts.devices(), &self.links);
        Ok(found)
    }

    fn apply(&mut self, plan: &Plan, after: &Loaded) -> Result<(), Error> {
        self.write(plan).map_err(|e| failed("write the maps", &e))?;
        if let Some(other) = self.index.load().follow(after, &plan.services) {
            self.index.store(Arc::new(other));
        }
        self.hooks.committed(self.whereabouts.devices(), &self.links);
        Ok(())
    }

    fn census(&self) -> Result<Arc<Census>, Error> {
        self.maps.tally.census(&self.maps).map_err(|e| failed("read the client records", &e))
    }

    fn records(&self, each: &mut dyn FnMut(&Known)) -> Result<(), Error> {
        let mut show = |key: &ClientKey, record: &Record| {
            let slot = hash::slot(hash_of(self.hash_key, &key.addr), self.table_size);
            each(&Known { key: *key, slot, record: *record });
        };
        let known = self.maps.clients.for_each(CHUNK, &mut show);
        known
            .and_then(|()| self.maps.candidates.for_each(CHUNK, &mut show))
            .map_err(|e| failed("read the client records", &e))
    }

    fn forget(&self, stale: &[Known]) -> Result<(), Error> {
        // Its client may have come back meanwhile, and a connection without a record would move with the next change.
        let forget = |known: &Known| {
            self.maps.clients.delete_if(&known.key, &known.record)?;
            self.maps.candidates.delete_if(&known.key, &known.record)?;
            self.maps.tally.wrote();
            Ok(())
        };
        stale.iter().try_for_each(forget).map_err(|e| failed("remove client records", &e))
    }

    fn sweep(&self, living: &HashSet<u32>, now: u32) -> Result<(), Error> {
        let mut over = Vec::new();
        let read = self.maps.flows.for_each(CHUNK, |key, flow| {
            if !living.contains(&flow.backend) || !flow.lives(key.proto, now) {
                over.push((*key, *flow));
            }
        });
        // One that changed meanwhile is not over.
        read.and_then(|()| over.iter().try_for_each(|(k, f)| self.maps.flows.delete_if(k, f)))
            .map_err(|e| failed("remove the flows that are over", &e))
    }

    fn table_size(&self) -> u32 {
        self.table_size
    }

    fn rekeyed(&self) -> bool {
        self.rekeyed
    }
}

fn backends(maps: &Maps, backends: &[(u64, Backend)]) -> io::Result<()> {
    let (mut fresh, mut identities) = (Vec::new(), Vec::new());
    for (identity, backend) in backends {
        let index = BackendId(backend.id).index();
        if maps.backend_ids.get(&index)? != Some(*identity) {
            fresh.push(index);
            identities.push(*identity);
        }
    }
    maps.backend_ids.set_all(&fresh, &identities)?;
    // The index of each was another's before.
    counters::reset(maps, &fresh)?;
    let (indices, values): (Vec<u32>, Vec<Backend>) =
        backends.iter().map(|(_, backend)| (BackendId(backend.id).index(), *backend)).unzip();
    maps.backends.set_all(&indices, &values)
}

fn rule_key(number: u32, rule: &Rule) -> Prefix<RuleKey> {
    let bits = RuleKey::RULES_BITS + u32::from(rule.prefix);
    Prefix::new(bits, RuleKey { rules: number.to_be_bytes(), addr: rule.addr })
}

fn failed(what: &str, e: &io::Error) -> Error {
    Error(format!("cannot {what}: {e}"))
}

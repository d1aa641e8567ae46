//! What to change in the maps: `diff` compares what is loaded with what is wanted. Pure, so that it is tested without a
//! kernel; the executor only carries the plan out, in its order.

mod indices;
mod table;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;

use sticky_common::types::{
    Addr, Backend, BackendId, Frontend, FrontendKeyV4, FrontendKeyV6, Slot, addr,
};

use crate::model::{self, IpPrefix};
use crate::parallel;
use indices::Indices;
use table::Table;

/// Ticks that packets are dropped for a service without a backend, before they are refused: less than five seconds.
const GAP: u32 = 4;

/// Key of a frontend of either family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrontendKey {
    V4(FrontendKeyV4),
    V6(FrontendKeyV6),
}

impl FrontendKey {
    #[must_use]
    pub fn of(frontend: &model::Frontend) -> Self {
        let (port, proto) = (frontend.port.to_be_bytes(), frontend.proto.number());
        match frontend.addr {
            IpAddr::V4(addr) => {
                Self::V4(FrontendKeyV4 { addr: addr.octets(), port, proto, zero: 0 })
            }
            IpAddr::V6(addr) => Self::V6(FrontendKeyV6 {
                addr: addr::from_bytes(addr.octets()),
                port,
                proto,
                zero: 0,
            }),
        }
    }
}

/// Whether a source may connect, for the addresses of one prefix; the longest one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// The bits behind the prefix are zero.
    pub addr: Addr,
    /// Bits of it.
    pub prefix: u8,
    pub admits: bool,
}

/// What user space knows of the maps' contents. A copy shares the services.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// By identity.
    pub services: BTreeMap<u64, Arc<LoadedService>>,
    pub frontends: HashMap<FrontendKey, Frontend>,
    /// Source rules, by [`Frontend::rules`].
    pub rules: BTreeMap<u32, Vec<Rule>>,
    /// Indices of backends that were used before: last generation, and the tick of their end.
    pub retired: BTreeMap<u32, (u32, u32)>,
    /// The first index that no backend has had yet, nor any after it.
    pub unused: u32,
}

/// A service in the maps.
#[derive(Clone, Debug, PartialEq)]
pub struct LoadedService {
    pub index: u32,
    pub slots: Arc<[Slot]>,
    /// How many of them each backend has: by its index, which they are sorted by.
    pub shares: Arc<[(u32, u32)]>,
    /// By identity. Also those that are no longer in the table but live.
    pub backends: BTreeMap<u64, Backend>,
    /// What the slots were built from: Maglev identity and weight. Empty after an adoption.
    pub members: Vec<(u64, u32)>,
    /// Tick of the last move of a slot. `None`: all of them are settled, and need not be looked through.
    pub moved: Option<u32>,
    /// Number of its source rules, 0: none, or not known after an adoption.
    pub rules: u32,
    /// What it was made from. `None` after an adoption.
    pub wanted: Option<Arc<DesiredService>>,
}

impl LoadedService {
    /// Whether nothing is to be done to have what is wanted.
    fn is(&self, want: &Arc<DesiredService>) -> bool {
        self.wanted.as_ref().is_some_and(|wanted| Arc::ptr_eq(wanted, want) || wanted == want)
    }
}

/// An `ip_hash` service of this node.
#[derive(Clone, Debug, PartialEq)]
pub struct DesiredService {
    pub identity: u64,
    /// In the snapshot.
    pub id: Arc<str>,
    /// Affinity time in ticks, 0: none.
    pub ttl: u32,
    /// Leading bits of an address that count as one client.
    pub prefix: IpPrefix,
    /// Nanoseconds between two new connections of a client, 0: no limit.
    pub interval: u32,
    /// Sorted; empty: every source may connect.
    pub rules: Vec<Rule>,
    pub backends: Vec<DesiredBackend>,
    /// Frontends, and the port of the backends behind each.
    pub frontends: Vec<(FrontendKey, [u8; 2])>,
}

/// A backend that lives.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DesiredBackend {
    pub identity: u64,
    /// In the snapshot.
    pub id: String,
    /// Identity for the table, which is keyed as the clients' hash is.
    pub member: u64,
    /// Zero: it has none.
    pub v4: [u8; 4],
    pub v6: Addr,
    pub ifindex_v4: u32,
    pub ifindex_v6: u32,
    pub flags: u32,
    /// 0: not in the table.
    pub weight: u32,
}

impl DesiredBackend {
    /// It has this address, by this interface or at the other end of it.
    pub fn reached(&mut self, addr: IpAddr, ifindex: u32, peer: bool) {
        let flag = match addr {
            IpAddr::V4(addr) => {
                (self.v4, self.ifindex_v4) = (addr.octets(), ifindex);
                Backend::PEER_V4
            }
            IpAddr::V6(addr) => {
                (self.v6, self.ifindex_v6) = (addr::from_bytes(addr.octets()), ifindex);
                Backend::PEER_V6
            }
        };
        if peer {
            self.flags |= flag;
        }
    }
}

/// Changes in the order in which they are made: nothing ever points at what is not there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Plan {
    pub backends: Vec<(u64, Backend)>,
    pub service_ids: Vec<(u32, u64)>,
    /// The commit point: whole tables, swapped.
    pub tables: Vec<(u32, Arc<[Slot]>)>,
    /// What an interrupted change left under a number that is to be used.
    pub gone_first: Vec<(u32, Vec<Rule>)>,
    /// Whole sets of source rules, under numbers that no frontend uses yet.
    pub rules: Vec<(u32, Vec<Rule>)>,
    pub frontends: Vec<(FrontendKey, Frontend)>,
    pub gone_frontends: Vec<FrontendKey>,
    pub gone_rules: Vec<(u32, Vec<Rule>)>,
    pub gone_tables: Vec<u32>,
    pub retired: Vec<Backend>,
    /// Slots that changed hands, by service identity.
    pub moved: BTreeMap<u64, usize>,
    /// Identities of services of which something else is known after it, also what no map has, or nothing.
    pub services: Vec<u64>,
}

impl Plan {
    /// The maps stay as they are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let known = Self { services: self.services.clone(), ..Self::default() };
        *self == known
    }
}

/// There are more services or backends than the maps hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there are more {what} than the {limit} that the maps hold")]
pub struct Full {
    what: &'static str,
    limit: u32,
}

/// How tables are built.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub table_size: u32,
    /// The tick of this change.
    pub now: u32,
    /// The hash key is another than the loaded tables were used with: every client's slot is another.
    pub rekeyed: bool,
}

/// What is wanted of the services.
#[derive(Clone, Copy, Debug)]
pub enum Wanted<'a> {
    /// These and no others.
    All(&'a [Arc<DesiredService>]),
    /// These with other backends than are loaded; all else stays.
    Others(&'a [Arc<DesiredService>]),
}

/// The plan that turns `loaded` into what is wanted, and what is loaded after it. Services that are loaded as they are wanted
/// cost no more than to see that.
pub fn diff(loaded: &Loaded, wanted: Wanted<'_>, build: Build) -> Result<(Plan, Loaded), Full> {
    let (wanted, whole) = match wanted {
        Wanted::All(wanted) => (wanted, true),
        Wanted::Others(wanted) => (wanted, false),
    };
    let mut plan = Plan::default();
    let mut next = loaded.clone();
    let mut free = Indices::of(loaded, build.now);
    let stays: HashSet<u64> = match whole {
        true => wanted.iter().map(|want| want.identity).collect(),
        false => HashSet::new(),
    };
    let is_loaded = |want: &&Arc<DesiredService>| {
        !build.rekeyed && loaded.services.get(&want.identity).is_some_and(|old| old.is(want))
    };
    let changed: Vec<_> = wanted.iter().filter(|want| !is_loaded(want)).collect();
    let gone = loaded.services.iter().filter(|(identity, _)| !stays.contains(identity));
    let gone: Vec<_> = if whole { gone.collect() } else { Vec::new() };
    for (identity, old) in &gone {
        next.services.remove(identity);
        plan.services.push(**identity);
        plan.gone_tables.push(old.index);
        plan.service_ids.push((old.index, 0));
    }
    let mut parts = Vec::with_capacity(changed.len());
    for &want in &changed {
        let old = loaded.services.get(&want.identity).map(Arc::as_ref);
        let index = match old {
            Some(old) => old.index,
            None => {
                let index = free.service()?;
                plan.service_ids.push((index, want.identity));
                index
            }
        };
        let mut backends = BTreeMap::new();
        for b in &want.backends {
            let before = old.and_then(|o| o.backends.get(&b.identity));
            let id = match before {
                Some(before) => BackendId(before.id),
                None => free.backend(&mut next)?,
            };
            let value = Backend {
                v4: b.v4,
                v6: b.v6,
                ifindex_v4: b.ifindex_v4,
                ifindex_v6: b.ifindex_v6,
                id: id.0,
                flags: b.flags,
                service: index,
            };
            if before != Some(&value) {
                plan.backends.push((b.identity, value));
            }
            backends.insert(b.identity, value);
        }
        parts.push((want, old, index, backends));
    }
    let tables =
        parallel::map(&parts, |(want, old, _, backends)| Table::of(want, *old, backends, build));
    for ((want, old, index, backends), table) in parts.into_iter().zip(tables) {
        let Table { slots, shares, members, moved } = table;
        // A table that was not built anew is the same one, and need not be compared.
        if old.is_none_or(|o| !Arc::ptr_eq(&o.slots, &slots) && o.slots != slots) {
            plan.tables.push((index, Arc::clone(&slots)));
        }
        if moved > 0 {
            plan.moved.insert(want.identity, moved);
        }
        let rules = rules(want, index, loaded, &mut plan);
        if rules != 0 {
            next.rules.insert(rules, want.rules.clone());
        }
        for (key, port) in &want.frontends {
            let before = loaded.frontends.get(key);
            let value = frontend(want, (*key, *port), index, rules, before, &members, build);
            if before != Some(&value) {
                plan.frontends.push((*key, value));
            }
            next.frontends.insert(*key, value);
        }
        let moves = moved > 0 || build.rekeyed;
        let moved = if moves { Some(build.now) } else { old.and_then(|old| old.moved) };
        let wanted = Some(Arc::clone(want));
        let service =
            LoadedService { index, slots, shares, backends, members, moved, rules, wanted };
        next.services.insert(want.identity, Arc::new(service));
        plan.services.push(want.identity);
    }

    // What is wanted is there now; whatever is there besides is not wanted.
    if whole
        && next.frontends.len() != wanted.iter().map(|want| want.frontends.len()).sum::<usize>()
    {
        let keys: HashSet<_> =
            wanted.iter().flat_map(|want| &want.frontends).map(|(key, _)| *key).collect();
        next.frontends.retain(|key, _| keys.contains(key));
        plan.gone_frontends =
            loaded.frontends.keys().filter(|key| !keys.contains(key)).copied().collect();
    }
    if !next.rules.is_empty() {
        let used: HashSet<u32> = next.services.values().map(|service| service.rules).collect();
        next.rules.retain(|number, _| used.contains(number));
        let gone = loaded.rules.iter().filter(|(number, _)| !next.rules.contains_key(*number));
        plan.gone_rules = gone.map(|(number, rules)| (*number, rules.clone())).collect();
    }
    let before = changed.iter().filter_map(|want| loaded.services.get_key_value(&want.identity));
    for (identity, old) in before.chain(gone) {
        let kept = next.services.get(identity);
        for (identity, backend) in &old.backends {
            if kept.is_none_or(|k| !k.backends.contains_key(identity)) {
                let id = BackendId(backend.id);
                next.retired.insert(id.index(), (id.generation(), build.now));
                plan.retired.push(Backend { flags: 0, ..*backend });
            }
        }
    }
    Ok((plan, next))
}

/// What the programs are to know of a frontend, which may have been there `before`.
fn frontend(
    want: &DesiredService,
    (key, port): (FrontendKey, [u8; 2]),
    index: u32,
    rules: u32,
    before: Option<&Frontend>,
    members: &[(u64, u32)],
    build: Build,
) -> Frontend {
    let empty_since = before.map(|f| f.refuse_at).filter(|at| *at != 0);
    Frontend {
        service: index,
        ttl: want.ttl,
        rules,
        interval: want.interval,
        refuse_at: if members.is_empty() { empty_since.unwrap_or(build.now + GAP) } else { 0 },
        port,
        prefix: match key {
            FrontendKey::V4(_) => addr::V4_PREFIX + want.prefix.v4,
            FrontendKey::V6(_) => want.prefix.v6,
        },
        zero: 0,
    }
}

/// The number of a service's source rules; what changed goes under its other number, so that no packet sees a half of it.
fn rules(want: &DesiredService, index: u32, loaded: &Loaded, plan: &mut Plan) -> u32 {
    if want.rules.is_empty() {
        return 0;
    }
    let numbers = [2 * index + 2, 2 * index + 3];
    let there = |number: &&u32| loaded.rules.get(*number) == Some(&want.rules);
    if let Some(same) = numbers.iter().find(there) {
        return *same;
    }
    let used = |number: u32| loaded.frontends.values().any(|f| f.rules == number);
    let number = if used(numbers[0]) { numbers[1] } else { numbers[0] };
    if let Some(left) = loaded.rules.get(&number) {
        plan.gone_first.push((number, left.clone()));
    }
    plan.rules.push((number, want.rules.clone()));
    number
}

#[cfg(test)]
mod tests;

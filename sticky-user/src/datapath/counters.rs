//! Counters.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use sticky_common::maps::BACKENDS_COUNTED;
use sticky_common::outcome::Outcome;
use sticky_common::types::Traffic;

use super::clients::Index;
use super::load::{Maps, chain};
use crate::control::{Counters, DataPathView, Interface};

/// The data path, as `status` and the metrics see it.
pub struct View {
    maps: Arc<Maps>,
    index: Arc<ArcSwap<Index>>,
    interfaces: Arc<ArcSwap<Vec<Interface>>>,
}

impl View {
    pub(super) fn new(
        maps: Arc<Maps>,
        index: Arc<ArcSwap<Index>>,
        interfaces: Arc<ArcSwap<Vec<Interface>>>,
    ) -> Self {
        Self { maps, index, interfaces }
    }
}

impl DataPathView for View {
    fn interfaces(&self) -> Vec<Interface> {
        self.interfaces.load().to_vec()
    }

    fn counters(&self) -> Result<Counters, String> {
        let index = self.index.load();
        let mut counters = Counters::default();
        let mut forwarded = 0;
        let mut towards = Towards::of(&self.maps);
        for (at, id) in index.backends() {
            let Traffic { packets, bytes } = towards.its_own(at).map_err(|e| e.to_string())?;
            forwarded += packets;
            counters.backends.insert(id, (packets, bytes));
        }
        for outcome in Outcome::ALL {
            let counted = counted(&self.maps, *outcome).map_err(|e| chain(&e))?;
            counters.outcomes.push((*outcome, counted));
        }
        hashed(&mut counters.outcomes, forwarded);
        let census = self.maps.tally.census(&self.maps).map_err(|e| e.to_string())?;
        for (service, id) in index.services() {
            counters.clients.insert(id, census.services.get(&service).copied().unwrap_or(0));
        }
        Ok(counters)
    }
}

/// The commonest outcome has no counter of its own: it is what went to the backends for no other reason.
fn hashed(outcomes: &mut [(Outcome, u64)], forwarded: u64) {
    let chosen = [
        Outcome::Recorded,
        Outcome::New,
        Outcome::Pinned,
        Outcome::Repinned,
        Outcome::Expired,
        Outcome::Fragment,
        Outcome::IcmpError,
    ];
    let others: u64 = outcomes.iter().filter(|(o, _)| chosen.contains(o)).map(|(_, n)| n).sum();
    if let Some((_, count)) = outcomes.iter_mut().find(|(o, _)| *o == Outcome::Hash) {
        *count = forwarded.saturating_sub(others);
    }
}

/// What went to backends, on all CPUs: read once for all whose counters are one value.
struct Towards<'a> {
    maps: &'a Maps,
    read: HashMap<u32, Vec<Traffic>>,
}

impl<'a> Towards<'a> {
    fn of(maps: &'a Maps) -> Self {
        Self { maps, read: HashMap::new() }
    }

    /// To whatever backend has the index, or had it.
    fn all(&mut self, index: u32) -> io::Result<Traffic> {
        let several = match self.read.entry(index / BACKENDS_COUNTED) {
            Entry::Occupied(read) => read.into_mut(),
            Entry::Vacant(unread) => {
                let per_cpu =
                    self.maps.backend_stats.get(unread.key(), 0).map_err(io::Error::other)?;
                let sum = |at: usize| {
                    per_cpu.iter().filter_map(|cpu| cpu.get(at)).fold(
                        Traffic::default(),
                        |sum, one| Traffic {
                            packets: sum.packets + one.packets,
                            bytes: sum.bytes + one.bytes,
                        },
                    )
                };
                unread.insert((0..BACKENDS_COUNTED as usize).map(sum).collect())
            }
        };
        Ok(several.get((index % BACKENDS_COUNTED) as usize).copied().unwrap_or_default())
    }

    /// To the backend that has it now.
    fn its_own(&mut self, index: u32) -> io::Result<Traffic> {
        let (all, base) = (self.all(index)?, self.maps.backend_bases.get(&index)?);
        let base = base.unwrap_or_default();
        Ok(Traffic {
            packets: all.packets.saturating_sub(base.packets),
            bytes: all.bytes.saturating_sub(base.bytes),
        })
    }
}

/// Starts the counters of backends at zero. Only a program writes them, so that none is lost: what there is, is noted.
pub fn reset(maps: &Maps, indices: &[u32]) -> io::Result<()> {
    let mut towards = Towards::of(maps);
    for index in indices {
        let all = towards.all(*index)?;
        if all != Traffic::default() {
            maps.backend_bases.set(index, &all)?;
        }
    }
    Ok(())
}

/// How many packets had an outcome, on all CPUs.
pub fn counted(maps: &Maps, outcome: Outcome) -> io::Result<u64> {
    let per_cpu = maps.outcomes.get(&(outcome as u32), 0).map_err(io::Error::other)?;
    Ok(per_cpu.iter().sum())
}

//! Counters.

use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use aya::maps::PerCpuValues;
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
        let stats = self.maps.backend_stats.lock().map_err(|e| e.to_string())?;
        for (at, id) in index.backends() {
            let per_cpu = stats.get(&at, 0).map_err(|e| chain(&e))?;
            let packets = per_cpu.iter().map(|t| t.packets).sum();
            let bytes = per_cpu.iter().map(|t| t.bytes).sum();
            forwarded += packets;
            counters.backends.insert(id.to_owned(), (packets, bytes));
        }
        drop(stats);
        for outcome in Outcome::ALL {
            let counted = counted(&self.maps, *outcome).map_err(|e| chain(&e))?;
            counters.outcomes.push((*outcome, counted));
        }
        hashed(&mut counters.outcomes, forwarded);
        let census = self.maps.tally.census(&self.maps).map_err(|e| e.to_string())?;
        for (service, id) in index.services() {
            counters
                .clients
                .insert(id.to_owned(), census.services.get(&service).copied().unwrap_or(0));
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

/// Starts the counters of backends at zero.
pub fn reset(maps: &Maps, indices: &[u32]) -> io::Result<()> {
    let mut stats = maps
        .backend_stats
        .lock()
        .map_err(|_| io::Error::other("a reader of the counters panicked"))?;
    for index in indices {
        let now = stats.get(index, 0).map_err(io::Error::other)?;
        if now.iter().any(|traffic| *traffic != Traffic::default()) {
            let zero = PerCpuValues::try_from(vec![Traffic::default(); now.len()])?;
            stats.set(*index, zero, 0).map_err(io::Error::other)?;
        }
    }
    Ok(())
}

/// How many packets had an outcome, on all CPUs.
pub fn counted(maps: &Maps, outcome: Outcome) -> io::Result<u64> {
    let per_cpu = maps.outcomes.get(&(outcome as u32), 0).map_err(io::Error::other)?;
    Ok(per_cpu.iter().sum())
}

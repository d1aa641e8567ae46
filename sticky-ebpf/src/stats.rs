//! Counters, one write per packet.

use sticky_common::maps::BACKENDS_COUNTED;
use sticky_common::outcome::Outcome;

use crate::capture;
use crate::maps::{BACKEND_STATS, OUTCOMES};

/// Counts an outcome at tc on this CPU.
#[inline(always)]
pub fn count(outcome: Outcome) {
    capture::note(outcome);
    count_index(outcome as u32);
}

/// Counts the outcome of an index on this CPU.
#[inline(always)]
pub fn count_index(index: u32) {
    // The commonest one is counted with its backend; the sum over the backends is its counter.
    if index == Outcome::Hash as u32 {
        return;
    }
    if let Some(counter) = OUTCOMES.get_ptr_mut(index) {
        // SAFETY: the slot is this CPU's own, and programs do not preempt each other on it.
        unsafe { *counter += 1 };
    }
}

/// Counts a packet towards a backend on this CPU.
#[inline(always)]
pub fn towards(backend: u32, bytes: usize) {
    if let Some(several) = BACKEND_STATS.get_ptr_mut(backend / BACKENDS_COUNTED) {
        // SAFETY: as above.
        if let Some(traffic) = unsafe { (*several).get_mut((backend % BACKENDS_COUNTED) as usize) }
        {
            traffic.packets += 1;
            traffic.bytes += bytes as u64;
        }
    }
}

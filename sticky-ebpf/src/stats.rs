//! Counters, one write per packet.

use sticky_common::outcome::Outcome;

use crate::maps::{BACKEND_STATS, OUTCOMES};

/// Counts an outcome on this CPU.
#[inline(always)]
pub fn count(outcome: Outcome) {
    // The commonest one is counted with its backend; the sum over the backends is its counter.
    if outcome == Outcome::Hash {
        return;
    }
    if let Some(counter) = OUTCOMES.get_ptr_mut(outcome as u32) {
        // SAFETY: the slot is this CPU's own, and programs do not preempt each other on it.
        unsafe { *counter += 1 };
    }
}

/// Counts a packet towards a backend on this CPU.
#[inline(always)]
pub fn towards(backend: u32, bytes: usize) {
    if let Some(traffic) = BACKEND_STATS.get_ptr_mut(backend) {
        // SAFETY: as above.
        unsafe {
            (*traffic).packets += 1;
            (*traffic).bytes += bytes as u64;
        }
    }
}

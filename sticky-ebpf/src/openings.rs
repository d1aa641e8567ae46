//! Connections, each noted at a place of its own when it opens.
//!
//! There it stays until another that opens wants the place, so that nothing is inserted into a map, or removed, for one that
//! is over soon. One that goes on moves to `FLOWS` then. A flood of first packets fills the places and no more: whoever finds
//! its place taken by one that waits for its client is noted in `TRANSIENT`, which forgets the least recently used. So is one
//! that never came to be when it has to leave, and one whose last words may yet come.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use sticky_common::maps::OPENING_BITS;
use sticky_common::types::{Flow, FlowKey, Opening, tick};

use crate::flows::SYN_ACK_AFTER;
use crate::maps::{FLOWS, TRANSIENT};
use crate::packet::same;

/// A backend acknowledges its client's end within this time, or is gone.
const SOON: u32 = tick::from_secs(1);

#[btf_map]
static OPENINGS: Array<[Opening; 1 << OPENING_BITS], 1> = Array::new();

/// The place of a flow, whoever holds it.
#[inline(always)]
fn place(key: &FlowKey) -> Option<*mut Opening> {
    let all = OPENINGS.get_ptr_mut(0)?;
    // SAFETY: map memory stays valid until the program ends.
    unsafe { (*all).get_mut(key.place(OPENING_BITS) as usize).map(core::ptr::from_mut) }
}

#[inline(always)]
fn holds(opening: &Opening, key: &FlowKey) -> bool {
    let there = &opening.key;
    opening.state == Opening::HELD
        && same(&there.client, &key.client)
        && same(&there.backend, &key.backend)
        && there.client_port == key.client_port
        && there.backend_port == key.backend_port
        && there.proto == key.proto
}

/// The flow, if it is at its place.
#[inline(always)]
pub fn get(key: &FlowKey) -> Option<*mut Flow> {
    let at = place(key)?;
    // SAFETY: map memory stays valid until the program ends; what another CPU is writing is not held.
    unsafe { if holds(&*at, key) { Some(&raw mut (*at).flow) } else { None } }
}

/// Notes a flow that is noted nowhere; `false`: its place is taken.
#[inline(never)]
pub fn begin(key: &FlowKey, flow: &Flow) -> bool {
    let Some(at) = place(key) else { return false };
    // SAFETY: map memory stays valid until the program ends, and a word is read and written whole.
    let opening = unsafe { &mut *at };
    let (before, state) = (opening.state, opening.flow.state);
    if before == Opening::BUSY || before == Opening::HELD && !moves(opening, flow.seen) {
        return false;
    }
    if !exchange(&mut opening.state, before, Opening::BUSY) {
        return false;
    }
    // The end of one that moved may have come on another CPU meanwhile.
    // SAFETY: a read of a reference.
    let last = unsafe { (&raw const opening.flow.state).read_volatile() };
    if before == Opening::HELD
        && last != state
        && let Some(moved) = FLOWS.get_ptr_mut(&opening.key)
    {
        // SAFETY: as above.
        unsafe { (*moved).state |= last };
    }
    opening.key = *key;
    opening.flow = *flow;
    exchange(&mut opening.state, Opening::BUSY, Opening::HELD)
}

/// Whether the connection at a place leaves it to another. It is noted elsewhere first: its packets go on meanwhile.
#[inline(always)]
fn moves(opening: &Opening, now: u32) -> bool {
    let (key, flow) = (&opening.key, &opening.flow);
    let silence = tick::since(now, flow.seen);
    if flow.established() {
        return FLOWS.insert(key, flow, 0).is_ok();
    }
    if flow.closed() {
        if flow.state & Flow::SAID == 0 && silence <= SOON {
            // With no memory its last words are lost.
            let _ = TRANSIENT.insert(key, flow, 0);
        }
        return true;
    }
    if silence <= SYN_ACK_AFTER {
        return false;
    }
    // Its client may yet go on. With no memory it has to begin anew.
    let _ = TRANSIENT.insert(key, flow, 0);
    true
}

/// The flow is noted elsewhere, or over; `false`: it was not at its place.
#[inline(always)]
pub fn leave(key: &FlowKey) -> bool {
    let Some(at) = place(key) else { return false };
    // SAFETY: as above.
    let opening = unsafe { &mut *at };
    // Another CPU may take the place just now; it puts what was there into `TRANSIENT`.
    holds(opening, key) && exchange(&mut opening.state, Opening::HELD, Opening::FREE)
}

/// Writes a word if it still is what it was before. Whole, and in order with all other writes (linux/bpf.h, BPF_CMPXCHG);
/// Rust has no atomics for this target.
#[cfg(target_arch = "bpf")]
#[inline(always)]
fn exchange(word: &mut u64, before: u64, after: u64) -> bool {
    let mut there = before;
    // SAFETY: one read and perhaps one write, of memory that is borrowed.
    unsafe {
        core::arch::asm!(
            "r0 = cmpxchg_64({word} + 0, r0, {after})",
            word = in(reg) core::ptr::from_mut(word),
            after = in(reg) after,
            inout("r0") there,
            options(nostack),
        );
    }
    there == before
}

/// The same for the machine that lints this.
#[cfg(not(target_arch = "bpf"))]
fn exchange(word: &mut u64, before: u64, after: u64) -> bool {
    use core::sync::atomic::{AtomicU64, Ordering};
    // SAFETY: the word is borrowed.
    let word = unsafe { AtomicU64::from_ptr(word) };
    word.compare_exchange(before, after, Ordering::SeqCst, Ordering::SeqCst).is_ok()
}

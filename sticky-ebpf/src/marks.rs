//! Whose record was written in this very tick, and with which backend as its newest: a connection that opens to the same
//! one has nothing to ask of the record, and nothing to add to it.
//!
//! A place holds one client, the last one; whoever finds another's there asks the records. Nothing here outlives its tick,
//! so it is not pinned.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::macros::btf_map;
use sticky_common::maps::MARK_BITS;
use sticky_common::types::Mark;

#[btf_map]
static MARKS: Array<[Mark; 1 << MARK_BITS], 1> = Array::new();

/// The mark of a client of a service.
#[inline(always)]
pub fn of(hash: u64, service: u32) -> Option<&'static mut Mark> {
    let all = MARKS.get_ptr_mut(0)?;
    let place = Mark::place(hash, service, MARK_BITS);
    // SAFETY: map memory stays valid until the program ends, and a word is read and written whole.
    unsafe { (*all).get_mut(place as usize) }
}

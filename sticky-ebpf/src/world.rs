//! The maps, as the decision asks them for one packet.

use aya_ebpf::helpers::generated::bpf_jiffies64;
use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};
use sticky_common::decide::World;
use sticky_common::types::{Backend, BackendId, tick};

use crate::flows;
use crate::maps::BACKENDS;
use crate::packet::Packet;

/// The packet at hand, to look for its flow.
pub struct Maps<'a> {
    pub packet: &'a Packet,
    /// Port of the backend.
    pub port: [u8; 2],
    pub now: u32,
}

impl World for Maps<'_> {
    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        BACKENDS.get(index)
    }

    #[inline(always)]
    fn has_flow(&self, backend: &Backend) -> bool {
        flows::has(self.packet, backend, self.port, self.now)
    }
}

/// The backend at an index, if it lives. A retired one keeps its id, so that its generation is never lost.
#[inline(always)]
pub fn backend(index: u32) -> Option<&'static Backend> {
    match BACKENDS.get(index) {
        Some(backend) if backend.flags & Backend::ALIVE != 0 => Some(backend),
        _ => None,
    }
}

/// The backend of an id, if this use of the index lives.
#[inline(always)]
pub fn backend_of(id: u32) -> Option<&'static Backend> {
    match backend(BackendId(id).index()) {
        Some(backend) if backend.id == id => Some(backend),
        _ => None,
    }
}

/// The current tick, and above it the low half of the kernel's tick counter when it was read, made odd: 0 is none. One word,
/// which every CPU may read and write as it likes.
#[unsafe(no_mangle)]
static mut CLOCK: u64 = 0;

/// The current tick.
///
/// The coarse clock moves only when the kernel's tick counter does. Reading that is a load, where the clock takes calls. Half of
/// the counter will do: it is the same again after weeks, and only for a few milliseconds.
#[inline(always)]
pub fn now() -> u32 {
    let clock = &raw mut CLOCK;
    // SAFETY: a word of the program's own data, read and written whole; the helpers take nothing and return a number.
    unsafe {
        let (jiffies, known) = (bpf_jiffies64() as u32 | 1, clock.read_volatile());
        if (known >> 32) as u32 == jiffies {
            return known as u32;
        }
        let tick = tick::from_nanos(bpf_ktime_get_coarse_ns());
        clock.write_volatile(u64::from(jiffies) << 32 | u64::from(tick));
        tick
    }
}

/// Takes one from what is allowed every `interval` nanoseconds, with a second's worth at once; `false`: nothing is left.
///
/// `due` is when the next one is due: the generic cell rate algorithm (ITU-T I.371). Two CPUs at once may both take one.
#[inline(always)]
pub fn allowed(due: &mut u64, interval: u64) -> bool {
    const AT_ONCE: u64 = 1_000_000_000;
    // SAFETY: the helper takes nothing and returns a number.
    let now = unsafe { bpf_ktime_get_ns() };
    let start = if *due > now { *due } else { now };
    // A limit of one a second still lets that one pass.
    if start - now > AT_ONCE.saturating_sub(interval) {
        return false;
    }
    *due = start + interval;
    true
}

//! For `sticky capture`: packets as they came in, with what became of them, into a ring.
//!
//! While nobody captures, a packet pays for one load and one branch.

use aya_ebpf::btf_maps::{Array, PerCpuArray, RingBuf};
use aya_ebpf::helpers::generated::{
    bpf_ktime_get_ns, bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes,
};
use aya_ebpf::macros::btf_map;
use aya_ebpf::programs::{TcContext, XdpContext};
use sticky_common::maps::CAPTURED_BYTES;
use sticky_common::outcome::Outcome;
use sticky_common::types::Handover;
use sticky_common::types::capture::{Event, Request};

/// No outcome: nothing to tell.
const UNTOLD: u32 = u32::MAX;

/// Space for an event and its packet, put together here before it goes into the ring.
#[repr(C)]
struct Draft {
    event: Event,
    bytes: [u8; Event::MAX_BYTES as usize],
}

#[btf_map]
static CAPTURE: Array<Request, 1> = Array::new();

#[btf_map]
static CAPTURE_UNTIL: Array<u64, 1> = Array::new();

#[btf_map]
static CAPTURED: RingBuf<Event, { CAPTURED_BYTES as usize }> = RingBuf::new();

#[btf_map]
static DRAFT: PerCpuArray<Draft, 1> = PerCpuArray::new();

/// Of a packet that XDP saw and did not change.
#[inline(always)]
pub fn seen(ctx: &XdpContext, outcome: u32) {
    if wanted() {
        see(ctx, outcome);
    }
}

/// Keeps a packet at tc as it is now, for [`emit`]. Whether somebody captures.
#[inline(always)]
pub fn keep(ctx: &TcContext, direction: u32) -> bool {
    wanted() && take(ctx, direction)
}

/// What becomes of the packet that was kept.
#[inline(always)]
pub fn note(outcome: Outcome) {
    if wanted()
        && let Some(draft) = DRAFT.get_ptr_mut(0)
    {
        // SAFETY: the slot is this CPU's own, and programs do not preempt each other on it.
        unsafe { (*draft).event.outcome = outcome as u32 };
    }
}

/// The backend that sent the packet that was kept.
#[inline(always)]
pub fn sent_by(backend: u32) {
    if wanted()
        && let Some(draft) = DRAFT.get_ptr_mut(0)
    {
        // SAFETY: as above.
        unsafe { (*draft).event.backend = backend };
    }
}

/// Tells of the packet that was kept.
#[inline(never)]
pub fn emit() {
    let Some(request) = request() else { return };
    let Some(draft) = DRAFT.get_ptr_mut(0) else { return };
    // SAFETY: the slot is this CPU's own, and programs do not preempt each other on it.
    let draft = unsafe { &mut *draft };
    let outcome = draft.event.outcome;
    if outcome == UNTOLD
        || request.outcomes & 1 << (outcome & 63) == 0
        || !of_client(request, draft)
    {
        return;
    }
    let mut captured = draft.event.length;
    if captured > request.bytes {
        captured = request.bytes;
    }
    if captured > Event::MAX_BYTES {
        captured = Event::MAX_BYTES;
    }
    draft.event.captured = captured;
    let size = size_of::<Event>() + captured as usize;
    // SAFETY: the draft is at least as large, and plain data.
    let whole =
        unsafe { core::slice::from_raw_parts(core::ptr::from_mut(draft).cast::<u8>(), size) };
    if CAPTURED.output_untyped::<[u8]>(whole, 0).is_err() {
        request.lost += 1;
    }
}

#[inline(always)]
fn wanted() -> bool {
    // SAFETY: map memory stays valid until the program ends, and a word is read whole.
    CAPTURE_UNTIL.get_ptr(0).is_some_and(|until| unsafe { *until } != 0)
}

#[inline(always)]
fn request() -> Option<&'static mut Request> {
    // SAFETY: map memory stays valid until the program ends; a race loses count of a lost packet at most.
    CAPTURE.get_ptr_mut(0).map(|at| unsafe { &mut *at })
}

#[inline(never)]
fn see(ctx: &XdpContext, outcome: u32) {
    let backend = chosen(ctx);
    // SAFETY: the helper takes the context it was given.
    let length = unsafe { bpf_xdp_get_buff_len(ctx.ctx) } as u32;
    let ifindex = ctx.ingress_ifindex() as u32;
    let start = Event { length, ifindex, outcome, backend, direction: Event::IN, ..Event::NONE };
    let Some(draft) = begin(start) else { return };
    let wanted = bounded(draft);
    // SAFETY: the draft has room for as many bytes; the helper checks the packet.
    if unsafe { bpf_xdp_load_bytes(ctx.ctx, 0, draft.bytes.as_mut_ptr().cast(), wanted) } == 0 {
        emit();
    }
}

#[inline(never)]
fn take(ctx: &TcContext, direction: u32) -> bool {
    let skb = ctx.skb.skb;
    // SAFETY: reads of context fields.
    let (length, ifindex) = unsafe { ((*skb).len, (*skb).ifindex) };
    // What XDP said of a client's packet is told already; what becomes of it here is, if it is something else.
    let outcome = if direction == Event::IN { UNTOLD } else { Outcome::NotOurs as u32 };
    let start = Event { length, ifindex, outcome, direction, ..Event::NONE };
    let Some(draft) = begin(start) else { return false };
    let wanted = bounded(draft);
    // SAFETY: the draft has room for as many bytes; the helper checks the packet.
    unsafe { bpf_skb_load_bytes(skb.cast(), 0, draft.bytes.as_mut_ptr().cast(), wanted) == 0 }
}

/// Starts a draft, if the capture has not ended and wants packets of this interface.
#[inline(always)]
fn begin(start: Event) -> Option<&'static mut Draft> {
    let request = request()?;
    let until = CAPTURE_UNTIL.get_ptr_mut(0)?;
    // SAFETY: the helper takes nothing and returns a number; the word is as in `wanted`.
    let time = unsafe {
        let time = bpf_ktime_get_ns();
        if time > *until {
            // Nobody puts it off any more.
            *until = 0;
            return None;
        }
        time
    };
    if request.ifindex != 0 && request.ifindex != start.ifindex {
        return None;
    }
    // SAFETY: the slot is this CPU's own, and programs do not preempt each other on it.
    let draft = unsafe { &mut *DRAFT.get_ptr_mut(0)? };
    draft.event = Event { time, captured: start.length, ..start };
    Some(draft)
}

/// As many bytes as there are and fit. The verifier wants to see both bounds, so the length is read back as a word: of a
/// register of 64 bits it would lose one.
#[inline(always)]
fn bounded(draft: &Draft) -> u32 {
    // SAFETY: a reference is readable.
    let length = unsafe { (&raw const draft.event.captured).read_volatile() };
    if length > Event::MAX_BYTES {
        Event::MAX_BYTES
    } else if length == 0 {
        1
    } else {
        length
    }
}

/// The backend of the choice in front of the frame.
#[inline(always)]
fn chosen(ctx: &XdpContext) -> u32 {
    let at = ctx.metadata();
    if at + size_of::<Handover>() > ctx.metadata_end() {
        return Event::NO_BACKEND;
    }
    // SAFETY: just checked; the kernel aligns metadata to four bytes.
    let choice = unsafe { (at as *const Handover).read() };
    if choice.magic == Handover::MAGIC && choice.task == Handover::DELIVER {
        choice.backend
    } else {
        Event::NO_BACKEND
    }
}

/// Whether the packet is of a client that is asked for.
#[inline(always)]
fn of_client(request: &Request, draft: &Draft) -> bool {
    if request.version == 0 {
        return true;
    }
    let bytes = &draft.bytes;
    let mut l3 = 14;
    for _ in 0..2 {
        if matches!([bytes[l3 - 2], bytes[l3 - 1]], [0x81, 0x00] | [0x88, 0xa8]) {
            l3 += 4;
        }
    }
    let version = match [bytes[l3 - 2], bytes[l3 - 1]] {
        [0x08, 0x00] => 4,
        [0x86, 0xdd] => 6,
        _ => return false,
    };
    let reply = draft.event.direction == Event::REPLY;
    let (at, length) = match (version, reply) {
        (4, false) => (l3 + 12, 4),
        (4, true) => (l3 + 16, 4),
        (_, false) => (l3 + 8, 16),
        (_, true) => (l3 + 24, 16),
    };
    if version != request.version || draft.event.length < (at + length) as u32 {
        return false;
    }
    for i in 0..16 {
        if i < length && bytes[at + i] & request.mask[i] != request.client[i] {
            return false;
        }
    }
    true
}

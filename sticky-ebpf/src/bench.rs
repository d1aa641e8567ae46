//! What the data path is measured with: a program that calls another one many times, each time with the packet as it was
//! at first and, if asked, with another client, and counts the verdicts.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on its own output: one that hands something over in front of the packet would
//! otherwise be measured on something else from the second time on.
#![no_std]
#![no_main]

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::bpf_xdp_adjust_meta;
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The program that is measured.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();
/// How many runs so far, and how often each verdict came.
#[btf_map]
static VERDICTS: PerCpuArray<u64, 8> = PerCpuArray::new();
/// Offset of a word of the source address, 0: it stays; and which of its bits vary.
#[btf_map]
static VARY: Array<[u32; 2], 1> = Array::new();

/// Where the runs are counted, behind the verdicts.
const RUNS: u32 = 7;

#[xdp(frags)]
pub fn bench(ctx: XdpContext) -> u32 {
    vary(&ctx);
    let verdict = target(ctx.ctx);
    if let Some(count) = VERDICTS.get_ptr_mut(verdict) {
        // SAFETY: the slot is this CPU's own.
        unsafe { *count += 1 };
    }
    let meta = ctx.metadata_end() as i32 - ctx.metadata() as i32;
    if meta > 0 {
        // SAFETY: the helper takes the context it was given.
        unsafe { bpf_xdp_adjust_meta(ctx.ctx, 12) };
    }
    xdp_action::XDP_DROP
}

/// Another client each time, all of them in turn: a multiplication spreads them.
#[inline(always)]
fn vary(ctx: &XdpContext) {
    let (Some(runs), Some(vary)) = (VERDICTS.get_ptr_mut(RUNS), VARY.get(0)) else { return };
    // SAFETY: the slot is this CPU's own.
    let run = unsafe {
        *runs += 1;
        *runs as u32
    };
    let [offset, mask] = *vary;
    let at = ctx.data() + (offset & 0x3f) as usize;
    if offset == 0 || at + 4 > ctx.data_end() {
        return;
    }
    let client = 0xc612_0000 | (run.wrapping_mul(0x9e37_79b1) >> 7) & mask;
    // SAFETY: the bounds were checked; bytes have no alignment.
    unsafe { *(at as *mut [u8; 4]) = client.to_be_bytes() };
}

/// Calls the target; a tail call does not return, so it has a function of its own.
#[inline(never)]
fn target(ctx: *mut xdp_md) -> u32 {
    let ctx = XdpContext::new(ctx);
    // SAFETY: there is one target; without it the call falls through, and the verdicts say so.
    unsafe { TARGET.tail_call(&ctx, 0) };
    let fell_through = xdp_action::XDP_ABORTED;
    // SAFETY: a local variable. Read as volatile, or the compiler takes this for the value of every call.
    unsafe { core::ptr::read_volatile(&raw const fell_through) }
}

/// The floor: sends the frame back at once.
#[xdp(frags)]
pub fn base_tx(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_TX
}

/// The floor for what is not ours.
#[xdp(frags)]
pub fn base_pass(_ctx: XdpContext) -> u32 {
    xdp_action::XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No code that can panic survives: the verifier refuses a loop without an end.
    loop {}
}

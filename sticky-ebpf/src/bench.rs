//! What the data path is measured with: a program that calls another one many times, each time with the packet as it was
//! at first and, if asked, with another client, and counts the verdicts.
//!
//! `BPF_PROG_TEST_RUN` repeats a program on its own output: one that hands something over in front of the packet would
//! otherwise be measured on something else from the second time on. All of it is restored for every run, whether the
//! program changed it or not, so that this costs the floor as much as the others.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

use core::arch::asm;

use aya_ebpf::bindings::{xdp_action, xdp_md};
use aya_ebpf::btf_maps::{Array, PerCpuArray, ProgramArray};
use aya_ebpf::helpers::{bpf_xdp_adjust_head, bpf_xdp_adjust_meta};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;

/// The program that is measured.
#[btf_map]
static TARGET: ProgramArray<1> = ProgramArray::new();
/// How many runs so far, and how often each verdict came.
#[btf_map]
static VERDICTS: PerCpuArray<u64, 8> = PerCpuArray::new();
/// The packet as it is at first.
#[repr(C)]
#[derive(Clone, Copy)]
struct Frame {
    /// Its first bytes: three words, half a word, and from the end of the link header on words again, as a program reads
    /// them; the processor is slow to give back what was written in other pieces.
    words: [u32; 16],
    length: u32,
    /// Offset of a word of the source address, its value, and which of its bits vary.
    source: u32,
    base: u32,
    vary: u32,
}

#[btf_map]
static FRAME: Array<Frame, 1> = Array::new();

/// Where the runs are counted, behind the verdicts.
const RUNS: u32 = 7;
/// Bytes of the frame that are restored.
const RESTORED: usize = 62;

#[xdp(frags)]
pub fn bench(ctx: XdpContext) -> u32 {
    let Some(frame) = FRAME.get(0) else { return xdp_action::XDP_ABORTED };
    restore(&ctx, frame);
    let verdict = target(ctx.ctx);
    if let Some(count) = VERDICTS.get_ptr_mut(verdict) {
        // SAFETY: the slot is this CPU's own.
        unsafe { *count += 1 };
    }
    take_off(&ctx, frame.length);
    xdp_action::XDP_DROP
}

/// Takes off what the target put in front of the frame: one call, be it of nothing.
#[inline(always)]
fn take_off(ctx: &XdpContext, length: u32) {
    let meta = ctx.metadata_end() as i32 - ctx.metadata() as i32;
    let pushed = (ctx.data_end() - ctx.data()) as i32 - length as i32;
    // SAFETY: the helpers take the context they were given.
    unsafe {
        if pushed == 0 {
            bpf_xdp_adjust_meta(ctx.ctx, meta);
        } else {
            bpf_xdp_adjust_head(ctx.ctx, pushed);
        }
    }
}

/// Another client each time, all of them in turn: a multiplication spreads them.
#[inline(always)]
fn restore(ctx: &XdpContext, frame: &Frame) {
    let Some(runs) = VERDICTS.get_ptr_mut(RUNS) else { return };
    // SAFETY: the slot is this CPU's own.
    let run = unsafe {
        *runs += 1;
        *runs as u32
    };
    let start = ctx.data();
    if start + RESTORED > ctx.data_end() {
        return;
    }
    let w = &frame.words;
    let client = frame.base & !frame.vary | (run.wrapping_mul(0x9e37_79b1) >> 7) & frame.vary;
    // SAFETY: the bounds were checked.
    unsafe {
        set_u32::<0>(start, w[0]);
        set_u32::<4>(start, w[1]);
        set_u32::<8>(start, w[2]);
        set_u16::<12>(start, w[3] as u16);
        set_u32::<14>(start, w[4]);
        set_u32::<18>(start, w[5]);
        set_u32::<22>(start, w[6]);
        set_u32::<26>(start, w[7]);
        set_u32::<30>(start, w[8]);
        set_u32::<34>(start, w[9]);
        set_u32::<38>(start, w[10]);
        set_u32::<42>(start, w[11]);
        set_u32::<46>(start, w[12]);
        set_u32::<50>(start, w[13]);
        set_u32::<54>(start, w[14]);
        set_u32::<58>(start, w[15]);
    }
    let source = start + (frame.source & 0x3f) as usize;
    if source + 4 <= ctx.data_end() {
        // SAFETY: as above.
        unsafe { set_u32::<0>(source, client.to_be()) };
    }
}

/// Writes a word of the packet.
///
/// # Safety
/// Four bytes from `start + OFFSET` on are within the packet, by a check that the verifier saw.
#[inline(always)]
unsafe fn set_u32<const OFFSET: usize>(start: usize, word: u32) {
    // SAFETY: one store, to bytes that are there.
    unsafe {
        asm!(
            "*(u32 *)({start} + {offset}) = {word}",
            word = in(reg) u64::from(word),
            start = in(reg) start,
            offset = const OFFSET,
            options(nostack, preserves_flags),
        );
    }
}

/// Writes half a word of the packet.
///
/// # Safety
/// As above, of two bytes.
#[inline(always)]
unsafe fn set_u16<const OFFSET: usize>(start: usize, word: u16) {
    // SAFETY: as above.
    unsafe {
        asm!(
            "*(u16 *)({start} + {offset}) = {word}",
            word = in(reg) u64::from(word),
            start = in(reg) start,
            offset = const OFFSET,
            options(nostack, preserves_flags),
        );
    }
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

/// What a balancer that encapsulates does at the least: puts a constant IPv4 header in front of the packet.
#[xdp(frags)]
pub fn base_ipip(ctx: XdpContext) -> u32 {
    // Ethernet, then version, length, protocol 4, and two addresses for documentation.
    const HEADER: [u32; 8] =
        [0x0000_0002, 0x0002_0100, 0x0200_0000, 0x0008, 0x5400_0045, 0, 0x0000_0440, 0x0264_33c6];
    // SAFETY: the helper takes the context it was given; the pointers are read again below.
    if unsafe { bpf_xdp_adjust_head(ctx.ctx, -20) } != 0 || ctx.data() + 34 > ctx.data_end() {
        return xdp_action::XDP_ABORTED;
    }
    let start = ctx.data();
    // SAFETY: the bounds were checked.
    unsafe {
        set_u32::<0>(start, HEADER[0]);
        set_u32::<4>(start, HEADER[1]);
        set_u32::<8>(start, HEADER[2]);
        set_u16::<12>(start, HEADER[3] as u16);
        set_u32::<14>(start, HEADER[4]);
        set_u32::<18>(start, HEADER[5]);
        set_u32::<22>(start, HEADER[6]);
        set_u32::<26>(start, HEADER[7]);
        set_u32::<30>(start, HEADER[7]);
    }
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

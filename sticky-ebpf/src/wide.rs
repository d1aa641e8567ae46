//! Whole words of a packet in one access.
//!
//! Nothing in a frame is aligned, which the machine permits and the compiler does not know: it would read and write single
//! bytes. Told so for the whole program, it writes unaligned words on the stack too, which the verifier refuses.

use core::arch::asm;

/// Reads a word of the packet as it lies there.
///
/// # Safety
/// Four bytes from `start + OFFSET` on are within the packet, by a check that the verifier saw.
#[inline(always)]
pub unsafe fn u32_at<const OFFSET: usize>(start: usize) -> u32 {
    let word: u64;
    // SAFETY: one load, of bytes that are there.
    unsafe {
        asm!(
            "{word} = *(u32 *)({start} + {offset})",
            word = lateout(reg) word,
            start = in(reg) start,
            offset = const OFFSET,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    word as u32
}

/// Reads half a word of the packet as it lies there.
///
/// # Safety
/// As for [`u32_at`], of two bytes.
#[inline(always)]
pub unsafe fn u16_at<const OFFSET: usize>(start: usize) -> u16 {
    let word: u64;
    // SAFETY: as above.
    unsafe {
        asm!(
            "{word} = *(u16 *)({start} + {offset})",
            word = lateout(reg) word,
            start = in(reg) start,
            offset = const OFFSET,
            options(pure, readonly, nostack, preserves_flags),
        );
    }
    word as u16
}

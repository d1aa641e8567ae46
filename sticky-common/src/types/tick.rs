//! Time in the maps: units of 2^30 ns (about 1.07 s) of the monotonic clock, so that nothing is divided per packet.

/// Ticks of a time in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn from_nanos(nanos: u64) -> u32 {
    (nanos >> 30) as u32
}

/// Ticks that last at least `secs` seconds, at least one.
#[must_use]
pub const fn from_secs(secs: u64) -> u32 {
    let ticks = (secs.saturating_mul(1_000_000_000) + (1 << 30) - 1) >> 30;
    if ticks == 0 {
        1
    } else if ticks > u32::MAX as u64 {
        u32::MAX
    } else {
        ticks as u32
    }
}

/// Ticks from `then` to `now`, 0 if `then` is later (clocks of two CPUs may differ a little). Of half of all numbers, so that
/// a time before the clock began is one too.
#[inline(always)]
#[must_use]
pub const fn since(now: u32, then: u32) -> u32 {
    let ticks = now.wrapping_sub(then);
    if ticks > u32::MAX / 2 { 0 } else { ticks }
}

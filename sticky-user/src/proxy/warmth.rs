//! Since when a backend has been up, for `sticky.slow_start`.

use std::sync::atomic::{AtomicU64, Ordering};

/// Milliseconds of the proxy's clock at which it came up; 0: it is not up, [`Warmth::ALWAYS`]: it was before us.
#[derive(Debug, Default)]
pub(super) struct Warmth(AtomicU64);

impl Warmth {
    const ALWAYS: u64 = u64::MAX;

    /// A snapshot says whether it is up; `known`: its service was there before this snapshot.
    pub(super) fn seen(&self, up: bool, known: bool, now_ms: u64) {
        let next = match (up, self.0.load(Ordering::Relaxed)) {
            (false, _) => 0,
            (true, 0) if known => now_ms,
            (true, 0) => Self::ALWAYS,
            (true, since) => since,
        };
        self.0.store(next, Ordering::Relaxed);
    }

    /// How long it has been up, if we saw it come.
    pub(super) fn up_for(&self, now_ms: u64) -> Option<u64> {
        match self.0.load(Ordering::Relaxed) {
            0 | Self::ALWAYS => None,
            since => Some(now_ms.saturating_sub(since)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_from_the_change_to_up() {
        let w = Warmth::default();
        w.seen(true, false, 5);
        assert_eq!(w.up_for(9), None, "it was up before us");
        w.seen(false, true, 10);
        w.seen(true, true, 20);
        w.seen(true, true, 30);
        assert_eq!(w.up_for(45), Some(25));
    }
}

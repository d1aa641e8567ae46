//! Passive health (`max_fails`, `fail_timeout`): a backend that refuses connections gets no new requests for a while.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Connect failures of one backend. Races between workers may count one more or less, which does no harm.
#[derive(Debug, Default)]
pub(super) struct Failures {
    count: AtomicU32,
    /// Milliseconds of `clock` at which the count began.
    since: AtomicU64,
    /// Until when it is out, in the same milliseconds.
    until: AtomicU64,
}

impl Failures {
    /// A connection was refused or took too long; whether the backend is out by it, and was not before. `max_fails` of 0
    /// never ejects.
    pub(super) fn failed(&self, now_ms: u64, max_fails: u32, fail_timeout: Duration) -> bool {
        let window = u64::try_from(fail_timeout.as_millis()).unwrap_or(u64::MAX);
        if now_ms.saturating_sub(self.since.load(Ordering::Relaxed)) > window {
            self.since.store(now_ms, Ordering::Relaxed);
            self.count.store(0, Ordering::Relaxed);
        }
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        if max_fails == 0 || count < max_fails {
            return false;
        }
        self.count.store(0, Ordering::Relaxed);
        // Those that were under way fail too.
        self.until.swap(now_ms.saturating_add(window), Ordering::Relaxed) <= now_ms
    }

    /// A connection was made.
    pub(super) fn succeeded(&self) {
        self.count.store(0, Ordering::Relaxed);
        self.until.store(0, Ordering::Relaxed);
    }

    pub(super) fn ejected(&self, now_ms: u64) -> bool {
        let until = self.until.load(Ordering::Relaxed);
        until != 0 && now_ms < until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(10);

    #[test]
    fn out_after_enough_failures_within_the_window() {
        let f = Failures::default();
        assert!(!f.failed(20_000, 3, WINDOW) && !f.failed(20_001, 3, WINDOW));
        assert!(!f.failed(31_000, 3, WINDOW), "the first two are too old");
        assert!(!f.failed(31_001, 3, WINDOW) && f.failed(31_002, 3, WINDOW));
        assert!(f.ejected(31_003) && f.ejected(41_001) && !f.ejected(41_002));
        assert!(f.failed(50_000, 1, WINDOW) && !f.failed(50_001, 1, WINDOW), "out already");
        assert!(f.ejected(60_000) && !f.ejected(60_001), "since the last one");
        f.succeeded();
        assert!(!f.ejected(50_002));
        assert!(!f.failed(60_000, 0, WINDOW));
    }
}

//! The clients that a change is told with. To count them takes longer the more there are, so many changes share a count.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Census;

/// All counts together take no more than one part in so many of the time.
const SHARE: u32 = 100;

/// The last count.
#[derive(Default)]
pub(super) struct Counted {
    pub(super) census: Arc<Census>,
    /// When it is made anew at the earliest.
    next: Option<Instant>,
}

impl Counted {
    /// It is time for another.
    pub(super) fn is_old(&self, now: Instant) -> bool {
        self.next.is_none_or(|next| next <= now)
    }

    /// Takes another, which took so long.
    pub(super) fn take(&mut self, census: Arc<Census>, now: Instant, took: Duration) {
        self.census = census;
        self.next = Some(now + took.saturating_mul(SHARE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_take_one_hundredth_of_the_time() {
        let start = Instant::now();
        let mut counted = Counted::default();
        assert!(counted.is_old(start));
        counted.take(Arc::default(), start, Duration::from_millis(2));
        assert!(!counted.is_old(start + Duration::from_millis(199)));
        assert!(counted.is_old(start + Duration::from_millis(200)));
    }
}

//! `sticky.rate`: requests per second and client, with a burst of one second.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

/// Clients remembered before those at rest are forgotten.
const MANY: usize = 65_536;

/// What each client of one service has left.
#[derive(Debug, Default)]
pub(crate) struct Buckets(Mutex<HashMap<IpAddr, Bucket>>);

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// Thousandths of a request.
    left: u64,
    /// Milliseconds at which that was so.
    at: u64,
}

impl Bucket {
    /// What it holds `now`.
    fn filled(self, rate: u64, now_ms: u64) -> u64 {
        let more = now_ms.saturating_sub(self.at).saturating_mul(rate);
        self.left.saturating_add(more).min(rate * 1000)
    }
}

impl Buckets {
    /// Takes one request of this client, if it may have one.
    pub(crate) fn take(&self, client: IpAddr, rate: u32, now_ms: u64) -> bool {
        let rate = u64::from(rate);
        let mut buckets = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MANY && !buckets.contains_key(&client) {
            // Who has a full bucket is as good as new.
            buckets.retain(|_, bucket| bucket.filled(rate, now_ms) < rate * 1000);
            if buckets.len() >= MANY {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(client).or_insert(Bucket { left: rate * 1000, at: now_ms });
        let left = bucket.filled(rate, now_ms);
        let pays = left >= 1000;
        *bucket = Bucket { left: if pays { left - 1000 } else { left }, at: now_ms };
        pays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_for_each_client() {
        let buckets = Buckets::default();
        let [a, b] = ["198.51.100.1", "198.51.100.2"].map(|text| text.parse().unwrap());
        assert_eq!((0..20).filter(|_| buckets.take(a, 5, 1)).count(), 5);
        assert!(buckets.take(b, 5, 1));
        assert!(!buckets.take(a, 5, 200) && buckets.take(a, 5, 201) && !buckets.take(a, 5, 202));
        assert_eq!((0..20).filter(|_| buckets.take(a, 5, 60_000)).count(), 5);
    }

    #[test]
    fn memory_is_bounded() {
        let buckets = Buckets::default();
        for i in 0..200_000_u32 {
            buckets.take(IpAddr::V4(i.into()), 5, u64::from(i / 1000));
        }
        assert!(buckets.0.lock().unwrap().len() <= MANY);
    }
}

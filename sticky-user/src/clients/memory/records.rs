//! Client records in bounded memory; those long unused go first.

use std::collections::HashMap;
use std::hash::Hash;
use std::mem;

use sticky_common::types::Record;

/// Two halves: what was used since the last turn, and what was used before it. When the first is full, the second is
/// forgotten and they change places; so the last `max / 2` clients in use are always known, and never more than `max`.
pub(super) struct Records<K> {
    recent: HashMap<K, Record>,
    older: HashMap<K, Record>,
    half: usize,
}

impl<K: Hash + Eq> Records<K> {
    pub(super) fn new(max: usize) -> Self {
        Self { recent: HashMap::new(), older: HashMap::new(), half: (max / 2).max(1) }
    }

    pub(super) fn len(&self) -> usize {
        self.recent.len() + self.older.len()
    }

    pub(super) fn get(&self, key: &K) -> Option<Record> {
        self.recent.get(key).or_else(|| self.older.get(key)).copied()
    }

    pub(super) fn put(&mut self, key: K, record: Record) {
        self.older.remove(&key);
        if self.recent.len() >= self.half && !self.recent.contains_key(&key) {
            self.older = mem::take(&mut self.recent);
        }
        self.recent.insert(key, record);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_and_the_active_stay() {
        let record = Record { backends: [1; Record::DEPTH], seen: 1, zero: 0 };
        let mut records = Records::new(100);
        records.put(0, record);
        for key in 1..10_000 {
            records.put(key, record);
            if key % 20 == 0 {
                assert!(records.get(&0).is_some(), "lost at {key}");
                records.put(0, record);
            }
            assert!(records.len() <= 100);
        }
        assert!(records.get(&1).is_none());
    }
}

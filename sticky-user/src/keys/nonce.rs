//! Nonces, of which none may be given out twice under one key, by anybody who has it.

use std::cell::RefCell;
use std::time::SystemTime;

use super::{NoRandom, random};

/// Bytes of a nonce.
pub(super) const NONCE: usize = 24;
/// Random bytes of one: among 2^48 nonces two have the same with a probability of 2^-33.
const DRAWN: usize = 16;
/// How many are drawn at once: to ask the kernel for each takes ten times as long.
const AT_ONCE: usize = 16;

/// Of one thread.
#[derive(Default)]
pub struct Nonces(RefCell<Vec<[u8; DRAWN]>>);

impl Nonces {
    pub(super) fn next(&self) -> Result<[u8; NONCE], NoRandom> {
        let mut drawn = self.0.borrow_mut();
        if drawn.is_empty() {
            *drawn = random::<{ DRAWN * AT_ONCE }>()?.as_chunks().0.to_vec();
        }
        let mut nonce = [0; NONCE];
        let (random, time) = nonce.split_at_mut(DRAWN);
        random.copy_from_slice(&drawn.pop().unwrap_or_default());
        // A copy of this process, such as a restored machine's, has drawn the same, but does not use it in the same nanosecond.
        time.copy_from_slice(&nanoseconds().to_le_bytes());
        Ok(nonce)
    }
}

/// The clock's, of which the highest bits say nothing new.
fn nanoseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn none_comes_twice_nor_from_a_copy() {
        let nonces = Nonces::default();
        let first = nonces.next().unwrap();
        let copy = Nonces(nonces.0.clone());
        let mut all = HashSet::from([first]);
        for _ in 0..10 * AT_ONCE {
            assert!(all.insert(nonces.next().unwrap()));
            assert!(all.insert(copy.next().unwrap()));
        }
        let random: HashSet<_> = all.iter().map(|nonce| &nonce[..DRAWN]).collect();
        assert!(
            random.len() >= all.len() - AT_ONCE,
            "each is drawn for one, but for those of the copy"
        );
    }
}

//! Ids of requests. Some are made at once and share their memory: each goes into four places, and has none of its own to
//! ask for and to give back.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;

use super::random::Random;

/// Bytes of an id, 128 random bits in hex.
const ID: usize = 32;
/// A request that lasts keeps the memory of all of them.
const AT_ONCE: usize = 8;

/// Of one worker.
#[derive(Default)]
pub(super) struct RequestIds(RefCell<Bytes>);

impl RequestIds {
    pub(super) fn next(&self, random: &Random) -> HeaderValue {
        let mut made = self.0.borrow_mut();
        if made.is_empty() {
            *made = digits(random);
        }
        let id = made.split_to(ID);
        HeaderValue::from_maybe_shared(id).unwrap_or_else(|_| HeaderValue::from_static("-"))
    }
}

fn digits(random: &Random) -> Bytes {
    let mut digits = BytesMut::zeroed(ID * AT_ONCE);
    let (numbers, _) = digits.as_chunks_mut::<16>();
    for number in numbers {
        let written = hex::encode_to_slice(random.next().to_be_bytes(), number);
        written.expect("two digits for each byte");
    }
    digits.freeze()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn all_are_different() {
        let (ids, random) = (RequestIds::default(), Random::new().unwrap());
        let all: HashSet<HeaderValue> = (0..3 * AT_ONCE).map(|_| ids.next(&random)).collect();
        assert_eq!(all.len(), 3 * AT_ONCE);
        for id in all {
            let digits = hex::decode(id.as_bytes()).unwrap();
            assert_eq!(digits.len(), ID / 2, "{id:?}");
        }
    }
}

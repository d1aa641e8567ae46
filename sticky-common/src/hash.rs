//! The hash of a client: SipHash-1-3 with the cluster's key.
//!
//! Keyed, so that nobody can aim addresses at one slot; SipHash (Aumasson and Bernstein, 2012) with one compression and
//! three finalization rounds, as hash tables use it. The kernel and user space call these same functions, and golden
//! vectors pin them: another value would move every client.

use crate::types::{Addr, addr};

/// The cluster's secret for the client hash.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey {
    pub k0: u64,
    pub k1: u64,
}

impl core::fmt::Debug for HashKey {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("HashKey(secret)")
    }
}

impl HashKey {
    /// The key of 16 bytes, read as SipHash reads it (little endian).
    #[must_use]
    pub const fn from_bytes(b: [u8; 16]) -> Self {
        let [b0, b1, b2, b3, b4, b5, b6, b7, c0, c1, c2, c3, c4, c5, c6, c7] = b;
        Self {
            k0: u64::from_le_bytes([b0, b1, b2, b3, b4, b5, b6, b7]),
            k1: u64::from_le_bytes([c0, c1, c2, c3, c4, c5, c6, c7]),
        }
    }
}

/// SipHash's state behind its key, and behind what of the first round no message changes: half of it, done once for all
/// clients.
#[derive(Clone, Copy)]
pub struct Keyed {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl HashKey {
    /// What every hash with this key begins with.
    #[inline(always)]
    #[must_use]
    pub const fn keyed(self) -> Keyed {
        let v1 = self.k1 ^ 0x646f_7261_6e64_6f6d;
        let v0 = (self.k0 ^ 0x736f_6d65_7073_6575).wrapping_add(v1);
        Keyed {
            v0: v0.rotate_left(32),
            v1: v1.rotate_left(13) ^ v0,
            v2: self.k0 ^ 0x6c79_6765_6e65_7261,
            v3: self.k1 ^ 0x7465_6462_7974_6573,
        }
    }
}

impl Keyed {
    /// The constants of the kernel half that hold [`Keyed::words`].
    pub const GLOBALS: [&str; 4] = ["HASH_0", "HASH_1", "HASH_2", "HASH_3"];

    /// From [`Keyed::words`].
    #[inline(always)]
    #[must_use]
    pub const fn from_words([v0, v1, v2, v3]: [u64; 4]) -> Self {
        Self { v0, v1, v2, v3 }
    }

    /// As it is handed to the kernel half.
    #[must_use]
    pub const fn words(self) -> [u64; 4] {
        [self.v0, self.v1, self.v2, self.v3]
    }

    /// The half of a round that the message has no part in.
    #[inline(always)]
    const fn half(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v0 = self.v0.rotate_left(32);
    }

    /// The rest of it.
    #[inline(always)]
    const fn rest(&mut self) {
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v2 = self.v2.rotate_left(32);
    }

    /// Takes a word in, after the half of its round.
    #[inline(always)]
    const fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.rest();
        self.v0 ^= word;
    }

    #[inline(always)]
    const fn finish(mut self) -> u64 {
        self.v2 ^= 0xff;
        self.half();
        self.rest();
        self.half();
        self.rest();
        self.half();
        self.rest();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

/// Hash of an IPv4 client: SipHash-1-3 over the four bytes of its masked address.
#[inline(always)]
#[must_use]
pub const fn client_v4(mut key: Keyed, addr: [u8; 4]) -> u64 {
    // The last block: the remaining bytes, and the length in the top byte.
    key.word((4 << 56) | u32::from_le_bytes(addr) as u64);
    key.finish()
}

/// Hash of an IPv6 client: SipHash-1-3 over the sixteen bytes of its masked address.
#[inline(always)]
#[must_use]
pub const fn client_v6(mut key: Keyed, addr: [u8; 16]) -> u64 {
    let halves = HashKey::from_bytes(addr);
    key.word(halves.k0);
    key.half();
    key.word(halves.k1);
    key.half();
    key.word(16 << 56);
    key.finish()
}

/// Hash of a client of either family, by its masked address.
#[inline(always)]
#[must_use]
pub const fn client(key: Keyed, addr: &Addr, v4: bool) -> u64 {
    if v4 { client_v4(key, addr::v4(addr)) } else { client_v6(key, addr::bytes(addr)) }
}

/// The slot of a hash in a table of `size` slots: multiply and shift, no division (Lemire, 2016).
#[inline(always)]
#[must_use]
pub const fn slot(hash: u64, size: u32) -> u32 {
    (((hash >> 32) * size as u64) >> 32) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::hash::Hasher;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher13;

    const KEY: HashKey =
        HashKey::from_bytes(*b"\0\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f");

    #[test]
    fn golden_vectors() {
        assert_eq!(client_v4(KEY.keyed(), [198, 51, 100, 7]), 0xbea1_e9d7_9020_926a);
        assert_eq!(
            client_v6(KEY.keyed(), *b"\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x07"),
            0xb265_ca44_6aec_f92e
        );
        assert_eq!(slot(0xbea1_e9d7_9020_926a, 16_381), 12198);
    }

    fn reference(key: [u8; 16], bytes: &[u8]) -> u64 {
        let mut h = SipHasher13::new_with_key(&key);
        h.write(bytes);
        h.finish()
    }

    proptest! {
        #[test]
        fn is_siphash_1_3(key: [u8; 16], v4: [u8; 4], v6: [u8; 16]) {
            let k = HashKey::from_bytes(key).keyed();
            prop_assert_eq!(Keyed::from_words(k.words()).words(), k.words());
            prop_assert_eq!(client_v4(k, v4), reference(key, &v4));
            prop_assert_eq!(client_v6(k, v6), reference(key, &v6));
        }

        #[test]
        fn slot_is_below_size(hash: u64, size in 1u32..100_000) {
            prop_assert!(slot(hash, size) < size);
        }
    }
}

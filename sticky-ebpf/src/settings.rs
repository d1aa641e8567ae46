//! Constants that user space sets before the load; the verifier folds them.

use aya_ebpf::Global;
use sticky_common::hash::HashKey;

/// Slots per table.
#[unsafe(no_mangle)]
static TABLE_SIZE: Global<u32> = Global::new(16_381);
/// First half of the client hash's key.
#[unsafe(no_mangle)]
static HASH_K0: Global<u64> = Global::new(0);
/// Second half of the client hash's key.
#[unsafe(no_mangle)]
static HASH_K1: Global<u64> = Global::new(0);

#[inline(always)]
pub fn table_size() -> u32 {
    TABLE_SIZE.load()
}

#[inline(always)]
pub fn hash_key() -> HashKey {
    HashKey { k0: HASH_K0.load(), k1: HASH_K1.load() }
}

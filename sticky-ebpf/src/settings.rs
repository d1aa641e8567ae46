//! Constants that user space sets before the load; the verifier folds them.

use aya_ebpf::Global;
use sticky_common::hash::Keyed;

/// Slots per table.
#[unsafe(no_mangle)]
static TABLE_SIZE: Global<u32> = Global::new(16_381);
/// What the hash of every client begins with.
#[unsafe(no_mangle)]
static HASH_0: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static HASH_1: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static HASH_2: Global<u64> = Global::new(0);
#[unsafe(no_mangle)]
static HASH_3: Global<u64> = Global::new(0);

#[inline(always)]
pub fn table_size() -> u32 {
    TABLE_SIZE.load()
}

#[inline(always)]
pub fn hash_key() -> Keyed {
    Keyed::from_words([HASH_0.load(), HASH_1.load(), HASH_2.load(), HASH_3.load()])
}

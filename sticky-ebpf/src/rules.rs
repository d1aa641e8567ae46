//! Source rules: which clients may connect, and how often.

use aya_ebpf::btf_maps::lpm_trie::Key;
use sticky_common::types::{Addr, ClientKey, RuleKey};

use crate::maps::{RATES, RULES};
use crate::world;

/// Whether a source may connect. User space has put what `allow` and `deny` together say into one verdict per prefix.
#[inline(never)]
pub fn admitted(rules: u32, src: &Addr) -> bool {
    let bits = 8 * size_of::<RuleKey>() as u32;
    let key = Key::new(bits, RuleKey { rules: rules.to_be_bytes(), addr: *src });
    match RULES.get(&key) {
        Some(verdict) => *verdict != 0,
        None => true,
    }
}

/// Whether a client may open one more connection now.
#[inline(never)]
pub fn in_rate(client: &ClientKey, interval: u32) -> bool {
    match RATES.get_ptr_mut(client) {
        // SAFETY: map memory stays valid until the program ends.
        Some(due) => world::allowed(unsafe { &mut *due }, u64::from(interval)),
        None => {
            let mut due = 0;
            let allowed = world::allowed(&mut due, u64::from(interval));
            // A full table forgets the least recently used, whose limit starts anew.
            let _ = RATES.insert(client, &due, 0);
            allowed
        }
    }
}

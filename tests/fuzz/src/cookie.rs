//! A cookie's value as a client sends it: nothing opens but what was sealed, to the bit.

use std::sync::LazyLock;

use sticky::keys::Keys;
use sticky::proxy::seal::{self, Bad};

use crate::{NOW, keys};

static KEYS: LazyLock<Keys> = LazyLock::new(keys);
/// Sealed with the second of the keys, for the name below; in the seeds, so that inputs begin near something good.
pub(crate) const SEALED: &str = include_str!("../seeds/cookie/sealed");
const NAME: &str = "sticky_lb";

/// Opens `data` under its name and another.
pub fn cookie(data: &[u8]) {
    let opened = seal::open(&KEYS, NAME, data, NOW);
    if data == SEALED.as_bytes() {
        assert_eq!(opened.unwrap().task, "seed");
    } else {
        assert_eq!(opened, Err(Bad::Invalid));
    }
    assert_eq!(seal::open(&KEYS, "sticky_lb_000000", data, NOW), Err(Bad::Invalid));
    // Never a promise, only no panic: it is asked before anything is opened.
    let _ = seal::is_ours(&KEYS, data);
}

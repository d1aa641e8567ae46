//! What a fuzzer tries: one function for each target, which panics where sticky breaks a promise.
//!
//! `cargo xtask fuzz TARGET` feeds them inputs without end; the tests here feed them the seeds.

#![expect(clippy::unwrap_used, reason = "what cannot be set up is not fuzzed")]

mod cookie;
mod labels;
mod request;

pub use cookie::cookie;
pub use labels::labels;
pub use request::request;

/// Keys that are the same in every run, as a corpus is kept.
const KEYS: &str = "hash 000102030405060708090a0b0c0d0e0f\n\
    cookie 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\n\
    cookie 1f1e1d1c1b1a191817161514131211100f0e0d0c0b0a09080706050403020100\n";

/// A time in this century.
const NOW: u64 = 1_800_000_000;

fn keys() -> sticky::keys::Keys {
    sticky::keys::Keys::parse(KEYS).unwrap()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Every seed of a target, and each with one byte changed, cut, or twice over.
    fn each(target: &str, run: fn(&[u8])) {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
        let mut seeds = 0;
        for entry in std::fs::read_dir(dir).unwrap() {
            let seed = std::fs::read(entry.unwrap().path()).unwrap();
            seeds += 1;
            run(&seed);
            run(&seed.repeat(2));
            for at in 0..seed.len() {
                run(&seed[..at]);
                let mut changed = seed.clone();
                changed[at] ^= 1 << (at % 8);
                run(&changed);
            }
        }
        assert!(seeds > 0, "{target} has no seeds");
    }

    #[test]
    fn seeds_of_cookie() {
        each("cookie", super::cookie);
    }

    #[test]
    fn seeds_of_request() {
        super::request::what_was_sealed_pins();
        each("request", super::request);
    }

    #[test]
    fn seeds_of_labels() {
        each("labels", super::labels);
    }
}

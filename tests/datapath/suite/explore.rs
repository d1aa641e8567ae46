//! Properties on many inputs: in the suite always the same ones, for `cargo xtask fuzz datapath` new ones until the time
//! is up.

use std::time::{Duration, Instant};

use proptest::strategy::Strategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseResult, TestRng, TestRunner};

/// How many seconds each property looks for inputs that nobody tried.
const SECONDS: &str = "STICKY_FUZZ_SECONDS";

/// Tries `cases` inputs; what breaks the property is made small and shown.
pub fn explore<S: Strategy>(cases: u32, inputs: &S, test: impl Fn(S::Value) -> TestCaseResult) {
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let Ok(seconds) = std::env::var(SECONDS) else {
        let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        return TestRunner::new_with_rng(config, rng).run(inputs, test).unwrap();
    };
    let end = Instant::now() + Duration::from_secs(seconds.parse().expect("a number of seconds"));
    let mut tried = 0_u64;
    while Instant::now() < end {
        TestRunner::new(config.clone()).run(inputs, &test).unwrap();
        tried += u64::from(cases);
    }
    eprintln!("{tried} inputs tried");
}

//! The clock of an open loop: what is due is due, whatever became of the one before.

use std::time::{Duration, Instant};

/// When something is due, `rate` times a second for `time` from now on.
pub fn pace(rate: f64, time: Duration) -> impl Iterator<Item = Instant> {
    let began = Instant::now();
    (0_u32..)
        .map(move |sent| Duration::from_secs_f64(f64::from(sent) / rate))
        .take_while(move |at| *at < time)
        .map(move |at| began + at)
}

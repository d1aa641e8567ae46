//! The clock of an open loop: what is due is due, whatever became of the one before.

use std::time::{Duration, Instant};

/// The runtime's own clock has milliseconds, a thread's has less than a tenth of one.
const TICK: Duration = Duration::from_micros(100);

/// Says `rate` times a second for `time` when something was due. Blocks: for a thread of its own.
pub fn pace(rate: f64, time: Duration, mut due: impl FnMut(Instant)) {
    let began = Instant::now();
    let mut sent = 0_u32;
    loop {
        let at = Duration::from_secs_f64(f64::from(sent) / rate);
        if at >= time {
            return;
        }
        if at > began.elapsed() {
            std::thread::sleep(TICK);
            continue;
        }
        due(began + at);
        sent += 1;
    }
}

//! What a process takes.

use std::time::Duration;

use anyhow::Context as _;
use procfs::process::Process;

/// Since its start, and now.
pub struct Usage {
    /// User and system time.
    pub cpu: Duration,
    /// Bytes of it in memory.
    pub memory: u64,
}

impl Usage {
    pub fn of(id: u32) -> anyhow::Result<Self> {
        let stat = Process::new(i32::try_from(id)?)?.stat().context("the process has ended")?;
        let ticks = stat.utime + stat.stime;
        Ok(Self {
            cpu: Duration::from_secs_f64(ticks as f64 / procfs::ticks_per_second() as f64),
            memory: stat.rss * procfs::page_size(),
        })
    }
}

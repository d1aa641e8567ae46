//! The CPUs: who runs where, and how busy they are.

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use procfs::prelude::*;
use procfs::{CpuTime, KernelStats};

/// Where a thread runs.
#[derive(Clone, Copy)]
pub enum Cpu {
    First,
    Last,
}

/// Keeps this thread, and what it starts, on one CPU.
pub fn pin(cpu: Cpu) -> anyhow::Result<()> {
    let last = std::thread::available_parallelism()?.get() - 1;
    let mut set = CpuSet::new();
    set.set(if matches!(cpu, Cpu::First) { 0 } else { last })?;
    Ok(sched_setaffinity(Pid::from_raw(0), &set)?)
}

/// CPU time of the whole machine so far, in µs: of all processes and of the kernel on nobody's behalf, where packets are
/// forwarded. It is sampled by the kernel's timer, so that short spans are coarse.
pub fn busy_us() -> anyhow::Result<f64> {
    let CpuTime { user, nice, system, irq, softirq, .. } = KernelStats::current()?.total;
    let ticks = user + nice + system + irq.context("irq")? + softirq.context("softirq")?;
    Ok(ticks as f64 * 1e6 / procfs::ticks_per_second() as f64)
}

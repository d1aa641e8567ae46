//! What a process takes.

use procfs::process::Process;

/// CPU time of its threads and its children's so far, user and system, in µs; the scheduler counts nanoseconds, `stat`
/// only hundredths.
pub fn cpu_us(pid: u32) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for thread in Process::new(i32::try_from(pid)?)?.tasks()? {
        let thread = thread?;
        sum += thread.schedstat()?.sum_exec_runtime as f64 / 1000.0;
        for child in thread.children()? {
            sum += cpu_us(child)?;
        }
    }
    Ok(sum)
}

/// Memory of its own, in kB.
pub fn memory_kb(pid: u32) -> anyhow::Result<f64> {
    let status = Process::new(i32::try_from(pid)?)?.status()?;
    Ok(status.rssanon.unwrap_or(0) as f64)
}

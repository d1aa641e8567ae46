//! Waiting for something to become so.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::signal::unix::{SignalKind, signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From here on Ctrl-C, SIGTERM and a closed terminal make every wait fail, so that what the program made is taken down in
/// order.
pub fn watch_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut control_c = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = control_c.recv() => {} _ = terminate.recv() => {} _ = hangup.recv() => {} }
            interrupt();
            // The handlers stay: a second signal must not stop the clean-up.
            std::future::pending::<()>().await;
        });
    });
    Ok(())
}

/// Makes every wait of this program fail from now on, so that it ends in order: everything it made is dropped.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

/// Whether [`interrupt`] was called.
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Asks `probe` every 20 ms until it has an answer. An error ends the wait at once; so does the time limit, with what the
/// probe said last.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut probe: impl FnMut() -> anyhow::Result<Result<T, String>>,
) -> anyhow::Result<T> {
    let end = Instant::now() + limit;
    loop {
        if interrupted() {
            bail!("interrupted while waiting for {what}");
        }
        let last = match probe()? {
            Ok(answer) => return Ok(answer),
            Err(last) => last,
        };
        if Instant::now() >= end {
            bail!("{what}: not within {limit:?}: {last}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Waits until `holds` returns true.
pub fn until_true(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    until(what, limit, || Ok(if holds()? { Ok(()) } else { Err("not yet".to_owned()) }))
}

//! `sticky run`: the life of the balancer, and the only place that knows every part.
//!
//! provider → health → gate → control → maps, and after each commit → proxy, metrics, the saved snapshot.

mod bequest;
mod gate;
mod handover;
mod life;
mod parts;
mod provider;
mod publish;

use std::time::Duration;

use anyhow::Context;
use tracing::{debug, info};

use crate::config::Config;
use crate::failure::Failure;
use crate::permissions;
use crate::telemetry;

/// Threads for everything but requests and the provider, which have their own, and commits, which block.
const CONTROL_THREADS: usize = 2;
/// What is still in progress at the very end is not waited for longer.
const LAST_MOMENT: Duration = Duration::from_millis(500);

/// Runs until a signal, a successor or a failure ends it. The data path goes on without us.
///
/// # Errors
/// It could not start, or a part failed that the rest cannot go on without.
pub fn run(config: Config) -> Result<(), Failure> {
    // Before there is a second thread.
    let descriptors = permissions::descriptors();
    // Until the last request is logged.
    let _log = telemetry::start(config.log_format)?;
    permissions::capabilities(&config)?;
    if let Err(error) = descriptors {
        debug!(%error, "no more descriptors than before");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()
        .context("no runtime for the control plane")?;
    let mut parts = parts::Parts::start(&config, &runtime)?;
    let ended = runtime.block_on(life::until_the_end(&mut parts));
    info!(reason = %ended, timeout = ?config.drain_timeout, "draining layer 7, layer 4 goes on");
    let cut = runtime.block_on(life::drain(&parts, config.drain_timeout));
    info!(cut, "drained");
    life::settle(&parts, matches!(ended, life::Ended::Succeeded));
    drop(parts);
    runtime.shutdown_timeout(LAST_MOMENT);
    ended.into_result()
}

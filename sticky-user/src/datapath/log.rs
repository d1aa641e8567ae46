//! What the programs say of single packets, for a developer; the programs say nothing unless they were loaded so.

use std::time::Duration;

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::runtime::Handle;
use tracing::warn;

/// How often they are fetched.
const LOOK: Duration = Duration::from_millis(100);

/// Passes the programs' messages to the log from now on.
pub fn follow(ebpf: &mut Ebpf, runtime: &Handle) {
    let mut logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(e) => {
            warn!(error = %e, "the programs' messages cannot be read");
            return;
        }
    };
    runtime.spawn(async move {
        let mut look = tokio::time::interval(LOOK);
        loop {
            look.tick().await;
            logger.flush();
        }
    });
}

//! What the programs say of single packets, for a developer; the programs say nothing unless they were loaded so.

use aya::Ebpf;
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::runtime::Handle;
use tracing::warn;

/// Passes the programs' messages to the log from now on.
pub fn follow(ebpf: &mut Ebpf, runtime: &Handle) {
    let logger = match EbpfLogger::init(ebpf) {
        Ok(logger) => logger,
        Err(e) => {
            warn!(error = %e, "the programs' messages cannot be read");
            return;
        }
    };
    runtime.spawn(async move {
        let Ok(mut messages) = AsyncFd::register_with_interest(logger, Interest::READABLE) else { return };
        while let Ok(mut ready) = messages.readable_mut().await {
            ready.get_inner_mut().flush();
            ready.clear_ready();
        }
    });
}

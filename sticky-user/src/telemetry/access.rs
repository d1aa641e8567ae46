//! The access log's way out: lines are collected and written by a thread of their own, so that no request waits for a
//! pipe or a disk. It is bounded, and says when lines were lost.

use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

/// Target of the access log's events.
pub(super) const TARGET: &str = "access";
/// Lines that may wait to be written.
const LINES: usize = 10_000;
/// How long lines are collected: one wake-up and one write for all of them.
const PACE: Duration = Duration::from_millis(20);
/// Bytes that are written at once, whatever the time.
const ENOUGH: usize = 64 * 1024;

/// Writes what is waiting when it is dropped.
pub type Guard = WorkerGuard;

pub(super) fn start() -> (NonBlocking, Guard) {
    let lost = Arc::new(OnceLock::new());
    let batches = Batches { out: io::stderr(), waiting: Vec::new(), lost: lost.clone(), told: 0 };
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES);
    let (writer, guard) = builder.thread_name("access-log").finish(batches);
    // The only one to set it.
    let _ = lost.set(writer.error_counter());
    (writer, guard)
}

/// The end of the queue: flushed by its thread whenever nothing more is in it.
struct Batches<W> {
    out: W,
    waiting: Vec<u8>,
    lost: Arc<OnceLock<ErrorCounter>>,
    /// Lost lines that were reported.
    told: usize,
}

impl<W: Write> Batches<W> {
    fn put_out(&mut self) -> io::Result<()> {
        let written = self.out.write_all(&self.waiting);
        self.waiting.clear();
        written
    }
}

impl<W: Write> Write for Batches<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(line);
        if self.waiting.len() >= ENOUGH {
            self.put_out()?;
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let written = self.put_out();
        let lost = self.lost.get().map_or(0, ErrorCounter::dropped_lines);
        if lost > self.told {
            tracing::warn!(
                lines = lost - self.told,
                "access log lines lost, stderr does not take them as fast as requests come"
            );
            self.told = lost;
        }
        std::thread::sleep(PACE);
        written
    }
}

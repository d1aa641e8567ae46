//! The access log's way out: lines are collected and written by a thread of their own, so that no request waits for a
//! pipe or a disk. It is bounded, and says when lines were lost.

mod line;

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};

pub use line::Entry;

use crate::config::LogFormat;

/// What a filter calls the access log.
const TARGET: &str = "access";
/// Lines that may wait to be written.
const LINES: usize = 10_000;
/// How long lines are collected: one wake-up and one write for all of them.
const PACE: Duration = Duration::from_millis(20);
/// Bytes that are written at once, whatever the time.
const ENOUGH: usize = 64 * 1024;

/// Writes what is waiting when it is dropped.
pub type Guard = WorkerGuard;

/// Where lines go, and how they look; nowhere until the log of the process has begun.
static OUT: OnceLock<(NonBlocking, LogFormat)> = OnceLock::new();

thread_local! {
    static LINE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Whether lines are wanted.
#[must_use]
pub fn enabled() -> bool {
    tracing::enabled!(target: TARGET, tracing::Level::INFO)
}

/// Writes a line.
pub fn write(entry: &Entry<'_>) {
    let Some((out, format)) = OUT.get() else { return };
    LINE.with_borrow_mut(|line| {
        line.clear();
        let now = SystemTime::now();
        let made = match format {
            LogFormat::Json => entry.json(line, now),
            LogFormat::Text => entry.text(line, now),
        };
        // Memory takes every write, and what the queue does not take is counted there.
        let _ = made.and_then(|()| out.clone().write_all(line));
    });
}

pub(super) fn start(format: LogFormat) -> Guard {
    let lost = Arc::new(OnceLock::new());
    let batches = Batches { out: io::stderr(), waiting: Vec::new(), lost: lost.clone(), told: 0 };
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES);
    let (writer, guard) = builder.thread_name("access-log").finish(batches);
    // A process has one log, and it is the only one to set these.
    let _ = lost.set(writer.error_counter());
    let _ = OUT.set((writer, format));
    guard
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

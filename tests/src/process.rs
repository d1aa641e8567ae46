//! Programs in the background.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;

use crate::wait;

/// A line that a program printed, and when it arrived.
#[derive(Debug, Clone)]
pub struct Line {
    pub at: Instant,
    pub text: String,
}

/// A running program; killed with the value, and with the thread that started it.
#[derive(Debug)]
pub struct Process {
    what: String,
    child: Child,
    log: Arc<Mutex<Vec<Line>>>,
}

impl Process {
    /// Starts `command`; `what` is what errors call it.
    pub fn spawn(what: &str, command: &Command) -> anyhow::Result<Self> {
        // `setpriv` asks the kernel to kill the program when we die, in whatever way, and then becomes the program.
        let mut guarded = Command::new("setpriv");
        guarded.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            match value {
                Some(value) => guarded.env(key, value),
                None => guarded.env_remove(key),
            };
        }
        // A group of its own: Ctrl-C in a terminal is for us, and we end our programs in order.
        guarded.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = guarded.spawn().with_context(|| format!("cannot start {what}"))?;
        let log = Arc::new(Mutex::new(Vec::new()));
        if let Some(stdout) = child.stdout.take() {
            collect(stdout, log.clone());
        }
        if let Some(stderr) = child.stderr.take() {
            collect(stderr, log.clone());
        }
        Ok(Self { what: what.to_owned(), child, log })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it printed so far, stdout and stderr together.
    pub fn log(&self) -> Vec<Line> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last `count` lines it printed.
    pub fn tail(&self, count: usize) -> String {
        let log = self.log();
        let lines: Vec<_> = log
            .iter()
            .skip(log.len().saturating_sub(count))
            .map(|line| line.text.as_str())
            .collect();
        lines.join("\n")
    }

    /// Fails, with its last words, if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            // The reader threads may still be at work on the last lines.
            Some(status) => {
                std::thread::sleep(Duration::from_millis(50));
                anyhow::bail!("{} ended with {status}:\n{}", self.what, self.tail(20))
            }
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let id = i32::try_from(self.child.id()).context("process ids are positive")?;
        kill(Pid::from_raw(id), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.what))
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let what = format!("the end of {}", self.what);
        let child = &mut self.child;
        wait::until(&what, limit, || {
            Ok(child.try_wait()?.ok_or_else(|| "still running".to_owned()))
        })
    }

    /// Waits for a line, printed since `from` lines, that `wanted` accepts.
    pub fn wait_line(
        &mut self,
        limit: Duration,
        from: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> anyhow::Result<Line> {
        let what = format!("a line of {}", self.what);
        let end = Instant::now() + limit;
        loop {
            if let Some(line) = self.log().into_iter().skip(from).find(|line| wanted(&line.text)) {
                return Ok(line);
            }
            self.check()?;
            anyhow::ensure!(!wait::interrupted(), "interrupted while waiting for {what}");
            anyhow::ensure!(
                Instant::now() < end,
                "{what}: not within {limit:?}; it said:\n{}",
                self.tail(30)
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!("--- last words of {}:\n{}\n---", self.what, self.tail(40));
        }
    }
}

fn collect(pipe: impl Read + Send + 'static, log: Arc<Mutex<Vec<Line>>>) {
    std::thread::spawn(move || {
        for text in BufReader::new(pipe).lines() {
            let Ok(text) = text else { return };
            log.lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Line { at: Instant::now(), text });
        }
    });
}

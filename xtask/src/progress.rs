//! Runs long commands so that a person sees what is going on: one living line on a terminal,
//! a line now and then elsewhere, and the command's own words only when it fails.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};
use std::{io, thread};

use anyhow::{Context, Result, bail};

/// How often a terminal's line moves, and how often a log hears that we are still at it.
const TICK: Duration = Duration::from_millis(120);
const STILL: Duration = Duration::from_secs(30);
/// Lines of a failed command's output that are shown.
const TAIL: usize = 40;
/// Longest line drawn on a terminal; a wrapped one could not be wiped.
const WIDTH: usize = 78;

/// Says one thing to the user.
pub(crate) fn say(text: &str) {
    eprintln!("xtask: {text}");
}

/// Runs `cmd` under the heading `what`, which names the reason too.
pub(crate) fn run(what: &str, cmd: &mut Command) -> Result<()> {
    let begin = Instant::now();
    let mut view = View::new(what);
    let mut child = cmd
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{what}: {} does not start", cmd.get_program().display()))?;
    let (send, lines) = mpsc::channel();
    read_lines(child.stdout.take(), send.clone());
    read_lines(child.stderr.take(), send);

    let mut seen = Vec::new();
    loop {
        match lines.recv_timeout(TICK) {
            Ok(line) => seen.push(line),
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        view.draw(begin.elapsed(), seen.last().map_or("", String::as_str));
    }
    let status = child.wait().with_context(|| format!("{what}: lost sight of the command"))?;
    view.end();
    if !status.success() {
        for line in &seen[seen.len().saturating_sub(TAIL)..] {
            eprintln!("    {line}");
        }
        bail!("{what}: `{}` ended with {status}, its last words are above", show(cmd));
    }
    say(&format!("{what}: done in {} s", begin.elapsed().as_secs()));
    Ok(())
}

/// Runs `cmd` with its output left alone, for commands that show their own progress.
pub(crate) fn run_open(what: &str, cmd: &mut Command) -> Result<()> {
    say(&format!("{what} …"));
    let status = cmd
        .status()
        .with_context(|| format!("{what}: {} does not start", cmd.get_program().display()))?;
    if !status.success() {
        bail!("{what}: `{}` ended with {status}", show(cmd));
    }
    Ok(())
}

/// The command as a person would type it.
fn show(cmd: &Command) -> String {
    let args = cmd.get_args().map(|a| a.to_string_lossy());
    std::iter::once(cmd.get_program().to_string_lossy()).chain(args).collect::<Vec<_>>().join(" ")
}

fn read_lines(from: Option<impl Read + Send + 'static>, to: Sender<String>) {
    let Some(from) = from else { return };
    thread::spawn(move || {
        for line in BufReader::new(from).split(b'\n').map_while(Result::ok) {
            // A receiver that is gone has seen enough.
            let _ = to.send(String::from_utf8_lossy(&line).trim_end().to_owned());
        }
    });
}

struct View<'a> {
    what: &'a str,
    terminal: bool,
    drawn: Duration,
    turn: usize,
}

impl<'a> View<'a> {
    fn new(what: &'a str) -> Self {
        let terminal = io::stderr().is_terminal();
        if !terminal {
            say(&format!("{what} …"));
        }
        Self { what, terminal, drawn: Duration::ZERO, turn: 0 }
    }

    fn draw(&mut self, elapsed: Duration, last: &str) {
        let pause = if self.terminal { TICK } else { STILL };
        if elapsed - self.drawn < pause {
            return;
        }
        self.drawn = elapsed;
        if !self.terminal {
            say(&format!("  still at it, {} s: {}", elapsed.as_secs(), last.trim()));
            return;
        }
        const WHEEL: [char; 4] = ['|', '/', '-', '\\'];
        self.turn = (self.turn + 1) % WHEEL.len();
        let line = format!(
            "{} {} … {} s  {}",
            WHEEL[self.turn],
            self.what,
            elapsed.as_secs(),
            last.trim()
        );
        let line: String = line.chars().take(WIDTH).collect();
        eprint!("\r\x1b[K{line}");
        // A terminal that cannot be flushed shows the line later.
        let _ = io::stderr().flush();
    }

    fn end(&self) {
        if self.terminal {
            eprint!("\r\x1b[K");
        }
    }
}

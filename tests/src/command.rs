//! Running a program to its end.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Runs `program` and returns what it printed to stdout; fails, with what it printed to stderr, unless it ends with 0.
pub fn run(program: &str, args: &[&str]) -> anyhow::Result<String> {
    output(Command::new(program).args(args))
}

/// Like [`run`], for a command that is there already.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    if !output.status.success() {
        bail!(
            "{}: {}: {}",
            line(command),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Like [`output`], with what it printed to stderr, which comes first: `curl -v` shows the headers there.
pub fn both(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("cannot run {program}"))?;
    let text = [&output.stderr[..], &output.stdout[..]].map(String::from_utf8_lossy).concat();
    if !output.status.success() {
        bail!("{}: {}: {}", line(command), output.status, text.trim());
    }
    Ok(text)
}

/// The command as one would type it.
pub fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

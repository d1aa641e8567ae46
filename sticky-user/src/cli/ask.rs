//! `sticky status` and `sticky where`: what the running sticky answers.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

use crate::failure::Failure;
use crate::socket::client::Client;
use crate::status::table;
use crate::whereis::Question;

pub(super) const STATUS_HELP: &str = "\
Examples:
  sticky status
  sticky status --watch
  sticky status --json | jq '.services[].backends[] | select(.state != \"up\")'";

pub(super) const WHERE_HELP: &str = "\
Examples:
  sticky where 198.51.100.7 --service demo
  sticky where 2001:db8::7 --json

The answer comes from the loaded tables and records, and asking changes none of them.
With --json and --service it is one object, without --service a list.";

/// How often `--watch` looks.
const REFRESH: Duration = Duration::from_secs(1);
/// Cursor to the top left, and what was there is removed (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

pub(super) fn status(socket: &Path, as_json: bool, watch: bool) -> Result<(), Failure> {
    runtime()?.block_on(async {
        loop {
            let asked = async { Client::connect(socket).await?.status().await }.await;
            let text = match asked {
                Ok(status) if as_json => json(&status)?,
                Ok(status) => table::render(&status),
                // It may be about to come back, after an upgrade say.
                Err(error) if watch && !as_json => format!("{error}\n"),
                Err(error) => return Err(error.into()),
            };
            let clear = if watch && !as_json { CLEAR } else { "" };
            print(&format!("{clear}{text}"))?;
            if !watch {
                return Ok(());
            }
            tokio::time::sleep(REFRESH).await;
        }
    })
}

pub(super) fn locate(socket: &Path, question: &Question, as_json: bool) -> Result<(), Failure> {
    let answers =
        runtime()?.block_on(async { Client::connect(socket).await?.locate(question).await })?;
    let one = question.service.is_some();
    match answers.first() {
        Some(first) if as_json && one => print(&json(first)?),
        _ if as_json => print(&json(&answers)?),
        _ => lines(question.client, answers.iter().map(|answer| answer.line(question.client))),
    }
}

fn lines(client: IpAddr, answers: impl Iterator<Item = String>) -> Result<(), Failure> {
    let text: String = answers.map(|line| line + "\n").collect();
    if text.is_empty() { print(&format!("{client}: no services yet\n")) } else { print(&text) }
}

fn json(value: &impl Serialize) -> Result<String, Failure> {
    Ok(serde_json::to_string_pretty(value).context("the answer cannot be written")? + "\n")
}

/// Without colours where there is no terminal. A reader that has enough, such as `head`, is no failure.
fn print(text: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = anstream::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        done => Ok(done.context("the answer cannot be written")?),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    Ok(runtime.context("no runtime for the question")?)
}

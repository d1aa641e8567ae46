//! `sticky doctor`: is this host fit for sticky? One line per check, with what it means and what to do.

mod host;
mod interfaces;
mod offloads;
mod surroundings;

use std::fmt::Write as _;
use std::io::{self, Write as _};

use anstyle::{AnsiColor, Style};
use anyhow::{Context, anyhow};
use serde::Serialize;

use crate::config::{Config, Interfaces};
use crate::failure::Failure;
use crate::netinfo;
use crate::socket::client::Client;
use crate::status::Status;

/// How a check went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Ok,
    /// It works, but not as well as it could, or not as one may think.
    Warn,
    /// sticky does not work like this.
    Fail,
}

/// One check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    pub level: Level,
    /// What was found, and what it means.
    pub found: String,
    /// What to do.
    pub advice: Option<String>,
}

impl Check {
    fn ok(name: impl Into<String>, found: impl Into<String>) -> Self {
        Self { name: name.into(), level: Level::Ok, found: found.into(), advice: None }
    }

    fn warn(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        let level = Level::Warn;
        Self { name: name.into(), level, found: found.into(), advice: Some(advice.into()) }
    }

    fn fail(name: impl Into<String>, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { level: Level::Fail, ..Self::warn(name, found, advice) }
    }
}

#[derive(Serialize)]
struct Report<'a> {
    /// No check failed.
    fit: bool,
    checks: &'a [Check],
}

/// What is known before the checks begin.
struct Patient<'a> {
    config: &'a Config,
    /// Interfaces that clients come in by.
    interfaces: Vec<String>,
    /// Of the sticky that runs here, if one does.
    running: Option<Status>,
}

/// Checks this host for a configuration, and prints.
///
/// # Errors
/// A check failed.
pub fn run(config: &Config, as_json: bool) -> Result<(), Failure> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.context("no runtime for the checks")?;
    let running = runtime
        .block_on(async { Client::connect(&config.places.socket).await.ok()?.status().await.ok() });
    let mut checks = Vec::new();
    let interfaces = match &config.interfaces {
        Interfaces::None => Vec::new(),
        Interfaces::Named(names) => names.clone(),
        Interfaces::DefaultRoute => match &running {
            Some(status) => status.datapath.interfaces.iter().map(|i| i.name.clone()).collect(),
            None => match runtime.block_on(netinfo::default_interface()) {
                Ok(name) => vec![name],
                Err(e) => {
                    checks.push(Check::fail("interface", format!("{e:#}"), "use --iface"));
                    Vec::new()
                }
            },
        },
    };
    let patient = Patient { config, interfaces, running };
    checks.extend(host::checks(&patient, runtime.handle()));
    checks.extend(interfaces::checks(&patient, &runtime));
    checks.extend(surroundings::checks(&patient, &runtime));
    runtime.shutdown_background();
    print(&checks, as_json)?;
    match checks.iter().filter(|check| check.level == Level::Fail).count() {
        0 => Ok(()),
        some => Err(Failure::Failed(anyhow!("{some} of {} checks failed", checks.len()))),
    }
}

fn print(checks: &[Check], as_json: bool) -> anyhow::Result<()> {
    let text = if as_json {
        let fit = checks.iter().all(|check| check.level != Level::Fail);
        serde_json::to_string_pretty(&Report { fit, checks })? + "\n"
    } else {
        lines(checks)
    };
    match anstream::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => done.context("the result cannot be written"),
    }
}

fn lines(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max().unwrap_or(0);
    let mut out = String::new();
    for Check { name, level, found, advice } in checks {
        let (style, word) = match level {
            Level::Ok => (AnsiColor::Green.on_default(), "ok  "),
            Level::Warn => (AnsiColor::Yellow.on_default(), "warn"),
            Level::Fail => (AnsiColor::Red.on_default(), "fail"),
        };
        const DIM: Style = Style::new().dimmed();
        // Writing to a string does not fail.
        let _ = write!(out, "{style}{word}{style:#}  {name:<width$}  {found}");
        let _ = match advice {
            Some(advice) => writeln!(out, "; {DIM}{advice}{DIM:#}"),
            None => writeln!(out),
        };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_per_check() {
        let checks = [
            Check::ok("kernel", "6.18"),
            Check::fail("interface eth7", "it is not there", "`ip link` lists those that are"),
        ];
        let text = anstream::adapter::strip_str(&lines(&checks)).to_string();
        assert_eq!(
            text,
            "ok    kernel          6.18\n\
             fail  interface eth7  it is not there; `ip link` lists those that are\n"
        );
    }
}

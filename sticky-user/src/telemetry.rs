//! The log: to stderr, as text or JSON, as much of it as `STICKY_LOG` or `RUST_LOG` say.

pub mod access;

use std::env;
use std::io::{self, IsTerminal};

use anyhow::Context;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::LogFormat;

pub use access::Guard;

/// Starts the log of this process. What comes through the `log` crate, such as messages of the eBPF programs, joins it.
/// Everything is written at once but the access log, whose last lines the guard writes.
///
/// # Errors
/// The filter is not one, or there is a log already.
pub fn start(format: LogFormat) -> anyhow::Result<Guard> {
    let filter = filter(env::var("STICKY_LOG").or_else(|_| env::var("RUST_LOG")).ok().as_deref())?;
    let builder = fmt().with_env_filter(filter).with_writer(io::stderr);
    match format {
        LogFormat::Json => {
            builder.json().flatten_event(true).with_current_span(false).finish().try_init()
        }
        LogFormat::Text => builder.with_ansi(colours()).with_target(false).finish().try_init(),
    }
    .context("a log was started before")?;
    Ok(access::start(format))
}

/// Whether the log goes to a person who wants colours (no-color.org).
fn colours() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|no| no.is_empty())
}

fn filter(wanted: Option<&str>) -> anyhow::Result<EnvFilter> {
    EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(wanted.unwrap_or_default())
        .context(
            "STICKY_LOG is no filter; write a level such as `debug`, or `info,sticky::proxy=debug`",
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_unless_told_otherwise() {
        assert_eq!(filter(None).unwrap().max_level_hint(), Some(LevelFilter::INFO));
        assert_eq!(filter(Some("debug")).unwrap().max_level_hint(), Some(LevelFilter::DEBUG));
        assert!(filter(Some("sticky=loud")).is_err());
    }
}

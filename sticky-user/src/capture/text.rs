//! Packets as lines, for a terminal.

use std::io::{self, Write};
use std::time::{Duration, SystemTime};

use anstyle::{AnsiColor, Style};
use sticky_common::outcome::Action;
use sticky_common::types::capture::Event;

use super::{Seen, Sink};

const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default();
const GREEN: Style = AnsiColor::Green.on_default();

pub struct Lines;

impl Sink for Lines {
    fn packet(&mut self, seen: &Seen<'_>) -> io::Result<()> {
        writeln!(anstream::stdout(), "{}", line(seen))
    }

    fn flush(&mut self) -> io::Result<()> {
        anstream::stdout().flush()
    }
}

fn line(seen: &Seen<'_>) -> String {
    let style = match seen.outcome.action() {
        Action::Pass => DIM,
        Action::Forward => GREEN,
        Action::Drop => RED,
    };
    let packet = seen.headers.map_or_else(|| "no IP".to_owned(), ToString::to_string);
    let way = if seen.event.direction == Event::REPLY { "<-" } else { "->" };
    let who = match (seen.who.service, seen.who.backend) {
        (Some(service), Some(backend)) => {
            format!(" {service} {way} {} {}", backend.name, backend.addr)
        }
        (Some(service), None) => format!(" {service}"),
        (None, Some(backend)) => format!(" {way} {} {}", backend.name, backend.addr),
        (None, None) => String::new(),
    };
    format!(
        "{DIM}{} {}{DIM:#} {packet} {} bytes {style}{}{style:#}{who}",
        clock(seen.at),
        seen.iface,
        seen.event.length,
        seen.outcome.as_str(),
    )
}

/// The time of day in UTC.
fn clock(at: SystemTime) -> String {
    let whole = humantime::format_rfc3339_micros(at).to_string();
    let day = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    whole.get(11..26).map_or_else(|| day.as_secs().to_string(), str::to_owned)
}

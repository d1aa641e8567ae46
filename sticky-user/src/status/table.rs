//! The status for people.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};

use crate::firewall::Bypassed;

use super::{BackendStatus, ServiceStatus, Status};

const BOLD: Style = Style::new().bold();
const DIM: Style = Style::new().dimmed();
const RED: Style = AnsiColor::Red.on_default();
const YELLOW: Style = AnsiColor::Yellow.on_default();
const GREEN: Style = AnsiColor::Green.on_default();

const HEADINGS: [&str; 10] = [
    "BACKEND", "ID", "ADDRESS", "NODE", "STATE", "WEIGHT", "SLOTS", "PACKETS", "BYTES", "REQUESTS",
];
/// Swarm's ids are told apart by much less than their 25 letters.
const ID_LETTERS: usize = 12;

/// The table, with colours; who prints it where there are none takes them off.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    head(&mut out, status);
    firewall(&mut out, status);
    for service in &status.services {
        out.push('\n');
        one(&mut out, service);
    }
    if status.services.is_empty() {
        out.push_str("\nno services yet\n");
    }
    out
}

/// Writing to a string does not fail.
macro_rules! line {
    ($out:expr, $($args:tt)*) => {
        let _ = writeln!($out, $($args)*);
    };
}

fn head(out: &mut String, status: &Status) {
    let Status { node, version, generation, datapath, provider, .. } = status;
    line!(out, "{BOLD}sticky {version} on {node}{BOLD:#}, generation {generation}");
    let interfaces: Vec<_> = datapath
        .interfaces
        .iter()
        .map(|i| format!("{} {}{}", i.name, i.mode, if i.pinned { " pinned" } else { "" }))
        .collect();
    if interfaces.is_empty() {
        line!(out, "data path  none, layer 7 only");
    } else {
        line!(out, "data path  {}, {} slots a table", interfaces.join(", "), datapath.table_size);
    }
    for problem in datapath.interfaces.iter().filter_map(|i| i.problem.as_ref()) {
        line!(out, "           {RED}{problem}{RED:#}");
    }
    if status.short_of_records() {
        line!(
            out,
            "           {YELLOW}{} clients are remembered at most: raise --max-clients{YELLOW:#}",
            datapath.max_clients
        );
    }
    let (style, state) =
        if provider.connected { (GREEN, "connected") } else { (RED, "not connected") };
    line!(
        out,
        "provider   {} {style}{state}{style:#}, read {}, last change in force after {} ms",
        provider.kind,
        provider.last_update,
        provider.last_update_ms
    );
    if !status.drains.is_empty() {
        line!(out, "drained    {YELLOW}{}{YELLOW:#} by the operator", status.drains.join(", "));
    }
    if let Some(error) = &provider.error {
        line!(out, "           {RED}{error}{RED:#}");
    }
}

fn firewall(out: &mut String, status: &Status) {
    for Bypassed { service, frontend, rule, instead, .. } in &status.firewall {
        line!(
            out,
            "firewall   {YELLOW}not applied at layer 4{YELLOW:#} to {frontend} of {service}: {rule}; instead: {instead}"
        );
    }
}

fn one(out: &mut String, service: &ServiceStatus) {
    let ServiceStatus { name, affinity, hosts, errors, frontends, clients, backends, .. } = service;
    let hosts =
        if hosts.is_empty() { String::new() } else { format!(", hosts {}", hosts.join(" ")) };
    line!(out, "{BOLD}{name}{BOLD:#}  affinity {affinity}{hosts}, {clients} clients");
    for f in frontends {
        let addr = if f.addr.contains(':') { format!("[{}]", f.addr) } else { f.addr.clone() };
        line!(out, "  frontend {addr}:{}/{} by {}", f.port, f.proto, f.path);
    }
    for e in errors {
        let hint = if e.hint.is_empty() { String::new() } else { format!("; {}", e.hint) };
        line!(out, "  {RED}error{RED:#} {}={}: {}{hint}", e.label, e.value, e.message);
    }
    if backends.is_empty() {
        line!(out, "  no backends");
        return;
    }
    let rows: Vec<_> = backends.iter().map(|backend| (cells(backend), backend)).collect();
    let mut widths = HEADINGS.map(str::len);
    for (cells, _) in &rows {
        for (width, cell) in widths.iter_mut().zip(cells) {
            *width = (*width).max(cell.chars().count());
        }
    }
    line!(out, "  {DIM}{}{DIM:#}", row(&HEADINGS.map(str::to_owned), &widths, Style::new()));
    for (cells, backend) in rows {
        let reason = backend.reason.as_ref().map(|r| format!("  {r}")).unwrap_or_default();
        line!(out, "  {}{reason}", row(&cells, &widths, colour(&backend.state)));
    }
}

fn cells(backend: &BackendStatus) -> [String; 10] {
    [
        backend.name.clone(),
        backend.id.chars().take(ID_LETTERS).collect(),
        backend.addr.clone().unwrap_or_else(|| "-".to_owned()),
        if backend.node.is_empty() { "-".to_owned() } else { backend.node.clone() },
        backend.state.clone(),
        backend.weight.to_string(),
        backend.slots.to_string(),
        backend.packets.to_string(),
        backend.bytes.to_string(),
        backend.requests.to_string(),
    ]
}

/// Text to the left, numbers to the right, the state in its colour.
fn row(cells: &[String; 10], widths: &[usize; 10], state: Style) -> String {
    let mut out = String::new();
    for (at, (cell, width)) in cells.iter().zip(widths).enumerate() {
        let _ = match at {
            4 => write!(out, "{state}{cell:<width$}{state:#}  "),
            0..4 => write!(out, "{cell:<width$}  "),
            _ => write!(out, "{cell:>width$}  "),
        };
    }
    out.trim_end().to_owned()
}

fn colour(state: &str) -> Style {
    match state {
        "up" => GREEN,
        "down" => RED,
        _ => YELLOW,
    }
}

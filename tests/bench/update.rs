//! What a change costs those who are under way: how soon it is in force, and what a hundred a second do to requests and
//! packets in flight.
//!
//! The first is seen on a private Swarm, by Docker's own clock. The second beside a Docker API that is not real, since no
//! real Swarm changes a service so often; the path from its events to the maps and the proxy is the same.

mod storm;
mod swarm;
mod traffic;

use std::path::Path;

use crate::report::{Report, Row, Table};

/// Measures both.
pub fn run(binary: &Path, quick: bool) -> anyhow::Result<Report> {
    let mut tables = swarm::measure(binary, if quick { &swarm::QUICK } else { &swarm::FULL })?;
    tables.extend(storm::measure(binary, if quick { &storm::QUICK } else { &storm::FULL })?);
    let notes = vec![
        "event to maps: a private Swarm, from the time in Docker's event to sticky's line about the maps, or to the state that shows the change; asked for every 2 ms".to_owned(),
        "a task more counts from its container's start, and so with its first health check; a task less from the order, and so with Swarm's own delay".to_owned(),
        storm::note(),
        "every answer is checked; one that fails, a connection that breaks or a session that moves ends the run".to_owned(),
    ];
    Ok(Report { name: "update", notes, tables })
}

fn table(
    name: &str,
    title: &str,
    unit: &'static str,
    base: Option<usize>,
    rows: Vec<(&str, Vec<f64>)>,
) -> Table {
    let rows = rows.into_iter().map(|(name, all)| Row::new(name, all)).collect();
    Table { name: name.to_owned(), title: title.to_owned(), unit, base, rows }
}

//! 5 → 10 → 3 replicas, with clients that come back and connections that stay open.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::Lab;
use super::engine::SERVICE;
use crate::demo::{HTTP_PORT, LINE_PORT};
use crate::lines::LineConnection;
use crate::load::{self, Visit};
use crate::topology::{client, vip};

const KNOWN: u32 = 200;
const OPEN: u32 = 40;
/// Clients that nobody has seen before have numbers from here on, others in each round.
const STRANGERS: u32 = 10_000;

pub(super) fn walk(lab: &mut Lab) -> anyhow::Result<()> {
    lab.report.title("Scaling under way (layer 4)");
    lab.report.note(&format!("{KNOWN} clients come by, {OPEN} of them keep a connection open"));
    let mut known = load::visit(&lab.net.clients, 0..KNOWN, vip(HTTP_PORT))?;
    let mut open: Vec<LineConnection> = lab.net.clients.enter(|| {
        (0..OPEN)
            .map(|index| LineConnection::open(client(index), vip(LINE_PORT)))
            .collect::<anyhow::Result<_>>()
    })??;
    for (round, replicas) in [(1, 10), (2, 3)] {
        step(lab, replicas, round * STRANGERS, &mut known, &mut open)?;
    }
    lab.report.command("sticky status");
    lab.report.output(&lab.sticky.sticky(&["status"])?);
    let address = client(7).to_string();
    lab.report.command(&format!("sticky where {address} --service {SERVICE}"));
    lab.report.output(&lab.sticky.sticky(&["where", &address, "--service", SERVICE])?);
    Ok(())
}

fn step(
    lab: &mut Lab,
    replicas: usize,
    strangers: u32,
    known: &mut BTreeMap<u32, Visit>,
    open: &mut Vec<LineConnection>,
) -> anyhow::Result<()> {
    let before: BTreeSet<_> = lab.engine.instances()?.into_iter().collect();
    let logged = lab.sticky.log().len();
    lab.engine.scale(&lab.report, replicas)?;
    lab.sticky.wait_up(SERVICE, replicas, Duration::from_secs(20))?;
    let updates = lab.sticky.updates(SERVICE, logged);
    lab.report.check(!updates.is_empty(), "sticky said what it changed:");
    updates.iter().for_each(|line| lab.report.output(&line.text));
    let after: BTreeSet<_> = lab.engine.instances()?.into_iter().collect();

    let again = load::visit(&lab.net.clients, known.keys().copied(), vip(HTTP_PORT))?;
    let alive: Vec<_> = known.iter().filter(|(_, visit)| after.contains(&visit.instance)).collect();
    let kept =
        alive.iter().filter(|(index, visit)| again[*index].instance == visit.instance).count();
    let claim = format!("{kept} of {} known clients whose replica lives kept it", alive.len());
    lab.report.check(kept == alive.len(), &claim);
    *known = again;

    open.retain(|connection| after.contains(&connection.instance));
    let living = open.len();
    let well = open.iter_mut().filter_map(|connection| connection.ask("still there?").ok()).count();
    lab.report.check(
        well == living,
        &format!("{well} of {living} open connections to living replicas go on"),
    );

    let new = load::visit(&lab.net.clients, strangers..strangers + 250, vip(HTTP_PORT))?;
    let used: BTreeSet<_> = new.values().map(|visit| visit.instance.clone()).collect();
    let claim = format!("250 new clients use {} of {replicas} replicas", used.len());
    lab.report.check(used == after, &claim);
    if !after.is_subset(&before) {
        let fresh = new.values().filter(|visit| !before.contains(&visit.instance)).count();
        lab.report.check(fresh > 0, &format!("{fresh} of them came to a new replica"));
    }
    Ok(())
}

//! First walk-through: persistent sessions by a cookie.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Lab;
use super::engine::{Affinity, SERVICE};
use crate::curl;
use crate::load;
use crate::names::TempDir;
use crate::sticky::up;
use crate::topology::vip;

const CLIENTS: u32 = 50;
const REQUESTS: usize = 20;

pub(super) fn walk(lab: &mut Lab) -> anyhow::Result<()> {
    lab.report.title("Persistent sessions by a cookie (layer 7)");
    lab.engine.deploy(&lab.report, Affinity::Cookie)?;
    lab.sticky.wait_service(SERVICE, "five backends up", Duration::from_secs(20), |service| {
        service["affinity"] == "cookie" && up(service) == 5
    })?;

    let dir = TempDir::new()?;
    let jar = dir.join("cookie.txt").display().to_string();
    let mut upstreams = BTreeSet::new();
    lab.report.command(
        "curl -vs -c cookie.txt -b cookie.txt -H \"Host: demo.local\" http://127.0.0.1/ping",
    );
    for request in 0..5 {
        let printed = curl::ping(&lab.net.node, &["-c", &jar, "-b", &jar])?;
        if request == 0 {
            lab.report.output(&curl::essence(&printed));
        }
        let upstream = curl::header(&printed, "x-upstream-addr").unwrap_or("none").to_owned();
        if request > 0 {
            lab.report.output(&format!("again: x-upstream-addr: {upstream}"));
        }
        upstreams.insert(upstream);
    }
    let one = upstreams.len() == 1 && !upstreams.contains("none");
    lab.report.check(one, "five requests with one cookie jar show one x-upstream-addr");

    lab.report.note(&format!("{CLIENTS} clients, {REQUESTS} requests each, with cookies"));
    let clients = load::sessions(&lab.net.clients, "demo.local", CLIENTS, REQUESTS, vip(80))?;
    let kept = clients.values().filter(|client| client.kept()).count();
    lab.report.check(
        kept == clients.len(),
        &format!("{kept} of {CLIENTS} clients kept their first session"),
    );
    let used: BTreeSet<_> = clients.values().flat_map(|client| &client.upstreams).collect();
    lab.report.check(used.len() == 5, &format!("together they used {} of 5 replicas", used.len()));
    Ok(())
}

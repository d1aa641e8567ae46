//! Second walk-through: persistent sessions by the client's address, without a cookie.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Lab;
use super::engine::{Affinity, SERVICE};
use crate::curl;
use crate::demo::HTTP_PORT;
use crate::load;
use crate::sticky::up;
use crate::topology::{NODE, client, vip};

const CLIENTS: u32 = 50;

pub(super) fn walk(lab: &mut Lab) -> anyhow::Result<()> {
    lab.report.title("Persistent sessions by the client's address (layers 7 and 4)");
    lab.engine.deploy(&lab.report, Affinity::IpHash)?;
    lab.sticky.wait_service(SERVICE, "five backends up", Duration::from_secs(20), |service| {
        service["affinity"] == "ip-hash" && up(service) == 5
    })?;

    let mut upstreams = BTreeSet::new();
    lab.report.command("curl -vs -H \"Host: demo.local\" http://127.0.0.1/ping");
    for request in 0..5 {
        let printed = curl::ping(&lab.net.node, &[])?;
        if request == 0 {
            lab.report.output(&curl::essence(&printed));
        }
        upstreams.insert(curl::header(&printed, "x-upstream-addr").unwrap_or("none").to_owned());
    }
    let one = upstreams.len() == 1 && !upstreams.contains("none");
    lab.report.check(one, "five requests without a cookie show one x-upstream-addr");

    let source = client(7).to_string();
    let url = format!("http://{NODE}:{HTTP_PORT}/ping");
    lab.report
        .command(&format!("curl -s --interface {source} {url}    # from a client, at layer 4"));
    let printed =
        lab.net.clients.run("curl", &["-s", "--max-time", "10", "--interface", &source, &url])?;
    lab.report.output(&printed);
    let seen = printed.contains(&format!("\"client\":\"{source}:"));
    lab.report.check(seen, &format!("the application sees the client's own address, {source}"));

    lab.report.note(&format!(
        "{CLIENTS} clients through the published port at layer 4, and through the proxy"
    ));
    let packets = load::visit(&lab.net.clients, 0..CLIENTS, vip(HTTP_PORT))?;
    let own = packets
        .iter()
        .filter(|(index, visit)| visit.peer.starts_with(&format!("{}:", client(**index))))
        .count();
    lab.report.check(
        own == packets.len(),
        &format!("{own} of {CLIENTS} clients were seen with their own address"),
    );
    let again = load::visit(&lab.net.clients, 0..CLIENTS, vip(HTTP_PORT))?;
    let same =
        again.iter().filter(|(index, visit)| packets[*index].instance == visit.instance).count();
    lab.report.check(
        same == again.len(),
        &format!("{same} of {CLIENTS} clients came to the same replica again"),
    );
    let proxied = load::visit(&lab.net.clients, 0..CLIENTS, vip(80))?;
    let same =
        proxied.iter().filter(|(index, visit)| packets[*index].instance == visit.instance).count();
    lab.report.check(
        same == proxied.len(),
        &format!("{same} of {CLIENTS} clients have the same replica at layer 7"),
    );
    Ok(())
}

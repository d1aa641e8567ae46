//! First-session survival: the measure by which Interlock's generated configuration keeps 32 sessions of 200.

use std::collections::BTreeSet;
use std::time::Duration;

use sticky_tests::load;
use sticky_tests::topology::vip;

use crate::fixture::{COOKIE, SwarmNode};
use crate::sessions::{self, Seen};

const CLIENTS: u32 = 200;
/// The two modes side by side: service, its host, its first client.
const MODES: [(&str, &str, u32); 2] = [("demo", "demo.local", 0), ("insert", "insert.local", 1000)];

#[test]
fn all_of_200_clients_keep_their_first_session() -> anyhow::Result<()> {
    let node = SwarmNode::start()?;
    node.deploy("cookie", 5, &[&COOKIE])?;
    let network = ["--name", "insert", "--network", "demo", "--replicas", "5"];
    let labels = [
        "--label=com.docker.lb.hosts=insert.local",
        "--label=com.docker.lb.port=8080",
        "--label=sticky.cookie.mode=insert",
    ];
    node.swarm.create(&[&network[..], &labels].concat())?;
    node.swarm.wait_running("insert", 5)?;
    node.sticky.wait_up("insert", 5, Duration::from_secs(20))?;
    for (service, host, _) in MODES {
        at_rest(&node, service, host)?;
    }
    scaling(&node)?;
    update(&node)
}

/// Nothing changes: the sessions stay, and the load is shared.
fn at_rest(node: &SwarmNode, service: &str, host: &'static str) -> anyhow::Result<()> {
    let clients = load::sessions(&node.net.clients, host, CLIENTS, 40, vip(80))?;
    let kept = clients.values().filter(|client| client.kept()).count();
    println!("{service}: {kept} of {} clients kept their first session", clients.len());
    assert_eq!((kept, clients.len()), (200, 200));
    assert!(
        clients.values().all(|client| client.upstreams.len() == 1),
        "a client had two backends"
    );
    let entry = node.sticky.service(service)?;
    for task in node.swarm.serving(service)? {
        let backend = entry["backends"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|backend| backend["id"] == task.id.as_str());
        let requests = backend.and_then(|backend| backend["requests"].as_u64()).unwrap_or_default();
        // 8000 requests, 1600 each in the mean; by load of two drawn at random nobody is left out.
        assert!(requests > 400, "{} had {requests} requests: {entry}", task.id);
    }
    Ok(())
}

/// 5 -> 6 -> 9 -> 5: only those move whose task leaves.
fn scaling(node: &SwarmNode) -> anyhow::Result<()> {
    let seen = sessions::meanwhile(node, MODES, CLIENTS, || {
        for replicas in [6, 9, 5] {
            for (service, ..) in MODES {
                node.swarm.scale(service, replicas)?;
            }
            for (service, ..) in MODES {
                node.swarm.wait_running(service, replicas)?;
                node.sticky.wait_up(service, replicas, Duration::from_secs(20))?;
            }
            // Everybody comes by once more.
            std::thread::sleep(Duration::from_millis(800));
        }
        Ok(())
    })?;
    for (service, tasks, clients) in seen {
        let kept = clients.iter().filter(|client| client.kept()).count();
        let allowed = |client: &Seen| {
            client.moves.len() == 1
                && client.moves.iter().all(|(at, from, _)| !tasks.served(from, *at))
        };
        let moved = clients.iter().filter(|client| !client.kept() && allowed(client)).count();
        println!(
            "{service}: {kept} of {CLIENTS} kept their first session, {moved} had a task that left"
        );
        let wrong: Vec<_> = clients.iter().filter(|c| !c.kept() && !allowed(c)).take(3).collect();
        assert!(
            wrong.is_empty(),
            "{service}: {} moved for no reason: {wrong:#?}",
            CLIENTS as usize - kept - moved
        );
    }
    Ok(())
}

/// A start-first update of all tasks: each client moves once, when its task is ordered to stop.
fn update(node: &SwarmNode) -> anyhow::Result<()> {
    let seen = sessions::meanwhile(node, MODES, CLIENTS, || {
        for (service, ..) in MODES {
            let order = [
                "--update-order",
                "start-first",
                "--update-delay",
                "0s",
                "--update-monitor",
                "1ms",
            ];
            let what = ["--env-add", "VERSION=2", "--no-resolve-image"];
            node.swarm.docker(
                &[&["service", "update", "--detach", "--quiet"], &order[..], &what, &[service]]
                    .concat(),
            )?;
        }
        for (service, ..) in MODES {
            node.wait_updated(service, 5)?;
        }
        std::thread::sleep(Duration::from_millis(800));
        Ok(())
    })?;
    for (service, tasks, clients) in seen {
        let late: Vec<Duration> = clients
            .iter()
            .flat_map(|client| &client.moves)
            .filter_map(|(at, from, _)| Some(at.saturating_duration_since(*tasks.ended.get(from)?)))
            .collect();
        let counts: BTreeSet<usize> = clients.iter().map(|client| client.moves.len()).collect();
        println!(
            "{service}: moves of each client {counts:?}, latest {:?} after its task was ordered to stop",
            late.iter().max()
        );
        let early = clients
            .iter()
            .flat_map(|client| &client.moves)
            .filter(|(at, from, _)| tasks.served(from, *at));
        assert_eq!(early.count(), 0, "{service}: moved before the order");
        assert_eq!(
            counts,
            BTreeSet::from([1]),
            "{service}: {:#?}",
            clients.iter().find(|c| c.moves.len() != 1)
        );
    }
    Ok(())
}

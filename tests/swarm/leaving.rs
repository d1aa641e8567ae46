//! `sticky.drain`: what a task that Swarm is ending keeps until its SIGTERM.

use std::time::Duration;

use crate::fixture::{COOKIE, SwarmNode};
use crate::sessions;

const CLIENTS: u32 = 40;
/// Service, its host, its first client.
const SERVICES: [(&str, &str, u32); 2] =
    [("demo", "demo.local", 0), ("connections", "connections.local", 1000)];

/// Docker waits 2 s and more before it stops a task of an overlay. With `sessions` clients use that time, by default they
/// leave at their next request, which comes within 0.4 s.
#[test]
fn clients_leave_a_task_that_ends_at_once_or_with_its_sessions() -> anyhow::Result<()> {
    let node = SwarmNode::start()?;
    node.deploy("cookie", 2, &[&COOKIE, &["--label=sticky.drain=sessions"]])?;
    let other = COOKIE.map(|label| label.replace("demo.local", "connections.local"));
    let fixed = ["--name", "connections", "--network", "demo", "--replicas", "2"];
    node.swarm.create(&[&fixed[..], &other.each_ref().map(String::as_str)].concat())?;
    node.swarm.wait_running("connections", 2)?;
    node.sticky.wait_up("connections", 2, Duration::from_secs(20))?;

    let seen = sessions::meanwhile(&node, SERVICES, CLIENTS, || {
        for (service, ..) in SERVICES {
            node.swarm.scale(service, 1)?;
        }
        for (service, ..) in SERVICES {
            let one = |entry: &serde_json::Value| {
                entry["backends"].as_array().is_some_and(|all| all.len() == 1)
            };
            node.sticky.wait_service(service, "one task", Duration::from_secs(30), one)?;
        }
        std::thread::sleep(Duration::from_millis(800));
        Ok(())
    })?;
    for (service, tasks, clients) in seen {
        let moves = clients.iter().flat_map(|client| &client.moves);
        let late: Vec<Duration> = moves
            .filter_map(|(at, from, _)| Some(at.saturating_duration_since(*tasks.ended.get(from)?)))
            .collect();
        let (first, last) = (late.iter().min(), late.iter().max());
        println!("{service}: {} moves, {first:?} to {last:?} after the order", late.len());
        assert!((2..CLIENTS as usize).contains(&late.len()), "{service}: {clients:#?}");
        let fits = |late: &Duration| (*late > Duration::from_millis(1500)) == (service == "demo");
        assert!(late.iter().all(fits), "{service}: {late:?}");
    }
    Ok(())
}

//! `sticky.drain`: what a task that Swarm is ending keeps until its SIGTERM.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use sticky_tests::topology::vip;
use sticky_tests::wait;

use crate::fixture::{COOKIE, SwarmNode};
use crate::sessions;
use crate::watch::Tasks;

const CLIENTS: u32 = 20;
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

    let (stop, ready) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let seen = std::thread::scope(|scope| {
        let (stop, ready, node) = (&stop, &ready, &node);
        let watching = SERVICES.map(|(service, host, first)| {
            let clients = scope.spawn(move || {
                sessions::watch(&node.net.clients, (host, first, CLIENTS), vip(80), ready, stop)
            });
            let tasks = scope.spawn(move || {
                let now = Tasks::start(&node.swarm.serving(service)?);
                now.watch(&node.swarm, service, stop)
            });
            (service, tasks, clients)
        });
        let everybody = || Ok(ready.load(Ordering::Relaxed) == 2 * CLIENTS as usize);
        let done = wait::until_true("a session for all", Duration::from_secs(20), everybody)
            .and_then(|()| {
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
            });
        stop.store(true, Ordering::Relaxed);
        let mut seen = Vec::new();
        for (service, tasks, clients) in watching {
            let tasks = tasks.join().expect("it asserts nothing")?;
            seen.push((service, tasks, clients.join().expect("it asserts nothing")?));
        }
        done.map(|()| seen)
    })?;
    for (service, tasks, clients) in seen {
        let failures: Vec<_> = clients.iter().flat_map(|client| &client.failures).collect();
        assert!(failures.is_empty(), "{service}: {failures:#?}");
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

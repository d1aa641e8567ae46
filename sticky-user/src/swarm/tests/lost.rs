//! Docker that is slow, wrong or away; and how little is asked of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::docker::tests::fake::{Fake, Mood};
use crate::labels::Instance;
use crate::model::{Snapshot, State};
use crate::provider::Found;
use crate::provider::waiting::{backends, until};
use crate::swarm::Provider;

/// A first run.
fn nothing() -> Found {
    Found::before_first_look("swarm", Snapshot::default(), SystemTime::now())
}

fn follow(fake: &Fake) -> (watch::Receiver<Arc<Found>>, JoinHandle<()>) {
    let (provider, found) = Provider::new(Some(fake.url()), Instance::default(), nothing());
    (found, tokio::spawn(provider.run()))
}

#[tokio::test]
async fn the_last_good_snapshot_stays_while_docker_is_away_or_wrong() {
    let mut fake = Fake::start();
    fake.demo(3);
    let (mut found, task) = follow(&fake);
    until(&mut found, |found| found.status.connected && backends(found) == 3).await;

    for mood in [Mood::Error, Mood::HalfAReply] {
        fake.mood(mood);
        let update = json!({"Type": "service", "Action": "update", "Actor": {"ID": "s0"}});
        fake.event(&update);
        let lost = until(&mut found, |found| !found.status.connected).await;
        assert_eq!(backends(&lost), 3, "{mood:?}");
        assert!(lost.status.error.is_some(), "{mood:?}");
        fake.mood(Mood::Well);
        until(&mut found, |found| found.status.connected && found.status.error.is_none()).await;
    }

    fake.kill().await;
    let lost = until(&mut found, |found| !found.status.connected).await;
    assert_eq!(backends(&lost), 3);
    fake.demo(5);
    fake.listen();
    let back = Instant::now();
    until(&mut found, |found| found.status.connected && backends(found) == 5).await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    task.abort();
}

#[tokio::test]
async fn a_slow_api_is_followed_and_one_that_falls_silent_or_has_no_socket_is_lost() {
    let mut fake = Fake::start();
    fake.demo(2);
    let (mut found, task) = follow(&fake);
    until(&mut found, |found| backends(found) == 2).await;
    let update = json!({"Type": "service", "Action": "update", "Actor": {"ID": "s0"}});
    fake.mood(Mood::Slow);
    fake.demo(3);
    fake.event(&update);
    let slow = until(&mut found, |found| backends(found) == 3).await;
    assert!(slow.status.connected && slow.status.error.is_none(), "{slow:?}");
    fake.mood(Mood::Silent);
    fake.demo(4);
    fake.event(&update);
    let lost = until(&mut found, |found| !found.status.connected).await;
    assert_eq!(backends(&lost), 3);
    fake.mood(Mood::Well);
    until(&mut found, |found| found.status.connected && backends(found) == 4).await;
    std::fs::remove_file(fake.socket()).unwrap();
    fake.event(&update);
    let lost = until(&mut found, |found| !found.status.connected).await;
    assert_eq!(backends(&lost), 4);
    fake.demo(5);
    fake.listen();
    until(&mut found, |found| found.status.connected && backends(found) == 5).await;
    task.abort();
}

#[tokio::test]
async fn an_api_that_never_answers_is_an_error_after_some_patience() {
    let fake = Fake::start();
    fake.mood(Mood::Silent);
    let (mut found, task) = follow(&fake);
    let lost = until(&mut found, |found| found.status.error.is_some()).await;
    assert!(
        lost.status.error.as_ref().is_some_and(|error| error.contains("got no answer in")),
        "{lost:?}"
    );
    task.abort();
}

#[tokio::test]
async fn a_worker_and_a_missing_socket_are_said_so() {
    let fake = Fake::start();
    fake.set("/info", json!({"Swarm": {"NodeID": "here", "ControlAvailable": false}}));
    let (mut found, task) = follow(&fake);
    let lost = until(&mut found, |found| found.status.error.is_some()).await;
    assert!(
        lost.status.error.as_ref().is_some_and(|error| error.contains("no Swarm manager")),
        "{lost:?}"
    );
    task.abort();
    let nowhere = Some("unix:///nowhere/docker.sock".to_owned());
    let (provider, mut found) = Provider::new(nowhere, Instance::default(), nothing());
    let task = tokio::spawn(provider.run());
    let lost = until(&mut found, |found| found.status.error.is_some()).await;
    assert!(
        lost.status.error.as_ref().is_some_and(|error| error.contains("/nowhere/docker.sock")),
        "{lost:?}"
    );
    task.abort();
}

#[tokio::test]
async fn a_container_that_was_ill_before_is_known_to_be() {
    let mut fake = Fake::start();
    fake.demo(2);
    let container =
        |id: &str, status: &str| json!({"Id": id, "State": "running", "Status": status});
    let ill = container("c0-1", "Up 2 minutes (unhealthy)");
    fake.set("/containers/json", json!([ill, container("c0-2", "Up 2 minutes (healthy)")]));
    let (mut found, task) = follow(&fake);
    let down = |found: &Found| {
        let backends = found.snapshot.services.iter().flat_map(|service| &service.backends);
        backends.filter(|b| b.state == State::Down).map(|b| b.name.clone()).collect::<Vec<_>>()
    };
    let first = until(&mut found, |found| found.status.connected).await;
    assert_eq!((backends(&first), down(&first)), (2, vec!["s0.1".to_owned()]));

    // It gets well while Docker cannot say so.
    fake.kill().await;
    until(&mut found, |found| !found.status.connected).await;
    fake.set("/containers/json", json!([]));
    fake.listen();
    until(&mut found, |found| found.status.connected && down(found).is_empty()).await;
    task.abort();
}

#[tokio::test]
async fn the_number_of_calls_does_not_grow_with_the_cluster_or_with_the_events() {
    for services in [1, 300] {
        let fake = Fake::start();
        fake.services(services, 2);
        let (mut found, task) = follow(&fake);
        until(&mut found, |found| backends(found) == 2 * services).await;
        // All is looked at twice: with the first events, and before them.
        sleep(Duration::from_millis(500)).await;
        assert!(fake.calls().iter().filter(|call| *call == "/nodes").count() <= 2);
        let began = Instant::now();
        for burst in 0..5 {
            for event in 0..20 {
                let id = format!("s{}", (burst + event) % services);
                fake.event(&json!({"Type": "service", "Action": "update", "Actor": {"ID": id}}));
            }
            sleep(Duration::from_millis(100)).await;
        }
        // Looks are 50 ms apart at least, and each is two calls: the services and their tasks.
        let looks = began.elapsed().as_millis() / 50 + 1;
        let calls = fake.calls();
        assert!(
            u128::try_from(calls.len()).unwrap() <= 2 * looks,
            "{services} services: {calls:?}"
        );
        assert!(calls.iter().all(|call| call == "/services" || call == "/tasks"), "{calls:?}");
        task.abort();
    }
}

#[tokio::test]
async fn an_error_names_the_call_and_the_cause() {
    let fake = Fake::start();
    fake.mood(Mood::Error);
    let (mut found, task) = follow(&fake);
    let lost = until(&mut found, |found| found.status.error.is_some()).await;
    let error = format!("Docker at {}: GET /version: 500: raft is out of order", fake.url());
    assert_eq!(lost.status.error.as_ref(), Some(&error));
    task.abort();
}

#[tokio::test]
async fn a_call_that_is_not_allowed_is_done_without_or_named() {
    let fake = Fake::start();
    fake.demo(2);
    fake.set("/info", json!(null));
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    fake.set("/nodes", json!([{"ID": "here", "Description": {"Hostname": host.trim()}}]));
    let (mut found, task) = follow(&fake);
    until(&mut found, |found| found.status.connected && backends(found) == 2).await;
    task.abort();
    for call in ["/version", "/events", "/services", "/tasks", "/nodes", "/networks"] {
        let fake = Fake::start();
        fake.demo(2);
        fake.set(call, json!(null));
        let (mut found, task) = follow(&fake);
        let lost = until(&mut found, |found| found.status.error.is_some()).await;
        let error = lost.status.error.clone().unwrap();
        assert!(error.contains(&format!("GET {call}")) && error.contains("not allowed"), "{error}");
        task.abort();
    }
}

/// What an operator lets through who keeps the socket behind a proxy; the README has the same list.
const LET_THROUGH: &[&str] = &[
    "/version",
    "/events",
    "/services",
    "/tasks",
    "/nodes",
    "/networks",
    "/networks/docker_gwbridge",
    "/containers/json",
];

#[tokio::test]
async fn a_proxy_of_the_socket_that_lets_only_these_through_is_enough() {
    let fake = Fake::start();
    fake.demo(2);
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    fake.set("/nodes", json!([{"ID": "here", "Description": {"Hostname": host.trim()}}]));
    // One more is asked for where it is allowed, and done without where it is not.
    fake.only(LET_THROUGH);
    let (mut found, task) = follow(&fake);
    until(&mut found, |found| found.status.connected && backends(found) == 2).await;
    fake.demo(3);
    fake.event(&json!({"Type": "service", "Action": "update", "Actor": {"ID": "s0"}}));
    until(&mut found, |found| backends(found) == 3).await;
    // A task without a known address, and a node that changed: all that is ever asked.
    fake.set("/networks/docker_gwbridge", json!({"Containers": {}}));
    fake.demo(4);
    fake.set("/networks/docker_gwbridge", json!({"Containers": {}}));
    fake.event(&json!({"Type": "node", "Action": "update", "Actor": {"ID": "here"}}));
    sleep(Duration::from_millis(300)).await;
    assert!(found.borrow().status.error.is_none(), "{:?}", found.borrow().status);
    let calls = fake.calls();
    assert!(calls.iter().any(|call| call == "/containers/json"), "{calls:?}");
    assert!(fake.orders().is_empty(), "nothing but questions");
    task.abort();
}

#[tokio::test]
async fn one_change_among_a_thousand_services_costs_its_own_tasks_only() {
    let fake = Fake::start();
    fake.services(1000, 10);
    let (mut found, task) = follow(&fake);
    until(&mut found, |found| backends(found) == 10_000).await;
    let (_, all) = (fake.calls(), fake.bytes());
    // It is quiet when nobody has asked for longer than reading all of it takes, also on a busy machine.
    loop {
        sleep(Duration::from_secs(4)).await;
        if fake.calls().is_empty() {
            break;
        }
    }
    fake.bytes();
    fake.event(&json!({"Type": "service", "Action": "update", "Actor": {"ID": "s7"}}));
    let mut calls = Vec::new();
    while calls.len() < 2 {
        sleep(Duration::from_millis(500)).await;
        calls.append(&mut fake.calls());
    }
    let bytes = fake.bytes();
    println!("{calls:?}: {bytes} bytes, where all is {all}");
    assert!(calls.iter().all(|call| call == "/services" || call == "/tasks"));
    assert!(bytes / calls.len() < 5000 && all > 1_000_000, "{bytes} of {all}");
    task.abort();
}

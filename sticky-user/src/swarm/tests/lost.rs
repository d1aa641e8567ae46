//! Docker that is slow, wrong or away; and how little is asked of it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::docker::tests::fake::{Fake, Mood};
use crate::labels::Instance;
use crate::model::Snapshot;
use crate::provider::Found;
use crate::swarm::Provider;

/// A first run.
fn nothing() -> Found {
    Found::before_first_look("swarm", Snapshot::default(), SystemTime::now())
}

fn follow(fake: &Fake) -> (watch::Receiver<Arc<Found>>, JoinHandle<()>) {
    let (provider, found) = Provider::new(Some(fake.url()), Instance::default(), nothing());
    (found, tokio::spawn(provider.run()))
}

async fn until(
    found: &mut watch::Receiver<Arc<Found>>,
    what: impl Fn(&Found) -> bool,
) -> Arc<Found> {
    let wait = async { found.wait_for(|found| what(found)).await.map(|found| Arc::clone(&found)) };
    timeout(Duration::from_secs(20), wait)
        .await
        .expect("the provider sees it")
        .expect("the provider runs")
}

fn backends(found: &Found) -> usize {
    found.snapshot.services.iter().map(|service| service.backends.len()).sum()
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
    assert!(back.elapsed() < Duration::from_secs(4), "{:?}", back.elapsed());
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
    fake.set("/tasks", json!(null));
    let (mut found, task) = follow(&fake);
    let lost = until(&mut found, |found| found.status.error.is_some()).await;
    let error = lost.status.error.clone().unwrap();
    assert!(error.contains("GET /tasks") && error.contains("not allowed"), "{error}");
    task.abort();
}

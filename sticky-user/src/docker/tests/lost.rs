//! An engine that is slow, wrong or away, and one behind a proxy of its socket.

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::super::*;
use super::fake::{Fake, Mood};
use crate::provider::waiting::{backends, until};

fn follow(fake: &Fake) -> (watch::Receiver<Arc<Found>>, JoinHandle<()>) {
    let nothing = Found::before_first_look("docker", Snapshot::default(), SystemTime::UNIX_EPOCH);
    let (provider, found) = Provider::new(Some(fake.url()), Instance::default(), nothing);
    (found, tokio::spawn(provider.run()))
}

/// This many running containers with labels.
fn set(fake: &Fake, count: usize) {
    let container = |number: usize| {
        json!({"Id": format!("c{number}"), "Names": [format!("/demo-{number}")], "Created": number, "State": "running",
            "Status": "Up", "Labels": {"com.docker.lb.hosts": "demo.local", "com.docker.lb.port": "8080"},
            "HostConfig": {"NetworkMode": "default"},
            "NetworkSettings": {"Networks": {"bridge": {"IPAddress": format!("203.0.113.{number}")}}}})
    };
    fake.set("/containers/json", (1..=count).map(container).collect());
    fake.set("/networks", json!([{"Name": "bridge", "Driver": "bridge"}]));
}

fn something_happens(fake: &Fake) {
    fake.event(&json!({"Type": "container", "Action": "start", "Actor": {"ID": "c1"}}));
}

#[tokio::test]
async fn the_last_good_snapshot_stays_while_the_engine_is_away_or_wrong() {
    let mut fake = Fake::start();
    set(&fake, 3);
    let (mut found, task) = follow(&fake);
    until(&mut found, |found| found.status.connected && backends(found) == 3).await;

    for mood in [Mood::Error, Mood::HalfAReply] {
        fake.mood(mood);
        something_happens(&fake);
        let lost = until(&mut found, |found| !found.status.connected).await;
        assert_eq!(backends(&lost), 3, "{mood:?}");
        assert!(lost.status.error.is_some(), "{mood:?}");
        fake.mood(Mood::Well);
        until(&mut found, |found| found.status.connected && found.status.error.is_none()).await;
    }

    // The socket is gone, and then the engine with it.
    std::fs::remove_file(fake.socket()).unwrap();
    something_happens(&fake);
    let lost = until(&mut found, |found| !found.status.connected).await;
    assert!(
        lost.status.error.as_ref().is_some_and(|error| error.contains("No such file")),
        "{lost:?}"
    );
    fake.kill().await;
    set(&fake, 5);
    assert_eq!(backends(&found.borrow()), 3);
    fake.listen();
    let back = Instant::now();
    until(&mut found, |found| found.status.connected && backends(found) == 5).await;
    assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
    task.abort();
}

#[tokio::test]
async fn a_slow_engine_is_followed_and_one_that_falls_silent_is_lost() {
    let fake = Fake::start();
    set(&fake, 2);
    let (mut found, task) = follow(&fake);
    until(&mut found, |found| backends(found) == 2).await;
    fake.mood(Mood::Slow);
    set(&fake, 3);
    something_happens(&fake);
    let slow = until(&mut found, |found| backends(found) == 3).await;
    assert!(slow.status.connected && slow.status.error.is_none(), "{slow:?}");
    fake.mood(Mood::Silent);
    set(&fake, 4);
    something_happens(&fake);
    let lost = until(&mut found, |found| !found.status.connected).await;
    assert_eq!(backends(&lost), 3);
    let error = lost.status.error.as_deref().unwrap_or_default();
    assert!(error.contains("no answer in"), "{error}");
    fake.mood(Mood::Well);
    until(&mut found, |found| found.status.connected && backends(found) == 4).await;
    task.abort();
}

/// What an operator lets through who keeps the socket behind a proxy; the README has the same list.
const LET_THROUGH: &[&str] = &["/version", "/events", "/containers/json", "/networks"];

#[tokio::test]
async fn a_proxy_of_the_socket_that_lets_only_these_through_is_enough() {
    let fake = Fake::start();
    set(&fake, 2);
    fake.only(LET_THROUGH);
    let (mut found, task) = follow(&fake);
    until(&mut found, |found| found.status.connected && backends(found) == 2).await;
    set(&fake, 3);
    something_happens(&fake);
    let more = until(&mut found, |found| backends(found) == 3).await;
    assert!(more.status.error.is_none(), "{more:?}");
    let asked: HashSet<String> = fake.calls().into_iter().collect();
    let allowed: HashSet<String> = LET_THROUGH.iter().map(|call| (*call).to_owned()).collect();
    assert_eq!(asked, allowed, "nothing is on the list that is not needed");
    assert!(fake.orders().is_empty(), "nothing but questions");
    task.abort();
}

#[tokio::test]
async fn a_call_that_is_not_allowed_is_named() {
    for call in LET_THROUGH {
        let fake = Fake::start();
        set(&fake, 2);
        fake.set(call, Value::Null);
        let (mut found, task) = follow(&fake);
        let lost = until(&mut found, |found| found.status.error.is_some()).await;
        let error = lost.status.error.as_deref().unwrap_or_default();
        assert!(error.contains(&format!("GET {call}")) && error.contains("not allowed"), "{error}");
        task.abort();
    }
}

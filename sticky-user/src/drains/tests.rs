use std::time::{Duration, SystemTime};

use super::*;
use crate::model::ServiceConfig;
use crate::provider::ProviderStatus;

fn backend(id: &str, name: &str, node: &str, state: State) -> Backend {
    Backend {
        id: id.to_owned(),
        name: name.to_owned(),
        addr: None,
        addr_v6: None,
        node: node.to_owned(),
        layer4: true,
        weight: 1,
        state,
        reason: None,
        outgoing: false,
    }
}

fn service(name: &str, backends: Vec<Backend>) -> Service {
    Service {
        id: format!("id-of-{name}"),
        name: name.to_owned(),
        config: ServiceConfig::default(),
        publish: Vec::new(),
        backends,
        errors: Vec::new(),
    }
}

/// Two services on two nodes; the second node is called as the second service.
fn snapshot() -> Snapshot {
    let ending = State::Draining(DrainMode::Connections);
    let blue = vec![
        backend("aaaaaaaaaaa1", "blue.1", "host", State::Up),
        backend("aaaaaaaaaaa2", "blue.2", "green", State::Up),
        backend("bbbbbbbbbbb3", "blue.3", "host", ending),
        backend("bbbbbbbbbbb4", "blue.4", "host", State::Starting),
    ];
    let green = vec![backend("ccccccccccc1", "green.1", "host", State::Up)];
    Snapshot { services: vec![service("blue", blue).into(), service("green", green).into()] }
}

fn found(snapshot: Snapshot) -> Arc<Found> {
    let status = ProviderStatus {
        kind: "swarm",
        connected: true,
        error: None,
        last_update: SystemTime::UNIX_EPOCH,
    };
    Arc::new(Found { snapshot: Arc::new(snapshot), event_at: Instant::now(), status })
}

fn drains() -> (tempfile::TempDir, Drains) {
    let dir = tempfile::tempdir().unwrap();
    let state = StateDir::open(dir.path()).unwrap();
    (dir, Drains::open(state))
}

fn order(what: &str, undo: bool) -> Order {
    Order { what: what.to_owned(), undo }
}

fn drained(drains: &Drains) -> Vec<String> {
    let marked = mark(&found(snapshot()), &drains.now(), Instant::now());
    let all = marked.snapshot.services.iter().flat_map(|service| &service.backends);
    all.filter(|b| super::marked(b)).map(|backend| backend.name.clone()).collect()
}

#[test]
fn a_backend_a_service_and_a_node_are_named_as_status_shows_them() {
    for (what, expected) in [
        ("blue.1", &["blue.1"][..]),
        ("aaaaaaaaaaa2", &["blue.2"]),
        ("ccccccc", &["green.1"]),
        ("blue", &["blue.1", "blue.2"]),
        ("id-of-green", &["green.1"]),
        ("host", &["blue.1", "green.1"]),
        ("node:green", &["blue.2"]),
        ("service:green", &["green.1"]),
    ] {
        let (_dir, drains) = drains();
        drains.change(&order(what, false), &snapshot()).unwrap();
        assert_eq!(drained(&drains), expected, "{what}");
        drains.change(&order(what, true), &Snapshot::default()).unwrap();
        assert!(drained(&drains).is_empty(), "{what} again");
    }
}

#[test]
fn what_names_nothing_or_too_much_is_refused() {
    let (_dir, drains) = drains();
    let refused =
        |what, undo| drains.change(&order(what, undo), &snapshot()).unwrap_err().to_string();
    for nothing in ["red", "aaaaa", "service:host", ""] {
        assert!(refused(nothing, false).contains("there is no backend, service or node"));
    }
    let two = refused("green", false);
    assert!(two.contains("node:green or service:green"), "{two}");
    let two = refused("aaaaaaaaaaa", false);
    assert!(two.contains("backend:aaaaaaaaaaa1 or backend:aaaaaaaaaaa2"), "{two}");
    drains.change(&order("blue.1", false), &snapshot()).unwrap();
    let other = refused("blue", true);
    assert!(other.contains("drained are: backend blue.1"), "{other}");
}

#[test]
fn drains_outlive_the_process_and_a_full_disk_is_told() {
    let (dir, drains) = drains();
    drains.change(&order("blue", false), &snapshot()).unwrap();
    drains.change(&order("blue", false), &snapshot()).unwrap();
    drop(drains);
    let again = Drains::open(StateDir::open(dir.path()).unwrap());
    assert_eq!(again.now().len(), 1);
    assert_eq!(drained(&again), ["blue.1", "blue.2"]);
    drop(dir);
    let error = again.change(&order("host", false), &snapshot()).unwrap_err();
    assert!(matches!(error, Refused::NotKept(_)), "{error}");
    assert_eq!(again.now().len(), 1, "what cannot be kept does not count");
}

#[test]
fn marks_can_be_taken_off_a_saved_snapshot() {
    let (_dir, drains) = drains();
    drains.change(&order("host", false), &snapshot()).unwrap();
    let marked = mark(&found(snapshot()), &drains.now(), Instant::now());
    assert!(in_force(&marked.snapshot, &drains.now()));
    assert!(!in_force(&snapshot(), &drains.now()) && !in_force(&marked.snapshot, &[]));
    let mut saved = Snapshot::clone(&marked.snapshot);
    unmark(&mut saved);
    assert_eq!(saved, snapshot());
}

#[tokio::test]
async fn orders_are_followed_at_once_and_forgotten_with_what_is_gone() {
    let (dir, drains) = drains();
    let drains = Arc::new(drains);
    let (provider, receiver) = watch::channel(found(snapshot()));
    let (to, mut out) = watch::channel(found(Snapshot::default()));
    let task = tokio::spawn(follow(receiver, Arc::clone(&drains), to));
    let states = |found: &Arc<Found>| -> Vec<State> {
        found.snapshot.services.first().iter().flat_map(|s| &s.backends).map(|b| b.state).collect()
    };
    out.wait_for(|found| states(found).first() == Some(&State::Up)).await.unwrap();
    drains.change(&order("blue.1", false), &snapshot()).unwrap();
    drains.change(&order("node:host", false), &snapshot()).unwrap();
    let sessions = State::Draining(DrainMode::Sessions);
    out.wait_for(|found| states(found).first() == Some(&sessions)).await.unwrap();
    let mut less = snapshot();
    Arc::make_mut(&mut less.services[0]).backends.remove(0);
    provider.send_replace(found(less));
    let kept = || StateDir::open(dir.path()).unwrap().drains();
    while kept().len() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(kept(), [Drain::Node { name: "host".to_owned() }]);
    task.abort();
}

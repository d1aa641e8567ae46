use std::time::SystemTime;

use super::*;
use crate::control::{FrontendInForce, InForceService, Path};
use crate::model::{Proto, ServiceConfig, Snapshot, State};
use crate::status::tests::backend;

fn frontend(addr: &str) -> Frontend {
    Frontend { addr: addr.parse().unwrap(), port: 8080, proto: Proto::Tcp }
}

/// A service `s` with backends of these names, all in this state.
pub(in crate::relay) fn in_force(backends: &[&str], state: State) -> InForce {
    let service = model::Service {
        id: "s".to_owned(),
        name: "demo".to_owned(),
        config: ServiceConfig {
            ip_hash: true,
            allow: vec!["198.51.100.0/24".parse().unwrap()],
            deny: vec!["198.51.100.66/32".parse().unwrap()],
            ..ServiceConfig::default()
        },
        publish: Vec::new(),
        backends: backends.iter().map(|id| backend(id, id, state)).collect(),
        errors: Vec::new(),
    };
    let place = |addr| FrontendInForce { frontend: frontend(addr), target: 80, path: Path::Xdp };
    let frontends = vec![place("198.51.100.1"), place("127.0.0.1")];
    InForce {
        generation: 1,
        snapshot: Arc::new(Snapshot { services: vec![service.into()] }),
        services: vec![
            InForceService { id: "s".to_owned(), frontends, ..Default::default() }.into(),
        ],
        updated: SystemTime::UNIX_EPOCH,
        took: Duration::ZERO,
    }
}

fn service(routes: &Routes) -> Arc<Service> {
    Arc::clone(&routes.get(&frontend("198.51.100.1")).unwrap().service)
}

#[test]
fn connections_end_with_their_backend_and_not_before() {
    let mut book = Book::default();
    let first = service(&book.publish(&in_force(&["a", "b"], State::Up)));
    let [a, b] = ["a", "b"].map(|id| Arc::clone(&first.backends[id]));
    let next = service(&book.publish(&in_force(&["a"], State::Down)));
    assert!(b.gone.is_cancelled() && !a.gone.is_cancelled());
    assert!(Arc::ptr_eq(&a, &next.backends["a"]) && Arc::ptr_eq(&first.stats, &next.stats));
    book.publish(&InForce { snapshot: Arc::default(), ..in_force(&[], State::Up) });
    assert!(a.gone.is_cancelled());
}

#[test]
fn where_frontends_lead_is_made_anew_only_when_they_do() {
    let mut book = Book::default();
    let two = |first: &[&str], second: &[&str], port| {
        let [mut all, other] = [in_force(first, State::Up), in_force(second, State::Up)];
        let renamed =
            |s: &Arc<model::Service>| model::Service { id: "t".to_owned(), ..(**s).clone() };
        let services =
            [Arc::clone(&all.snapshot.services[0]), renamed(&other.snapshot.services[0]).into()];
        all.snapshot = Arc::new(Snapshot { services: services.to_vec() });
        let frontend = Frontend { port, ..frontend("198.51.100.1") };
        let frontends = vec![FrontendInForce { frontend, target: 81, path: Path::Xdp }];
        all.services
            .push(InForceService { id: "t".to_owned(), frontends, ..Default::default() }.into());
        all
    };
    let target = |routes: &Routes, port| {
        let route = routes.get(&Frontend { port, ..frontend("198.51.100.1") })?;
        Some((route.target, route.service.backends.len()))
    };
    let first = book.publish(&two(&["a"], &["b"], 8081));
    assert_eq!([8080, 8081].map(|port| target(&first, port)), [Some((80, 1)), Some((81, 1))]);
    let more = book.publish(&two(&["a"], &["b", "c"], 8081));
    assert!(more.leads_as(&first));
    assert_eq!([8080, 8081].map(|port| target(&more, port)), [Some((80, 1)), Some((81, 2))]);
    let moved = book.publish(&two(&["a"], &["b", "c"], 8082));
    assert!(!moved.leads_as(&more));
    assert_eq!([8081, 8082].map(|port| target(&moved, port)), [None, Some((81, 2))]);
    let kept = &more.service("t").unwrap().backends["b"];
    assert!(Arc::ptr_eq(kept, &moved.service("t").unwrap().backends["b"]));
    let less = book.publish(&in_force(&["a"], State::Up));
    assert_eq!([8080, 8082].map(|port| target(&less, port)), [Some((80, 1)), None]);
    assert!(kept.gone.is_cancelled() && less.service("t").is_none());
}

#[tokio::test(start_paused = true)]
async fn a_client_waits_five_seconds_from_the_loss_of_the_last_backend() {
    let mut book = Book::default();
    let waits = |routes: Routes| service(&routes).patience() - Instant::now();
    assert_eq!(waits(book.publish(&in_force(&["a"], State::Up))), PATIENCE);
    assert_eq!(waits(book.publish(&in_force(&["a"], State::Down))), PATIENCE);
    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(waits(book.publish(&in_force(&[], State::Up))), Duration::from_secs(2));
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(waits(book.publish(&in_force(&[], State::Up))), Duration::ZERO);
}

#[test]
fn labels_say_who_is_served_and_loopback_is_never_ours() {
    let routes = Book::default().publish(&in_force(&["a"], State::Up));
    assert_eq!(routes.frontends().collect::<Vec<_>>(), [frontend("198.51.100.1")]);
    let service = service(&routes);
    let admits = |addr: &str| service.admits(addr.parse().unwrap());
    assert!(admits("198.51.100.2") && !admits("198.51.100.66") && !admits("203.0.113.1"));
    let client = |addr: &str| service.client(addr.parse().unwrap()).to_string();
    assert_eq!(client("198.51.100.2"), "198.51.100.2");
    assert_eq!(client("2001:db8::1:2:3:4"), "2001:db8::");
}

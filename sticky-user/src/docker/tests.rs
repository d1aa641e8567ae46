pub(crate) mod fake;
mod kept;
mod lost;
mod tls;

use bollard::models::EventActor;

use super::containers::{Phase, Port};
use super::*;
use crate::model::{DrainMode, Proto, Publish, State};

fn container(name: &str, created: i64, labels: &[(&str, &str)]) -> Container {
    Container {
        id: format!("id-{name}"),
        name: name.to_owned(),
        created,
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        phase: Phase::Running,
        addresses: [("bridge".to_owned(), ("203.0.113.7".parse().unwrap(), None))].into(),
        on_host: false,
        ports: vec![Port { target: 8080, proto: Proto::Tcp, published: Some(80) }],
    }
}

fn seen(containers: Vec<Container>) -> Seen {
    let networks = [("bridge".to_owned(), Network { bridge: true })].into();
    Seen { containers, networks, ..Seen::default() }
}

fn services(seen: &Seen) -> Vec<std::sync::Arc<crate::model::Service>> {
    containers::services(seen, &Instance::default(), &mut Memory::default())
}

fn event(action: &str, id: &str, signal: &str) -> EventMessage {
    let attributes = Some([("signal".to_owned(), signal.to_owned())].into());
    let actor = Some(EventActor { id: Some(id.to_owned()), attributes });
    EventMessage { action: Some(action.to_owned()), actor, ..EventMessage::default() }
}

const HASHED: [(&str, &str); 2] =
    [("com.docker.lb.ip_hash", "true"), ("com.docker.lb.hosts", "demo.local")];

#[test]
fn a_scaled_compose_service_is_one_service() {
    let mut labels = HASHED.to_vec();
    labels.extend([("com.docker.compose.project", "shop"), ("com.docker.compose.service", "web")]);
    let mut containers =
        vec![container("shop-web-1", 1, &labels), container("shop-web-2", 2, &labels)];
    containers.push(container("other", 3, &[("maintainer", "x")]));
    containers[1].ports[0].published = Some(81);
    containers[2].ports.clear();
    let found = services(&seen(containers));
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].name, "shop_web");
    assert_eq!(
        found[0].backends.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(),
        ["shop-web-1", "shop-web-2"]
    );
    let publish = |port| Publish { port, target: 8080, proto: Proto::Tcp };
    assert_eq!(found[0].publish, [publish(80), publish(81)]);
    assert_eq!(found[0].backends[0].addr, Some("203.0.113.7:8080".parse().unwrap()));
    assert!(found[0].errors.is_empty(), "{:?}", found[0].errors);
}

#[test]
fn a_container_drains_from_its_signal_on_and_is_gone_when_it_dies() {
    let mut seen = seen(vec![container("a", 1, &HASHED)]);
    assert!(!seen.note(event("kill", "id-a", "1")));
    assert!(seen.note(event("kill", "id-a", "15")));
    assert_eq!(services(&seen)[0].backends[0].state, State::Draining(DrainMode::Connections));
    assert!(seen.note(event("die", "id-a", "")));
    assert!(services(&seen)[0].backends.is_empty());
    assert!(seen.note(event("start", "id-a", "")));
    assert_eq!(services(&seen)[0].backends[0].state, State::Up);
}

#[test]
fn states_of_containers_are_states_of_backends() {
    for (phase, state) in [
        (Phase::Starting, State::Starting),
        (Phase::Running, State::Up),
        (Phase::Paused, State::Down),
        (Phase::Unhealthy, State::Down),
    ] {
        let mut one = container("a", 1, &HASHED);
        one.phase = phase;
        assert_eq!(services(&seen(vec![one]))[0].backends[0].state, state, "{phase:?}");
    }
    let mut nowhere = container("a", 1, &HASHED);
    nowhere.addresses.clear();
    assert_eq!(services(&seen(vec![nowhere.clone()]))[0].backends[0].state, State::Down);
    nowhere.on_host = true;
    let found = services(&seen(vec![nowhere]));
    assert_eq!((found[0].backends[0].state, found[0].backends[0].layer4), (State::Up, false));
}

#[test]
fn swarm_tasks_and_ports_of_others_are_left_alone() {
    let mut task = HASHED.to_vec();
    task.push(("com.docker.swarm.task.id", "t"));
    let other = container("other", 2, &[]);
    let found =
        services(&seen(vec![container("task", 1, &task), other, container("mine", 3, &HASHED)]));
    assert_eq!(found.len(), 1);
    assert!(found[0].publish.is_empty());
    assert!(found[0].errors[0].message.contains("service other"), "{:?}", found[0].errors);
}

//! From a cluster to a snapshot, without Docker.

use std::collections::HashSet;
use std::sync::Arc;

use crate::labels::{Instance, Memory};
use crate::model::{DrainMode, Proto, Publish, Service, State};
use crate::swarm::build;
use crate::swarm::view::{
    Changed, Cluster, LocalAddress, NetworkView, NodeView, Phase, PortView, ServiceView, TaskView,
};

fn port(published: u16, target: u16, host_mode: bool) -> PortView {
    PortView { published, target, proto: Some(Proto::Tcp), host_mode }
}

fn service(
    name: &str,
    created_at: &str,
    labels: &[(&str, &str)],
    ports: &[PortView],
) -> ServiceView {
    ServiceView {
        id: format!("id-{name}"),
        name: name.to_owned(),
        created_at: created_at.to_owned(),
        labels: labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ports: ports.to_vec(),
        ..ServiceView::default()
    }
}

fn task(service: &str, slot: u64, node: &str, phase: Phase, wanted: bool) -> TaskView {
    TaskView {
        id: format!("{service}.{slot}.{node}"),
        service: format!("id-{service}"),
        slot,
        node: node.to_owned(),
        container: Some(format!("c-{service}-{slot}")),
        phase,
        wanted,
        state: "preparing".to_owned(),
        ..TaskView::default()
    }
}

/// Two nodes, of which `here` is this one; every container of it is on the gateway bridge.
fn cluster(services: Vec<ServiceView>, tasks: Vec<TaskView>) -> Cluster {
    let node = |name: &str, addr: &str| {
        let view = NodeView { name: format!("host-{name}"), addr: addr.parse().ok(), down: false };
        (name.to_owned(), view)
    };
    let network =
        NetworkView { name: "demo".to_owned(), driver: "overlay".to_owned(), ingress: false };
    let mut cluster = Cluster {
        own_node: "here".to_owned(),
        nodes: [node("here", "198.51.100.1"), node("there", "198.51.100.2")].into(),
        networks: [("n1".to_owned(), network)].into(),
        ..Cluster::default()
    };
    for (index, task) in tasks.iter().enumerate().filter(|(_, task)| task.node == "here") {
        let addr = format!("203.0.113.{}", index + 1).parse().unwrap();
        let address = LocalAddress { network: "docker_gwbridge".to_owned(), addr, v6: None };
        cluster.addresses.insert(task.container.clone().unwrap(), vec![address]);
    }
    cluster.replace_services(None, services);
    cluster.replace_tasks(None, tasks.into_iter().map(Arc::new).collect());
    cluster
}

fn unsettled(cluster: &Cluster) -> HashSet<String> {
    let mut unsettled = HashSet::from(["id-gone".to_owned()]);
    let all = Changed { all: true, ..Changed::default() };
    build::follow_unsettled(&mut unsettled, cluster, &all, &Instance::default());
    unsettled
}

fn services(cluster: &Cluster) -> Vec<Arc<Service>> {
    built(cluster, &mut Memory::default())
}

fn built(cluster: &Cluster, memory: &mut Memory) -> Vec<Arc<Service>> {
    build::Built::default().services(cluster, &cluster.changed, &Instance::default(), memory)
}

const HASHED: [(&str, &str); 2] =
    [("com.docker.lb.ip_hash", "true"), ("com.docker.lb.hosts", "demo.local")];

#[test]
fn each_state_of_a_task_is_a_state_of_its_backend_or_none() {
    let tasks = vec![
        task("a", 1, "here", Phase::Running, true),
        task("a", 2, "here", Phase::Before, true),
        task("a", 3, "here", Phase::Before, false),
        task("a", 4, "here", Phase::Running, false),
        task("a", 5, "here", Phase::After, false),
        task("a", 6, "here", Phase::After, true),
    ];
    let found =
        services(&cluster(vec![service("a", "1", &HASHED, &[port(80, 8080, false)])], tasks));
    let states: Vec<(&str, State)> =
        found[0].backends.iter().map(|b| (b.name.as_str(), b.state)).collect();
    assert_eq!(
        states,
        [
            ("a.1", State::Up),
            ("a.2", State::Starting),
            ("a.4", State::Draining(DrainMode::Connections))
        ]
    );
    assert_eq!(found[0].backends[0].addr, Some("203.0.113.1:8080".parse().unwrap()));
    assert_eq!(found[0].backends[1].reason.as_deref(), Some("preparing"));
    assert_eq!(found[0].publish, [Publish { port: 80, target: 8080, proto: Proto::Tcp }]);
    assert!(found[0].errors.is_empty());
}

#[test]
fn container_events_are_believed_before_the_task_says_so() {
    let tasks = (1..=3).map(|slot| task("a", slot, "here", Phase::Running, true)).collect();
    let mut labels = HASHED.to_vec();
    labels.push(("sticky.drain", "sessions"));
    let mut cluster = cluster(vec![service("a", "1", &labels, &[port(80, 8080, false)])], tasks);
    cluster.containers.dead.insert("c-a-1".to_owned());
    cluster.containers.stopping.insert("c-a-2".to_owned());
    cluster.containers.unhealthy.insert("c-a-3".to_owned());
    let states: Vec<State> = services(&cluster)[0].backends.iter().map(|b| b.state).collect();
    assert_eq!(states, [State::Draining(DrainMode::Sessions), State::Down]);
}

#[test]
fn a_task_elsewhere_is_reached_only_by_the_proxy_and_only_at_its_host_port() {
    let mut with_port = task("a", 2, "there", Phase::Running, true);
    with_port.ports = vec![port(32768, 8080, true)];
    let tasks = vec![task("a", 1, "there", Phase::Running, true), with_port];
    let mut cluster = cluster(vec![service("a", "1", &HASHED, &[port(0, 8080, true)])], tasks);
    let found = services(&cluster);
    let [without, with] = found[0].backends.as_slice() else { panic!("{found:?}") };
    assert_eq!(without.state, State::Down);
    assert_eq!(without.reason.as_deref(), Some("on host-there: not reachable from here yet"));
    assert_eq!(
        (with.state, with.layer4, with.addr),
        (State::Up, false, "198.51.100.2:32768".parse().ok())
    );
    // A host-mode port without a fixed number is no frontend.
    assert!(found[0].publish.is_empty());
    cluster.nodes.get_mut("there").unwrap().down = true;
    let down = &services(&cluster)[0].backends[1];
    assert_eq!(
        (down.state, down.reason.as_deref()),
        (State::Down, Some("node host-there is down"))
    );
}

#[test]
fn a_running_task_without_an_address_is_starting_and_asked_about_again() {
    let mut cluster = cluster(
        vec![service("a", "1", &HASHED, &[port(80, 8080, false)])],
        vec![task("a", 1, "here", Phase::Running, true)],
    );
    assert!(unsettled(&cluster).is_empty());
    cluster.addresses.clear();
    assert_eq!(services(&cluster)[0].backends[0].state, State::Starting);
    assert!(!cluster.without_address(None).is_empty());
    assert!(unsettled(&cluster).contains("id-a"));
}

#[test]
fn the_older_service_keeps_a_port_and_docker_keeps_its_own() {
    let listen = |ports| [("com.docker.lb.ip_hash", "true"), ("sticky.l4.listen", ports)];
    let found = services(&cluster(
        vec![
            service("young", "2026-11-22T10:00:00.5", &listen("81/tcp,82/tcp,9000/tcp"), &[]),
            service("old", "2026-11-22T10:00:00", &listen("81/tcp"), &[]),
            service("dockers", "2026-11-22T09:00:00", &[], &[port(9000, 1, false)]),
        ],
        Vec::new(),
    ));
    assert_eq!(found.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), ["old", "young"]);
    assert_eq!(found[1].publish.iter().map(|p| p.port).collect::<Vec<_>>(), [82]);
    assert_eq!(found[1].errors.len(), 2, "{:?}", found[1].errors);
}

#[test]
fn a_port_of_docker_is_free_as_soon_as_its_service_is_gone() {
    let listen = [("com.docker.lb.ip_hash", "true"), ("sticky.l4.listen", "9000/tcp")];
    let dockers = service("dockers", "1", &[], &[port(9000, 1, false)]);
    let mut cluster = cluster(vec![service("a", "2", &listen, &[]), dockers], Vec::new());
    assert_eq!(services(&cluster)[0].errors.len(), 1);
    // As after the event of its removal: no tasks are asked for, since it is not ours.
    cluster.replace_services(Some(&["id-dockers".to_owned()]), Vec::new());
    cluster.replace_tasks(Some(&[]), Vec::new());
    assert!(cluster.changed.services.contains("id-dockers"));
    assert_eq!(services(&cluster)[0].errors, []);
}

#[test]
fn the_port_for_requests_is_the_only_published_one_or_must_be_given() {
    let hosts = [("com.docker.lb.hosts", "a.com")];
    let errors = |ports: &[PortView]| {
        let found = services(&cluster(vec![service("a", "1", &hosts, ports)], Vec::new()));
        found[0].errors.iter().map(|error| error.label.clone()).collect::<Vec<_>>()
    };
    assert_eq!(errors(&[port(80, 8080, false), port(0, 8080, true)]), [] as [&str; 0]);
    assert_eq!(errors(&[port(80, 8080, false), port(81, 8081, false)]), ["com.docker.lb.port"]);
    assert_eq!(errors(&[]), ["com.docker.lb.port"]);
}

#[test]
fn the_label_says_at_which_of_its_addresses_a_task_is_reached() {
    let local = |network: &str, addr: &str| LocalAddress {
        network: network.to_owned(),
        addr: addr.parse().unwrap(),
        v6: None,
    };
    let addr_of = |labels: &[(&str, &str)]| {
        let mut view = service("a", "1", labels, &[port(80, 8080, false)]);
        view.networks = vec!["n1".to_owned(), "back".to_owned()];
        let mut cluster = cluster(vec![view], vec![task("a", 1, "here", Phase::Running, true)]);
        let both = vec![local("docker_gwbridge", "203.0.113.1"), local("back", "203.0.113.129")];
        cluster.addresses.insert("c-a-1".to_owned(), both);
        let found = services(&cluster);
        assert_eq!(found[0].errors, [], "{labels:?}");
        found[0].backends[0].addr.unwrap().to_string()
    };
    assert_eq!(addr_of(&HASHED), "203.0.113.1:8080");
    let with = |network| [&HASHED[..], &[("com.docker.lb.network", network)]].concat();
    assert_eq!(addr_of(&with("back")), "203.0.113.129:8080");
    // This host has no address of its own in an overlay.
    assert_eq!(addr_of(&with("demo")), "203.0.113.1:8080");
}

#[test]
fn mistakes_are_reported_where_they_are() {
    let mut on_container = service("a", "1", &[], &[]);
    on_container.container_labels = [("com.docker.lb.hosts".to_owned(), "a.com".to_owned())].into();
    let mut network = HASHED.to_vec();
    network.push(("com.docker.lb.network", "dmeo"));
    let mut off_network = service("b", "2", &network, &[port(80, 8080, false)]);
    off_network.networks = vec!["n1".to_owned()];
    let wrong =
        service("c", "3", &[("com.docker.lb.hosts", "c.com"), ("com.docker.lb.port", "x")], &[]);
    let found = services(&cluster(
        vec![on_container, off_network, wrong, service("d", "4", &[], &[])],
        Vec::new(),
    ));
    assert_eq!(found.len(), 3);
    assert!(found[0].errors[0].message.contains("on the container"));
    assert_eq!(found[1].errors[0].hint, "write one of `demo`");
    assert!(found[2].backends.is_empty() && found[2].config.hosts.is_empty());
    assert_eq!(found[2].errors.len(), 1);
}

#[test]
fn vip_mode_has_one_backend_the_virtual_address() {
    let labels = [
        ("com.docker.lb.hosts", "a.com"),
        ("com.docker.lb.backend_mode", "vip"),
        ("com.docker.lb.port", "80"),
    ];
    let mut view = service("a", "1", &labels, &[]);
    view.vips = vec![
        ("ingress".to_owned(), "203.0.113.1".parse().unwrap()),
        ("n1".to_owned(), "203.0.113.2".parse().unwrap()),
    ];
    let mut cluster = cluster(vec![view.clone()], vec![task("a", 1, "here", Phase::Running, true)]);
    let ingress =
        NetworkView { name: "ingress".to_owned(), driver: "overlay".to_owned(), ingress: true };
    cluster.networks.insert("ingress".to_owned(), ingress);
    let found = services(&cluster);
    assert_eq!(found[0].backends.len(), 1);
    assert_eq!(found[0].backends[0].addr, Some("203.0.113.2:80".parse().unwrap()));
    view.vips.clear();
    cluster.replace_services(None, vec![view]);
    assert_eq!(services(&cluster)[0].errors[0].label, "com.docker.lb.backend_mode");
}

#[test]
fn a_removed_service_stays_until_its_last_task_has_ended() {
    let running = || task("a", 1, "here", Phase::Running, false);
    let mut cluster =
        cluster(vec![service("a", "1", &HASHED, &[port(80, 8080, false)])], vec![running()]);
    cluster.replace_services(None, Vec::new());
    cluster.replace_tasks(None, vec![running().into()]);
    assert_eq!(services(&cluster)[0].backends[0].state, State::Draining(DrainMode::Connections));
    assert!(unsettled(&cluster).contains("id-a"));
    cluster.replace_tasks(None, vec![task("a", 1, "here", Phase::After, false).into()]);
    assert!(services(&cluster).is_empty());
}

#[test]
fn a_look_at_some_services_leaves_the_others_alone() {
    let views = || vec![service("a", "1", &HASHED, &[]), service("b", "2", &HASHED, &[])];
    let mut cluster = cluster(
        views(),
        vec![
            task("a", 1, "here", Phase::Running, true),
            task("b", 1, "here", Phase::Running, true),
        ],
    );
    let ids = ["id-a".to_owned()];
    cluster.replace_services(Some(&ids), Vec::new());
    cluster.replace_tasks(Some(&ids), vec![task("b", 2, "here", Phase::Running, true).into()]);
    let found = services(&cluster);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].backends.iter().map(|b| b.name.as_str()).collect::<Vec<_>>(), ["b.1"]);
}

#[test]
fn tasks_of_before_an_update_are_outgoing_while_it_goes_on() {
    let mut demo = service("a", "1", &HASHED, &[port(80, 8080, false)]);
    demo.updating = Some("2026-11-22T10:00:05.12".to_owned());
    let mut tasks: Vec<TaskView> =
        (1..=2).map(|slot| task("a", slot, "here", Phase::Running, true)).collect();
    tasks[0].created_at = "2026-11-22T10:00:05.1".to_owned();
    tasks[1].created_at = "2026-11-22T10:00:05.123".to_owned();
    let outgoing = |demo: &ServiceView| -> Vec<bool> {
        let found = services(&cluster(vec![demo.clone()], tasks.clone()));
        found[0].backends.iter().map(|backend| backend.outgoing).collect()
    };
    assert_eq!(outgoing(&demo), [true, false]);
    demo.updating = None;
    assert_eq!(outgoing(&demo), [false, false]);
}

#[test]
fn a_thousand_services_are_put_together_in_little_time() {
    let names: Vec<String> = (0..1000).map(|number| format!("s{number}")).collect();
    let hosts: Vec<String> = names.iter().map(|name| format!("{name}.local")).collect();
    let many = names.iter().zip(&hosts).map(|(name, host)| {
        let labels = [("com.docker.lb.hosts", host.as_str()), ("com.docker.lb.port", "8080")];
        service(name, "1", &labels, &[])
    });
    let tasks = names
        .iter()
        .flat_map(|name| (1..=10).map(|slot| task(name, slot, "there", Phase::Running, true)));
    let cluster = cluster(many.collect(), tasks.collect());
    let mut memory = Memory::default();
    let mut times: Vec<_> = (0..5)
        .map(|_| {
            let began = std::time::Instant::now();
            let found = built(&cluster, &mut memory);
            assert_eq!(found.len(), 1000);
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("1,000 services with 10 tasks each: {:?}", times[2]);
    // Ten times what an optimised build takes.
    assert!(times[0] < std::time::Duration::from_millis(400), "{times:?}");
}

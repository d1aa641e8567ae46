//! From what was seen of the cluster to services with backends: a pure function, but for the memory of good labels.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::ports::{docker_ports, published, request_port};
use super::view::{Changed, Cluster, LocalAddress, Phase, ServiceView, TaskView};
use crate::labels::{self, Instance, Memory};
use crate::model::{Backend, BackendMode, LabelError, Proto, Service, ServiceConfig, State};
use crate::provider::contest;

/// What was made of the services of this instance.
#[derive(Debug, Default)]
pub(super) struct Built {
    /// Of each by itself, by id.
    own: HashMap<String, Arc<Service>>,
    /// Of all, oldest first.
    all: Vec<Arc<Service>>,
}

impl Built {
    /// The services of this instance, oldest first; what did not change is not made again.
    pub(super) fn services(
        &mut self,
        cluster: &Cluster,
        changed: &Changed,
        instance: &Instance,
        memory: &mut Memory,
    ) -> Vec<Arc<Service>> {
        if changed.all || self.other_backends(cluster, changed, instance, memory).is_none() {
            self.build(cluster, changed, instance, memory);
        }
        self.all.clone()
    }

    /// Most changes are of tasks, which no other service minds. `None`: this one is more than that.
    fn other_backends(
        &mut self,
        cluster: &Cluster,
        changed: &Changed,
        instance: &Instance,
        memory: &mut Memory,
    ) -> Option<()> {
        let mut others = Vec::with_capacity(changed.services.len());
        for id in &changed.services {
            let (view, before) = (cluster.services.get(id)?, self.own.get(id)?);
            let now = is_ours(view, instance).then(|| service(view, cluster, instance, memory))?;
            // The ports of one without `ip_hash` are Docker's.
            if !now.config.ip_hash || !wants_the_same(&now, before) {
                return None;
            }
            let place = self.all.iter().position(|service| service.id == *id)?;
            others.push((place, Arc::new(now)));
        }
        for (place, now) in others {
            let Some(settled) = self.all.get_mut(place) else { continue };
            let before = self.own.insert(now.id.clone(), Arc::clone(&now));
            *settled = if before.is_some_and(|before| Arc::ptr_eq(&before, settled)) {
                now
            } else {
                let backends = now.backends.clone();
                Arc::new(Service { backends, ..Service::clone(settled) })
            };
        }
        Some(())
    }

    fn build(
        &mut self,
        cluster: &Cluster,
        changed: &Changed,
        instance: &Instance,
        memory: &mut Memory,
    ) {
        let mut ours: Vec<&ServiceView> =
            cluster.services.values().filter(|service| is_ours(service, instance)).collect();
        ours.sort_by(|a, b| (&a.created_at, &a.id).cmp(&(&b.created_at, &b.id)));
        let mut before = std::mem::take(&mut self.own);
        let mut services = Vec::with_capacity(ours.len());
        for view in &ours {
            let same = before.remove(&view.id);
            let same = same.filter(|_| !changed.all && !changed.services.contains(&view.id));
            let built = same.unwrap_or_else(|| Arc::new(service(view, cluster, instance, memory)));
            services.push(Arc::clone(&built));
            self.own.insert(view.id.clone(), built);
        }
        memory.keep(&ours.iter().map(|view| view.id.as_str()).collect::<HashSet<_>>());
        let dockers = docker_ports(cluster, &services);
        contest(&mut services, &dockers);
        self.all = services;
    }
}

/// Whether two states of a service differ in their backends at most.
fn wants_the_same(a: &Service, b: &Service) -> bool {
    let Service { id, name, config, publish, backends: _, errors } = a;
    (id, name, config, publish, errors) == (&b.id, &b.name, &b.config, &b.publish, &b.errors)
}

/// Whether a service has labels of sticky, in the right place or on its containers, and is for this instance.
pub(super) fn is_ours(service: &ServiceView, instance: &Instance) -> bool {
    let labels = service.labels.keys().chain(service.container_labels.keys());
    labels.into_iter().any(|label| labels::is_ours(label)) && instance.serves(&service.labels)
}

fn service(
    view: &ServiceView,
    cluster: &Cluster,
    instance: &Instance,
    memory: &mut Memory,
) -> Service {
    let wrong_level = labels::wrong_level(&view.container_labels);
    let mut found = Service {
        id: view.id.clone(),
        name: view.name.clone(),
        config: ServiceConfig::default(),
        publish: Vec::new(),
        backends: Vec::new(),
        errors: wrong_level,
    };
    if !view.labels.keys().any(|label| labels::is_ours(label)) {
        return found;
    }
    let settled = memory.settle(&view.id, labels::read(&view.labels, instance));
    found.errors.extend(settled.errors);
    let Some(config) = settled.config else { return found };
    let routed = !config.hosts.is_empty() || config.default_backend;
    let port = request_port(view, &config, routed, &mut found.errors);
    if config.ip_hash {
        found.publish = published(view, &config, &mut found.errors);
        let may_come = view.ports.iter().any(|port| !port.host_mode && port.proto.is_some());
        if found.publish.is_empty() && !may_come && !routed {
            found.errors.push(mistake(
                "com.docker.lb.ip_hash",
                "has no effect: the service publishes no port and has no hosts",
                "publish a port, or set sticky.l4.listen or com.docker.lb.hosts",
            ));
        }
    }
    check_network(view, &config, cluster, &mut found.errors);
    found.backends = match config.backend_mode {
        BackendMode::Vip => virtual_address(view, &config, cluster, port, &mut found.errors),
        BackendMode::Task => backends(view, &config, cluster, port),
    };
    found.config = config;
    found
}

fn check_network(
    view: &ServiceView,
    config: &ServiceConfig,
    cluster: &Cluster,
    errors: &mut Vec<LabelError>,
) {
    let Some(wanted) = &config.network else { return };
    let name = |target: &String| {
        cluster.networks.get(target).map_or_else(|| target.clone(), |n| n.name.clone())
    };
    let names: Vec<String> = view.networks.iter().map(name).collect();
    if !names.contains(wanted) && !view.networks.contains(wanted) {
        let list = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let hint = if list.is_empty() {
            "the service is on no network of its own".to_owned()
        } else {
            format!("write one of {list}")
        };
        let message = "is no network of this service, and is not looked at";
        errors.push(LabelError {
            value: wanted.clone(),
            ..mistake("com.docker.lb.network", message, &hint)
        });
    }
}

/// `backend_mode=vip`: Docker's own balancing behind one address.
fn virtual_address(
    view: &ServiceView,
    config: &ServiceConfig,
    cluster: &Cluster,
    port: u16,
    errors: &mut Vec<LabelError>,
) -> Vec<Backend> {
    let wanted = |id: &String| match (&config.network, cluster.networks.get(id)) {
        (Some(wanted), Some(network)) => network.name == *wanted,
        (Some(wanted), None) => id == wanted,
        (None, network) => !network.is_some_and(|network| network.ingress),
    };
    let Some((_, addr)) = view.vips.iter().find(|(network, _)| wanted(network)) else {
        let hint = "take away backend_mode, or put the service on an overlay without `--endpoint-mode dnsrr`";
        errors.push(mistake(
            "com.docker.lb.backend_mode",
            "cannot be vip: the service has no virtual address",
            hint,
        ));
        return Vec::new();
    };
    vec![Backend {
        id: view.id.clone(),
        name: format!("{}.vip", view.name),
        addr: Some(SocketAddr::new(*addr, port)),
        node: String::new(),
        addr_v6: None,
        layer4: false,
        weight: 1,
        state: State::Up,
        reason: None,
        outgoing: false,
    }]
}

fn backends(
    view: &ServiceView,
    config: &ServiceConfig,
    cluster: &Cluster,
    port: u16,
) -> Vec<Backend> {
    let tasks = cluster.tasks.get(&view.id).into_iter().flatten();
    let mut tasks: Vec<&TaskView> = tasks.map(|task| &**task).collect();
    tasks.sort_by_key(|task| (task.slot, &task.id));
    tasks.into_iter().filter_map(|task| backend(view, task, config, cluster, port)).collect()
}

/// The backend that a task is, unless it is gone.
fn backend(
    view: &ServiceView,
    task: &TaskView,
    config: &ServiceConfig,
    cluster: &Cluster,
    port: u16,
) -> Option<Backend> {
    let (mut state, mut reason) = state(task, config, cluster)?;
    let node = cluster.nodes.get(&task.node);
    let node_name = node.map_or_else(|| task.node.clone(), |node| node.name.clone());
    let number = if task.slot == 0 { node_name.clone() } else { task.slot.to_string() };
    let name = format!("{}.{number}", view.name);
    let mut layer4 = true;
    let (mut addr, mut addr_v6) = (None, None);
    if task.node == cluster.own_node {
        let local = local_address(task, config, cluster);
        addr = local.map(|local| SocketAddr::new(local.addr, port));
        addr_v6 = local.and_then(|local| local.v6);
        if addr.is_none() && task.phase == Phase::Running {
            // It leaves before it could be reached, or it is about to be listed.
            if state != State::Up {
                return None;
            }
            (state, reason) = (State::Starting, Some("no address on this host yet".to_owned()));
        }
    } else if task.phase == Phase::Running {
        layer4 = false;
        let host_port = task
            .ports
            .iter()
            .find(|p| p.target == port && p.proto == Some(Proto::Tcp) && p.published != 0);
        let node_addr = node.and_then(|node| node.addr);
        let routed = !config.hosts.is_empty() || config.default_backend;
        addr = host_port
            .filter(|_| routed)
            .zip(node_addr)
            .map(|(p, addr)| SocketAddr::new(addr, p.published));
        if node.is_some_and(|node| node.down) {
            (state, reason) = (State::Down, Some(format!("node {node_name} is down")));
        } else if addr.is_none() {
            (state, reason) =
                (State::Down, Some(format!("on {node_name}: not reachable from here yet")));
        }
    }
    let outgoing = view.updating.as_ref().is_some_and(|since| task.created_at < *since);
    Some(Backend {
        id: task.id.clone(),
        name,
        addr,
        addr_v6,
        node: node_name,
        layer4,
        weight: 1,
        state,
        reason,
        outgoing,
    })
}

/// The state of a task by what Swarm and its container say; `None`: it is gone.
fn state(
    task: &TaskView,
    config: &ServiceConfig,
    cluster: &Cluster,
) -> Option<(State, Option<String>)> {
    let container =
        |events: &HashSet<String>| task.container.as_ref().is_some_and(|id| events.contains(id));
    let events = &cluster.containers;
    let reason = |text: &str| Some(text.to_owned());
    match task.phase {
        Phase::After => None,
        Phase::Before if task.wanted => {
            let error = task.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
            Some((State::Starting, Some(format!("{}{error}", task.state))))
        }
        Phase::Before => None,
        Phase::Running if container(&events.dead) => None,
        Phase::Running if !task.wanted => {
            Some((State::Draining(config.drain), reason("Swarm is ending it")))
        }
        Phase::Running if container(&events.stopping) => {
            Some((State::Draining(config.drain), reason("its container was told to stop")))
        }
        Phase::Running if container(&events.unhealthy) => {
            Some((State::Down, reason("its container is unhealthy")))
        }
        Phase::Running => Some((State::Up, None)),
    }
}

/// Where this host reaches a task of its own: on the bridge that joins overlays to the host, or on a bridge it is on.
fn local_address<'a>(
    task: &TaskView,
    config: &ServiceConfig,
    cluster: &'a Cluster,
) -> Option<&'a LocalAddress> {
    let addresses = cluster.addresses.get(task.container.as_ref()?)?;
    let wanted = addresses.iter().find(|address| Some(&address.network) == config.network.as_ref());
    wanted.or(addresses.first())
}

/// Keeps the services that will soon look different: the ones to ask about again and again.
pub(super) fn follow_unsettled(
    unsettled: &mut HashSet<String>,
    cluster: &Cluster,
    changed: &Changed,
    instance: &Instance,
) {
    let is = |id: &String| {
        cluster
            .services
            .get(id)
            .is_some_and(|service| is_ours(service, instance) && is_unsettled(service, cluster))
    };
    if changed.all {
        *unsettled = cluster.services.keys().filter(|id| is(id)).cloned().collect();
        return;
    }
    for id in &changed.services {
        if is(id) {
            unsettled.insert(id.clone());
        } else {
            unsettled.remove(id);
        }
    }
}

fn is_unsettled(service: &ServiceView, cluster: &Cluster) -> bool {
    let moving = |task: &TaskView| match task.phase {
        Phase::Before => task.wanted,
        Phase::Running => {
            let known = |id: &String| {
                cluster.addresses.contains_key(id) && !cluster.containers.dead.contains(id)
            };
            !task.wanted
                || (task.node == cluster.own_node && !task.container.as_ref().is_some_and(known))
        }
        Phase::After => false,
    };
    service.updating.is_some()
        || cluster.tasks.get(&service.id).is_some_and(|tasks| tasks.iter().any(|task| moving(task)))
}

pub(super) fn mistake(label: &str, message: &str, hint: &str) -> LabelError {
    LabelError {
        label: label.to_owned(),
        value: String::new(),
        message: message.to_owned(),
        hint: hint.to_owned(),
    }
}

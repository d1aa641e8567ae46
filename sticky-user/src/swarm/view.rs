//! The little of Docker's answers that matters here, and the cluster put together from it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

use super::decode::Listed;
use crate::model::Proto;

/// Where this host reaches containers, by their ids.
pub(super) type Addresses = HashMap<String, Vec<LocalAddress>>;

/// What was last seen of the cluster: each refresh replaces the part that it asked for.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// The node this program runs on.
    pub(super) own_node: String,
    pub(super) services: HashMap<String, ServiceView>,
    /// By service.
    pub(super) tasks: HashMap<String, Vec<Arc<TaskView>>>,
    /// The last list of all tasks.
    pub(super) listed: Listed,
    pub(super) nodes: HashMap<String, NodeView>,
    /// By id.
    pub(super) networks: HashMap<String, NetworkView>,
    /// The containers of this node. An address never changes while its container lives, so it is kept after Docker has
    /// taken it off its list, which it does before the container has ended.
    pub(super) addresses: Addresses,
    pub(super) containers: ContainerEvents,
    pub(super) changed: Changed,
}

/// What is not as it was when services were last made of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed {
    /// What concerns them all.
    pub(super) all: bool,
    /// By id.
    pub(super) services: HashSet<String>,
}

impl Changed {
    pub(super) fn any(&self) -> bool {
        self.all || !self.services.is_empty()
    }
}

/// What container events told before the task did.
#[derive(Clone, Debug, Default)]
pub(super) struct ContainerEvents {
    pub(super) dead: HashSet<String>,
    /// A stop signal was sent.
    pub(super) stopping: HashSet<String>,
    pub(super) unhealthy: HashSet<String>,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct ServiceView {
    pub(super) id: String,
    pub(super) name: String,
    /// RFC 3339 without the zone letter, so that texts sort as times do.
    pub(super) created_at: String,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) container_labels: BTreeMap<String, String>,
    pub(super) ports: Vec<PortView>,
    /// Ids or names of the networks its tasks join.
    pub(super) networks: Vec<String>,
    /// Virtual addresses, by network id.
    pub(super) vips: Vec<(String, IpAddr)>,
    /// Since when Swarm is replacing its tasks, in the form of `created_at`.
    pub(super) updating: Option<String>,
    /// Swarm does not know it any more, but some of its tasks have not ended.
    pub(super) removed: bool,
}

/// A published port; `proto` is `None` for what sticky does not carry (SCTP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PortView {
    pub(super) published: u16,
    pub(super) target: u16,
    pub(super) proto: Option<Proto>,
    pub(super) host_mode: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct TaskView {
    pub(super) id: String,
    pub(super) service: String,
    /// In the form of a service's.
    pub(super) created_at: String,
    /// 0 in a global service.
    pub(super) slot: u64,
    pub(super) node: String,
    pub(super) container: Option<String>,
    pub(super) phase: Phase,
    /// Swarm wants it to run, now or as soon as another has ended.
    pub(super) wanted: bool,
    /// `preparing`, and what is wrong, as Docker says it.
    pub(super) state: String,
    pub(super) error: Option<String>,
    /// Host-mode ports it really has.
    pub(super) ports: Vec<PortView>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    #[default]
    Before,
    Running,
    After,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NodeView {
    pub(super) name: String,
    pub(super) addr: Option<IpAddr>,
    pub(super) down: bool,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct NetworkView {
    pub(super) name: String,
    pub(super) driver: String,
    pub(super) ingress: bool,
}

/// An address that this host reaches a container at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct LocalAddress {
    /// Name of the bridge's network.
    pub(super) network: String,
    pub(super) addr: IpAddr,
    /// Of IPv6, beside one of IPv4.
    pub(super) v6: Option<Ipv6Addr>,
}

impl Cluster {
    /// Drops what is remembered of containers that no task has any more.
    pub(super) fn forget_containers(&mut self) {
        let alive = || {
            let tasks = self.tasks.values().flatten().filter(|task| task.phase != Phase::After);
            tasks.filter_map(|task| task.container.as_ref())
        };
        let ContainerEvents { dead, stopping, unhealthy } = &mut self.containers;
        // An event may come before its container is in a task.
        let sets = [dead, stopping, unhealthy];
        let many = sets.iter().any(|set| set.len() > 1000);
        // An address of a dead one does no harm, as long as these do not grow.
        if !many && self.addresses.len() <= 2 * alive().count().max(500) {
            return;
        }
        let alive: HashSet<&String> = alive().collect();
        self.addresses.retain(|id, _| alive.contains(id));
        for set in sets {
            if set.len() > 1000 {
                set.retain(|id| alive.contains(id));
            }
        }
    }

    /// Takes the services that a look has found in place of those with these ids, or of all. A removed service stays
    /// until its last task has ended: its connections do too.
    pub(super) fn replace_services(&mut self, ids: Option<&[String]>, found: Vec<ServiceView>) {
        let mut found: HashMap<String, ServiceView> =
            found.into_iter().map(|service| (service.id.clone(), service)).collect();
        let known: Vec<String> = match ids {
            Some(ids) => ids.iter().filter(|id| self.services.contains_key(*id)).cloned().collect(),
            None => self.services.keys().cloned().collect(),
        };
        for id in known {
            let Some(service) = self.services.get_mut(&id) else { continue };
            let other = match found.remove(&id) {
                Some(new) => replace(service, new),
                None => !std::mem::replace(&mut service.removed, true),
            };
            if other {
                self.changed.services.insert(id);
            }
        }
        self.changed.services.extend(found.keys().cloned());
        self.services.extend(found);
    }

    /// Takes what is the same for all services.
    pub(super) fn replace_surroundings(
        &mut self,
        nodes: HashMap<String, NodeView>,
        networks: HashMap<String, NetworkView>,
    ) {
        self.changed.all |= replace(&mut self.nodes, nodes) | replace(&mut self.networks, networks);
    }

    /// Takes addresses of containers besides those that are known: of the tasks of these services, or all.
    pub(super) fn add_addresses(&mut self, services: Option<&[String]>, mut found: Addresses) {
        found.retain(|container, addresses| self.addresses.get(container) != Some(addresses));
        if found.is_empty() {
            return;
        }
        let known: Vec<String>;
        let services = match services {
            Some(ids) => ids,
            None => {
                known = self.tasks.keys().cloned().collect();
                &known
            }
        };
        for service in services {
            for task in self.tasks.get(service).into_iter().flatten() {
                let Some(container) = &task.container else { continue };
                if let Some(addresses) = found.remove(container) {
                    self.addresses.insert(container.clone(), addresses);
                    self.changed.services.insert(service.clone());
                }
            }
        }
    }

    /// Takes the tasks that a look has found in place of those of these services, or of all.
    pub(super) fn replace_tasks(&mut self, services: Option<&[String]>, found: Vec<Arc<TaskView>>) {
        let mut new: HashMap<String, Vec<Arc<TaskView>>> = HashMap::new();
        for task in found {
            if services.is_none_or(|ids| ids.contains(&task.service)) {
                new.entry(task.service.clone()).or_default().push(task);
            }
        }
        new.values_mut().for_each(|tasks| tasks.sort_by(|a, b| a.id.cmp(&b.id)));
        let known: Vec<String>;
        let ids = match services {
            Some(ids) => ids,
            None => {
                let unheard = new.keys().filter(|id| !self.tasks.contains_key(*id));
                known = self.tasks.keys().chain(unheard).cloned().collect();
                &known
            }
        };
        for id in ids {
            let (now, before) = (new.remove(id), self.tasks.remove(id));
            if now != before {
                self.changed.services.insert(id.clone());
            }
            self.tasks.extend(now.map(|tasks| (id.clone(), tasks)));
        }
        // Of a service that is not ours no tasks are listed, but its ports are free when it is gone.
        let runs = |id: &String| {
            let mut tasks = self.tasks.get(id).into_iter().flatten();
            tasks.any(|task| task.phase == Phase::Running)
        };
        let over = |id: &&String| {
            self.services.get(*id).is_some_and(|service| service.removed) && !runs(id)
        };
        let over: Vec<String> = match services {
            Some(ids) => ids.iter().chain(&self.changed.services).filter(over).cloned().collect(),
            None => self.services.keys().filter(over).cloned().collect(),
        };
        for id in over {
            self.services.remove(&id);
            self.changed.services.insert(id);
        }
    }

    /// The containers of running tasks on this node, of these services or of all, whose addresses are not known yet.
    pub(super) fn without_address(&self, services: Option<&[String]>) -> Vec<String> {
        let missing = |task: &Arc<TaskView>| {
            let runs = task.node == self.own_node && task.phase == Phase::Running;
            let container = task.container.as_ref().filter(|_| runs)?;
            (!self.addresses.contains_key(container)).then(|| container.clone())
        };
        match services {
            Some(ids) => ids
                .iter()
                .filter_map(|id| self.tasks.get(id))
                .flatten()
                .filter_map(missing)
                .collect(),
            None => self.tasks.values().flatten().filter_map(missing).collect(),
        }
    }
}

/// Puts `new` in the place of `old`; whether it is another.
fn replace<T: PartialEq>(old: &mut T, new: T) -> bool {
    let other = *old != new;
    *old = new;
    other
}

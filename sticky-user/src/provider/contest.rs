//! Who keeps what two services want.

use std::collections::HashMap;
use std::sync::Arc;

use super::redirects;
use crate::model::{LabelError, Proto, Publish, Service};

/// Cluster management, gossip and VXLAN of Swarm: no frontend takes them (contract, section 6).
const SWARM_PORTS: [u16; 3] = [2377, 7946, 4789];

/// Settles who keeps a port that several services publish, and a host that one redirects and another serves: the first
/// one, so services come oldest first.
///
/// `dockers` are the ports that Docker itself forwards for services that are not balanced at layer 4, with their owner.
/// Whatever a service loses is reported on it; one that loses nothing stays the `Arc` that it is.
pub fn contest(services: &mut [Arc<Service>], dockers: &HashMap<(u16, Proto), String>) {
    ports(services, dockers);
    redirects::settle(services);
}

fn ports(services: &mut [Arc<Service>], dockers: &HashMap<(u16, Proto), String>) {
    let mut taken: HashMap<(u16, Proto), (usize, Publish)> = HashMap::new();
    for index in 0..services.len() {
        let (older, rest) = services.split_at_mut(index);
        let Some(service) = rest.first_mut() else { return };
        let mut errors = Vec::new();
        let config = &service.config;
        let name = &service.name;
        let keeps = |&publish: &&Publish| {
            let key = (publish.port, publish.proto);
            let (message, hint) = if SWARM_PORTS.contains(&publish.port) {
                (
                    format!("port {} belongs to Swarm itself", text(publish)),
                    "take another port".to_owned(),
                )
            } else if let Some(owner) = dockers.get(&key).filter(|owner| *owner != name) {
                (
                    format!(
                        "port {} is published in Docker by service {owner}, which has no ip_hash",
                        text(publish)
                    ),
                    format!("take another port, or set com.docker.lb.ip_hash=true on {owner}"),
                )
            } else if let Some((owner, first)) = taken.get(&key) {
                if *owner == index && first == publish {
                    return false;
                }
                let why = match older.get(*owner) {
                    Some(by) => format!("service {}, the older one", by.name),
                    None => "this service itself, for another target".to_owned(),
                };
                (
                    format!("port {} is already taken by {why}", text(publish)),
                    "take another port".to_owned(),
                )
            } else {
                taken.insert(key, (index, *publish));
                return true;
            };
            let label =
                if config.listen.contains(publish) { "sticky.l4.listen" } else { "publish" };
            errors.push(LabelError {
                label: label.to_owned(),
                value: text(publish),
                message,
                hint,
            });
            false
        };
        let kept: Vec<Publish> = service.publish.iter().filter(keeps).copied().collect();
        if kept.len() != service.publish.len() {
            let service = Arc::make_mut(service);
            service.publish = kept;
            service.errors.append(&mut errors);
        }
    }
}

fn text(publish: &Publish) -> String {
    format!("{}/{}", publish.port, publish.proto.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceConfig;

    fn service(name: &str, ports: &[(u16, u16, Proto)]) -> Arc<Service> {
        Arc::new(Service {
            id: name.to_owned(),
            name: name.to_owned(),
            config: ServiceConfig { ip_hash: true, ..ServiceConfig::default() },
            publish: ports
                .iter()
                .map(|&(port, target, proto)| Publish { port, target, proto })
                .collect(),
            backends: Vec::new(),
            errors: Vec::new(),
        })
    }

    #[test]
    fn the_first_service_keeps_a_port_and_the_other_hears_of_it() {
        let mut services = [
            service("old", &[(8080, 80, Proto::Tcp)]),
            service(
                "new",
                &[(8080, 80, Proto::Tcp), (8080, 80, Proto::Udp), (9090, 90, Proto::Tcp)],
            ),
        ];
        contest(&mut services, &HashMap::new());
        assert_eq!(services[0].publish.len(), 1);
        assert!(services[0].errors.is_empty());
        assert_eq!(services[1].publish.iter().map(|p| p.port).collect::<Vec<_>>(), [8080, 9090]);
        assert_eq!(services[1].errors.len(), 1);
        assert!(services[1].errors[0].message.contains("service old"), "{:?}", services[1].errors);
    }

    #[test]
    fn one_port_twice_in_a_service_is_a_mistake_only_with_two_targets() {
        let mut services =
            [service("a", &[(53, 53, Proto::Udp), (53, 53, Proto::Udp), (53, 54, Proto::Udp)])];
        contest(&mut services, &HashMap::new());
        assert_eq!(services[0].publish, [Publish { port: 53, target: 53, proto: Proto::Udp }]);
        assert_eq!(services[0].errors.len(), 1);
    }

    #[test]
    fn swarms_ports_and_ports_that_docker_forwards_are_never_taken() {
        let mut services = [service("a", &[(2377, 1, Proto::Tcp), (9000, 1, Proto::Tcp)])];
        let listens = Arc::make_mut(&mut services[0]);
        listens.config.listen = listens.publish.clone();
        let dockers = HashMap::from([((9000, Proto::Tcp), "web".to_owned())]);
        contest(&mut services, &dockers);
        assert!(services[0].publish.is_empty());
        assert_eq!(services[0].errors.len(), 2);
        assert!(services[0].errors.iter().all(|e| e.label == "sticky.l4.listen"));
    }
}

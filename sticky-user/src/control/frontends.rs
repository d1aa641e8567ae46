//! Which address and port belongs to which service on this node.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::model::{self, Frontend, LabelError, Publish, Service};

/// Who listens where on this host, as far as a frontend must not take it away.
pub trait Occupied {
    /// The name of the process that holds a port of an address, Docker's own listeners excepted.
    fn holder(&self, frontend: &Frontend) -> Option<String>;
}

/// The frontends of one service, each with the backends' port.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Resolved {
    pub frontends: Vec<(Frontend, u16)>,
    pub errors: Vec<LabelError>,
}

/// Who listens on this host is asked again after this.
const ASKED: Duration = Duration::from_secs(3);

/// The frontends of the services as they were last, which most changes leave as they are.
#[derive(Default)]
pub struct Frontends {
    services: Vec<Arc<Service>>,
    vips: Vec<IpAddr>,
    asked: Option<Instant>,
    /// Who held what they could take.
    holders: Vec<(Frontend, Option<String>)>,
    resolved: Arc<Vec<Resolved>>,
}

/// Notes the answers.
struct Noted<'a> {
    occupied: &'a dyn Occupied,
    holders: RefCell<Vec<(Frontend, Option<String>)>>,
}

impl Occupied for Noted<'_> {
    fn holder(&self, frontend: &Frontend) -> Option<String> {
        let holder = self.occupied.holder(frontend);
        self.holders.borrow_mut().push((*frontend, holder.clone()));
        holder
    }
}

impl Frontends {
    /// The frontends of every service, in the services' order.
    pub fn of(
        &mut self,
        services: &[Arc<Service>],
        vips: &[IpAddr],
        occupied: &dyn Occupied,
        now: Instant,
    ) -> Arc<Vec<Resolved>> {
        let alike = |(a, b): (&Arc<Service>, &Arc<Service>)| {
            let ip_hash = a.config.ip_hash == b.config.ip_hash;
            Arc::ptr_eq(a, b) || (ip_hash && a.name == b.name && a.publish == b.publish)
        };
        let fresh = self.asked.is_some_and(|asked| now.saturating_duration_since(asked) < ASKED);
        let held = |(frontend, holder): &(_, _)| occupied.holder(frontend) == *holder;
        let same = self.asked.is_some()
            && self.vips == vips
            && self.services.len() == services.len()
            && self.services.iter().zip(services).all(alike)
            && (fresh || self.holders.iter().all(held));
        if !same {
            let noted = Noted { occupied, holders: RefCell::default() };
            self.resolved = Arc::new(resolve(services, vips, &noted));
            self.holders = noted.holders.into_inner();
            self.vips = vips.to_vec();
        }
        if !same || !fresh {
            self.asked = Some(now);
        }
        model::take_over(&mut self.services, services);
        Arc::clone(&self.resolved)
    }
}

/// The first keeps a contested one.
fn resolve(services: &[Arc<Service>], vips: &[IpAddr], occupied: &dyn Occupied) -> Vec<Resolved> {
    let mut owners: HashMap<Frontend, &str> = HashMap::new();
    services
        .iter()
        .map(|service| {
            let mut resolved = Resolved::default();
            if !service.config.ip_hash {
                return resolved;
            }
            for publish in &service.publish {
                if let Some(error) = unusable(publish) {
                    resolved.errors.push(error);
                    continue;
                }
                for addr in vips {
                    let frontend =
                        Frontend { addr: *addr, port: publish.port, proto: publish.proto };
                    if let Some(owner) = owners.get(&frontend) {
                        resolved.errors.push(error(
                            publish,
                            format!("{frontend} already belongs to service {owner}"),
                            "publish another port",
                        ));
                    } else if let Some(holder) = occupied.holder(&frontend) {
                        let hint = "publish another port, or stop that process";
                        resolved.errors.push(error(
                            publish,
                            format!("{frontend} is in use by {holder} on this host"),
                            hint,
                        ));
                    } else {
                        owners.insert(frontend, &service.name);
                        resolved.frontends.push((frontend, publish.target));
                    }
                }
            }
            resolved
        })
        .collect()
}

fn unusable(publish: &Publish) -> Option<LabelError> {
    if publish.port == 0 || publish.target == 0 {
        return Some(error(
            publish,
            "port 0 cannot be balanced".into(),
            "give both ports a number from 1 to 65535",
        ));
    }
    None
}

fn error(publish: &Publish, message: String, hint: &str) -> LabelError {
    LabelError {
        label: "publish".into(),
        value: format!("{}:{}/{}", publish.port, publish.target, publish.proto.as_str()),
        message,
        hint: hint.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Proto, ServiceConfig};

    struct Ssh;
    impl Occupied for Ssh {
        fn holder(&self, frontend: &Frontend) -> Option<String> {
            (frontend.port == 22).then(|| "sshd".into())
        }
    }

    fn service(name: &str, ports: &[(u16, Proto)]) -> Arc<Service> {
        Arc::new(Service {
            id: name.into(),
            name: name.into(),
            config: ServiceConfig { ip_hash: true, ..ServiceConfig::default() },
            publish: ports
                .iter()
                .map(|(port, proto)| Publish { port: *port, target: 80, proto: *proto })
                .collect(),
            backends: Vec::new(),
            errors: Vec::new(),
        })
    }

    const VIPS: [&str; 3] = ["198.51.100.1", "203.0.113.1", "2001:db8::1"];

    fn run(services: &[Arc<Service>]) -> Vec<Resolved> {
        resolve(services, &VIPS.map(|a| a.parse().unwrap()), &Ssh)
    }

    #[test]
    fn backends_change_no_frontend_and_ports_do() {
        let mut frontends = Frontends::default();
        let vips = VIPS.map(|a| a.parse().unwrap());
        let now = Instant::now();
        let first = frontends.of(&[service("a", &[(80, Proto::Tcp)])], &vips, &Ssh, now);
        let other = service("a", &[(80, Proto::Tcp)]);
        assert!(Arc::ptr_eq(&first, &frontends.of(std::slice::from_ref(&other), &vips, &Ssh, now)));
        let two = [other, service("b", &[(80, Proto::Tcp)])];
        let contested = frontends.of(&two, &vips, &Ssh, now);
        assert!(!contested[1].errors.is_empty());
        let moved = [two[0].clone(), service("b", &[(81, Proto::Tcp)])];
        assert!(frontends.of(&moved, &vips, &Ssh, now)[1].errors.is_empty());
        assert_eq!(frontends.of(&moved, &[], &Ssh, now)[1], Resolved::default());
    }

    struct Now(Option<&'static str>);
    impl Occupied for Now {
        fn holder(&self, _: &Frontend) -> Option<String> {
            self.0.map(str::to_owned)
        }
    }

    #[test]
    fn who_listens_is_asked_again_after_a_while() {
        let mut frontends = Frontends::default();
        let (services, vips) =
            ([service("a", &[(80, Proto::Tcp)])], VIPS.map(|a| a.parse().unwrap()));
        let start = Instant::now();
        let mut errors = |holder, seconds| {
            let at = start + Duration::from_secs(seconds);
            frontends.of(&services, &vips, &Now(holder), at)[0].errors.len()
        };
        assert_eq!(errors(None, 0), 0);
        assert_eq!(errors(Some("nginx"), 2), 0);
        assert_eq!(errors(Some("nginx"), 3), VIPS.len());
        assert_eq!(errors(Some("nginx"), 6), VIPS.len());
        assert_eq!(errors(None, 9), 0);
        assert_eq!(errors(Some("nginx"), 11), 0, "asked at 9");
    }

    #[test]
    fn one_per_address_and_the_older_keeps_it() {
        let r = run(&[
            service("a", &[(8080, Proto::Tcp)]),
            service("b", &[(8080, Proto::Tcp), (81, Proto::Tcp)]),
        ]);
        assert_eq!(r[0].frontends.len(), 3);
        assert_eq!(r[1].frontends.iter().map(|(f, _)| f.port).collect::<Vec<_>>(), [81; 3]);
        assert_eq!(r[1].errors[0].message, "198.51.100.1:8080/tcp already belongs to service a");
    }

    #[test]
    fn what_a_label_must_not_capture() {
        let r = run(&[service("a", &[(22, Proto::Tcp), (0, Proto::Tcp), (53, Proto::Udp)])]);
        assert!(r[0].frontends.iter().all(|(f, _)| (f.port, f.proto) == (53, Proto::Udp)));
        assert_eq!(r[0].errors.len(), 4);
        assert!(r[0].errors[0].message.contains("in use by sshd"));
    }

    #[test]
    fn only_ip_hash() {
        let mut s = service("a", &[(8080, Proto::Tcp)]);
        Arc::make_mut(&mut s).config.ip_hash = false;
        assert_eq!(run(&[s]), [Resolved::default()]);
    }
}

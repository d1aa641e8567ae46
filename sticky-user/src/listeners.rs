//! Which ports of this host are taken by whom: a frontend must never capture ssh, or the proxy.

mod host;

use std::net::{IpAddr, SocketAddr};

use crate::model::{Frontend, Proto};
pub use host::HostListeners;

/// Docker's own listeners: what they hold is published, and a frontend takes its place.
const DOCKER: [&str; 2] = ["docker-proxy", "dockerd"];

/// A socket that takes what comes from anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub proto: Proto,
    pub addr: SocketAddr,
    /// Name of a process that holds it; `None`: it is of another process namespace, or has just ended.
    pub process: Option<String>,
}

impl Listener {
    /// Whether it would lose packets to the frontend.
    fn holds(&self, frontend: &Frontend) -> bool {
        self.proto == frontend.proto
            && self.addr.port() == frontend.port
            && covers(self.addr.ip(), frontend.addr)
    }
}

/// Whether a socket at `bound` takes what is sent to `addr`. One at `[::]` takes both families unless told
/// otherwise, which `/proc/net` does not say.
fn covers(bound: IpAddr, addr: IpAddr) -> bool {
    match bound {
        IpAddr::V4(v4) if v4.is_unspecified() => addr.is_ipv4(),
        IpAddr::V6(v6) if v6.is_unspecified() => true,
        _ => bound.to_canonical() == addr.to_canonical(),
    }
}

/// The name of the process that holds a port, Docker's excepted.
fn holder<'a>(
    listeners: impl IntoIterator<Item = &'a Listener>,
    frontend: &Frontend,
) -> Option<String> {
    listeners
        .into_iter()
        .filter(|listener| listener.holds(frontend))
        .filter(|listener| !listener.process.as_deref().is_some_and(|name| DOCKER.contains(&name)))
        .map(|listener| {
            listener
                .process
                .clone()
                .unwrap_or_else(|| "a process that cannot be seen from here".to_owned())
        })
        .next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listener(proto: Proto, addr: &str, process: Option<&str>) -> Listener {
        Listener { proto, addr: addr.parse().unwrap(), process: process.map(Into::into) }
    }

    fn frontend(addr: &str, proto: Proto) -> Frontend {
        let addr: SocketAddr = addr.parse().unwrap();
        Frontend { addr: addr.ip(), port: addr.port(), proto }
    }

    #[test]
    fn a_port_is_held_on_its_address_or_on_all() {
        let ssh = [listener(Proto::Tcp, "0.0.0.0:22", Some("sshd"))];
        assert_eq!(holder(&ssh, &frontend("198.51.100.1:22", Proto::Tcp)), Some("sshd".into()));
        assert_eq!(holder(&ssh, &frontend("198.51.100.1:23", Proto::Tcp)), None);
        assert_eq!(holder(&ssh, &frontend("198.51.100.1:22", Proto::Udp)), None);
        assert_eq!(holder(&ssh, &frontend("[2001:db8::1]:22", Proto::Tcp)), None);

        let both = [listener(Proto::Tcp, "[::]:80", Some("sticky"))];
        assert!(holder(&both, &frontend("198.51.100.1:80", Proto::Tcp)).is_some());
        assert!(holder(&both, &frontend("[2001:db8::1]:80", Proto::Tcp)).is_some());

        let local = [listener(Proto::Tcp, "127.0.0.1:80", Some("nginx"))];
        assert_eq!(holder(&local, &frontend("198.51.100.1:80", Proto::Tcp)), None);
        let one = [listener(Proto::Tcp, "[::ffff:198.51.100.1]:80", None)];
        assert!(
            holder(&one, &frontend("198.51.100.1:80", Proto::Tcp))
                .unwrap()
                .contains("cannot be seen")
        );
    }

    #[test]
    fn dockers_own_listeners_are_no_hindrance() {
        let docker = [
            listener(Proto::Tcp, "0.0.0.0:8080", Some("docker-proxy")),
            listener(Proto::Tcp, "[::]:8080", Some("dockerd")),
        ];
        assert_eq!(holder(&docker, &frontend("198.51.100.1:8080", Proto::Tcp)), None);
    }
}

//! Sockets that take what comes from anywhere in this network namespace, and whose they are.

mod diag;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use procfs::net::{TcpState, UdpState};
use procfs::process::{FDTarget, all_processes};

use super::{Listener, holder};
use crate::control::frontends::Occupied;
use crate::model::{Frontend, Proto};

/// How long one look is good for, so that thousands of frontends cost one.
const FRESH: Duration = Duration::from_millis(500);

/// The listeners of this host, as often as somebody asks; a protocol that nobody asks about is not looked at.
#[derive(Default)]
pub struct HostListeners {
    tcp: Mutex<Look>,
    udp: Mutex<Look>,
}

#[derive(Default)]
struct Look {
    at: Option<Instant>,
    sockets: Vec<Socket>,
    /// A socket keeps its inode and its process, so looking through all processes is needed only for new ones.
    owners: HashMap<u64, Option<String>>,
}

#[derive(Clone, Debug)]
struct Socket {
    addr: SocketAddr,
    inode: u64,
}

impl Occupied for HostListeners {
    fn holder(&self, frontend: &Frontend) -> Option<String> {
        let proto = frontend.proto;
        let look = match proto {
            Proto::Tcp => &self.tcp,
            Proto::Udp => &self.udp,
        };
        let mut look = look.lock().unwrap_or_else(PoisonError::into_inner);
        if look.at.is_none_or(|at| at.elapsed() > FRESH) {
            look.sockets = sockets(proto);
            look.at = Some(Instant::now());
            let open: HashSet<u64> = look.sockets.iter().map(|socket| socket.inode).collect();
            look.owners.retain(|inode, _| open.contains(inode));
        }
        let same_port: Vec<_> = look
            .sockets
            .iter()
            .filter(|socket| socket.addr.port() == frontend.port)
            .cloned()
            .collect();
        if same_port.iter().any(|socket| !look.owners.contains_key(&socket.inode)) {
            let mut owners = owners();
            let known = |socket: &Socket| (socket.inode, owners.remove(&socket.inode));
            look.owners = look.sockets.iter().map(known).collect();
        }
        let listeners: Vec<_> = same_port
            .into_iter()
            .map(|Socket { addr, inode }| Listener {
                proto,
                addr,
                process: look.owners.get(&inode).cloned().flatten(),
            })
            .collect();
        holder(&listeners, frontend)
    }
}

/// A kernel may have been built without sock_diag, or be unable to load its module; `/proc` is always there.
fn sockets(proto: Proto) -> Vec<Socket> {
    diag::sockets(proto).unwrap_or_else(|_| in_proc(proto))
}

/// A kernel without IPv6 has no tables of it, which is no mistake.
fn in_proc(proto: Proto) -> Vec<Socket> {
    let socket = |addr, inode| Socket { addr, inode };
    match proto {
        Proto::Tcp => [procfs::net::tcp(), procfs::net::tcp6()]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.state == TcpState::Listen)
            .map(|entry| socket(entry.local_address, entry.inode))
            .collect(),
        Proto::Udp => [procfs::net::udp(), procfs::net::udp6()]
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.state == UdpState::Close)
            .map(|entry| socket(entry.local_address, entry.inode))
            .collect(),
    }
}

/// Process names by inode of their sockets. Processes that end meanwhile, or are not ours to look into, are left out.
fn owners() -> HashMap<u64, String> {
    let mut owners = HashMap::new();
    for process in all_processes().into_iter().flatten().flatten() {
        let Ok(fds) = process.fd() else { continue };
        let inodes: Vec<_> = fds
            .flatten()
            .filter_map(|fd| match fd.target {
                FDTarget::Socket(inode) => Some(inode),
                _ => None,
            })
            .collect();
        if inodes.is_empty() {
            continue;
        }
        if let Ok(stat) = process.stat() {
            owners.extend(inodes.into_iter().map(|inode| (inode, stat.comm.clone())));
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket};

    use super::*;

    fn frontend(addr: SocketAddr, proto: Proto) -> Frontend {
        Frontend { addr: addr.ip(), port: addr.port(), proto }
    }

    #[test]
    fn sees_the_sockets_of_this_very_process() {
        let local = (Ipv4Addr::LOCALHOST, 0);
        let tcp = TcpListener::bind(local).unwrap();
        let udp = UdpSocket::bind(local).unwrap();
        let host = HostListeners::default();
        let own = procfs::process::Process::myself().unwrap().stat().unwrap().comm;
        let at = frontend(tcp.local_addr().unwrap(), Proto::Tcp);
        assert_eq!(host.holder(&at), Some(own.clone()));
        let at = frontend(udp.local_addr().unwrap(), Proto::Udp);
        assert_eq!(host.holder(&at), Some(own));
        let elsewhere = Frontend { addr: IpAddr::from([198, 51, 100, 1]), ..at };
        assert_eq!(host.holder(&elsewhere), None);
    }

    /// Other tests open and close sockets meanwhile, so that only those of this one are compared.
    #[test]
    fn both_ways_to_ask_find_the_same() {
        let tcp = [(Ipv4Addr::LOCALHOST.into(), 0), (IpAddr::from(Ipv6Addr::LOCALHOST), 0)]
            .map(|at| TcpListener::bind(at).unwrap());
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        // Neither listens: one is connected, the other the end of a connection.
        let connected = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        connected.connect(udp.local_addr().unwrap()).unwrap();
        let client = TcpStream::connect(tcp[0].local_addr().unwrap()).unwrap();
        for (proto, there, not) in [
            (
                Proto::Tcp,
                tcp.each_ref().map(|t| t.local_addr().unwrap()).to_vec(),
                client.local_addr(),
            ),
            (Proto::Udp, vec![udp.local_addr().unwrap()], connected.local_addr()),
        ] {
            let not = not.unwrap();
            let by_diag = diag::sockets(proto).unwrap();
            for found in [&by_diag, &in_proc(proto)] {
                let has = |addr| found.iter().any(|socket| socket.addr == addr);
                assert!(there.iter().all(|addr| has(*addr)), "{there:?} in {found:?}");
                assert!(!has(not), "{not} in {found:?}");
            }
        }
    }
}

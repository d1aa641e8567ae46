//! Reads `/proc`: sockets that listen in this network namespace, and whose they are.

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

/// The listeners of this host, as often as somebody asks.
#[derive(Default)]
pub struct HostListeners(Mutex<Look>);

#[derive(Default)]
struct Look {
    at: Option<Instant>,
    sockets: Vec<Socket>,
    /// A socket keeps its inode and its process, so looking through all processes is needed only for new ones.
    owners: HashMap<u64, Option<String>>,
}

#[derive(Clone, Debug)]
struct Socket {
    proto: Proto,
    addr: SocketAddr,
    inode: u64,
}

impl Occupied for HostListeners {
    fn holder(&self, frontend: &Frontend) -> Option<String> {
        let mut look = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if look.at.is_none_or(|at| at.elapsed() > FRESH) {
            look.sockets = sockets();
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
            .map(|Socket { proto, addr, inode }| Listener {
                proto,
                addr,
                process: look.owners.get(&inode).cloned().flatten(),
            })
            .collect();
        holder(&listeners, frontend)
    }
}

/// A kernel without IPv6 has no tables of it, which is no mistake.
fn sockets() -> Vec<Socket> {
    let tcp = [procfs::net::tcp(), procfs::net::tcp6()].into_iter().flatten().flatten();
    let udp = [procfs::net::udp(), procfs::net::udp6()].into_iter().flatten().flatten();
    tcp.filter(|entry| entry.state == TcpState::Listen)
        .map(|entry| Socket { proto: Proto::Tcp, addr: entry.local_address, inode: entry.inode })
        .chain(udp.filter(|entry| entry.state == UdpState::Close).map(|entry| Socket {
            proto: Proto::Udp,
            addr: entry.local_address,
            inode: entry.inode,
        }))
        .collect()
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
    use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};

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
}

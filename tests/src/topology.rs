//! The network of the lab and the tests.
//!
//! ```text
//!   clients                          node                              other
//!   198.51.100.2 ──────────── eth0 198.51.100.1     (sticky)
//!   and 198.18.0.0/15 behind it      eth1 203.0.113.1 ───────── 203.0.113.2
//!                                    eth2 203.0.113.129 ─────── backends 203.0.113.130…
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::netns::Netns;

/// The node's address on `eth0`: the VIP.
pub const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The clients' first address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The node's address on `eth1`, to which sticky is not attached.
pub const NODE_OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 1);
/// The address of the host behind `eth1`.
pub const OTHER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// The namespaces of one balancer node and those around it.
#[derive(Debug)]
pub struct Topology {
    /// Where sticky runs, and Docker.
    pub node: Netns,
    /// All clients: any address of [`client`] can be a source here.
    pub clients: Netns,
    /// A host on a network to which sticky is not attached.
    pub other: Netns,
}

impl Topology {
    /// Builds it.
    pub fn new() -> anyhow::Result<Self> {
        let node = Netns::new("node")?;
        let clients = Netns::new("clients")?;
        let other = Netns::new("other")?;
        node.link(("eth0", "198.51.100.1/24"), &clients, ("eth0", "198.51.100.2/24"))?;
        node.link(("eth1", "203.0.113.1/25"), &other, ("eth0", "203.0.113.2/25"))?;
        node.ip("route add default via 198.51.100.2")?;
        node.ip("route add 198.18.0.0/15 via 198.51.100.2")?;
        clients.ip("route add default via 198.51.100.1")?;
        // Each of these addresses is ours, without 131072 lines of `ip addr`.
        clients.ip("route add local 198.18.0.0/15 dev lo")?;
        other.ip("route add default via 203.0.113.1")?;
        // Docker sets the FORWARD policy to DROP only where it is Docker that turns forwarding on.
        node.sysctl("net.ipv4.ip_forward", "0")?;
        // Thousands of short connections must not run out of ports.
        clients.sysctl("net.ipv4.ip_local_port_range", "1024 65535")?;
        clients.sysctl("net.ipv4.tcp_tw_reuse", "1")?;
        Ok(Self { node, clients, other })
    }

    /// Adds the network of backends without Docker: `count` addresses in a namespace behind the node's `eth2`.
    pub fn backends(&self, count: u8) -> anyhow::Result<(Netns, Vec<IpAddr>)> {
        let backends = Netns::new("backends")?;
        self.node.sysctl("net.ipv4.ip_forward", "1")?;
        self.node.link(("eth2", "203.0.113.129/25"), &backends, ("eth0", "203.0.113.130/25"))?;
        backends.ip("route add default via 203.0.113.129")?;
        let mut addresses = Vec::new();
        for host in 0..count {
            let address = Ipv4Addr::new(203, 0, 113, 131 + host);
            backends.ip(&format!("addr add {address}/25 dev eth0"))?;
            addresses.push(IpAddr::V4(address));
        }
        Ok((backends, addresses))
    }
}

/// The address of client `index`, below 131072, of 198.18.0.0/15.
pub fn client(index: u32) -> IpAddr {
    let base = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    IpAddr::V4(Ipv4Addr::from(base + (index & 0x1_ffff)))
}

/// A port of the node as its clients address it.
pub fn vip(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(NODE), port)
}

//! The network of the lab and the tests.
//!
//! ```text
//!   clients                          node                              other
//!   198.51.100.2 ──────────── eth0 198.51.100.1     (sticky)
//!   and 198.18.0.0/15 behind it      eth1 203.0.113.1 ───────── 203.0.113.2
//!                                    eth2 203.0.113.129 ─────── backends 203.0.113.130…
//! ```

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::netns::Netns;

/// The node's address on `eth0`: the VIP.
pub const NODE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The clients' first address.
pub const CLIENT: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
/// The node's IPv6 address on `eth0`, after [`Topology::add_v6`].
pub const NODE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
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

    /// Adds IPv6 to `eth0` and its clients, of which any address of [`client_v6`] can be a source.
    pub fn add_v6(&self) -> anyhow::Result<()> {
        self.node.sysctl("net.ipv6.conf.all.forwarding", "1")?;
        self.node.ip(&format!("addr add {NODE_V6}/64 dev eth0 nodad"))?;
        self.clients.ip("addr add 2001:db8:1::2/64 dev eth0 nodad")?;
        self.node.ip("route add 2001:db8:c::/48 via 2001:db8:1::2")?;
        self.clients.ip(&format!("route add default via {NODE_V6}"))?;
        self.clients.ip("route add local 2001:db8:c::/48 dev lo")?;
        // The route lets them in, this lets them be bound to.
        self.clients.sysctl("net.ipv6.ip_nonlocal_bind", "1")
    }

    /// Adds IPv6 to the network of [`Topology::backends`]: `count` addresses.
    pub fn backends_v6(&self, backends: &Netns, count: u8) -> anyhow::Result<Vec<IpAddr>> {
        self.node.ip("addr add 2001:db8:2::1/64 dev eth2 nodad")?;
        let mut addresses = Vec::new();
        for host in 0..count {
            let address = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10 + u16::from(host));
            backends.ip(&format!("addr add {address}/64 dev eth0 nodad"))?;
            addresses.push(IpAddr::V6(address));
        }
        backends.ip("route add default via 2001:db8:2::1")?;
        Ok(addresses)
    }
}

/// The address of client `index`, below 131072, of 198.18.0.0/15.
pub fn client(index: u32) -> IpAddr {
    let base = u32::from(Ipv4Addr::new(198, 18, 0, 0));
    IpAddr::V4(Ipv4Addr::from(base + (index & 0x1_ffff)))
}

/// The address of client `index` of 2001:db8:c::/48, each in a /64 of its own.
pub fn client_v6(index: u16) -> IpAddr {
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xc, index, 0, 0, 0, 2))
}

/// A port of the node as its clients address it.
pub fn vip(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(NODE), port)
}

//! Where everything is: addresses, ports, links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use crate::frames::{CLIENT_MAC, HOST_MAC};

/// IP version of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    V4,
    V6,
}

pub const FAMILIES: [Family; 2] = [Family::V4, Family::V6];

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Proto {
    Tcp,
    Udp,
}

pub const PROTOS: [Proto; 2] = [Proto::Tcp, Proto::Udp];

/// The port of the frontend of both protocols, and a second one that leads to the same port of the backends.
pub const PORT: u16 = 80;
pub const SECOND: u16 = 81;
pub const TARGET: u16 = 8080;
pub const CLIENT_PORT: u16 = 40_000;

/// The node's end of the backends' link, and the backends' end.
pub const NODE_MAC: [u8; 6] = [2, 0, 0, 0, 0, 3];
pub const BACKEND_MAC: [u8; 6] = [2, 0, 0, 0, 0, 4];

/// Backends behind `eth2`, by index, and the one behind `eth3`, whose link takes only [`NARROW_MTU`].
pub const BACKENDS: [u32; 3] = [1, 2, 3];
pub const NARROW: u32 = 4;
pub const NARROW_MTU: usize = 1300;
pub const WIDE_MTU: usize = 9000;

impl Family {
    /// Client number `n`, from 0.
    pub fn client(self, n: u8) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 51, 100, 2 + n).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 2 + u16::from(n)).into(),
        }
    }

    pub fn vip(self) -> IpAddr {
        match self {
            Self::V4 => crate::frames::VIP.into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0xab, 0xcd).into(),
        }
    }

    /// A second address with a frontend on [`PORT`].
    pub fn second_vip(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 51, 100, 200).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0xab, 0xce).into(),
        }
    }

    /// An address of no frontend.
    pub fn other(self) -> IpAddr {
        match self {
            Self::V4 => Ipv4Addr::new(198, 51, 100, 201).into(),
            Self::V6 => Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0xab, 0xcf).into(),
        }
    }

    /// The address of a backend; 0 and other numbers that are none give one that is no backend's.
    pub fn backend(self, index: u32) -> IpAddr {
        let n = index as u8;
        match (self, index == NARROW) {
            (Self::V4, false) => Ipv4Addr::new(203, 0, 113, 10 + n).into(),
            (Self::V4, true) => Ipv4Addr::new(203, 0, 113, 140 + n).into(),
            (Self::V6, narrow) => {
                let net = if narrow { 3 } else { 2 };
                Ipv6Addr::new(0x2001, 0xdb8, net, 0, 0, 0, 0, 0x10 + u16::from(n)).into()
            }
        }
    }

    pub fn client_end(self) -> SocketAddr {
        SocketAddr::new(self.client(0), CLIENT_PORT)
    }

    pub fn frontend(self) -> SocketAddr {
        SocketAddr::new(self.vip(), PORT)
    }

    /// Length of an IP header without options.
    pub const fn header(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => 40,
        }
    }
}

/// The bytes of an address.
pub fn octets(addr: IpAddr) -> Vec<u8> {
    match addr {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A link that a frame goes over: destination and source, as they are in the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    FromClient,
    ToClient,
    FromBackend,
    ToBackend,
}

impl Over {
    pub fn addresses(self) -> Vec<u8> {
        match self {
            Self::FromClient => [HOST_MAC, CLIENT_MAC],
            Self::ToClient => [CLIENT_MAC, HOST_MAC],
            Self::FromBackend => [NODE_MAC, BACKEND_MAC],
            Self::ToBackend => [BACKEND_MAC, NODE_MAC],
        }
        .concat()
    }
}

//! What the headers of a captured packet say, as far as they were captured.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use etherparse::{IpNumber, LaxNetSlice, LaxSlicedPacket, TransportSlice};

use crate::datapath::Tuple;

/// An IP packet.
pub struct Headers {
    src: IpAddr,
    dst: IpAddr,
    proto: u8,
    transport: Transport,
}

enum Transport {
    /// The flags may be cut off.
    Tcp {
        ports: [u16; 2],
        flags: Option<String>,
    },
    Udp {
        ports: [u16; 2],
    },
    Other(&'static str),
}

/// Reads a frame. `None`: it carries no IP.
pub fn read(frame: &[u8]) -> Option<Headers> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (src, dst, payload) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            (header.source_addr().into(), header.destination_addr().into(), ip.payload())
        }
        LaxNetSlice::Arp(_) => return None,
    };
    let ports = payload.payload.first_chunk().filter(|_| !payload.fragmented);
    let ports =
        ports.map(|[a, b, c, d]| [(a, b), (c, d)].map(|(h, l)| u16::from_be_bytes([*h, *l])));
    let transport = match (payload.ip_number, ports) {
        (IpNumber::TCP, Some(ports)) => {
            Transport::Tcp { ports, flags: packet.transport.as_ref().and_then(flags) }
        }
        (IpNumber::UDP, Some(ports)) => Transport::Udp { ports },
        (IpNumber::TCP, None) => Transport::Other("tcp"),
        (IpNumber::UDP, None) => Transport::Other("udp"),
        (IpNumber::ICMP | IpNumber::IPV6_ICMP, _) => Transport::Other("icmp"),
        _ => Transport::Other("ip"),
    };
    let proto = payload.ip_number.0;
    Some(Headers { src, dst, proto, transport })
}

fn flags(transport: &TransportSlice<'_>) -> Option<String> {
    let TransportSlice::Tcp(tcp) = transport else { return None };
    let flags =
        [(tcp.syn(), 'S'), (tcp.fin(), 'F'), (tcp.rst(), 'R'), (tcp.psh(), 'P'), (tcp.ack(), '.')];
    Some(flags.iter().filter(|(set, _)| *set).map(|(_, letter)| letter).collect())
}

impl Headers {
    /// The connection it is of, if it has ports.
    pub fn tuple(&self) -> Option<Tuple> {
        let ([src, dst], proto) = match &self.transport {
            Transport::Tcp { ports, .. } | Transport::Udp { ports } => (*ports, self.proto),
            Transport::Other(_) => return None,
        };
        Some(Tuple {
            src: SocketAddr::new(self.src, src),
            dst: SocketAddr::new(self.dst, dst),
            proto,
        })
    }
}

impl fmt::Display for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.transport, self.tuple()) {
            (Transport::Tcp { flags, .. }, Some(Tuple { src, dst, .. })) => {
                write!(f, "{src} > {dst} tcp")?;
                flags.as_ref().map_or(Ok(()), |flags| write!(f, " [{flags}]"))
            }
            (_, Some(Tuple { src, dst, .. })) => write!(f, "{src} > {dst} udp"),
            (Transport::Other(what), _) => write!(f, "{} > {} {what}", self.src, self.dst),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use etherparse::PacketBuilder;

    use super::*;

    #[test]
    fn ports_flags_and_what_is_cut_off() {
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2; 6], [4; 6])
            .single_vlan(5.try_into().unwrap())
            .ipv4([198, 51, 100, 7], [198, 51, 100, 1], 64)
            .tcp(40_000, 80, 1, 1000)
            .syn()
            .write(&mut frame, b"payload")
            .unwrap();
        let whole = read(&frame).unwrap();
        assert_eq!(whole.to_string(), "198.51.100.7:40000 > 198.51.100.1:80 tcp [S]");
        assert_eq!(whole.tuple().unwrap().proto, 6);
        let cut = read(&frame[..45]).unwrap();
        assert_eq!(cut.to_string(), "198.51.100.7:40000 > 198.51.100.1:80 tcp");
        let cut = read(&frame[..40]).unwrap();
        assert_eq!(cut.to_string(), "198.51.100.7 > 198.51.100.1 tcp");
        assert!(read(&frame[..20]).is_none());
    }
}

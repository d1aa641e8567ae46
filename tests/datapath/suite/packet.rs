//! Packets as values, written to bytes by etherparse with every checksum computed in full.

use std::net::{IpAddr, SocketAddr};

use etherparse::{
    Icmpv4Type, Icmpv6Type, IpFragOffset, IpNumber, Ipv4Header, Ipv6FlowLabel, Ipv6Header,
    TcpHeader, UdpHeader,
};

use super::places::{Family, Over, Proto};

pub const FIN: u8 = 1;
pub const SYN: u8 = 2;
pub const RST: u8 = 4;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;

/// What is behind the IP header.
#[derive(Clone, Debug)]
pub enum Body {
    Tcp {
        flags: u8,
        seq: u32,
        ack: u32,
        window: u16,
        options: Vec<u8>,
        payload: Vec<u8>,
    },
    Udp {
        payload: Vec<u8>,
        summed: bool,
    },
    /// Type, code, the four bytes behind the checksum, and the rest.
    Icmp {
        codes: [u8; 2],
        word: [u8; 4],
        rest: Vec<u8>,
    },
    Raw(u8, Vec<u8>),
}

/// Which bytes of the transport are in this fragment.
#[derive(Clone, Copy, Debug)]
pub struct Piece {
    pub from: usize,
    pub to: usize,
    pub more: bool,
}

/// A packet. Ports are of TCP and UDP only.
#[derive(Clone, Debug)]
pub struct Packet {
    pub src: SocketAddr,
    pub dst: SocketAddr,
    pub ttl: u8,
    pub id: u32,
    pub df: bool,
    /// Flow label of IPv6.
    pub label: u32,
    /// Of IPv4.
    pub options: Vec<u8>,
    /// Extension headers of IPv6 in front of a fragment header: kind, and all bytes but the first.
    pub extensions: Vec<(u8, Vec<u8>)>,
    pub tags: Vec<[u8; 4]>,
    pub piece: Option<Piece>,
    pub body: Body,
}

impl Packet {
    pub fn new(src: SocketAddr, dst: SocketAddr, body: Body) -> Self {
        Self {
            src,
            dst,
            ttl: 64,
            id: 0x1234,
            df: false,
            label: 0xabcde,
            options: Vec::new(),
            extensions: Vec::new(),
            tags: Vec::new(),
            piece: None,
            body,
        }
    }

    /// From the first client to the frontend.
    pub fn segment(family: Family, flags: u8, payload: &[u8]) -> Self {
        Self::new(family.client_end(), family.frontend(), tcp(flags, payload))
    }

    pub fn datagram(family: Family, payload: &[u8]) -> Self {
        Self::new(family.client_end(), family.frontend(), udp(payload))
    }

    /// One that opens a flow.
    pub fn opening(family: Family, proto: Proto) -> Self {
        match proto {
            Proto::Tcp => Self::segment(family, SYN, b""),
            Proto::Udp => Self::datagram(family, b"query"),
        }
    }

    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The same towards a backend, one hop further.
    pub fn delivered(&self, family: Family, index: u32) -> Self {
        self.clone().with(|p| {
            p.dst = SocketAddr::new(family.backend(index), super::places::TARGET);
            p.ttl -= 1;
            p.tags.clear();
        })
    }

    /// The same from a frontend, one hop further.
    pub fn restored(&self, frontend: SocketAddr) -> Self {
        self.clone().with(|p| {
            p.src = frontend;
            p.ttl -= 1;
            p.tags.clear();
        })
    }

    /// The other way, with another body.
    pub fn answer(&self, body: Body) -> Self {
        Self::new(self.dst, self.src, body)
    }

    /// One of its fragments.
    pub fn piece(&self, from: usize, to: usize, more: bool) -> Self {
        self.clone().with(|p| p.piece = Some(Piece { from, to, more }))
    }

    /// A checksum with the pseudo-header of the packet's family.
    fn checksum<E: std::fmt::Debug>(
        &self,
        v4: impl FnOnce([u8; 4], [u8; 4]) -> Result<u16, E>,
        v6: impl FnOnce([u8; 16], [u8; 16]) -> Result<u16, E>,
    ) -> u16 {
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => v4(src.octets(), dst.octets()),
            (IpAddr::V6(src), IpAddr::V6(dst)) => v6(src.octets(), dst.octets()),
            _ => panic!("two families"),
        }
        .unwrap()
    }

    /// Number and bytes of what is behind the IP header.
    pub fn transport(&self) -> (u8, Vec<u8>) {
        match &self.body {
            Body::Raw(number, bytes) => (*number, bytes.clone()),
            Body::Tcp { flags, seq, ack, window, options, payload } => {
                let mut h = TcpHeader::new(self.src.port(), self.dst.port(), *seq, *window);
                h.fin = flags & FIN != 0;
                h.syn = flags & SYN != 0;
                h.rst = flags & RST != 0;
                h.psh = flags & PSH != 0;
                h.ack = flags & ACK != 0;
                h.acknowledgment_number = *ack;
                h.set_options_raw(options).unwrap();
                h.checksum = self.checksum(
                    |s, d| h.calc_checksum_ipv4_raw(s, d, payload),
                    |s, d| h.calc_checksum_ipv6_raw(s, d, payload),
                );
                (6, [h.to_bytes().to_vec(), payload.clone()].concat())
            }
            Body::Udp { payload, summed } => {
                let mut h = UdpHeader {
                    source_port: self.src.port(),
                    destination_port: self.dst.port(),
                    length: 8 + payload.len() as u16,
                    checksum: 0,
                };
                if *summed {
                    h.checksum = self.checksum(
                        |s, d| h.calc_checksum_ipv4_raw(s, d, payload),
                        |s, d| h.calc_checksum_ipv6_raw(s, d, payload),
                    );
                }
                (17, [h.to_bytes().to_vec(), payload.clone()].concat())
            }
            Body::Icmp { codes: [kind, code], word, rest } => {
                let (number, check) = match (self.src.ip(), self.dst.ip()) {
                    (IpAddr::V6(s), IpAddr::V6(d)) => {
                        let icmp = Icmpv6Type::Unknown {
                            type_u8: *kind,
                            code_u8: *code,
                            bytes5to8: *word,
                        };
                        (58, icmp.calc_checksum(s.octets(), d.octets(), rest).unwrap())
                    }
                    _ => {
                        let icmp = Icmpv4Type::Unknown {
                            type_u8: *kind,
                            code_u8: *code,
                            bytes5to8: *word,
                        };
                        (1, icmp.calc_checksum(rest))
                    }
                };
                let head = [*kind, *code, (check >> 8) as u8, check as u8];
                (number, [&head, &word[..], rest].concat())
            }
        }
    }

    /// From the IP header on.
    pub fn ip(&self) -> Vec<u8> {
        let (number, whole) = self.transport();
        let (payload, offset, more) = match self.piece {
            Some(p) => (&whole[p.from..p.to], p.from / 8, p.more),
            None => (&whole[..], 0, false),
        };
        match (self.src.ip(), self.dst.ip()) {
            (IpAddr::V4(s), IpAddr::V4(d)) => {
                let mut h =
                    Ipv4Header::new(0, self.ttl, IpNumber(number), s.octets(), d.octets()).unwrap();
                h.options = self.options.as_slice().try_into().unwrap();
                h.set_payload_len(payload.len()).unwrap();
                h.identification = self.id as u16;
                h.dont_fragment = self.df;
                h.more_fragments = more;
                h.fragment_offset = IpFragOffset::try_new(offset as u16).unwrap();
                h.header_checksum = h.calc_header_checksum();
                [&h.to_bytes(), payload].concat()
            }
            (IpAddr::V6(s), IpAddr::V6(d)) => {
                let mut kinds: Vec<u8> = self.extensions.iter().map(|e| e.0).collect();
                let mut bytes = Vec::new();
                let mut headers: Vec<Vec<u8>> =
                    self.extensions.iter().map(|e| e.1.clone()).collect();
                if self.piece.is_some() {
                    kinds.push(44);
                    let word = ((offset as u16) << 3) | u16::from(more);
                    headers.push([&[0][..], &word.to_be_bytes(), &self.id.to_be_bytes()].concat());
                }
                kinds.push(number);
                for (header, next) in headers.iter().zip(&kinds[1..]) {
                    bytes.push(*next);
                    bytes.extend(header);
                }
                bytes.extend(payload);
                let h = Ipv6Header {
                    traffic_class: 0,
                    flow_label: Ipv6FlowLabel::try_new(self.label).unwrap(),
                    payload_length: bytes.len() as u16,
                    next_header: IpNumber(kinds[0]),
                    hop_limit: self.ttl,
                    source: s.octets(),
                    destination: d.octets(),
                };
                [&h.to_bytes()[..], &bytes].concat()
            }
            _ => panic!("two families"),
        }
    }

    pub fn frame(&self, over: Over) -> Vec<u8> {
        let kind = if self.src.is_ipv4() { [0x08, 0x00] } else { [0x86, 0xdd] };
        [over.addresses(), self.tags.concat(), kind.to_vec(), self.ip()].concat()
    }
}

/// A segment with the numbers of a connection under way.
pub fn tcp(flags: u8, payload: &[u8]) -> Body {
    Body::Tcp {
        flags,
        seq: 1000,
        ack: if flags & ACK != 0 { 5001 } else { 0 },
        window: 64_240,
        options: if flags & SYN != 0 { vec![2, 4, 5, 0xb4] } else { Vec::new() },
        payload: payload.to_vec(),
    }
}

pub fn tcp_at(flags: u8, seq: u32, ack: u32, payload: &[u8]) -> Body {
    Body::Tcp { flags, seq, ack, window: 64_240, options: Vec::new(), payload: payload.to_vec() }
}

pub fn udp(payload: &[u8]) -> Body {
    Body::Udp { payload: payload.to_vec(), summed: true }
}

//! Reads a frame's headers. With `handover.rs` the only file that touches raw packet memory.

use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;
use sticky_common::types::{Addr, addr};

const ETH_P_IP: [u8; 2] = [0x08, 0x00];
const ETH_P_IPV6: [u8; 2] = [0x86, 0xdd];
/// IEEE 802.1Q and 802.1ad.
const VLAN: [[u8; 2]; 2] = [[0x81, 0x00], [0x88, 0xa8]];
const VLAN_LEN: usize = 4;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const ACK: u8 = 0x10;

/// Extension headers that are walked (RFC 8200, section 4.1, lists six kinds), and how far into the frame.
const EXTENSIONS: usize = 6;
const DEEPEST: usize = 512;
/// What an error quotes of a transport header at the least (RFC 792).
const QUOTED: usize = 8;
const ICMP_LEN: usize = 8;

/// Which part of a datagram it is.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Shape {
    Whole,
    /// The first of several fragments, with the ports.
    First,
    /// A fragment behind it.
    Later,
}

/// What the data path looks at. Of an ICMP error: what it says of the flow that it quotes, as if it were a packet of
/// the end that the error comes from.
#[derive(Clone, Copy)]
pub struct Packet {
    pub src: Addr,
    pub dst: Addr,
    pub src_port: [u8; 2],
    pub dst_port: [u8; 2],
    pub seq: u32,
    /// Offset of the IP header.
    pub l3: u32,
    /// Offset of the transport header: of an error the quoted one's.
    pub l4: u32,
    pub ack: u32,
    /// Bytes from the start of the frame to the end of the IP packet.
    pub end: u32,
    /// Offset of the quoted IP header, 0: it is no error.
    pub quoted: u32,
    /// Bytes of TCP payload.
    pub payload: u32,
    /// Of a fragmented datagram.
    pub id: u32,
    /// IP protocol number: of an error the quoted one's.
    pub proto: u8,
    /// TCP's.
    pub flags: u8,
    /// Time to live, or hop limit.
    pub ttl: u8,
    pub tags: u8,
    pub v4: bool,
    pub shape: Shape,
}

/// Where the transport header is, and of what. Kept apart from [`Packet`] while headers are read: the verifier forgets the
/// bounds of what goes through memory.
#[derive(Clone, Copy)]
struct Ip {
    l4: usize,
    /// End of the IP packet.
    end: usize,
    proto: u8,
    shape: Shape,
}

/// Why a frame is not looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Unread {
    /// Another protocol, or its lengths lie.
    Other,
    /// The headers are not in the linear part.
    Short,
}

impl Packet {
    /// Not read yet.
    pub const NONE: Self = Self {
        src: addr::NONE,
        dst: addr::NONE,
        src_port: [0; 2],
        dst_port: [0; 2],
        seq: 0,
        l3: 0,
        l4: 0,
        ack: 0,
        end: 0,
        quoted: 0,
        payload: 0,
        id: 0,
        proto: 0,
        flags: 0,
        ttl: 0,
        tags: 0,
        v4: false,
        shape: Shape::Whole,
    };

    /// A first SYN: opens a connection.
    #[inline(always)]
    pub const fn opens(&self) -> bool {
        self.flags & (SYN | ACK | RST | FIN) == SYN
    }

    #[inline(always)]
    pub const fn is_error(&self) -> bool {
        self.quoted != 0
    }
}

/// A pointer to a `T` at `offset`, if all of it is within the packet.
#[inline(always)]
pub fn at<T>(start: usize, end: usize, offset: usize) -> Option<*mut T> {
    let at = start + offset;
    if at + size_of::<T>() > end { None } else { Some(at as *mut T) }
}

/// `N` bytes at `offset`.
#[inline(always)]
fn bytes<const N: usize>(
    start: usize,
    end: usize,
    offset: usize,
) -> Result<&'static [u8; N], Unread> {
    // SAFETY: `at` checked that they lie within the packet; bytes have no alignment, and the packet outlives the program.
    at::<[u8; N]>(start, end, offset).map(|p| unsafe { &*p }).ok_or(Unread::Short)
}

/// Reads the headers of the frame between two addresses.
#[inline(always)]
pub fn read(start: usize, end: usize, packet: &mut Packet) -> Result<(), Unread> {
    let eth: &[u8; EthHdr::LEN] = bytes(start, end, 0)?;
    let mut ether_type = [eth[12], eth[13]];
    let mut l3 = EthHdr::LEN;
    for _ in 0..2 {
        if ether_type == VLAN[0] || ether_type == VLAN[1] {
            let tag: &[u8; VLAN_LEN] = bytes(start, end, l3)?;
            ether_type = [tag[2], tag[3]];
            l3 += VLAN_LEN;
            packet.tags += 1;
        }
    }
    let ip = match ether_type {
        ETH_P_IP => ipv4(start, end, l3, packet)?,
        ETH_P_IPV6 => ipv6(start, end, l3, packet)?,
        _ => return Err(Unread::Other),
    };
    packet.l3 = l3 as u32;
    packet.end = ip.end as u32;
    packet.shape = ip.shape;
    packet.proto = ip.proto;
    packet.l4 = ip.l4 as u32;
    match ip.proto {
        _ if ip.shape == Shape::Later => Ok(()),
        TCP => tcp(start, end, ip, packet),
        UDP => udp(start, end, ip, packet),
        ICMP if packet.v4 => icmp(start, end, ip, packet),
        ICMPV6 if !packet.v4 => icmp(start, end, ip, packet),
        _ => Err(Unread::Other),
    }
}

#[inline(always)]
fn ipv4(start: usize, end: usize, l3: usize, packet: &mut Packet) -> Result<Ip, Unread> {
    let ip: &[u8; Ipv4Hdr::LEN] = bytes(start, end, l3)?;
    let header = usize::from(ip[0] & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([ip[2], ip[3]]));
    if ip[0] >> 4 != 4 || header < Ipv4Hdr::LEN || total < header {
        return Err(Unread::Other);
    }
    packet.src = addr::mapped([ip[12], ip[13], ip[14], ip[15]]);
    packet.dst = addr::mapped([ip[16], ip[17], ip[18], ip[19]]);
    packet.id = u32::from(u16::from_be_bytes([ip[4], ip[5]]));
    packet.ttl = ip[8];
    packet.v4 = true;
    let fragment = u16::from_be_bytes([ip[6], ip[7]]);
    let shape = if fragment & 0x1fff != 0 {
        Shape::Later
    } else if fragment & 0x2000 != 0 {
        Shape::First
    } else {
        Shape::Whole
    };
    Ok(Ip { l4: l3 + header, end: l3 + total, proto: ip[9], shape })
}

#[inline(always)]
fn ipv6(start: usize, end: usize, l3: usize, packet: &mut Packet) -> Result<Ip, Unread> {
    let ip: &[u8; Ipv6Hdr::LEN] = bytes(start, end, l3)?;
    // A payload of no bytes is a jumbogram's (RFC 2675).
    let total = usize::from(u16::from_be_bytes([ip[4], ip[5]]));
    if ip[0] >> 4 != 6 || total == 0 {
        return Err(Unread::Other);
    }
    packet.src = address(ip, 8);
    packet.dst = address(ip, 24);
    packet.ttl = ip[7];
    let l4 = l3 + Ipv6Hdr::LEN;
    let mut header = Ip { l4, end: l4 + total, proto: ip[6], shape: Shape::Whole };
    if is_extension(header.proto) {
        header = extensions(start, end, header, packet)?;
    }
    if header.l4 > header.end { Err(Unread::Other) } else { Ok(header) }
}

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

#[inline(always)]
const fn is_extension(next: u8) -> bool {
    matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION)
}

/// Walks extension headers; those behind a later fragment's header are not there.
#[inline(always)]
fn extensions(start: usize, end: usize, mut ip: Ip, packet: &mut Packet) -> Result<Ip, Unread> {
    for _ in 0..EXTENSIONS {
        if !is_extension(ip.proto) || ip.shape == Shape::Later {
            break;
        }
        let header: &[u8; 8] = bytes(start, end, ip.l4)?;
        let len = match ip.proto {
            FRAGMENT => {
                let fragment = u16::from_be_bytes([header[2], header[3]]);
                packet.id = u32::from_be_bytes([header[4], header[5], header[6], header[7]]);
                if fragment & 0xfff8 != 0 {
                    ip.shape = Shape::Later;
                } else if fragment & 1 != 0 {
                    ip.shape = Shape::First;
                }
                8
            }
            // In units of four bytes, less two (RFC 4302, section 2.2).
            AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        ip.proto = header[0];
        ip.l4 += len;
        if ip.l4 > DEEPEST {
            return Err(Unread::Other);
        }
    }
    Ok(ip)
}

#[inline(always)]
fn tcp(start: usize, end: usize, ip: Ip, packet: &mut Packet) -> Result<(), Unread> {
    let tcp: &[u8; TcpHdr::LEN] = bytes(start, end, ip.l4)?;
    let header = usize::from(tcp[12] >> 4) * 4;
    let payload = ip.end - ip.l4;
    if header < TcpHdr::LEN || payload < header {
        return Err(Unread::Other);
    }
    packet.src_port = [tcp[0], tcp[1]];
    packet.dst_port = [tcp[2], tcp[3]];
    packet.seq = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    packet.ack = u32::from_be_bytes([tcp[8], tcp[9], tcp[10], tcp[11]]);
    packet.payload = (payload - header) as u32;
    packet.flags = tcp[13];
    Ok(())
}

#[inline(always)]
fn udp(start: usize, end: usize, ip: Ip, packet: &mut Packet) -> Result<(), Unread> {
    let udp: &[u8; UdpHdr::LEN] = bytes(start, end, ip.l4)?;
    let len = usize::from(u16::from_be_bytes([udp[4], udp[5]]));
    let there = ip.end - ip.l4;
    if len < UdpHdr::LEN || there < UdpHdr::LEN || (ip.shape == Shape::Whole && len > there) {
        return Err(Unread::Other);
    }
    packet.src_port = [udp[0], udp[1]];
    packet.dst_port = [udp[2], udp[3]];
    Ok(())
}

/// Reads the packet that an error quotes; anything else of ICMP is not ours.
#[inline(always)]
fn icmp(start: usize, end: usize, ip: Ip, packet: &mut Packet) -> Result<(), Unread> {
    let icmp: &[u8; ICMP_LEN] = bytes(start, end, ip.l4)?;
    // Unreachable (with "fragmentation needed"), time exceeded, parameter problem (RFC 792; RFC 4443 has "too big" too).
    let error = if packet.v4 { matches!(icmp[0], 3 | 11 | 12) } else { matches!(icmp[0], 1..=4) };
    if !error || ip.shape != Shape::Whole || ip.end - ip.l4 < ICMP_LEN {
        return Err(Unread::Other);
    }
    let quoted = ip.l4 + ICMP_LEN;
    let inner =
        if packet.v4 { quoted_v4(start, end, quoted)? } else { quoted_v6(start, end, quoted)? };
    // An error goes to the sender of what it quotes.
    if !same(&packet.dst, &inner.src) || !matches!(inner.proto, TCP | UDP) {
        return Err(Unread::Other);
    }
    let ports: &[u8; QUOTED] = bytes(start, end, inner.l4)?;
    packet.src = inner.dst;
    packet.src_port = [ports[2], ports[3]];
    packet.dst_port = [ports[0], ports[1]];
    packet.quoted = quoted as u32;
    packet.l4 = inner.l4 as u32;
    packet.proto = inner.proto;
    Ok(())
}

/// A quoted IP header.
struct Inner {
    src: Addr,
    dst: Addr,
    l4: usize,
    proto: u8,
}

#[inline(always)]
fn quoted_v4(start: usize, end: usize, at: usize) -> Result<Inner, Unread> {
    let ip: &[u8; Ipv4Hdr::LEN] = bytes(start, end, at)?;
    let header = usize::from(ip[0] & 0x0f) * 4;
    let offset = u16::from_be_bytes([ip[6], ip[7]]) & 0x1fff;
    if ip[0] >> 4 != 4 || header < Ipv4Hdr::LEN || offset != 0 {
        return Err(Unread::Other);
    }
    Ok(Inner {
        src: addr::mapped([ip[12], ip[13], ip[14], ip[15]]),
        dst: addr::mapped([ip[16], ip[17], ip[18], ip[19]]),
        l4: at + header,
        proto: ip[9],
    })
}

/// Steps over a fragment header too: what is too big or too slow is often a fragment.
#[inline(always)]
fn quoted_v6(start: usize, end: usize, at: usize) -> Result<Inner, Unread> {
    let ip: &[u8; Ipv6Hdr::LEN] = bytes(start, end, at)?;
    if ip[0] >> 4 != 6 {
        return Err(Unread::Other);
    }
    let inner =
        Inner { src: address(ip, 8), dst: address(ip, 24), l4: at + Ipv6Hdr::LEN, proto: ip[6] };
    if inner.proto != FRAGMENT {
        return Ok(inner);
    }
    let header: &[u8; 8] = bytes(start, end, inner.l4)?;
    if u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0 {
        return Err(Unread::Other);
    }
    Ok(Inner { l4: inner.l4 + 8, proto: header[0], ..inner })
}

/// One of the addresses of an IPv6 header.
#[inline(always)]
fn address(ip: &[u8; Ipv6Hdr::LEN], at: usize) -> Addr {
    core::array::from_fn(|word| {
        let at = at + word * 4;
        u32::from_ne_bytes([ip[at], ip[at + 1], ip[at + 2], ip[at + 3]])
    })
}

/// Whether two addresses are the same; comparisons, no call.
#[inline(always)]
pub fn same(a: &Addr, b: &Addr) -> bool {
    a[3] == b[3] && a[2] == b[2] && a[1] == b[1] && a[0] == b[0]
}

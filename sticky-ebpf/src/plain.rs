//! The common packet in few steps: TCP or UDP over IPv4, without options, tags and fragments, and whole between the
//! pointers. Everything else is read by `packet.rs`, which would say the same of this one.

use network_types::eth::EthHdr;
use network_types::ip::Ipv4Hdr;
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;
use sticky_common::types::addr;

use crate::packet::{Packet, TCP, UDP};
use crate::wide::{u16_at, u32_at};

const L3: usize = EthHdr::LEN;
const L4: usize = L3 + Ipv4Hdr::LEN;
/// How much of a frame is looked at, a datagram's too: it is as long as the shortest frame.
const LEN: usize = L4 + TcpHdr::LEN;

/// What says for whom a packet is.
pub struct Plain {
    start: usize,
    /// Bytes of the IP packet.
    total: u32,
    pub dst: [u8; 4],
    pub dst_port: [u8; 2],
    src_port: [u8; 2],
    ttl: u8,
    pub proto: u8,
}

impl Plain {
    #[inline(always)]
    pub fn of(start: usize, end: usize) -> Option<Self> {
        if start + LEN > end {
            return None;
        }
        // SAFETY: the bounds were checked.
        let (kind, total, rest, dst, ports) = unsafe {
            (
                u32_at::<{ L3 - 2 }>(start),
                u16_at::<{ L3 + 2 }>(start),
                u32_at::<{ L3 + 6 }>(start),
                u32_at::<{ L3 + 16 }>(start),
                u32_at::<L4>(start),
            )
        };
        // EtherType, version and length of the header.
        let [a, b, c, _] = kind.to_ne_bytes();
        let [fragment, offset, ttl, proto] = rest.to_ne_bytes();
        let total = u32::from(u16::from_be(total));
        if u32::from_ne_bytes([a, b, c, 0]) != u32::from_ne_bytes([0x08, 0x00, 0x45, 0])
            || u16::from_ne_bytes([fragment & 0x3f, offset]) != 0
            || (proto != TCP && proto != UDP)
            || L3 + total as usize > end - start
        {
            return None;
        }
        let [s0, s1, d0, d1] = ports.to_ne_bytes();
        let (src_port, dst_port) = ([s0, s1], [d0, d1]);
        Some(Self { start, total, dst: dst.to_ne_bytes(), dst_port, src_port, ttl, proto })
    }

    /// The packet in full. `false`: its lengths lie.
    #[inline(always)]
    pub fn read(&self, packet: &mut Packet) -> bool {
        let start = self.start;
        // SAFETY: `of` checked the bounds.
        let (src, seq, ack, rest) = unsafe {
            (
                u32_at::<{ L3 + 12 }>(start),
                u32_at::<{ L4 + 4 }>(start),
                u32_at::<{ L4 + 8 }>(start),
                u32_at::<{ L4 + 12 }>(start),
            )
        };
        if (self.total as usize) < Ipv4Hdr::LEN + UdpHdr::LEN {
            return false;
        }
        let there = self.total - Ipv4Hdr::LEN as u32;
        packet.src = addr::mapped(src.to_ne_bytes());
        packet.dst = addr::mapped(self.dst);
        packet.src_port = self.src_port;
        packet.dst_port = self.dst_port;
        packet.l3 = L3 as u32;
        packet.l4 = L4 as u32;
        packet.end = L3 as u32 + self.total;
        packet.proto = self.proto;
        packet.ttl = self.ttl;
        packet.v4 = true;
        if self.proto == UDP {
            let len = u32::from(u16::from_be(seq as u16));
            return len >= UdpHdr::LEN as u32 && len <= there;
        }
        let [offset, flags, ..] = rest.to_ne_bytes();
        let header = u32::from(offset >> 4) * 4;
        packet.seq = u32::from_be(seq);
        packet.ack = u32::from_be(ack);
        packet.flags = flags;
        packet.payload = there.wrapping_sub(header);
        header >= TcpHdr::LEN as u32 && header <= there
    }
}

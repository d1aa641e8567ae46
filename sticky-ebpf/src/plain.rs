//! The common packet in few steps: TCP or UDP over IPv4, without options, tags and fragments, and whole between the
//! pointers. Everything else is read by `packet.rs`, which would say the same of this one.

use network_types::eth::EthHdr;
use network_types::ip::Ipv4Hdr;
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;
use sticky_common::maps::HANDSHAKE_BITS;
use sticky_common::types::{Addr, Handshake, addr};

use crate::packet::{FIN, Packet, RST, SYN, TCP, UDP};
use crate::wide::{u16_at, u32_at};

const L3: usize = EthHdr::LEN;
const L4: usize = L3 + Ipv4Hdr::LEN;
/// How much of a frame is looked at, a datagram's too: it is as long as the shortest frame.
const LEN: usize = L4 + TcpHdr::LEN;

/// What says for whom a packet is.
pub struct Plain {
    start: usize,
    pub dst: [u8; 4],
    pub dst_port: [u8; 2],
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
        let [fragment, offset, _, proto] = rest.to_ne_bytes();
        if u32::from_ne_bytes([a, b, c, 0]) != u32::from_ne_bytes([0x08, 0x00, 0x45, 0])
            || u16::from_ne_bytes([fragment & 0x3f, offset]) != 0
            || (proto != TCP && proto != UDP)
            || L3 + usize::from(u16::from_be(total)) > end - start
        {
            return None;
        }
        let [_, _, d0, d1] = ports.to_ne_bytes();
        Some(Self { start, dst: dst.to_ne_bytes(), dst_port: [d0, d1], proto })
    }

    /// The rest of it. `None`: its lengths lie.
    ///
    /// Read again where it is needed, here and below: to keep it at hand takes more than a load.
    #[inline(always)]
    pub fn whole(&self) -> Option<Whole> {
        let start = self.start;
        // SAFETY: `of` made this.
        let Words { total, time, src, ports, seq, ack, rest, .. } = unsafe { Words::at(start) };
        let [_, _, _, proto] = time.to_ne_bytes();
        let there = u32::from(u16::from_be(total)).checked_sub(Ipv4Hdr::LEN as u32)?;
        if there < UdpHdr::LEN as u32 {
            return None;
        }
        let [offset, flags, ..] = rest.to_ne_bytes();
        let (least, header) = if proto == UDP {
            (UdpHdr::LEN as u32, u32::from(u16::from_be(seq as u16)))
        } else {
            (TcpHdr::LEN as u32, u32::from(offset >> 4) * 4)
        };
        let whole = Whole { start, src: addr::mapped(src.to_ne_bytes()), ports, ack, proto, flags };
        (header >= least && header <= there).then_some(whole)
    }
}

/// The words of a packet that [`Plain::of`] has let through, as they lie there; what nobody asks for is not read.
struct Words {
    total: u16,
    /// Time to live, and the protocol.
    time: u32,
    src: u32,
    dst: u32,
    ports: u32,
    /// Of a datagram its length.
    seq: u32,
    ack: u32,
    rest: u32,
}

impl Words {
    /// # Safety
    /// [`Plain::of`] checked the bounds.
    #[inline(always)]
    unsafe fn at(start: usize) -> Self {
        // SAFETY: as above.
        unsafe {
            Self {
                total: u16_at::<{ L3 + 2 }>(start),
                time: u32_at::<{ L3 + 6 }>(start),
                src: u32_at::<{ L3 + 12 }>(start),
                dst: u32_at::<{ L3 + 16 }>(start),
                ports: u32_at::<L4>(start),
                seq: u32_at::<{ L4 + 4 }>(start),
                ack: u32_at::<{ L4 + 8 }>(start),
                rest: u32_at::<{ L4 + 12 }>(start),
            }
        }
    }
}

/// What the choice is made by.
pub struct Whole {
    start: usize,
    pub src: Addr,
    /// As they lie there, as what is acknowledged.
    ports: u32,
    ack: u32,
    proto: u8,
    flags: u8,
}

impl Whole {
    /// A packet in the middle of a TCP connection: the place of its client's handshake, and what it acknowledges.
    #[inline(always)]
    pub fn middle(&self, hash: u64) -> Option<(u32, u32)> {
        if self.proto != TCP || self.flags & (SYN | FIN | RST) != 0 {
            return None;
        }
        let [s0, s1, d0, d1] = self.ports.to_ne_bytes();
        let place = Handshake::place(hash, [s0, s1], [d0, d1], HANDSHAKE_BITS);
        Some((place, u32::from_be(self.ack)))
    }

    /// As it is written down where more has to be asked.
    #[inline(always)]
    pub fn packet(&self) -> Packet {
        let start = self.start;
        // SAFETY: it comes from `Plain::of`.
        let Words { total, time, dst, ports, seq, ack, rest, .. } = unsafe { Words::at(start) };
        let [_, _, ttl, proto] = time.to_ne_bytes();
        let [s0, s1, d0, d1] = ports.to_ne_bytes();
        let [offset, flags, ..] = rest.to_ne_bytes();
        let total = u32::from(u16::from_be(total));
        let mut packet = Packet {
            src: self.src,
            dst: addr::mapped(dst.to_ne_bytes()),
            src_port: [s0, s1],
            dst_port: [d0, d1],
            l3: L3 as u32,
            l4: L4 as u32,
            end: L3 as u32 + total,
            proto,
            ttl,
            v4: true,
            ..Packet::NONE
        };
        if proto == TCP {
            let headers = Ipv4Hdr::LEN as u32 + u32::from(offset >> 4) * 4;
            packet.seq = u32::from_be(seq);
            packet.ack = u32::from_be(ack);
            packet.flags = flags;
            packet.payload = total.wrapping_sub(headers);
        }
        packet
    }
}

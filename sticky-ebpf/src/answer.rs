//! Answers of our own at tc: a reset or an ICMP error, made of the packet that it answers and sent back where that came
//! from. As a router and a closed port would: no error about an error, and not more than a thousand errors a second.

use aya_ebpf::bindings::bpf_adj_room_mode::BPF_ADJ_ROOM_MAC;
use aya_ebpf::bindings::tcx_action_base::TCX_DROP;
use aya_ebpf::helpers::{
    bpf_csum_diff, bpf_l4_csum_replace, bpf_redirect, bpf_skb_adjust_room, bpf_skb_change_tail,
    bpf_skb_load_bytes,
};
use aya_ebpf::programs::TcContext;
use network_types::eth::EthHdr;
use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use sticky_common::outcome::Outcome;
use sticky_common::types::addr;

use crate::handover::store;
use crate::maps::ANSWERS;
use crate::packet::{ACK, FIN, ICMP, ICMPV6, Packet, RST, SYN, Shape, TCP};
use crate::{stats, world};

/// Nanoseconds between two errors, per CPU (net.ipv4.icmp_msgs_per_sec is a thousand a second).
const INTERVAL: u64 = 1_000_000;
const HOPS: u8 = 64;
const ETH: u32 = EthHdr::LEN as u32;
const TCP_LEN: u32 = 20;
/// Where a TCP header has its checksum.
const TCP_CHECK: u32 = 16;
/// Room for the quoted headers: the longest IPv4 header, or IPv6 with some extensions, and TCP's.
const QUOTE: usize = 100;

/// What an ICMP error says (RFC 792, RFC 4443).
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Problem {
    /// Nobody serves the port.
    Port,
    /// The time to live ran out.
    Expired,
    /// Larger than the next link takes.
    TooBig,
}

impl Problem {
    /// Type and code.
    #[inline(always)]
    const fn codes(self, v4: bool) -> [u8; 2] {
        match (self, v4) {
            (Self::Port, true) => [3, 3],
            (Self::Port, false) => [1, 4],
            (Self::Expired, true) => [11, 0],
            (Self::Expired, false) => [3, 0],
            (Self::TooBig, true) => [3, 4],
            (Self::TooBig, false) => [2, 0],
        }
    }

    #[inline(always)]
    const fn outcome(self) -> Outcome {
        match self {
            Self::Port => Outcome::Refused,
            Self::Expired => Outcome::TtlExpired,
            Self::TooBig => Outcome::TooBig,
        }
    }
}

/// Refuses a packet for which there is no backend. The verdict, as of the functions below.
#[inline(always)]
pub fn refuse(ctx: &TcContext, packet: &Packet) -> i32 {
    if packet.proto != TCP {
        return error(ctx, packet, Problem::Port, 0);
    }
    // A reset is not answered, and neither is what has a tag: the answer would have to carry it.
    if packet.flags & RST != 0 || packet.shape != Shape::Whole || packet.tags != 0 {
        return TCX_DROP;
    }
    reset(ctx, packet)
}

/// A reset, as a host sends it for a segment to a closed port (RFC 9293, section 3.10.7.1).
#[inline(never)]
fn reset(ctx: &TcContext, packet: &Packet) -> i32 {
    let (ip_len, base) = (packet.l4 - packet.l3, base(packet.v4));
    let (Some(before), Some(after)) = touched(ctx, packet.l4 + TCP_CHECK) else { return TCX_DROP };
    if !resize(ctx, packet.l4 + TCP_LEN) {
        return TCX_DROP;
    }
    if ip_len > base && !room(ctx, base as i32 - ip_len as i32) {
        return TCX_DROP;
    }
    let mut tcp = [0_u8; TCP_LEN as usize];
    tcp[..2].copy_from_slice(&packet.dst_port);
    tcp[2..4].copy_from_slice(&packet.src_port);
    tcp[12] = 0x50;
    if packet.flags & ACK != 0 {
        tcp[4..8].copy_from_slice(&packet.ack.to_be_bytes());
        tcp[13] = RST;
    } else {
        let control = u32::from(packet.flags & SYN != 0) + u32::from(packet.flags & FIN != 0);
        let next = packet.seq.wrapping_add(packet.payload).wrapping_add(control);
        tcp[8..12].copy_from_slice(&next.to_be_bytes());
        tcp[13] = RST | ACK;
    }
    let pseudo = pseudo(packet, TCP, TCP_LEN);
    // Where the sender left the checksum to offload, so do we: the sum of the pseudo-header alone.
    let check = if before == after { !fold(pseudo) } else { fold(sum(&tcp, pseudo)) };
    tcp[16..18].copy_from_slice(&check.to_ne_bytes());
    if !header(ctx, packet, TCP, TCP_LEN) || store(ctx, ETH + base, &tcp).is_none() {
        return TCX_DROP;
    }
    stats::count(Outcome::Refused);
    send_back(ctx)
}

/// An ICMP error about a packet; `mtu` is what the next link takes.
#[inline(never)]
pub fn error(ctx: &TcContext, packet: &Packet, problem: Problem, mtu: u32) -> i32 {
    stats::count(problem.outcome());
    // In 64 bits, where the verifier sees the bound.
    let ip_len = (packet.l4 as usize).wrapping_sub(packet.l3 as usize);
    let about_nothing = packet.is_error() || packet.shape == Shape::Later || packet.tags != 0;
    if about_nothing || ip_len > QUOTE - TCP_LEN as usize || !may() {
        return TCX_DROP;
    }
    let quote = ip_len + if packet.proto == TCP { TCP_LEN as usize } else { 8 };
    let mut quoted = [0_u8; QUOTE];
    let to = quoted.as_mut_ptr().cast();
    // SAFETY: the buffer has room for `quote` bytes, checked above; the helper checks the packet.
    if unsafe { bpf_skb_load_bytes(ctx.skb.skb.cast(), ETH, to, quote as u32) } != 0 {
        return TCX_DROP;
    }
    let quote = quote as u32;
    let base = base(packet.v4);
    if !resize(ctx, ETH + quote) || !room(ctx, base as i32 + 8) {
        return TCX_DROP;
    }
    let [kind, code] = problem.codes(packet.v4);
    let [a, b, c, d] = mtu.to_be_bytes();
    let mut icmp = [kind, code, 0, 0, a, b, c, d];
    let len = 8 + quote;
    let proto = if packet.v4 { ICMP } else { ICMPV6 };
    let seed = if packet.v4 { 0 } else { pseudo(packet, ICMPV6, len) };
    let check = fold(sum(&quoted, sum(&icmp, seed)));
    icmp[2..4].copy_from_slice(&check.to_ne_bytes());
    if !header(ctx, packet, proto, len) || store(ctx, ETH + base, &icmp).is_none() {
        return TCX_DROP;
    }
    send_back(ctx)
}

/// Length of an IP header without options.
#[inline(always)]
const fn base(v4: bool) -> u32 {
    if v4 { Ipv4Hdr::LEN as u32 } else { Ipv6Hdr::LEN as u32 }
}

/// The IP header of the answer: from whom the packet was for, to whom it came from.
#[inline(always)]
fn header(ctx: &TcContext, packet: &Packet, proto: u8, payload: u32) -> bool {
    if packet.v4 {
        let mut ip = [0_u8; Ipv4Hdr::LEN];
        ip[0] = 0x45;
        ip[2..4].copy_from_slice(&(payload as u16 + Ipv4Hdr::LEN as u16).to_be_bytes());
        ip[8] = HOPS;
        ip[9] = proto;
        ip[12..16].copy_from_slice(&addr::v4(&packet.dst));
        ip[16..20].copy_from_slice(&addr::v4(&packet.src));
        let check = fold(sum(&ip, 0));
        ip[10..12].copy_from_slice(&check.to_ne_bytes());
        store(ctx, ETH, &ip)
    } else {
        let mut ip = [0_u8; Ipv6Hdr::LEN];
        ip[0] = 0x60;
        ip[4..6].copy_from_slice(&(payload as u16).to_be_bytes());
        ip[6] = proto;
        ip[7] = HOPS;
        ip[8..24].copy_from_slice(&addr::bytes(&packet.dst));
        ip[24..40].copy_from_slice(&addr::bytes(&packet.src));
        store(ctx, ETH, &ip)
    }
    .is_some()
}

/// The checksum at an offset before and after a change that leaves one alone that was left to offload. No other helper
/// says which it is.
#[inline(always)]
fn touched(ctx: &TcContext, check: u32) -> (Option<[u8; 2]>, Option<[u8; 2]>) {
    let read = || ctx.skb.load::<[u8; 2]>(check as usize).ok();
    let before = read();
    // SAFETY: the helper checks the offset against the packet.
    match unsafe { bpf_l4_csum_replace(ctx.skb.skb, check, 0, 1, 2) } {
        0 => (before, read()),
        _ => (before, None),
    }
}

#[inline(always)]
fn resize(ctx: &TcContext, len: u32) -> bool {
    // SAFETY: the helper checks the length against the packet.
    unsafe { bpf_skb_change_tail(ctx.skb.skb, len, 0) == 0 }
}

/// Makes room behind the link header, or takes it.
#[inline(always)]
fn room(ctx: &TcContext, bytes: i32) -> bool {
    // SAFETY: the helper checks the length against the packet.
    unsafe { bpf_skb_adjust_room(ctx.skb.skb, bytes, BPF_ADJ_ROOM_MAC, 0) == 0 }
}

/// Whether one more error may be sent now.
#[inline(always)]
fn may() -> bool {
    match ANSWERS.get_ptr_mut(0) {
        // SAFETY: the slot is this CPU's own, and programs do not preempt each other on it.
        Some(due) => world::allowed(unsafe { &mut *due }, INTERVAL),
        None => false,
    }
}

/// Sum of a pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1); it has no direction.
#[inline(always)]
fn pseudo(packet: &Packet, proto: u8, len: u32) -> u32 {
    let mut header = [0_u8; 40];
    if packet.v4 {
        header[..4].copy_from_slice(&addr::v4(&packet.src));
        header[4..8].copy_from_slice(&addr::v4(&packet.dst));
    } else {
        header[..16].copy_from_slice(&addr::bytes(&packet.src));
        header[16..32].copy_from_slice(&addr::bytes(&packet.dst));
    }
    header[32..36].copy_from_slice(&len.to_be_bytes());
    header[39] = proto;
    sum(&header, 0)
}

#[inline(always)]
fn sum<const N: usize>(bytes: &[u8; N], seed: u32) -> u32 {
    let from = bytes.as_ptr().cast_mut().cast();
    // SAFETY: the pointer is to `N` bytes, a multiple of four.
    unsafe { bpf_csum_diff(core::ptr::null_mut(), 0, from, N as u32, seed) as u32 }
}

/// The checksum of a sum, in the order of the wire as the sum is.
#[inline(always)]
fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    !(sum as u16)
}

/// Sends the frame out of the interface it came in by, to the neighbour that it came from.
#[inline(always)]
fn send_back(ctx: &TcContext) -> i32 {
    let Ok([a, b, c, d, e, f, g, h, i, j, k, l]) = ctx.skb.load::<[u8; 12]>(0) else {
        return TCX_DROP;
    };
    if store(ctx, 0, &[g, h, i, j, k, l, a, b, c, d, e, f]).is_none() {
        return TCX_DROP;
    }
    // SAFETY: reads of a context field; the helper takes numbers.
    unsafe { bpf_redirect((*ctx.skb.skb).ifindex, 0) as i32 }
}

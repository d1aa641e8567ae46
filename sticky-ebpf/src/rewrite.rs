//! Changing an address and a port of a packet at tc, checksums included.
//!
//! The transport checksum goes through the kernel's helper, which knows whether the sender left it to offload: a
//! neighbour on veth or virtio delivers only the sum of the pseudo-header. The IPv4 header's is always whole.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::{bpf_csum_diff, bpf_l4_csum_replace};
use aya_ebpf::programs::TcContext;
use network_types::eth::EthHdr;
use network_types::ip::Ipv4Hdr;
use sticky_common::checksum;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Addr, addr};

use crate::handover::store;
use crate::packet::{Packet, Shape, TCP, at};

/// Which end of the packet is rewritten. Of the packet that an error quotes it is the other one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// Where a transport header has its checksum.
const TCP_CHECK: u32 = 16;
const UDP_CHECK: u32 = 6;
/// Where an ICMP header has it.
const ICMP_CHECK: u32 = 2;
/// Where the IP header is: what has VLAN tags lost them before.
const ETH: u32 = EthHdr::LEN as u32;
/// Offsets of the two addresses in their headers.
const V4_ADDR: [u32; 2] = [12, 16];
const V6_ADDR: [u32; 2] = [8, 24];
/// The hop limit of an IPv6 header.
const V6_HOPS: u32 = 7;
/// The checksum of an IPv4 header.
const V4_CHECK: u32 = 10;

/// For [`bpf_l4_csum_replace`]: the address is in the sum that the device made over an IPv6 packet, so that it stays as it
/// is. Since Linux 6.16 and the stable releases of that time; others refuse the flag.
const BPF_F_IPV6: u64 = 1 << 7;
const PSEUDO: u64 = BPF_F_PSEUDO_HDR as u64;
/// A UDP checksum of zero means none (RFC 768); TCP has no such exception.
const UDP_ZERO: u64 = BPF_F_MARK_MANGLED_0 as u64;

/// Puts `addr` and `port` at one end and takes one off the time to live, as a router does.
#[inline(never)]
pub fn rewrite(
    ctx: &TcContext,
    packet: &Packet,
    end: End,
    addr: &Addr,
    port: [u8; 2],
) -> Result<(), Outcome> {
    if packet.is_error() {
        return rewrite_error(ctx, packet, end, addr, port);
    }
    let (old, old_port) = match end {
        End::Source => (&packet.src, packet.src_port),
        End::Destination => (&packet.dst, packet.dst_port),
    };
    outer(ctx, packet, end, addr)?;
    if packet.shape == Shape::Later {
        return Ok(());
    }
    let (check, zero) = match packet.proto {
        TCP => (packet.l4 + TCP_CHECK, 0),
        _ => (packet.l4 + UDP_CHECK, UDP_ZERO),
    };
    let offset = packet.l4 + if end == End::Source { 0 } else { 2 };
    store(ctx, offset, &port).ok_or(Outcome::Undeliverable)?;
    fix_addr(ctx, packet.v4, check, (old, addr), PSEUDO | zero)?;
    fix16(ctx, check, old_port, port, zero)
}

/// The packet's own IP header.
#[inline(always)]
fn outer(ctx: &TcContext, packet: &Packet, end: End, new: &Addr) -> Result<(), Outcome> {
    let (start, limit) = (ctx.data(), ctx.data_end());
    if packet.v4 {
        let ip: *const Ipv4Hdr = at(start, limit, ETH as usize).ok_or(Outcome::Undeliverable)?;
        // SAFETY: `at` checked that the header lies within the packet; the type is bytes.
        let mut ip = unsafe { ip.read() };
        replace_addr(&mut ip, end, addr::v4(new));
        store(ctx, ETH, &ip).ok_or(Outcome::Undeliverable)
    } else {
        store(ctx, ETH + V6_HOPS, &packet.ttl.wrapping_sub(1)).ok_or(Outcome::Undeliverable)?;
        store(ctx, ETH + V6_ADDR[end as usize], new).ok_or(Outcome::Undeliverable)
    }
}

#[inline(always)]
fn replace_addr(ip: &mut Ipv4Hdr, end: End, addr: [u8; 4]) {
    let field = match end {
        End::Source => &mut ip.src_addr,
        End::Destination => &mut ip.dst_addr,
    };
    let old = core::mem::replace(field, addr);
    let check = checksum::replace32(u16::from_be_bytes(ip.check), old, addr);
    // The time to live is the high byte of its 16-bit word.
    let ttl = u16::from_be_bytes([ip.ttl, ip.proto]);
    ip.ttl = ip.ttl.wrapping_sub(1);
    ip.check = checksum::replace16(check, ttl, ttl.wrapping_sub(0x0100)).to_be_bytes();
}

/// An ICMP error: its own address at one end, and the same end of the flow in the packet that it quotes.
///
/// Its checksum covers what it quotes. There the sum of the IPv4 header stays as it is, since its own checksum makes up
/// for the address.
#[inline(never)]
fn rewrite_error(
    ctx: &TcContext,
    packet: &Packet,
    end: End,
    addr: &Addr,
    port: [u8; 2],
) -> Result<(), Outcome> {
    // In the quoted packet the flow goes the other way.
    let (old, old_port, quoted_end, offset) = match end {
        End::Destination => (&packet.dst, packet.dst_port, End::Source, packet.l4),
        End::Source => (&packet.src, packet.src_port, End::Destination, packet.l4 + 2),
    };
    let icmp_check = packet.quoted - 8 + ICMP_CHECK;
    // At the source end a router on the way may have sent it.
    let own = (ETH + V6_ADDR[end as usize]) as usize;
    let own: Addr = ctx.skb.load(own).map_err(|_| Outcome::Undeliverable)?;
    outer(ctx, packet, end, addr)?;
    store(ctx, offset, &port).ok_or(Outcome::Undeliverable)?;
    fix16(ctx, icmp_check, old_port, port, 0)?;
    quoted_transport(ctx, packet, icmp_check, (old, addr), (old_port, port))?;
    if packet.v4 {
        let at = packet.quoted + V4_ADDR[quoted_end as usize];
        let check = packet.quoted + V4_CHECK;
        let before: [u8; 2] = ctx.skb.load(check as usize).map_err(|_| Outcome::Undeliverable)?;
        let after = checksum::replace32(u16::from_be_bytes(before), addr::v4(old), addr::v4(addr));
        store(ctx, at, &addr::v4(addr)).ok_or(Outcome::Undeliverable)?;
        store(ctx, check, &after.to_be_bytes()).ok_or(Outcome::Undeliverable)
    } else {
        let at = packet.quoted + V6_ADDR[quoted_end as usize];
        store(ctx, at, addr).ok_or(Outcome::Undeliverable)?;
        // Once for the quoted address, and once for the pseudo-header, which ICMPv6 has, with the error's own address.
        fix_addr(ctx, false, icmp_check, (old, addr), 0)?;
        fix_addr(ctx, false, icmp_check, (&own, addr), PSEUDO)
    }
}

/// The checksum of the quoted transport header, as far as it is quoted.
#[inline(always)]
fn quoted_transport(
    ctx: &TcContext,
    packet: &Packet,
    icmp_check: u32,
    (old, new): (&Addr, &Addr),
    (old_port, port): ([u8; 2], [u8; 2]),
) -> Result<(), Outcome> {
    let at = packet.l4 + if packet.proto == TCP { TCP_CHECK } else { UDP_CHECK };
    let Ok(before) = ctx.skb.load::<[u8; 2]>(at as usize) else { return Ok(()) };
    if packet.proto != TCP && before == [0; 2] {
        return Ok(());
    }
    let mut check = checksum::replace16(
        u16::from_be_bytes(before),
        u16::from_be_bytes(old_port),
        u16::from_be_bytes(port),
    );
    check = if packet.v4 {
        checksum::replace32(check, addr::v4(old), addr::v4(new))
    } else {
        checksum::replace128(check, &addr::bytes(old), &addr::bytes(new))
    };
    let after = check.to_be_bytes();
    store(ctx, at, &after).ok_or(Outcome::Undeliverable)?;
    fix16(ctx, icmp_check, before, after, 0)
}

/// Corrects a checksum for an address.
#[inline(always)]
fn fix_addr(
    ctx: &TcContext,
    v4: bool,
    check: u32,
    (old, new): (&Addr, &Addr),
    flags: u64,
) -> Result<(), Outcome> {
    if v4 {
        let word = |a: &Addr| u64::from(u32::from_ne_bytes(addr::v4(a)));
        return fix(ctx, check, word(old), word(new), flags | 4);
    }
    let (from, to) = (old.as_ptr().cast_mut(), new.as_ptr().cast_mut());
    // SAFETY: both point at sixteen bytes.
    let diff = unsafe { bpf_csum_diff(from, 16, to, 16, 0) } as u64 & 0xffff_ffff;
    if flags & PSEUDO != 0 && fix(ctx, check, 0, diff, flags | BPF_F_IPV6).is_ok() {
        return Ok(());
    }
    fix(ctx, check, 0, diff, flags)
}

#[inline(always)]
fn fix16(
    ctx: &TcContext,
    check: u32,
    old: [u8; 2],
    new: [u8; 2],
    flags: u64,
) -> Result<(), Outcome> {
    let word = |w| u64::from(u16::from_ne_bytes(w));
    fix(ctx, check, word(old), word(new), flags | 2)
}

#[inline(always)]
fn fix(ctx: &TcContext, offset: u32, from: u64, to: u64, flags: u64) -> Result<(), Outcome> {
    // SAFETY: the helper checks the offset against the packet.
    match unsafe { bpf_l4_csum_replace(ctx.skb.skb, offset, from, to, flags) } {
        0 => Ok(()),
        _ => Err(Outcome::Undeliverable),
    }
}

//! Changing an address and a port of a TCP packet at tc, checksums included.
//!
//! The transport checksum goes through the kernel's helper, which knows whether the sender left it to offload: a
//! neighbour on veth or virtio delivers only the sum of the pseudo-header. The IPv4 header's is always whole.

use aya_ebpf::bindings::{BPF_F_MARK_MANGLED_0, BPF_F_PSEUDO_HDR};
use aya_ebpf::helpers::bpf_l4_csum_replace;
use aya_ebpf::programs::TcContext;
use network_types::ip::Ipv4Hdr;
use sticky_common::checksum;
use sticky_common::outcome::Outcome;

use crate::packet::{self, Headers};

/// Which end is rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

const TCP_CHECK: usize = 16;

/// Puts `addr` and `port` at one end and takes one off the time to live, as a router does.
#[inline(always)]
pub fn rewrite(
    ctx: &TcContext,
    headers: &Headers,
    l3: usize,
    end: End,
    addr: [u8; 4],
    port: [u8; 2],
) -> Result<(), Outcome> {
    let (old_addr, old_port, offset) = match end {
        End::Source => (headers.src, headers.src_port, headers.l4),
        End::Destination => (headers.dst, headers.dst_port, headers.l4 + 2),
    };
    let mut ip = packet::tc_ipv4(ctx, l3).ok_or(Outcome::Undeliverable)?;
    if ip.ttl <= 1 {
        return Err(Outcome::TtlExpired);
    }
    replace_addr(&mut ip, end, addr);
    packet::store(ctx, l3, &ip).ok_or(Outcome::Undeliverable)?;
    packet::store(ctx, offset, &port).ok_or(Outcome::Undeliverable)?;

    let check = headers.l4 + TCP_CHECK;
    let (from, to) = (u32::from_ne_bytes(old_addr), u32::from_ne_bytes(addr));
    fix(
        ctx,
        check,
        u64::from(from),
        u64::from(to),
        u64::from(BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0) | 4,
    )?;
    let (from, to) = (u16::from_ne_bytes(old_port), u16::from_ne_bytes(port));
    fix(ctx, check, u64::from(from), u64::from(to), u64::from(BPF_F_MARK_MANGLED_0) | 2)
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
    ip.ttl -= 1;
    ip.check = checksum::replace16(check, ttl, ttl - 0x0100).to_be_bytes();
}

#[inline(always)]
fn fix(ctx: &TcContext, offset: usize, from: u64, to: u64, flags: u64) -> Result<(), Outcome> {
    // SAFETY: the helper checks the offset against the packet.
    match unsafe { bpf_l4_csum_replace(ctx.skb.skb, offset as u32, from, to, flags) } {
        0 => Ok(()),
        _ => Err(Outcome::Undeliverable),
    }
}

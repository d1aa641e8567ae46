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

use crate::packet;

/// Which end is rewritten.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum End {
    Source,
    Destination,
}

/// Where the headers are.
#[derive(Clone, Copy)]
pub struct Offsets {
    pub l3: usize,
    pub l4: usize,
}

const TCP_CHECK: usize = 16;

/// Puts `addr` and `port` at one end and takes one off the time to live, as a router does.
#[inline(always)]
pub fn rewrite(
    ctx: &TcContext,
    at: Offsets,
    end: End,
    addr: [u8; 4],
    port: [u8; 2],
) -> Result<(), Outcome> {
    let changed = packet::change_ipv4(ctx, at.l3, |ip| {
        if ip.ttl <= 1 { Err(Outcome::TtlExpired) } else { Ok(replace_addr(ip, end, addr)) }
    });
    let old_addr = changed.unwrap_or(Err(Outcome::Undeliverable))?;
    let offset = at.l4 + if end == End::Source { 0 } else { 2 };
    let old_port = packet::replace_port(ctx, offset, port).ok_or(Outcome::Undeliverable)?;

    let check = at.l4 + TCP_CHECK;
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
fn replace_addr(ip: &mut Ipv4Hdr, end: End, addr: [u8; 4]) -> [u8; 4] {
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
    old
}

#[inline(always)]
fn fix(ctx: &TcContext, offset: usize, from: u64, to: u64, flags: u64) -> Result<(), Outcome> {
    // SAFETY: the helper checks the offset against the packet.
    match unsafe { bpf_l4_csum_replace(ctx.skb.skb, offset as u32, from, to, flags) } {
        0 => Ok(()),
        _ => Err(Outcome::Undeliverable),
    }
}

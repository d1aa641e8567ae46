//! tc ingress where clients come in: what XDP chose for is rewritten and sent to the backend's device.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::bindings::tcx_action_base::{TCX_DROP, TCX_NEXT};
use aya_ebpf::helpers::{bpf_check_mtu, bpf_redirect_neigh, bpf_redirect_peer};
use aya_ebpf::programs::TcContext;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Addr, Handover};

use crate::answer::{self, Problem};
use crate::packet::Packet;
use crate::rewrite::{self, End};
use crate::{handover, stats, world};

#[inline(always)]
pub fn deliver(ctx: &TcContext) -> i32 {
    let Some(choice) = handover::handed_over(ctx) else { return TCX_NEXT };
    // A frame for another host's link address, seen because the interface listens to all, is not ours to deliver.
    if !handover::for_this_host(ctx) {
        return TCX_NEXT;
    }
    if handover::untag(ctx, choice.tags).is_none() {
        return dropped(Outcome::Undeliverable);
    }
    let mut packet = Packet::NONE;
    if handover::sticky_read_tc(ctx.skb.skb, &raw mut packet) == 0 {
        return dropped(Outcome::Undeliverable);
    }
    // An answer would have to carry them again.
    packet.tags = choice.tags;
    if choice.task == Handover::REFUSE {
        return answer::refuse(ctx, &packet);
    }
    sticky_to_backend(ctx.skb.skb, &raw mut packet, choice.backend, u16::from_ne_bytes(choice.port))
        as i32
}

/// A global function, as is the way back: walked once for itself by the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sticky_to_backend(
    skb: *mut __sk_buff,
    packet: *mut Packet,
    index: u32,
    port: u16,
) -> u32 {
    // SAFETY: the caller passes what it read; the verifier insists that it is asked for null.
    match unsafe { packet.as_ref() } {
        Some(packet) => to_backend(&TcContext::new(skb), packet, index, port.to_ne_bytes()) as u32,
        None => TCX_DROP as u32,
    }
}

#[inline(always)]
fn to_backend(ctx: &TcContext, packet: &Packet, index: u32, port: [u8; 2]) -> i32 {
    let Some(backend) = world::backend(index) else { return dropped(Outcome::Undeliverable) };
    let (ifindex, peer) = backend.link(packet.v4);
    let way = if peer { Way::Across(ifindex) } else { Way::Out(ifindex) };
    route(ctx, packet, way, End::Destination, (&backend.addr(packet.v4), port))
}

/// How a packet leaves.
#[derive(Clone, Copy)]
pub enum Way {
    /// Out of this interface, to the next hop.
    Out(u32),
    /// To the other end of this link: it comes in there at once, and so passes no queue and no bridge.
    Across(u32),
}

/// Ends a packet here, and says why.
#[inline(always)]
pub fn dropped(outcome: Outcome) -> i32 {
    stats::count(outcome);
    TCX_DROP
}

/// Rewrites one end of a packet and sends it on, as a router does: with one less to live, if the next link takes it.
#[inline(always)]
pub fn route(
    ctx: &TcContext,
    packet: &Packet,
    way: Way,
    end: End,
    (addr, port): (&Addr, [u8; 2]),
) -> i32 {
    if packet.ttl <= 1 {
        return answer::error(ctx, packet, Problem::Expired, 0);
    }
    let (Way::Out(ifindex) | Way::Across(ifindex)) = way;
    let mtu = too_big(ctx, packet, ifindex);
    if mtu != 0 {
        return answer::error(ctx, packet, Problem::TooBig, mtu);
    }
    match rewrite::rewrite(ctx, packet, end, addr, port) {
        Ok(()) => send(way),
        Err(outcome) => dropped(outcome),
    }
}

/// The largest packet that a device takes if this one is larger, else 0.
#[inline(always)]
fn too_big(ctx: &TcContext, packet: &Packet, ifindex: u32) -> u32 {
    /// Every link takes this much (RFC 8200, section 5), and next to every one of IPv4.
    const SMALL: u32 = 1280;
    /// Looks at the segments of a packet that the device will split (linux/bpf.h).
    const BPF_MTU_CHK_SEGS: u64 = 1;
    // SAFETY: read of a context field.
    if unsafe { (*ctx.skb.skb).len } <= SMALL + packet.l3 {
        return 0;
    }
    let mut mtu = 0;
    // SAFETY: the helper writes one u32.
    let fits = unsafe { bpf_check_mtu(ctx.skb.skb.cast(), ifindex, &mut mtu, 0, BPF_MTU_CHK_SEGS) };
    // Of a device that is gone it knows nothing; the redirect then drops the packet.
    if fits > 0 { mtu } else { 0 }
}

#[inline(always)]
fn send(way: Way) -> i32 {
    let verdict = match way {
        // SAFETY: without parameters the helper routes by the packet's own destination, and finds the link address.
        Way::Out(ifindex) => unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) },
        // SAFETY: the helper takes numbers. The packet has lost its tags, and came to this host's own link address.
        Way::Across(ifindex) => unsafe { bpf_redirect_peer(ifindex, 0) },
    };
    verdict as i32
}

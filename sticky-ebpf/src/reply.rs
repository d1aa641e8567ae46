//! tc ingress where backends answer: replies of flows that came through a frontend go back to their clients.
//!
//! The same container also answers our proxy, health checks and Docker's own published ports. Only a flow that XDP noted
//! is touched, and a SYN-ACK only while the client's SYN is recent: otherwise the same ports serve another connection.

use aya_ebpf::bindings::__sk_buff;
use aya_ebpf::bindings::tcx_action_base::TCX_NEXT;
use aya_ebpf::bindings::{
    BPF_FIB_LKUP_RET_NO_NEIGH, BPF_FIB_LKUP_RET_SUCCESS, bpf_fib_lookup as FibLookup,
};
use aya_ebpf::helpers::bpf_fib_lookup;
use aya_ebpf::programs::TcContext;
use sticky_common::hash;
use sticky_common::maps::HANDSHAKE_BITS;
use sticky_common::outcome::Outcome;
use sticky_common::types::{Addr, BackendId, ClientKey, Flow, FlowKey, Handshake, addr, tick};

use crate::deliver::{Way, route};
use crate::maps::{self, CLIENTS, FLOWS, HANDSHAKES, TRANSIENT};
use crate::packet::{ACK, FIN, Packet, RST, SYN, Shape, TCP};
use crate::rewrite::End;
use crate::{capture, flows, fragments, handover, settings, stats, world};

/// Last words after both ends are done (TIME-WAIT, twice the maximum segment lifetime).
const LAST_WORDS: u32 = tick::from_secs(120);

#[inline(always)]
pub fn reply(ctx: &TcContext) -> i32 {
    if !handover::is_ip(ctx) {
        return TCX_NEXT;
    }
    let mut packet = Packet::NONE;
    if handover::sticky_read_tc(ctx.skb.skb, &raw mut packet) == 0 {
        return TCX_NEXT;
    }
    if packet.shape == Shape::Later {
        rest(ctx, &packet)
    } else {
        sticky_to_client(ctx.skb.skb, &raw mut packet) as i32
    }
}

/// A fragment behind the first one of a reply.
#[inline(never)]
fn rest(ctx: &TcContext, packet: &Packet) -> i32 {
    let Some(to) = fragments::followed_to_client(packet) else { return TCX_NEXT };
    stats::count(Outcome::Reply);
    route(ctx, packet, Way::Out(to.ifindex), End::Source, (&to.addr, [0; 2]))
}

/// A global function, walked once for itself by the verifier.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sticky_to_client(skb: *mut __sk_buff, packet: *mut Packet) -> u32 {
    // SAFETY: the caller passes what it read; the verifier insists that it is asked for null.
    match unsafe { packet.as_ref() } {
        Some(packet) => to_client(&TcContext::new(skb), packet) as u32,
        None => TCX_NEXT as u32,
    }
}

#[inline(always)]
fn to_client(ctx: &TcContext, packet: &Packet) -> i32 {
    if packet.shape == Shape::First {
        fragments::begin(packet);
    }
    let key = FlowKey {
        client: packet.dst,
        backend: packet.src,
        client_port: packet.dst_port,
        backend_port: packet.src_port,
        proto: u32::from(packet.proto),
    };
    let placed = flows::placed(&key);
    let kept = if placed.is_none() { FLOWS.get_ptr_mut(&key) } else { None };
    let Some(flow) = placed.or(kept).or_else(|| TRANSIENT.get_ptr_mut(&key)) else {
        return TCX_NEXT;
    };
    // SAFETY: map memory stays valid until the program ends; a race leaves a time or a bit older, never another frontend
    // for a live flow.
    let flow = unsafe { &mut *flow };
    let now = world::now();
    if !belongs(flow, packet, now) {
        if packet.flags & SYN != 0 {
            // The same ports now serve a connection that did not come through the frontend: its later packets are not ours.
            flows::forget(&key);
        }
        return TCX_NEXT;
    }
    if flow.out == 0 || flow.seen != now {
        flow.out = way_to(ctx, packet, flow);
    }
    let (vip, port, out, backend) = (flow.vip, flow.port, flow.out, flow.backend);
    if !packet.is_error() {
        note(flow, &key, packet, now);
        if kept.is_none() && is_evidence(flow, packet) {
            flows::promote(&key, flow, placed.is_some());
        } else if kept.is_some() && packet.proto == TCP && flow.closed() {
            flows::put_aside(&key, flow);
        }
        if packet.shape == Shape::First {
            fragments::follow_to_client(packet, &vip, out);
        }
    }
    stats::count(Outcome::Reply);
    capture::sent_by(BackendId(backend).index());
    route(ctx, packet, Way::Out(out), End::Source, (&vip, port))
}

/// Whether this packet is of the connection that the flow was noted for.
#[inline(always)]
fn belongs(flow: &Flow, packet: &Packet, now: u32) -> bool {
    if packet.proto != TCP {
        return flow.lives(u32::from(packet.proto), now);
    }
    if packet.flags & (SYN | ACK) == SYN | ACK {
        return !flow.closed() && tick::since(now, flow.opened) <= flows::SYN_ACK_AFTER;
    }
    // A bare SYN is the container opening a connection of its own.
    packet.flags & SYN == 0 && (!flow.closed() || tick::since(now, flow.seen) <= LAST_WORDS)
}

/// Whether the backend's packet says that the client is real: it took data from it, or sends some. A reset says nothing,
/// and neither does the bare acknowledgement that a half-open connection answers an invented segment with.
#[inline(always)]
fn is_evidence(flow: &Flow, packet: &Packet) -> bool {
    packet.proto == TCP
        && packet.flags & (SYN | RST) == 0
        && flow.state & Flow::REAL == 0
        && !flow.closed()
        && (flow.opened == 0 || packet.payload > 0 || packet.ack != flow.isn.wrapping_add(1))
}

/// Keeps the flow's state, and about once a second the client's time of last activity.
#[inline(always)]
fn note(flow: &mut Flow, key: &FlowKey, packet: &Packet, now: u32) {
    if packet.flags & FIN != 0 {
        flow.state |= Flow::BACKEND_FIN;
    }
    if packet.flags & RST != 0 {
        flow.state |= Flow::RESET;
    }
    if flow.state & (Flow::CLIENT_FIN | Flow::BACKEND_FIN | Flow::RESET)
        == Flow::CLIENT_FIN | Flow::BACKEND_FIN
    {
        flow.state |= Flow::SAID;
    }
    let second = flow.seen != now;
    flow.seen = now;
    if !second && packet.flags & SYN == 0 {
        return;
    }
    let client = addr::masked(&key.client, flow.prefix);
    if packet.proto == TCP && packet.flags & SYN != 0 {
        await_answer(flow, key, packet, &client);
        return;
    }
    if let Some(record) = CLIENTS.get_ptr_mut(&ClientKey { service: flow.service, addr: client }) {
        // SAFETY: map memory stays valid until the program ends.
        unsafe { (*record).seen = now };
    }
}

/// The backend answered a SYN: a client that is real will answer this.
#[inline(never)]
fn await_answer(flow: &Flow, key: &FlowKey, packet: &Packet, client: &Addr) {
    let hash = hash::client(settings::hash_key(), client, packet.v4);
    let place = Handshake::place(hash, key.client_port, flow.port, HANDSHAKE_BITS);
    if let Some(waiting) = HANDSHAKES.get_ptr_mut(place) {
        let handshake = Handshake { ack: packet.seq.wrapping_add(1), backend: flow.backend };
        // SAFETY: map memory stays valid until the program ends; a torn entry fails the comparison with the answer.
        unsafe { *waiting = handshake };
    }
    if let Some(tag) = maps::handshake_tag(place) {
        *tag = Handshake::tag(packet.seq.wrapping_add(1));
    }
}

/// The interface that leads to the client, by this host's routes; without one, the interface it came in by.
#[inline(never)]
fn way_to(ctx: &TcContext, packet: &Packet, flow: &Flow) -> u32 {
    const AF_INET: u8 = 2;
    const AF_INET6: u8 = 10;
    /// Leaves out the neighbour (linux/bpf.h, since 6.3).
    const BPF_FIB_LOOKUP_SKIP_NEIGH: u32 = 1 << 2;
    // SAFETY: plain data, for which zero is valid.
    let mut query: FibLookup = unsafe { core::mem::zeroed() };
    // SAFETY: read of a context field.
    query.ifindex = unsafe { (*ctx.skb.skb).ifindex };
    if packet.v4 {
        query.family = AF_INET;
        query.__bindgen_anon_3.ipv4_src = u32::from_ne_bytes(addr::v4(&flow.vip));
        query.__bindgen_anon_4.ipv4_dst = u32::from_ne_bytes(addr::v4(&packet.dst));
    } else {
        query.family = AF_INET6;
        query.__bindgen_anon_3.ipv6_src = flow.vip;
        query.__bindgen_anon_4.ipv6_dst = packet.dst;
    }
    let len = size_of::<FibLookup>() as i32;
    // SAFETY: the helper takes the context and a whole query.
    let found = unsafe {
        bpf_fib_lookup(ctx.skb.skb.cast(), &raw mut query, len, BPF_FIB_LOOKUP_SKIP_NEIGH)
    };
    match found as u32 {
        BPF_FIB_LKUP_RET_SUCCESS | BPF_FIB_LKUP_RET_NO_NEIGH => query.ifindex,
        _ => flow.ifindex,
    }
}

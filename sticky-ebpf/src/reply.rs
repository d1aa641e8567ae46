//! tc ingress where backends answer: replies of flows that came through a frontend go back to their clients.
//!
//! The same container also answers our proxy, health checks and Docker's own published ports. Only a flow that XDP noted
//! is touched, and a SYN-ACK only while the client's SYN is recent: otherwise the same ports serve another connection.

use aya_ebpf::programs::TcContext;
use sticky_common::outcome::Outcome;
use sticky_common::types::{ClientKeyV4, Flow, FlowKeyV4, tick};

use crate::deliver::send;
use crate::maps::{CLIENTS_V4, FLOWS_V4};
use crate::packet::{self, ACK, FIN, Headers, RST, SYN};
use crate::rewrite::{self, End};
use crate::{stats, world};

const ETH_LEN: usize = 14;
/// SYN-ACKs are sent again for about a minute (tcp_synack_retries).
const SYN_ACK_AFTER: u32 = tick::from_secs(64);
/// Last words after both ends are done (TIME-WAIT, twice the maximum segment lifetime).
const LAST_WORDS: u32 = tick::from_secs(120);

#[inline(always)]
pub fn reply(ctx: &TcContext) -> Result<i32, Outcome> {
    if !packet::is_ipv4(ctx) {
        return Err(Outcome::NotOurs);
    }
    let headers = packet::tc_headers(ctx, ETH_LEN).map_err(|_| Outcome::NotOurs)?;
    let key = FlowKeyV4 {
        client: headers.dst,
        backend: headers.src,
        client_port: headers.dst_port,
        backend_port: headers.src_port,
        proto: 6,
        zero: [0; 3],
    };
    let flow = FLOWS_V4.get_ptr_mut(key).ok_or(Outcome::NotOurs)?;
    // SAFETY: map memory stays valid until the program ends; a race leaves a time or a bit older, never another frontend
    // for a live flow.
    let flow = unsafe { &mut *flow };
    let now = world::now();
    if !belongs(flow, &headers, now) {
        if headers.flags & SYN != 0 {
            // The same ports now serve a connection that did not come through the frontend: its later packets are not ours.
            let _ = FLOWS_V4.remove(key);
        }
        return Err(Outcome::NotOurs);
    }
    note(flow, &headers, now);
    let (vip, port, ifindex) =
        ([flow.vip[0], flow.vip[1], flow.vip[2], flow.vip[3]], flow.port, flow.ifindex);
    rewrite::rewrite(ctx, &headers, ETH_LEN, End::Source, vip, port)?;
    stats::count(Outcome::Reply);
    Ok(send(ifindex))
}

/// Whether this packet is of the connection that the flow was noted for.
#[inline(always)]
fn belongs(flow: &Flow, headers: &Headers, now: u32) -> bool {
    if headers.flags & (SYN | ACK) == SYN | ACK {
        return !flow.closed() && tick::since(now, flow.opened) <= SYN_ACK_AFTER;
    }
    // A bare SYN is the container opening a connection of its own.
    headers.flags & SYN == 0 && (!flow.closed() || tick::since(now, flow.seen) <= LAST_WORDS)
}

/// Keeps the flow's state, and about once a second the client's time of last activity.
#[inline(always)]
fn note(flow: &mut Flow, headers: &Headers, now: u32) {
    if headers.flags & FIN != 0 {
        flow.state |= Flow::BACKEND_FIN;
    }
    if headers.flags & RST != 0 {
        flow.state |= Flow::RESET;
    }
    if flow.seen == now {
        return;
    }
    flow.seen = now;
    let key = ClientKeyV4 { service: flow.service, addr: world::masked(headers.dst, flow.mask) };
    if let Some(record) = CLIENTS_V4.get_ptr_mut(key) {
        // SAFETY: as above.
        unsafe { (*record).seen = now };
    }
}

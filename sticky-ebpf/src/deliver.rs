//! tc ingress where clients come in: what XDP chose for is rewritten and sent to the backend's device.

use aya_ebpf::helpers::bpf_redirect_neigh;
use aya_ebpf::programs::TcContext;
use sticky_common::outcome::Outcome;

use crate::packet;
use crate::rewrite::{self, End};
use crate::world;

/// Ethernet and two VLAN tags.
const MAX_L3: usize = 22;

#[inline(always)]
pub fn deliver(ctx: &TcContext) -> Result<i32, Outcome> {
    let Some(choice) = packet::handed_over(ctx) else { return Err(Outcome::NotOurs) };
    // A frame for another host's link address, seen because the interface listens to all, is not ours to deliver.
    if !packet::for_this_host(ctx) {
        return Err(Outcome::NotOurs);
    }
    let l3 = usize::from(choice.l3);
    if l3 > MAX_L3 {
        return Err(Outcome::Undeliverable);
    }
    let backend = world::backend(choice.backend).ok_or(Outcome::Undeliverable)?;
    let headers = packet::tc_headers(ctx, l3).map_err(|_| Outcome::Undeliverable)?;
    rewrite::rewrite(ctx, &headers, l3, End::Destination, backend.v4(), choice.port)?;
    Ok(send(backend.ifindex))
}

/// Sends the packet out of a device; the kernel finds the next hop and its link address.
#[inline(always)]
pub fn send(ifindex: u32) -> i32 {
    // SAFETY: without parameters the helper routes by the packet's own destination.
    unsafe { bpf_redirect_neigh(ifindex, core::ptr::null_mut(), 0, 0) as i32 }
}

//! Fragments behind the first one have no ports: they follow it, by the datagram's id.

use sticky_common::types::{Addr, Fragment, FragmentKey, tick};

use crate::maps::FRAGMENTS;
use crate::packet::Packet;
use crate::world;

/// How long a host waits for the rest of a datagram (net.ipv4.ipfrag_time; RFC 8200 says 60 s).
const WAITS: u32 = tick::from_secs(60);

#[inline(always)]
fn key(packet: &Packet) -> FragmentKey {
    // The id of IPv4 counts per protocol (RFC 791), that of IPv6 for all, and its later fragments may not say which.
    let proto = if packet.v4 { u32::from(packet.proto) } else { 0 };
    FragmentKey { src: packet.src, dst: packet.dst, id: packet.id, proto }
}

/// A first fragment: what was known of an earlier datagram with its id holds no more, wherever this one goes.
#[inline(never)]
pub fn begin(packet: &Packet) {
    let _ = FRAGMENTS.remove(&key(packet));
}

/// The rest of this datagram goes to this backend too.
#[inline(never)]
pub fn follow_to_backend(packet: &Packet, index: u32) {
    let Some(backend) = world::backend(index) else { return };
    let addr = backend.addr(packet.v4);
    let fragment = Fragment { addr, backend: backend.id, ifindex: 0, seen: world::now() };
    // A full table forgets the least recently used.
    let _ = FRAGMENTS.insert(&key(packet), &fragment, 0);
}

/// The rest of this datagram comes from this address too, and leaves by this interface.
#[inline(never)]
pub fn follow_to_client(packet: &Packet, vip: &Addr, ifindex: u32) {
    let fragment = Fragment { addr: *vip, backend: 0, ifindex, seen: world::now() };
    let _ = FRAGMENTS.insert(&key(packet), &fragment, 0);
}

#[inline(always)]
fn first(packet: &Packet) -> Option<&'static Fragment> {
    let fragment = FRAGMENTS.get_ptr(&key(packet))?;
    // SAFETY: map memory stays valid until the program ends.
    let fragment = unsafe { &*fragment };
    (tick::since(world::now(), fragment.seen) <= WAITS).then_some(fragment)
}

/// The living backend ([`sticky_common::types::BackendId`]) that the first fragment went to, 0: none.
#[inline(never)]
pub fn followed(packet: &Packet) -> u32 {
    let Some(fragment) = first(packet) else { return 0 };
    world::backend_of(fragment.backend).map_or(0, |backend| backend.id)
}

/// Where the first fragment of a reply went.
#[inline(always)]
pub fn followed_to_client(packet: &Packet) -> Option<&'static Fragment> {
    first(packet).filter(|fragment| fragment.backend == 0)
}

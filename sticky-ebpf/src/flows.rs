//! Flows through a frontend: how their replies are known.
//!
//! Anybody can invent the source of a first packet, so a new flow and its client's record wait where they can be washed
//! out, at a place or in `TRANSIENT`, and in `CANDIDATES`, until there is evidence that the client is real: it answers the
//! backend's SYN, the backend takes data from it, its datagrams go on. The record moves to `CLIENTS` then, and so does the
//! flow to `FLOWS` unless it has a place (`openings.rs`). A closed flow goes from there to `TRANSIENT` for its last words.

use core::ptr::null_mut;

use aya_ebpf::programs::XdpContext;
use sticky_common::decide;
use sticky_common::outcome::Outcome;
use sticky_common::types::{
    Backend, ClientKey, Flow, FlowKey, Frontend, Handshake, Record, addr, tick,
};

use crate::maps::{self, CANDIDATES, CLIENTS, FLOWS, HANDSHAKES, TRANSIENT};
use crate::openings;
use crate::packet::{FIN, Packet, RST, TCP, UDP, same};
use crate::world::{self, Maps};

/// SYN-ACKs are sent again for about a minute (tcp_synack_retries).
pub const SYN_ACK_AFTER: u32 = tick::from_secs(64);

/// What replies of a packet's connection to `backend` look like.
#[inline(always)]
pub fn key(packet: &Packet, backend: &Backend, port: [u8; 2]) -> FlowKey {
    FlowKey {
        client: packet.src,
        backend: backend.addr(packet.v4),
        client_port: packet.src_port,
        backend_port: port,
        proto: u32::from(packet.proto),
    }
}

/// A connection that has a place.
#[inline(always)]
pub fn placed(key: &FlowKey) -> Option<*mut Flow> {
    if key.proto == u32::from(TCP) { openings::get(key) } else { None }
}

/// Forgets a flow, wherever it is noted.
#[inline(always)]
pub fn forget(key: &FlowKey) {
    if !openings::leave(key) {
        let _ = FLOWS.remove(key);
        let _ = TRANSIENT.remove(key);
    }
}

/// Whether a flow is of the frontend that the packet came to.
#[inline(always)]
fn same_frontend(flow: &Flow, packet: &Packet) -> bool {
    flow.port == packet.dst_port && same(&flow.vip, &packet.dst)
}

/// Whether the packet belongs to a known flow to this backend.
#[inline(always)]
pub fn has(packet: &Packet, backend: &Backend, port: [u8; 2], now: u32) -> bool {
    let key = key(packet, backend, port);
    let kept = placed(&key).or_else(|| FLOWS.get_ptr_mut(&key));
    let Some(flow) = kept.or_else(|| TRANSIENT.get_ptr_mut(&key)) else { return false };
    // SAFETY: map memory stays valid until the program ends; an entry used again in between fails the comparison.
    let flow = unsafe { &*flow };
    same_frontend(flow, packet) && (packet.proto != UDP || flow.lives(key.proto, now))
}

/// The quick way of datagrams: whether this one's flow to `backend` was seen this very tick.
#[inline(never)]
pub fn fresh(packet: &Packet, index: u32, frontend: &Frontend) -> bool {
    let Some(backend) = world::backend(index) else { return false };
    let key = key(packet, backend, frontend.port);
    let Some(flow) = FLOWS.get_ptr(&key).or_else(|| TRANSIENT.get_ptr(&key)) else { return false };
    // SAFETY: as above.
    let flow = unsafe { &*flow };
    flow.seen == world::now() && same_frontend(flow, packet)
}

/// Remembers the flow, so that its replies are known, with whether the record of its client is a real one's. What is in the
/// way, if not [`Outcome::Hash`].
#[inline(always)]
pub fn note(
    ctx: &XdpContext,
    maps: &Maps<'_>,
    frontend: &Frontend,
    (backend, real): (&Backend, bool),
) -> Outcome {
    let &Maps { packet, port, now } = maps;
    let key = key(packet, backend, port);
    let opens = packet.proto == UDP || packet.opens();
    // Made where it is written: of a copy, words would be read that were written in pieces.
    let new = || Flow {
        vip: packet.dst,
        port: packet.dst_port,
        state: if real && packet.opens() { Flow::KNOWN } else { 0 },
        prefix: frontend.prefix,
        ifindex: ctx.ingress_ifindex() as u32,
        out: 0,
        service: frontend.service,
        backend: backend.id,
        seen: now,
        opened: if opens { now } else { 0 },
        isn: packet.seq,
    };
    let placed = placed(&key);
    let kept = if placed.is_none() { FLOWS.get_ptr_mut(&key) } else { None };
    let Some(at) = placed.or(kept).or_else(|| TRANSIENT.get_ptr_mut(&key)) else {
        // Without an entry the replies would leave with the backend's address: better no answer, the client tries again.
        let flow = new();
        let noted = packet.opens() && openings::begin(&key, &flow);
        return if noted || TRANSIENT.insert(&key, &flow, 0).is_ok() {
            Outcome::Hash
        } else {
            Outcome::Undeliverable
        };
    };
    // SAFETY: map memory stays valid until the program ends. Another CPU may write it meanwhile: each word is then the old
    // or the new one, of the same frontend unless the client uses its ports for two at once.
    let old = unsafe { &mut *at };
    let known = same_frontend(old, packet);
    // Another backend may have the address of one that is gone.
    if !known && old.lives(key.proto, now) && world::backend_of(old.backend).is_some() {
        return Outcome::Collision;
    }
    if known && (packet.proto == UDP || !packet.opens()) {
        // A datagram in a later second than the first: its source goes on, so it is real.
        let goes_on = kept.is_none() && packet.proto == UDP && old.opened != now;
        let (state, opened, isn, out) = (old.state, old.opened, old.isn, old.out);
        *old = Flow { state: state | end_bits(packet.flags), opened, isn, out, ..new() };
        if goes_on && FLOWS.insert(&key, &*old, 0).is_ok() {
            let _ = TRANSIENT.remove(&key);
        }
    } else {
        // Anybody can send a SYN with the ports of a connection that goes on: it takes nothing from it.
        let real = if known && old.established() { Flow::REAL } else { 0 };
        let flow = new();
        *old = Flow { state: flow.state | real, ..flow };
    }
    Outcome::Hash
}

/// Remembers that the client ended a flow, so that the same ports can serve another.
#[inline(never)]
pub fn note_end(packet: &Packet, frontend: &Frontend, backend: u32) {
    let Some(backend) = world::backend(backend) else { return };
    let key = key(packet, backend, frontend.port);
    if mark(placed(&key), packet).is_some() {
        return;
    }
    // Both, in this order: on another CPU it may be on its way from the one to the other, see `promote`.
    mark(TRANSIENT.get_ptr_mut(&key), packet);
    if let Some(flow) = mark(FLOWS.get_ptr_mut(&key), packet)
        && flow.closed()
    {
        put_aside(&key, flow);
    }
}

#[inline(always)]
fn mark(flow: Option<*mut Flow>, packet: &Packet) -> Option<&'static Flow> {
    // SAFETY: map memory stays valid until the program ends; races as in `note`.
    let flow = unsafe { &mut *flow? };
    if !same_frontend(flow, packet) {
        return None;
    }
    flow.state |= end_bits(packet.flags);
    flow.seen = world::now();
    Some(flow)
}

/// A closed flow has its last words where it takes no room from those that live.
#[inline(never)]
pub fn put_aside(key: &FlowKey, flow: &Flow) {
    if FLOWS.get_ptr(key).is_some() && TRANSIENT.insert(key, flow, 0).is_ok() {
        let _ = FLOWS.remove(key);
    }
}

#[inline(always)]
fn end_bits(flags: u8) -> u8 {
    let fin = if flags & FIN != 0 { Flow::CLIENT_FIN } else { 0 };
    let rst = if flags & RST != 0 { Flow::RESET } else { 0 };
    fin | rst
}

/// The handshake that this packet of a client answers.
#[inline(always)]
pub fn answered(packet: &Packet, place: u32) -> Option<&'static Backend> {
    let tag = maps::handshake_tag(place)?;
    if *tag != Handshake::tag(packet.ack) {
        return None;
    }
    let waiting = HANDSHAKES.get_ptr_mut(place)?;
    // SAFETY: map memory stays valid until the program ends; a torn entry fails one of the comparisons.
    let waiting = unsafe { &mut *waiting };
    if waiting.ack != packet.ack || waiting.backend == 0 {
        return None;
    }
    let backend = world::backend_of(waiting.backend);
    *waiting = Handshake::default();
    *tag = 0;
    backend
}

/// Evidence from the client: its flow to this backend is established.
#[inline(never)]
pub fn establish(packet: &Packet, backend: &Backend, port: [u8; 2]) -> bool {
    let key = key(packet, backend, port);
    let placed = placed(&key);
    let Some(flow) = placed.or_else(|| TRANSIENT.get_ptr_mut(&key)) else { return false };
    // SAFETY: map memory stays valid until the program ends; the entry is copied before it goes.
    let flow = unsafe { &mut *flow };
    if !same_frontend(flow, packet) {
        return false;
    }
    flow.seen = world::now();
    promote(&key, flow, placed.is_some());
    true
}

/// Puts a flow and its client's record where nobody can wash them out; one that has a place keeps it.
#[inline(always)]
pub fn promote(key: &FlowKey, flow: &mut Flow, placed: bool) {
    // What it would write is what was written when the flow began.
    if flow.state & Flow::KNOWN == 0 {
        remember(key, flow);
    }
    flow.state |= Flow::REAL;
    if !placed && FLOWS.insert(key, &*flow, 0).is_ok() {
        // SAFETY: a read of a reference. Anew, since its end may have come on another CPU meanwhile.
        let state = unsafe { (&raw const flow.state).read_volatile() };
        if state & !Flow::KNOWN != Flow::REAL
            && let Some(moved) = FLOWS.get_ptr_mut(key)
        {
            // SAFETY: as above.
            unsafe { (*moved).state |= state };
        }
        // The last, since the flow is read where it was.
        let _ = TRANSIENT.remove(key);
    }
}

/// A client's record, from its candidate or from the flow alone; one that is there gets to know the flow's backend.
#[inline(never)]
fn remember(key: &FlowKey, flow: &Flow) {
    let client = ClientKey { service: flow.service, addr: addr::masked(&key.client, flow.prefix) };
    if let Some(record) = CLIENTS.get_ptr_mut(&client) {
        // SAFETY: map memory stays valid until the program ends; in place, since an update of an LRU map allocates.
        let record = unsafe { &mut *record };
        record.seen = flow.seen;
        let [a, b, c, d] = record.backends;
        if a != flow.backend && b != flow.backend && c != flow.backend && d != flow.backend {
            record.backends = [flow.backend, a, b, c];
        }
        return;
    }
    let record = match CANDIDATES.get_ptr(&client) {
        // SAFETY: map memory stays valid until the program ends.
        Some(candidate) => unsafe { *candidate },
        None => Record { backends: [flow.backend, 0, 0, 0], seen: flow.seen, zero: 0 },
    };
    if CLIENTS.insert(&client, &record, 0).is_ok() {
        let _ = CANDIDATES.remove(&client);
    }
}

/// What the record of a client says that is, or is to be, remembered. Null pointers, since the verifier loses an option
/// that goes through memory.
pub struct Memory {
    pub key: ClientKey,
    known: *mut Record,
    candidate: *mut Record,
}

impl Memory {
    #[inline(always)]
    pub fn of(key: ClientKey) -> Self {
        let known = CLIENTS.get_ptr_mut(&key).unwrap_or(null_mut());
        let candidate = if known.is_null() {
            CANDIDATES.get_ptr_mut(&key).unwrap_or(null_mut())
        } else {
            null_mut()
        };
        Self { key, known, candidate }
    }

    /// Whether it is of a client that is known to be real.
    #[inline(always)]
    pub fn is_real(&self) -> bool {
        !self.known.is_null()
    }

    #[inline(always)]
    pub fn record(&self) -> Option<&Record> {
        let record = if self.known.is_null() { self.candidate } else { self.known };
        // SAFETY: map memory stays valid until the program ends. Another CPU may write it meanwhile: each word is then the
        // old or the new one, and an id that is of neither use of its index is refused by the decision.
        unsafe { record.as_ref() }
    }

    /// Remembers that a connection to `backend` began, or went on.
    #[inline(always)]
    pub fn note(&self, reason: Outcome, backend: &Backend, maps: &Maps<'_>) {
        let now = maps.now;
        // SAFETY: as above; in place, since an update of an LRU map allocates.
        if let Some(known) = unsafe { self.known.as_mut() } {
            if reason == Outcome::Recorded {
                // What the record said of an established connection stays, but for the time.
                known.seen = now;
            } else {
                *known = decide::remember(Some(known), backend, now, maps);
            }
            return;
        }
        let next = decide::remember(self.record(), backend, now, maps);
        // SAFETY: as above.
        match unsafe { self.candidate.as_mut() } {
            Some(candidate) => {
                // A source whose datagrams go on is real. Connections have their handshakes to say so.
                let goes_on = maps.packet.proto != TCP && candidate.seen != now;
                if reason == Outcome::Recorded {
                    candidate.seen = now;
                } else {
                    *candidate = next;
                }
                if goes_on && CLIENTS.insert(&self.key, candidate, 0).is_ok() {
                    let _ = CANDIDATES.remove(&self.key);
                }
            }
            // A full table forgets the least recently used; with no memory at all the slot still answers.
            None => drop(CANDIDATES.insert(&self.key, &next, 0)),
        }
    }
}

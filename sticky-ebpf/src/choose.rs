//! XDP: frontend, slot, and where needed the client's record; then the choice is handed over to tc.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use sticky_common::decide::{Clock, Decision, datagram, first, later, owner};
use sticky_common::hash;
use sticky_common::maps::HANDSHAKE_BITS;
use sticky_common::outcome::{Action, Outcome};
use sticky_common::types::{
    Addr, Backend, BackendId, ClientKey, Frontend, Handover, Handshake, Mark, Slot, addr,
};

use crate::flows::{self, Memory};
use crate::packet::{FIN, Packet, RST, Shape, TCP};
use crate::plain::{Plain, Whole};
use crate::world::{self, Maps};
use crate::{fragments, handover, maps, marks, rules, settings, stats};

/// The outcome of a frame at XDP; with this bit, it goes on to tc or to the host.
const PASSES: u32 = 1 << 31;

/// The slow way found none to send to.
const NO_BACKEND: u32 = u32::MAX;

/// What became of a frame at XDP.
pub struct Verdict(u32);

impl Verdict {
    #[inline(always)]
    const fn new(outcome: Outcome, passes: bool) -> Self {
        Self(outcome as u32 | if passes { PASSES } else { 0 })
    }

    /// Index of its counter.
    #[inline(always)]
    pub const fn outcome(&self) -> u32 {
        self.0 & !PASSES
    }

    #[inline(always)]
    pub const fn passes(&self) -> bool {
        self.0 & PASSES != 0
    }
}

impl From<Outcome> for Verdict {
    #[inline(always)]
    fn from(outcome: Outcome) -> Self {
        Self::new(outcome, outcome.action() != Action::Drop)
    }
}

#[inline(always)]
pub fn choose(ctx: &XdpContext) -> Verdict {
    if let Some(plain) = Plain::of(ctx.data(), ctx.data_end()) {
        let found = maps::frontend_v4(plain.dst, plain.dst_port, plain.proto);
        let (Some(frontend), Some(whole)) = (found, plain.whole()) else {
            return Outcome::NotOurs.into();
        };
        let hash = client_hash(&whole.src, frontend.prefix, true);
        if frontend.rules == 0
            && let Some(backend) = by_table(&whole, frontend, hash)
        {
            let bytes = ctx.data_end() - ctx.data();
            return hand_over(ctx, (bytes, 0), backend, frontend.port, Outcome::Hash.into());
        }
        decide(ctx, &mut whole.packet(), frontend, hash)
    } else {
        let mut packet = Packet::NONE;
        if handover::sticky_read_xdp(ctx.ctx, &raw mut packet) == 0 {
            return Outcome::NotOurs.into();
        }
        if packet.shape == Shape::Later {
            return match fragments::followed(&packet) {
                0 => Outcome::NotOurs.into(),
                id => {
                    let (what, backend) = (of_frame(ctx, &packet), BackendId(id).index());
                    hand_over(ctx, what, backend, [0; 2], Outcome::Fragment.into())
                }
            };
        }
        if packet.shape == Shape::First {
            fragments::begin(&packet);
        }
        let Some(frontend) = maps::frontend(&packet) else { return Outcome::NotOurs.into() };
        let hash = client_hash(&packet.src, frontend.prefix, packet.v4);
        decide(ctx, &mut packet, frontend, hash)
    }
}

/// The commonest answer, in few steps and before the packet is written down for those who ask more: the middle of a
/// connection, where no handshake waits for it and no change has moved the slot. [`decide`] would say the same.
#[inline(always)]
fn by_table(whole: &Whole, frontend: &Frontend, hash: u64) -> Option<u32> {
    let (place, ack) = whole.middle(hash)?;
    if *maps::handshake_tag(place)? == Handshake::tag(ack) {
        return None;
    }
    let slot = maps::slot(frontend.service, hash::slot(hash, settings::table_size()));
    if slot.unsettled() { None } else { slot.index() }
}

#[inline(always)]
fn decide(ctx: &XdpContext, packet: &mut Packet, frontend: &Frontend, hash: u64) -> Verdict {
    if frontend.rules != 0 && !rules::admitted(frontend.rules, &packet.src) {
        return Outcome::Denied.into();
    }
    let slot = maps::slot(frontend.service, hash::slot(hash, settings::table_size()));

    let mut chosen = None;
    if packet.proto == TCP && !packet.opens() && !packet.is_error() {
        let place = Handshake::place(hash, packet.src_port, packet.dst_port, HANDSHAKE_BITS);
        if let Some(backend) = flows::answered(packet, place)
            && flows::establish(packet, backend, frontend.port)
        {
            chosen = Some(BackendId(backend.id).index());
        } else if !slot.unsettled() {
            chosen = slot.index();
        }
        if let Some(backend) = chosen
            && packet.flags & (FIN | RST) != 0
        {
            flows::note_end(packet, frontend, backend);
        }
    } else if !packet.is_error()
        && packet.proto != TCP
        && !slot.unsettled()
        && let Some(index) = slot.index()
        && flows::fresh(packet, index, frontend)
    {
        chosen = Some(index);
    }
    match chosen {
        Some(backend) => send(ctx, packet, frontend, backend, Outcome::Hash.into()),
        None => {
            let at = core::ptr::from_ref(frontend).cast_mut();
            let answer = sticky_ask(ctx.ctx, &raw mut *packet, at, slot.0, hash);
            let (verdict, backend) = (Verdict(answer as u32), (answer >> 32) as u32);
            if backend == NO_BACKEND {
                return verdict;
            }
            send(ctx, packet, frontend, backend, verdict)
        }
    }
}

#[inline(always)]
fn client_hash(src: &Addr, prefix: u8, v4: bool) -> u64 {
    // Masked on both ways: of an IPv4 address that is one word.
    if v4 {
        hash::client(settings::hash_key(), &addr::masked(src, prefix), true)
    } else {
        hash::client(settings::hash_key(), &addr::masked(src, prefix), false)
    }
}

/// The way of first packets and of unsettled slots: the client's record, and a flow for the replies.
///
/// A global function, to keep the common way short, and since the verifier walks it once for itself and not again behind
/// each way that leads here. The verdict, and above it the index of the backend or [`NO_BACKEND`].
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sticky_ask(
    ctx: *mut xdp_md,
    packet: *mut Packet,
    frontend: *mut Frontend,
    slot: u32,
    hash: u64,
) -> u64 {
    // SAFETY: the caller passes what it read and found; the verifier insists that they are asked for null.
    let (Some(packet), Some(frontend)) = (unsafe { packet.as_ref() }, unsafe { frontend.as_ref() })
    else {
        return u64::from(Verdict::from(Outcome::NotOurs).0) | u64::from(NO_BACKEND) << 32;
    };
    let ctx = XdpContext::new(ctx);
    let mut backend = NO_BACKEND;
    let verdict = match ask_records(&ctx, packet, frontend, (Slot(slot), hash), &mut backend) {
        Outcome::NoBackend => nobody(&ctx, packet, frontend),
        reason => reason.into(),
    };
    u64::from(verdict.0) | u64::from(backend) << 32
}

#[inline(always)]
fn send(
    ctx: &XdpContext,
    packet: &Packet,
    frontend: &Frontend,
    backend: u32,
    verdict: Verdict,
) -> Verdict {
    if packet.shape == Shape::First {
        fragments::follow_to_backend(packet, backend);
    }
    hand_over(ctx, of_frame(ctx, packet), backend, frontend.port, verdict)
}

/// Bytes of the frame, and tags that it has.
#[inline(always)]
fn of_frame(ctx: &XdpContext, packet: &Packet) -> (usize, u8) {
    // Of a jumbo frame only the first part is between the pointers.
    ((ctx.data_end() - ctx.data()).max(packet.end as usize), packet.tags)
}

#[inline(always)]
fn hand_over(
    ctx: &XdpContext,
    (bytes, tags): (usize, u8),
    backend: u32,
    port: [u8; 2],
    verdict: Verdict,
) -> Verdict {
    let (magic, task) = (Handover::MAGIC, Handover::DELIVER);
    let choice = Handover { magic, backend, port, task, tags };
    if handover::hand_over(ctx, choice).is_none() {
        return Outcome::NoMetadata.into();
    }
    stats::towards(backend, bytes);
    verdict
}

/// No backend is up: silence at first, since a client sends its SYN again into the gap of an update; then a refusal.
#[inline(always)]
fn nobody(ctx: &XdpContext, packet: &Packet, frontend: &Frontend) -> Verdict {
    let due = frontend.refuse_at != 0 && world::now() >= frontend.refuse_at;
    let (magic, task) = (Handover::MAGIC, Handover::REFUSE);
    let refusal = Handover { magic, backend: 0, port: packet.dst_port, task, tags: packet.tags };
    let passes = due && !packet.is_error() && handover::hand_over(ctx, refusal).is_some();
    Verdict::new(Outcome::NoBackend, passes)
}

/// What the records say, and after that: the index of the backend, if it goes to one.
#[inline(always)]
fn ask_records(
    ctx: &XdpContext,
    packet: &Packet,
    frontend: &Frontend,
    (slot, hash): (Slot, u64),
    index: &mut u32,
) -> Outcome {
    let now = world::now();
    let maps = Maps { packet, port: frontend.port, now };
    if packet.opens()
        && frontend.interval == 0
        && let Some(backend) = slot.index().and_then(world::backend)
        && backend.flags & Backend::KEEPS != 0
        && let Some(mark) = marks::of(hash, frontend.service)
        && let Some(real) = mark.says(hash, backend.id, now)
    {
        let noted = flows::note(ctx, &maps, frontend, (backend, real));
        if noted != Outcome::Hash {
            return noted;
        }
        *index = BackendId(backend.id).index();
        // As the record would say.
        return if frontend.ttl == 0 { Outcome::Expired } else { Outcome::Pinned };
    }
    let addr = addr::masked(&packet.src, frontend.prefix);
    let memory = Memory::of(ClientKey { service: frontend.service, addr });
    let record = memory.record();
    if packet.is_error() {
        let Some(backend) = owner(slot, record, &maps) else { return Outcome::NotOurs };
        *index = BackendId(backend.id).index();
        return Outcome::IcmpError;
    }
    let clock = Clock { now, ttl: frontend.ttl };
    let Decision { backend, reason } = if packet.proto != TCP {
        datagram(slot, record, clock, &maps)
    } else if packet.opens() {
        first(slot, record, clock, &maps)
    } else {
        later(slot, record, &maps)
    };
    let Some(backend) = backend else { return reason };
    let begins = !matches!(reason, Outcome::Recorded | Outcome::Hash);
    if begins && frontend.interval != 0 && !rules::in_rate(&memory.key, frontend.interval) {
        return Outcome::RateLimited;
    }
    let noted = flows::note(ctx, &maps, frontend, (backend, memory.is_real()));
    if noted != Outcome::Hash {
        return noted;
    }
    memory.note(reason, backend, &maps);
    *index = BackendId(backend.id).index();
    if reason != Outcome::Recorded
        && let Some(mark) = marks::of(hash, frontend.service)
    {
        *mark = Mark::new(hash, backend.id, now, memory.is_real());
    }
    tell(ctx, packet, backend, reason);
    reason
}

#[inline(always)]
fn tell(ctx: &XdpContext, packet: &Packet, backend: &Backend, reason: Outcome) {
    debug!(
        ctx,
        "{:i} port {}: backend {}, outcome {}",
        addr::bytes(&packet.src),
        u16::from_be_bytes(packet.src_port),
        BackendId(backend.id).index(),
        reason as u32
    );
}

//! XDP: frontend, slot, and where needed the client's record; then the choice is handed over to tc.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use sticky_common::decide::{Clock, Decision, datagram, first, later, owner};
use sticky_common::hash;
use sticky_common::maps::HANDSHAKE_BITS;
use sticky_common::outcome::{Action, Outcome};
use sticky_common::types::{
    Backend, BackendId, ClientKey, Frontend, Handover, Handshake, Slot, addr,
};

use crate::flows::{self, Memory};
use crate::packet::{FIN, Packet, RST, Shape, TCP};
use crate::world::{self, Maps};
use crate::{fragments, handover, maps, rules, settings, stats};

/// The outcome of a frame at XDP; with this bit, it goes on to tc or to the host.
const PASSES: u32 = 1 << 31;

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
    let mut packet = Packet::NONE;
    if handover::sticky_read_xdp(ctx.ctx, &raw mut packet) == 0 {
        return Outcome::NotOurs.into();
    }
    Verdict(sticky_decide(ctx.ctx, &raw mut packet))
}

/// A global function, which the verifier walks once for itself and not again behind each way of reading the headers.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn sticky_decide(ctx: *mut xdp_md, packet: *mut Packet) -> u32 {
    // SAFETY: the callers pass what they read; the verifier insists that it is asked for null.
    match unsafe { packet.as_ref() } {
        Some(packet) => decide(&XdpContext::new(ctx), packet).0,
        None => Verdict::from(Outcome::NotOurs).0,
    }
}

#[inline(always)]
fn decide(ctx: &XdpContext, packet: &Packet) -> Verdict {
    if packet.shape == Shape::Later {
        return match fragments::followed(packet) {
            0 => Outcome::NotOurs.into(),
            id => hand_over(ctx, packet, BackendId(id).index(), [0; 2], Outcome::Fragment),
        };
    }
    if packet.shape == Shape::First {
        fragments::begin(packet);
    }
    let Some(frontend) = maps::frontend(packet) else { return Outcome::NotOurs.into() };
    if frontend.rules != 0 && !rules::admitted(frontend.rules, &packet.src) {
        return Outcome::Denied.into();
    }
    let client = addr::masked(&packet.src, frontend.prefix);
    let hash = hash::client(settings::hash_key(), &client, packet.v4);
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
    let (backend, reason) = match chosen {
        Some(backend) => (backend, Outcome::Hash),
        None => {
            let mut question = Question { packet, frontend, slot, backend: 0 };
            let outcome = ask_records(ctx, &mut question);
            if outcome == Outcome::NoBackend {
                return nobody(ctx, packet, frontend);
            }
            if outcome.action() != Action::Forward {
                return outcome.into();
            }
            (question.backend, outcome)
        }
    };
    if packet.shape == Shape::First {
        fragments::follow_to_backend(packet, backend);
    }
    hand_over(ctx, packet, backend, frontend.port, reason)
}

#[inline(always)]
fn hand_over(
    ctx: &XdpContext,
    packet: &Packet,
    backend: u32,
    port: [u8; 2],
    reason: Outcome,
) -> Verdict {
    // Of a jumbo frame only the first part is between the pointers.
    let bytes = (ctx.data_end() - ctx.data()).max(packet.end as usize);
    let (magic, task) = (Handover::MAGIC, Handover::DELIVER);
    let choice = Handover { magic, backend, port, task, tags: packet.tags };
    if handover::hand_over(ctx, choice).is_none() {
        return Outcome::NoMetadata.into();
    }
    stats::towards(backend, bytes);
    reason.into()
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

/// What the slow way works with; a function takes five arguments at most.
struct Question<'a> {
    packet: &'a Packet,
    frontend: &'a Frontend,
    slot: Slot,
    /// The answer.
    backend: u32,
}

/// The way of first packets and of unsettled slots: the client's record, and a flow for the replies.
///
/// A function of its own, to keep the common way short; the backend goes into the question, since the kernel refuses the
/// BTF of a result with a tuple.
#[inline(never)]
fn ask_records(ctx: &XdpContext, question: &mut Question<'_>) -> Outcome {
    let &mut Question { packet, frontend, slot, .. } = question;
    let client = addr::masked(&packet.src, frontend.prefix);
    let now = world::now();
    let maps = Maps { packet, port: frontend.port, now };
    let memory = Memory::of(ClientKey { service: frontend.service, addr: client });
    let record = memory.record();
    if packet.is_error() {
        let Some(backend) = owner(slot, record, &maps) else { return Outcome::NotOurs };
        question.backend = BackendId(backend.id).index();
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
    let noted = flows::note(ctx, &maps, frontend, backend);
    if noted != Outcome::Hash {
        return noted;
    }
    memory.note(reason, backend, &maps);
    question.backend = BackendId(backend.id).index();
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

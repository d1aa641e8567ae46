//! XDP: frontend, slot, and where needed the client's record; then the choice is handed over to tc.

use aya_ebpf::programs::XdpContext;
use aya_log_ebpf::debug;
use sticky_common::decide::{self, Clock, Decision};
use sticky_common::hash;
use sticky_common::outcome::{Action, Outcome};
use sticky_common::types::{
    Backend, BackendId, ClientKeyV4, Flow, Frontend, FrontendKeyV4, Handover, Slot, tick,
};

use crate::maps::{self, CLIENTS_V4, FLOWS_V4, FRONTENDS_V4};
use crate::packet::{self, FIN, Headers, NotTcp, RST};
use crate::world::{self, Maps, masked};
use crate::{settings, stats};

const ETH_LEN: u16 = 14;
/// A flow that was not seen for this long no longer stands in another's way: 3 h, as P2 promises.
const FLOW_LIVES: u32 = tick::from_secs(3 * 3600);

#[inline(always)]
#[must_use]
pub fn choose(ctx: &XdpContext) -> Outcome {
    let headers = match packet::xdp_headers(ctx) {
        Ok(headers) => headers,
        Err(NotTcp::Fragment) => return Outcome::Fragment,
        Err(NotTcp::Other | NotTcp::Short) => return Outcome::NotOurs,
    };
    let key = FrontendKeyV4 { addr: headers.dst, port: headers.dst_port, proto: 6, zero: 0 };
    // SAFETY: map memory stays valid until the program ends.
    let Some(frontend) = (unsafe { FRONTENDS_V4.get(key) }) else { return Outcome::NotOurs };
    let client = masked(headers.src, frontend.mask);
    let index = hash::slot(hash::client_v4(settings::hash_key(), client), settings::table_size());
    let Some(slot) = maps::slot(frontend.service, index) else { return Outcome::NoBackend };

    let (backend, reason) = if !slot.unsettled() && !headers.opens() {
        let Some(backend) = slot.index() else { return Outcome::NoBackend };
        if headers.flags & (FIN | RST) != 0 {
            note_end(&headers, frontend, backend);
        }
        (backend, Outcome::Hash)
    } else {
        let mut question = Question { headers: &headers, frontend, client, slot, backend: 0 };
        let outcome = ask_records(ctx, &mut question);
        if outcome.action() != Action::Forward {
            return outcome;
        }
        (question.backend, outcome)
    };

    let bytes = ctx.data_end() - ctx.data();
    let choice = Handover { magic: Handover::MAGIC, backend, port: frontend.port, l3: ETH_LEN };
    if packet::hand_over(ctx, choice).is_none() {
        return Outcome::NoMetadata;
    }
    stats::towards(backend, bytes);
    reason
}

/// What the slow way works with; a function takes five arguments at most.
struct Question<'a> {
    headers: &'a Headers,
    frontend: &'a Frontend,
    client: [u8; 4],
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
    let &mut Question { headers, frontend, client, slot, .. } = question;
    let maps = Maps { headers, port: frontend.port };
    let now = world::now();
    let key = ClientKeyV4 { service: frontend.service, addr: client };
    let known = CLIENTS_V4.get_ptr_mut(key);
    // SAFETY: map memory stays valid until the program ends. Another CPU may write it meanwhile: each word is then the
    // old or the new one, and an id that is of neither use of its index is refused by the decision.
    let record = known.map(|r| unsafe { &*r });

    let Decision { backend, reason } = if headers.opens() {
        decide::first(slot, record, Clock { now, ttl: frontend.ttl }, &maps)
    } else {
        decide::later(slot, record, &maps)
    };
    let Some(backend) = backend else { return reason };
    if let Err(outcome) = note_flow(ctx, &maps, frontend, backend, now) {
        return outcome;
    }
    match known {
        // What the record said of an established connection stays, but for the time.
        // SAFETY: as above; in place, since an update of an LRU map allocates.
        Some(at) if reason == Outcome::Recorded => unsafe { (*at).seen = now },
        _ => {
            let next = decide::remember(record, backend, now, &maps);
            match known {
                // SAFETY: as above.
                Some(at) => unsafe { *at = next },
                // A full table forgets the least recently used; with no memory at all the slot still answers.
                None => drop(CLIENTS_V4.insert(key, next, 0)),
            }
        }
    }
    question.backend = BackendId(backend.id).index();
    debug!(
        ctx,
        "{:i} port {}: backend {}, outcome {}",
        u32::from_be_bytes(headers.src),
        u16::from_be_bytes(headers.src_port),
        question.backend,
        reason as u32
    );
    reason
}

/// Remembers the flow, so that its replies are known.
#[inline(always)]
fn note_flow(
    ctx: &XdpContext,
    maps: &Maps<'_>,
    frontend: &Frontend,
    backend: &Backend,
    now: u32,
) -> Result<(), Outcome> {
    let key = maps.flow_key(backend);
    let opens = maps.headers.opens();
    let [a, b, c, d] = maps.headers.dst;
    let mut flow = Flow {
        vip: [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        port: maps.headers.dst_port,
        state: 0,
        zero: 0,
        ifindex: ctx.ingress_ifindex() as u32,
        service: frontend.service,
        mask: frontend.mask,
        seen: now,
        opened: if opens { now } else { 0 },
    };
    let Some(at) = FLOWS_V4.get_ptr_mut(key) else {
        // Without an entry the replies would leave with the backend's address: better no answer, the client tries again.
        return FLOWS_V4.insert(key, flow, 0).map_err(|_| Outcome::Undeliverable);
    };
    // SAFETY: map memory stays valid until the program ends; races as with the record.
    let old = unsafe { &mut *at };
    let same = maps.same_frontend(old);
    if !same && !old.closed() && tick::since(now, old.seen) < FLOW_LIVES {
        return Err(Outcome::Collision);
    }
    if !opens && same {
        flow.state = old.state | end_bits(maps.headers.flags);
        flow.opened = old.opened;
    }
    *old = flow;
    Ok(())
}

/// Remembers that the client ended a flow, so that the same ports can serve another.
#[inline(never)]
fn note_end(headers: &Headers, frontend: &Frontend, backend: u32) {
    let maps = Maps { headers, port: frontend.port };
    let Some(backend) = world::backend(backend) else { return };
    let Some(flow) = FLOWS_V4.get_ptr_mut(maps.flow_key(backend)) else { return };
    // SAFETY: map memory stays valid until the program ends; races as with the record.
    let flow = unsafe { &mut *flow };
    if maps.same_frontend(flow) {
        flow.state |= end_bits(headers.flags);
        flow.seen = world::now();
    }
}

#[inline(always)]
fn end_bits(flags: u8) -> u8 {
    let fin = if flags & FIN != 0 { Flow::CLIENT_FIN } else { 0 };
    let rst = if flags & RST != 0 { Flow::RESET } else { 0 };
    fin | rst
}

//! The kernel half of sticky.
//!
//! `sticky_xdp` chooses a backend and hands the choice over in the packet's metadata; `sticky_deliver`, at tc ingress of
//! the same interface, rewrites the packet and sends it to the backend; `sticky_reply`, at tc ingress of the backend's
//! link, restores the frontend's address in what comes back and sends it to the client. Netfilter sees neither direction.
#![no_std]
#![no_main]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]
#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "a key by value is one more copy on a stack of 512 bytes"
)]

mod answer;
mod capture;
mod choose;
mod deliver;
mod flows;
mod fragments;
mod handover;
mod maps;
mod marks;
mod openings;
mod packet;
mod plain;
mod reply;
mod rewrite;
mod rules;
mod settings;
mod stats;
mod wide;
mod world;

use aya_ebpf::bindings::xdp_action;
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use sticky_common::types::capture::Event;

/// Chooses; never changes the packet itself. For native mode, where a jumbo frame comes in fragments.
#[xdp(frags)]
pub fn sticky_xdp(ctx: XdpContext) -> u32 {
    xdp(&ctx)
}

/// The same for generic mode: a program that takes fragments gets a copy of the packet there, whose link header's length
/// the kernel (6.18) forgets, so that tc no longer finds the metadata.
#[xdp]
pub fn sticky_xdp_generic(ctx: XdpContext) -> u32 {
    xdp(&ctx)
}

#[inline(always)]
fn xdp(ctx: &XdpContext) -> u32 {
    let verdict = choose::choose(ctx);
    stats::count_index(verdict.outcome());
    capture::seen(ctx, verdict.outcome());
    if verdict.passes() { xdp_action::XDP_PASS } else { xdp_action::XDP_DROP }
}

/// Delivers what `sticky_xdp` chose for, and touches nothing else.
#[classifier]
pub fn sticky_deliver(ctx: TcContext) -> i32 {
    let kept = capture::keep(&ctx, Event::IN);
    let verdict = deliver::deliver(&ctx);
    if kept {
        capture::emit();
    }
    verdict
}

/// Brings replies of flows that came through a frontend back to their clients, and touches nothing else.
#[classifier]
pub fn sticky_reply(ctx: TcContext) -> i32 {
    let kept = capture::keep(&ctx, Event::REPLY);
    let verdict = reply::reply(&ctx);
    if kept {
        capture::emit();
    }
    verdict
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No code that can panic survives: the verifier refuses a loop without an end.
    loop {}
}

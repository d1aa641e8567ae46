//! The kernel half of sticky.
//!
//! `sticky_xdp` chooses a backend and hands the choice over in the packet's metadata; `sticky_deliver`, at tc ingress of
//! the same interface, rewrites the packet and sends it to the backend; `sticky_reply`, at tc ingress of the backend's
//! link, restores the frontend's address in what comes back and sends it to the client. Netfilter sees neither direction.
#![no_std]
#![no_main]

mod choose;
mod deliver;
mod maps;
mod packet;
mod reply;
mod rewrite;
mod settings;
mod stats;
mod world;

use aya_ebpf::bindings::{tcx_action_base::*, xdp_action};
use aya_ebpf::macros::{classifier, xdp};
use aya_ebpf::programs::{TcContext, XdpContext};
use sticky_common::outcome::Action;

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
    let outcome = choose::choose(ctx);
    stats::count(outcome);
    match outcome.action() {
        Action::Pass | Action::Forward => xdp_action::XDP_PASS,
        Action::Drop => xdp_action::XDP_DROP,
    }
}

/// Delivers what `sticky_xdp` chose for, and touches nothing else.
#[classifier]
pub fn sticky_deliver(ctx: TcContext) -> i32 {
    verdict(deliver::deliver(&ctx))
}

/// Brings replies of flows that came through a frontend back to their clients, and touches nothing else.
#[classifier]
pub fn sticky_reply(ctx: TcContext) -> i32 {
    verdict(reply::reply(&ctx))
}

/// What tc does: `Ok` carries the verdict of the redirect, an outcome that passes leaves the packet to the next program.
#[inline(always)]
fn verdict(result: Result<i32, sticky_common::outcome::Outcome>) -> i32 {
    match result {
        Ok(redirect) => redirect,
        Err(outcome) if outcome.action() == Action::Drop => {
            stats::count(outcome);
            TCX_DROP
        }
        Err(_) => TCX_NEXT,
    }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    // No code that can panic survives: the verifier refuses a loop without an end.
    loop {}
}

//! The packet suite: tables of what comes in, what is counted and what comes out, byte for byte.
//!
//! A frame of a client goes through `sticky_xdp` by `BPF_PROG_TEST_RUN` in its live mode: what it passes goes on, with its
//! metadata, into the kernel's receive path of the client's interface, where `sticky_deliver` is attached. What comes out at
//! the other ends of the links is compared with a frame that was built anew, all checksums included. Frames of backends
//! come in by their link, where `sticky_reply` is attached. Each frame is tried with another address too: then it passes
//! unchanged.

mod affinity;
mod case;
mod errors;
mod explore;
mod fragments;
mod headers;
mod maps;
mod model;
mod openings;
mod packet;
mod places;
mod plain;
mod random;
mod raw;
mod rules;
mod state;
mod world;

fn packets(program: &'static str) {
    let all = [
        plain::cases(),
        headers::cases(),
        fragments::cases(),
        errors::about_flows(),
        errors::of_our_own(),
        state::cases(),
        openings::cases(),
        affinity::cases(),
        rules::cases(),
    ];
    case::try_all(program, &all);
}

#[test]
fn packets_in_native_mode() {
    packets("sticky_xdp");
}

#[test]
fn packets_in_generic_mode() {
    packets("sticky_xdp_generic");
}

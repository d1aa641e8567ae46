//! The maps, as the decision asks them.

use aya_ebpf::helpers::bpf_ktime_get_coarse_ns;
use sticky_common::decide::World;
use sticky_common::types::{Backend, Flow, FlowKeyV4, tick};

use crate::maps::{BACKENDS, FLOWS_V4};
use crate::packet::Headers;

/// The packet at hand, to look for its flow.
pub struct Maps<'a> {
    pub headers: &'a Headers,
    /// Port of the backend.
    pub port: [u8; 2],
}

impl Maps<'_> {
    /// What replies of this packet's connection to `backend` look like.
    #[inline(always)]
    pub fn flow_key(&self, backend: &Backend) -> FlowKeyV4 {
        FlowKeyV4 {
            client: self.headers.src,
            backend: backend.v4(),
            client_port: self.headers.src_port,
            backend_port: self.port,
            proto: 6,
            zero: [0; 3],
        }
    }

    /// Whether a flow is of the frontend that this packet came to.
    #[inline(always)]
    pub fn same_frontend(&self, flow: &Flow) -> bool {
        flow.port == self.headers.dst_port
            && u32::from_ne_bytes([flow.vip[0], flow.vip[1], flow.vip[2], flow.vip[3]])
                == u32::from_ne_bytes(self.headers.dst)
    }
}

impl World for Maps<'_> {
    #[inline(always)]
    fn backend(&self, index: u32) -> Option<&Backend> {
        BACKENDS.get(index)
    }

    #[inline(always)]
    fn has_flow(&self, backend: &Backend) -> bool {
        let Some(flow) = FLOWS_V4.get_ptr(self.flow_key(backend)) else { return false };
        // SAFETY: map memory stays valid until the program ends; an entry used again in between fails the comparison.
        self.same_frontend(unsafe { &*flow })
    }
}

/// The backend at an index, if it lives. A retired one keeps its id, so that its generation is never lost.
#[inline(always)]
pub fn backend(index: u32) -> Option<&'static Backend> {
    match BACKENDS.get(index) {
        Some(backend) if backend.flags & Backend::ALIVE != 0 => Some(backend),
        _ => None,
    }
}

/// The current tick.
#[inline(always)]
pub fn now() -> u32 {
    // SAFETY: the helper takes nothing and returns a number.
    tick::from_nanos(unsafe { bpf_ktime_get_coarse_ns() })
}

/// The bits of a client's address that count.
#[inline(always)]
pub fn masked(addr: [u8; 4], mask: [u8; 4]) -> [u8; 4] {
    (u32::from_ne_bytes(addr) & u32::from_ne_bytes(mask)).to_ne_bytes()
}

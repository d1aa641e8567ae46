//! What `sticky capture` asks of the programs, and what it is told of each packet.

/// The one value of [`crate::maps::CAPTURE`], written once per capture.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// A bit for each wanted [`crate::outcome::Outcome`].
    pub outcomes: u64,
    /// Packets that found no room in the ring; the programs count.
    pub lost: u64,
    /// Bytes of a packet that are wanted, at most [`Event::MAX_BYTES`].
    pub bytes: u32,
    /// The only wanted interface; 0: any.
    pub ifindex: u32,
    /// The only wanted clients, as IP has it: the first four or all sixteen bytes.
    pub client: [u8; 16],
    pub mask: [u8; 16],
    /// 4 or 6, the version that [`Request::client`] is of; 0: any client.
    pub version: u32,
    /// Process id of whoever captures.
    pub owner: u32,
}

/// What is told of a packet, in [`crate::maps::CAPTURED`]; its first bytes follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Nanoseconds of the monotonic clock.
    pub time: u64,
    /// Bytes of the whole frame.
    pub length: u32,
    /// Bytes that follow.
    pub captured: u32,
    /// [`crate::outcome::Outcome`].
    pub outcome: u32,
    /// Index of the backend, or [`Event::NO_BACKEND`].
    pub backend: u32,
    /// Interface that the packet came in by.
    pub ifindex: u32,
    /// [`Event::IN`] or [`Event::REPLY`].
    pub direction: u32,
}

impl Event {
    pub const NO_BACKEND: u32 = u32::MAX;
    /// Of no packet yet.
    pub const NONE: Self = Self {
        time: 0,
        length: 0,
        captured: 0,
        outcome: 0,
        backend: Self::NO_BACKEND,
        ifindex: 0,
        direction: Self::IN,
    };
    /// From a client.
    pub const IN: u32 = 0;
    /// From a backend.
    pub const REPLY: u32 = 1;
    /// Bytes of a packet that fit.
    pub const MAX_BYTES: u32 = 16_384 - size_of::<Self>() as u32;
}

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "Pod is aya's mark for plain data")]
mod pod {
    // SAFETY: repr(C), integers and byte arrays only, no padding (see the layout test), any bits are valid.
    unsafe impl aya::Pod for super::Request {}
    // SAFETY: as above.
    unsafe impl aya::Pod for super::Event {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::Outcome;

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!(size_of::<Request>(), 2 * 8 + 2 * 4 + 2 * 16 + 2 * 4);
        assert_eq!(size_of::<Event>(), 8 + 6 * 4);
        const { assert!(Outcome::COUNT <= u64::BITS) };
    }
}

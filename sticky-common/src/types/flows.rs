//! Keys and values of the maps of flows.

use super::{Addr, tick};

/// Key of a flow: the connection as the backend sees it, which is how its replies look.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKey {
    pub client: Addr,
    pub backend: Addr,
    pub client_port: [u8; 2],
    pub backend_port: [u8; 2],
    /// IP protocol number.
    pub proto: u32,
}

impl FlowKey {
    /// Where a connection that opens is noted, out of `2^bits` places. Not keyed: who finds its place taken is noted
    /// elsewhere, so there is nothing to aim at.
    #[inline(always)]
    #[must_use]
    pub const fn place(&self, bits: u32) -> u32 {
        // Fibonacci hashing (Knuth, TAOCP 3, section 6.4), of two words one after the other.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let [w0, w1, w2, w3] = self.client;
        let net = (w0 as u64) << 32 | (w1 ^ w2) as u64;
        // They overlap, so that each is read as it was written: for a word of both, the processor would have to wait.
        let ports = (u16::from_ne_bytes(self.client_port) as u64) << 8
            ^ u16::from_ne_bytes(self.backend_port) as u64;
        let host = (w3 as u64) << 32 | ports;
        ((host ^ net.wrapping_mul(GOLDEN)).wrapping_mul(GOLDEN) >> (64 - bits)) as u32
    }
}

/// A flow that came through a frontend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Address of the frontend.
    pub vip: Addr,
    /// Port of the frontend.
    pub port: [u8; 2],
    /// Bits of the constants below.
    pub state: u8,
    /// The service's prefix, to find the client's record from a reply.
    pub prefix: u8,
    /// Interface the client's packets come in by.
    pub ifindex: u32,
    /// Interface that leads to the client, 0: not looked up yet.
    pub out: u32,
    pub service: u32,
    /// [`super::BackendId`].
    pub backend: u32,
    /// Tick of the last packet that was looked at.
    pub seen: u32,
    /// Tick of the last SYN, of a datagram the first; 0: it was under way when it was first seen.
    pub opened: u32,
    /// The client's first sequence number.
    pub isn: u32,
}

impl Flow {
    /// The client sent its FIN.
    pub const CLIENT_FIN: u8 = 1;
    /// The backend sent its FIN.
    pub const BACKEND_FIN: u8 = 2;
    /// A RST went by.
    pub const RESET: u8 = 4;
    /// There is evidence that its client is.
    pub const REAL: u8 = 8;
    /// Its client's record was among those of real clients, with its backend as the newest, when it opened.
    pub const KNOWN: u8 = 16;
    /// The backend has said its last word: only what is lost will be said again.
    pub const SAID: u8 = 32;

    /// A TCP flow that was not seen for this long no longer stands in another's way: 3 h, as P2 promises.
    const TCP_LIVES: u32 = tick::from_secs(3 * 3600);
    /// A datagram after more silence is the first of a new flow (conntrack's nf_conntrack_udp_timeout_stream, and half).
    const UDP_LIVES: u32 = tick::from_secs(180);

    /// Whether it is still in use.
    #[inline(always)]
    #[must_use]
    pub const fn lives(&self, proto: u32, now: u32) -> bool {
        const UDP: u32 = 17;
        let silence = tick::since(now, self.seen);
        if proto == UDP {
            silence <= Self::UDP_LIVES
        } else {
            !self.closed() && silence <= Self::TCP_LIVES
        }
    }

    /// Whether it goes on and its client is known to be real.
    #[inline(always)]
    #[must_use]
    pub const fn established(&self) -> bool {
        self.state & Self::REAL != 0 && !self.closed()
    }

    /// Both ends are done, or one has reset it.
    #[inline(always)]
    #[must_use]
    pub const fn closed(&self) -> bool {
        self.state & Self::RESET != 0
            || self.state & (Self::CLIENT_FIN | Self::BACKEND_FIN)
                == Self::CLIENT_FIN | Self::BACKEND_FIN
    }
}

/// A connection at its place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub key: FlowKey,
    pub flow: Flow,
    /// One of the three below.
    pub state: u64,
}

impl Opening {
    /// Nothing is there.
    pub const FREE: u64 = 0;
    /// Another CPU is writing.
    pub const BUSY: u64 = 1;
    pub const HELD: u64 = 2;
}

/// A handshake that waits for the client's answer: evidence that the client's address is no invention.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshake {
    /// The acknowledgement number that answers the backend's SYN.
    pub ack: u32,
    /// [`super::BackendId`], 0: none waits.
    pub backend: u32,
}

impl Handshake {
    /// What the number leaves in [`crate::maps::HANDSHAKE_TAGS`]. Others may leave the same.
    #[inline(always)]
    #[must_use]
    pub const fn tag(ack: u32) -> u8 {
        ack as u8
    }

    /// Where a connection's handshake waits, out of `2^bits` places: a mix of the hash of its client with its ports.
    /// `hash` is keyed, so nobody can aim at another's place.
    #[inline(always)]
    #[must_use]
    pub const fn place(hash: u64, client_port: [u8; 2], port: [u8; 2], bits: u32) -> u32 {
        let ports = u32::from_be_bytes([client_port[0], client_port[1], port[0], port[1]]);
        // Fibonacci hashing (Knuth, TAOCP 3, section 6.4).
        ((hash ^ ports as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as u32
    }
}

/// That a client's record has a backend as its newest since a tick, and whether it is among those of real clients, in one
/// word. The hash is keyed: nobody can make another's.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// The tick of a record of a real client has this bit, which no tick comes to.
    const REAL: u64 = 1 << 31;

    /// Of the client with this hash; the backend as its [`super::BackendId`], which is of one service only.
    #[inline(always)]
    #[must_use]
    pub const fn new(hash: u64, backend: u32, now: u32, real: bool) -> Self {
        let real = if real { Self::REAL } else { 0 };
        Self(hash ^ ((backend as u64) << 32 | real | now as u64))
    }

    /// Whether its record is a real client's, if it says this of this client.
    #[inline(always)]
    #[must_use]
    pub const fn says(self, hash: u64, backend: u32, now: u32) -> Option<bool> {
        match self.0 ^ Self::new(hash, backend, now, false).0 {
            0 => Some(false),
            Self::REAL => Some(true),
            _ => None,
        }
    }

    /// Where it is, out of `2^bits` places: one for each client of a service.
    #[inline(always)]
    #[must_use]
    pub const fn place(hash: u64, service: u32, bits: u32) -> u32 {
        // Fibonacci hashing (Knuth, TAOCP 3, section 6.4).
        ((hash ^ service as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as u32
    }
}

/// Key of a fragmented datagram (RFC 791, section 3.2; RFC 8200, section 4.5).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FragmentKey {
    pub src: Addr,
    pub dst: Addr,
    pub id: u32,
    /// IP protocol number.
    pub proto: u32,
}

/// Where the fragments behind the first one go.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// What replaces the rewritten address.
    pub addr: Addr,
    /// Towards a backend: its [`super::BackendId`]; towards a client: 0.
    pub backend: u32,
    /// Towards a client: the interface that leads to it.
    pub ifindex: u32,
    /// Tick of the first fragment.
    pub seen: u32,
}

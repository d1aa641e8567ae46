//! Keys and values of the maps: `repr(C)`, no padding, addresses and ports as bytes in network order.

/// Key of a frontend on IPv4.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrontendKeyV4 {
    pub addr: [u8; 4],
    pub port: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    pub zero: u8,
}

/// What a packet for a frontend needs to know, so that the hot path asks one map only.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frontend {
    /// Index of the service: of its table in the map of tables.
    pub service: u32,
    /// Which bits of the client's address count as one client (network order).
    pub mask: [u8; 4],
    /// Affinity time in ticks, 0: new connections follow the hash.
    pub ttl: u32,
    /// Port of the backend.
    pub port: [u8; 2],
    pub zero: [u8; 2],
}

/// Identity of a backend while sticky runs: its index, and a generation so that an index can be used again.
///
/// Never 0: that is "none" in a record.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u32);

impl BackendId {
    const INDEX_BITS: u32 = 20;
    /// Highest generation; it starts again at 1 after it.
    pub const MAX_GENERATION: u32 = (1 << (32 - Self::INDEX_BITS)) - 1;
    /// Stands for no backend.
    pub const NONE: Self = Self(0);

    /// The id of the `generation`-th (from 1) use of `index`.
    #[must_use]
    pub const fn new(index: u32, generation: u32) -> Self {
        Self((generation << Self::INDEX_BITS) | (index & Slot::INDEX))
    }

    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0 & Slot::INDEX
    }

    #[must_use]
    pub const fn generation(self) -> u32 {
        self.0 >> Self::INDEX_BITS
    }
}

/// A backend as the data path needs it. Without [`Backend::ALIVE`] it is retired and only its id still counts.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// IPv4 in the first four bytes.
    pub addr: [u8; 16],
    /// Full identity, [`BackendId`].
    pub id: u32,
    /// Interface that leads to it: a bridge, or the device of its route.
    pub ifindex: u32,
    /// [`Backend::ALIVE`], [`Backend::KEEPS`].
    pub flags: u32,
    pub service: u32,
}

impl Backend {
    /// Established connections may go on.
    pub const ALIVE: u32 = 1;
    /// Known clients may open new connections.
    pub const KEEPS: u32 = 2;

    #[inline(always)]
    #[must_use]
    pub const fn v4(&self) -> [u8; 4] {
        [self.addr[0], self.addr[1], self.addr[2], self.addr[3]]
    }
}

/// One slot of a table: the index of its backend, and whether its clients' records must be asked.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot(pub u32);

impl Slot {
    /// Bits of the index.
    pub const INDEX: u32 = (1 << BackendId::INDEX_BITS) - 1;
    const UNSETTLED: u32 = 1 << 31;
    /// No backend is up.
    pub const EMPTY: Self = Self(Self::INDEX);

    #[must_use]
    pub const fn new(index: u32, unsettled: bool) -> Self {
        Self((index & Self::INDEX) | if unsettled { Self::UNSETTLED } else { 0 })
    }

    /// The same backend, with its clients' records to be asked.
    #[must_use]
    pub const fn marked_unsettled(self) -> Self {
        Self(self.0 | Self::UNSETTLED)
    }

    /// The same backend for all clients.
    #[must_use]
    pub const fn marked_settled(self) -> Self {
        Self(self.0 & !Self::UNSETTLED)
    }

    /// Index of its backend; `None` when the slot is empty.
    #[inline(always)]
    #[must_use]
    pub const fn index(self) -> Option<u32> {
        match self.0 & Self::INDEX {
            Self::INDEX => None,
            index => Some(index),
        }
    }

    /// A change moved it, and clients from before may still belong elsewhere.
    #[inline(always)]
    #[must_use]
    pub const fn unsettled(self) -> bool {
        self.0 & Self::UNSETTLED != 0
    }
}

/// Key of a client on IPv4, per service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKeyV4 {
    pub service: u32,
    /// Masked by the service's prefix.
    pub addr: [u8; 4],
}

/// Key of a client on IPv6, per service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKeyV6 {
    pub service: u32,
    /// Masked by the service's prefix.
    pub addr: [u8; 16],
}

/// What is remembered of a client.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// Backends of its connections ([`BackendId`]), newest first, [`BackendId::NONE`] where there is none.
    ///
    /// More than one only where a client was moved while older connections live on.
    pub backends: [u32; Record::DEPTH],
    /// Tick of its last activity.
    pub seen: u32,
    pub zero: u32,
}

impl Record {
    /// Backends remembered per client.
    pub const DEPTH: usize = 4;
}

/// Key of a flow on IPv4: the connection as the backend sees it, which is how its replies look.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FlowKeyV4 {
    pub client: [u8; 4],
    pub backend: [u8; 4],
    pub client_port: [u8; 2],
    pub backend_port: [u8; 2],
    /// IP protocol number.
    pub proto: u8,
    pub zero: [u8; 3],
}

/// A flow that came through a frontend.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Address of the frontend; IPv4 in the first four bytes.
    pub vip: [u8; 16],
    /// Port of the frontend.
    pub port: [u8; 2],
    /// Bits of [`Flow::CLIENT_FIN`], [`Flow::BACKEND_FIN`], [`Flow::RESET`].
    pub state: u8,
    pub zero: u8,
    /// Interface the client's packets come in by.
    pub ifindex: u32,
    /// Service and mask, to find the client's record from a reply.
    pub service: u32,
    pub mask: [u8; 4],
    /// Tick of the last packet that was looked at.
    pub seen: u32,
    /// Tick of the last SYN.
    pub opened: u32,
}

impl Flow {
    /// The client sent its FIN.
    pub const CLIENT_FIN: u8 = 1;
    /// The backend sent its FIN.
    pub const BACKEND_FIN: u8 = 2;
    /// A RST went by.
    pub const RESET: u8 = 4;

    /// Both ends are done, or one has reset it.
    #[inline(always)]
    #[must_use]
    pub const fn closed(&self) -> bool {
        self.state & Self::RESET != 0
            || self.state & (Self::CLIENT_FIN | Self::BACKEND_FIN)
                == Self::CLIENT_FIN | Self::BACKEND_FIN
    }
}

/// Packets and bytes towards a backend on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub packets: u64,
    /// Bytes of whole frames, as they came.
    pub bytes: u64,
}

/// The choice of XDP, in the packet's metadata on its way to tc.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handover {
    /// [`Handover::MAGIC`], to know our metadata from another program's.
    pub magic: u32,
    /// Index of the backend.
    pub backend: u32,
    /// Port of the backend.
    pub port: [u8; 2],
    /// Offset of the IP header in the frame.
    pub l3: u16,
}

impl Handover {
    /// "stky".
    pub const MAGIC: u32 = u32::from_be_bytes(*b"stky");
}

/// Time in the maps: units of 2^30 ns (about 1.07 s) of the monotonic clock, so that nothing is divided per packet.
pub mod tick {
    /// Ticks of a time in nanoseconds.
    #[inline(always)]
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> u32 {
        (nanos >> 30) as u32
    }

    /// Ticks that last at least `secs` seconds, at least one.
    #[must_use]
    pub const fn from_secs(secs: u64) -> u32 {
        let ticks = (secs.saturating_mul(1_000_000_000) + (1 << 30) - 1) >> 30;
        if ticks == 0 {
            1
        } else if ticks > u32::MAX as u64 {
            u32::MAX
        } else {
            ticks as u32
        }
    }

    /// Ticks from `then` to `now`, 0 if `then` is later (clocks of two CPUs may differ a little).
    #[inline(always)]
    #[must_use]
    pub const fn since(now: u32, then: u32) -> u32 {
        now.saturating_sub(then)
    }
}

#[cfg(feature = "user")]
#[expect(unsafe_code, reason = "Pod is aya's mark for plain data")]
mod pod {
    use super::*;
    macro_rules! pod {
        ($($t:ty),*) => {$(
            // SAFETY: repr(C) or transparent, integers and byte arrays only, no padding (see the layout test), any bits are valid.
            unsafe impl aya::Pod for $t {}
        )*};
    }
    pod!(
        FrontendKeyV4,
        Frontend,
        BackendId,
        Backend,
        Slot,
        ClientKeyV4,
        ClientKeyV6,
        Record,
        FlowKeyV4,
        Flow,
        Traffic,
        Handover
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::{align_of, size_of};

    #[test]
    fn layouts_have_no_padding() {
        assert_eq!((size_of::<FrontendKeyV4>(), align_of::<FrontendKeyV4>()), (8, 1));
        assert_eq!(size_of::<Frontend>(), 4 + 4 + 4 + 2 + 2);
        assert_eq!(size_of::<Backend>(), 16 + 4 * 4);
        assert_eq!(size_of::<Slot>(), 4);
        assert_eq!(size_of::<ClientKeyV4>(), 8);
        assert_eq!(size_of::<ClientKeyV6>(), 20);
        assert_eq!(size_of::<Record>(), 16 + 4 + 4);
        assert_eq!(size_of::<FlowKeyV4>(), 4 + 4 + 2 + 2 + 1 + 3);
        assert_eq!(size_of::<Flow>(), 16 + 2 + 1 + 1 + 4 + 4 + 4 + 4 + 4);
        assert_eq!(size_of::<Traffic>(), 16);
        assert_eq!(size_of::<Handover>(), 12);
    }

    #[test]
    fn ids_and_slots_keep_their_parts() {
        let id = BackendId::new(77_000, 4_000);
        assert_eq!((id.index(), id.generation()), (77_000, 4_000));
        const { assert!(crate::maps::MAX_BACKENDS < Slot::INDEX) };
        let slot = Slot::new(77_000, true);
        assert_eq!((slot.index(), slot.unsettled()), (Some(77_000), true));
        assert_eq!((Slot::EMPTY.index(), Slot::EMPTY.unsettled()), (None, false));
    }

    #[test]
    fn ticks_round_up() {
        assert_eq!(tick::from_secs(0), 1);
        assert_eq!(tick::from_secs(1), 1);
        assert_eq!(tick::from_secs(3600), 3353);
        assert_eq!(tick::since(5, 9), 0);
    }
}

//! Keys and values of the maps: `repr(C)`, no padding, addresses and ports as bytes in network order.

pub mod addr;
pub mod capture;
mod flows;
pub mod tick;

pub use self::flows::{Flow, FlowKey, Fragment, FragmentKey, Handshake, Mark, Opening};

/// An address of either family, IPv4 as `::ffff:a.b.c.d` (RFC 4291, section 2.5.5.2). Words in network order, so that the
/// kernel half copies four of them and not sixteen bytes.
pub type Addr = [u32; 4];

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

impl FrontendKeyV4 {
    /// All of it in one word.
    #[inline(always)]
    #[must_use]
    pub const fn packed(self) -> u64 {
        let Self { addr: [a, b, c, d], port: [e, f], proto, zero } = self;
        u64::from_ne_bytes([a, b, c, d, e, f, proto, zero])
    }

    /// Where it is, out of `2^bits` places.
    #[inline(always)]
    #[must_use]
    pub const fn place(self, bits: u32) -> u32 {
        // Fibonacci hashing (Knuth, TAOCP 3, section 6.4).
        (self.packed().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (64 - bits)) as u32
    }
}

/// Key of a frontend on IPv6.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FrontendKeyV6 {
    pub addr: Addr,
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
    /// Affinity time in ticks, 0: new connections follow the hash.
    pub ttl: u32,
    /// Source rules, by the first word of their [`RuleKey`]; 0: none.
    pub rules: u32,
    /// Nanoseconds between two new connections of a client, 0: no limit.
    pub interval: u32,
    /// The tick from which packets are refused because no backend is up; 0: they are dropped.
    pub refuse_at: u32,
    /// Port of the backend.
    pub port: [u8; 2],
    /// How many leading bits of [`addr::mapped`] count as one client.
    pub prefix: u8,
    pub zero: u8,
}

/// A frontend at its place.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Placed {
    /// [`FrontendKeyV4::packed`].
    pub key: u64,
    pub frontend: Frontend,
}

impl Placed {
    /// Index of a place's entry that the byte `which` names, 1 or 2.
    #[inline(always)]
    #[must_use]
    pub const fn index(place: u32, which: u8) -> u32 {
        place * 2 + (which & 1) as u32
    }
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backend {
    /// Zero: it has none.
    pub v6: Addr,
    /// Zero: it has none.
    pub v4: [u8; 4],
    /// Interface that leads to its IPv4 address: a bridge, or the device of its route. With [`Backend::PEER_V4`] the link
    /// whose other end has the address.
    pub ifindex_v4: u32,
    /// The same for its IPv6 address.
    pub ifindex_v6: u32,
    /// Full identity, [`BackendId`].
    pub id: u32,
    /// [`Backend::ALIVE`] and those below it.
    pub flags: u32,
    pub service: u32,
}

impl Backend {
    /// Established connections may go on.
    pub const ALIVE: u32 = 1;
    /// Known clients may open new connections.
    pub const KEEPS: u32 = 2;
    /// Its IPv4 address is that of the other end of a link of this host, in another network namespace.
    pub const PEER_V4: u32 = 4;
    /// The same of its IPv6 address.
    pub const PEER_V6: u32 = 8;

    /// Its address of a family, as in [`addr`].
    #[inline(always)]
    #[must_use]
    pub const fn addr(&self, v4: bool) -> Addr {
        if v4 { addr::mapped(self.v4) } else { self.v6 }
    }

    /// The interface that leads to its address of a family, and whether that is the other end.
    #[inline(always)]
    #[must_use]
    pub const fn link(&self, v4: bool) -> (u32, bool) {
        if v4 {
            (self.ifindex_v4, self.flags & Self::PEER_V4 != 0)
        } else {
            (self.ifindex_v6, self.flags & Self::PEER_V6 != 0)
        }
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

/// Key of a client, per service.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey {
    pub service: u32,
    /// [`addr::masked`] by the service's prefix.
    pub addr: Addr,
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

/// Packets and bytes towards a backend on one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    pub packets: u64,
    /// Bytes of whole frames, as they came.
    pub bytes: u64,
}

/// Key of a source rule: a longest-prefix-match trie wants the length first, in bits of what follows.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RuleKey {
    /// [`Frontend::rules`] of those it holds for, in network order.
    pub rules: [u8; 4],
    pub addr: Addr,
}

impl RuleKey {
    /// Bits in front of the address.
    pub const RULES_BITS: u32 = 32;
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
    /// [`Handover::DELIVER`] or [`Handover::REFUSE`].
    pub task: u8,
    /// How many VLAN tags the frame has in front of its IP header.
    pub tags: u8,
}

impl Handover {
    /// "stky".
    pub const MAGIC: u32 = u32::from_be_bytes(*b"stky");
    /// Rewrite it and send it to the backend.
    pub const DELIVER: u8 = 0;
    /// Answer that nobody serves this.
    pub const REFUSE: u8 = 1;
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
        FrontendKeyV6,
        Frontend,
        Placed,
        BackendId,
        Backend,
        Slot,
        ClientKey,
        Record,
        FlowKey,
        Flow,
        Opening,
        Traffic,
        Handshake,
        FragmentKey,
        Fragment,
        RuleKey,
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
        assert_eq!((size_of::<FrontendKeyV6>(), align_of::<FrontendKeyV6>()), (20, 4));
        assert_eq!(size_of::<Frontend>(), 5 * 4 + 2 + 1 + 1);
        assert_eq!(size_of::<Placed>(), 8 + size_of::<Frontend>());
        assert_eq!(size_of::<Backend>(), 16 + 4 + 5 * 4);
        assert_eq!(size_of::<Slot>(), 4);
        assert_eq!(size_of::<ClientKey>(), 20);
        assert_eq!(size_of::<Record>(), 16 + 4 + 4);
        assert_eq!(size_of::<FlowKey>(), 16 + 16 + 2 + 2 + 4);
        assert_eq!(size_of::<Flow>(), 16 + 2 + 1 + 1 + 7 * 4);
        assert_eq!(size_of::<Opening>(), 40 + 48 + 8);
        assert_eq!(size_of::<Traffic>(), 16);
        assert_eq!(size_of::<Handshake>(), 8);
        assert_eq!(size_of::<FragmentKey>(), 16 + 16 + 4 + 4);
        assert_eq!(size_of::<Fragment>(), 16 + 3 * 4);
        assert_eq!(size_of::<RuleKey>(), 20);
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
    fn addresses_are_masked() {
        let v4 = addr::mapped([203, 0, 113, 77]);
        assert_eq!(addr::v4(&v4), [203, 0, 113, 77]);
        assert_eq!(addr::masked(&v4, 128), v4);
        assert_eq!(addr::masked(&v4, addr::V4_PREFIX + 24), addr::mapped([203, 0, 113, 0]));
        assert_eq!(addr::masked(&v4, addr::V4_PREFIX), addr::mapped([0; 4]));
        let v6 = addr::from_bytes(core::array::from_fn(|i| i as u8 * 15 + 7));
        assert_eq!(addr::from_bytes(addr::bytes(&v6)), v6);
        for prefix in 0..=128_u8 {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
            let expected = u128::from_be_bytes(addr::bytes(&v6)) & mask;
            assert_eq!(u128::from_be_bytes(addr::bytes(&addr::masked(&v6, prefix))), expected);
        }
    }

    #[test]
    fn ticks_round_up() {
        assert_eq!(tick::from_secs(0), 1);
        assert_eq!(tick::from_secs(1), 1);
        assert_eq!(tick::from_secs(3600), 3353);
        assert_eq!((tick::since(9, 5), tick::since(5, 9)), (4, 0));
        assert_eq!(tick::since(5, 5_u32.wrapping_sub(10_000)), 10_000);
    }
}

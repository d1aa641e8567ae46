//! Names and sizes of the maps, for both sides.

/// Frontends, by address, port and protocol.
pub const FRONTENDS_V4: &str = "FRONTENDS_V4";
/// The same on IPv6.
pub const FRONTENDS_V6: &str = "FRONTENDS_V6";
/// For each place that a frontend on IPv4 can hash to, as one value of a byte each: 0: no frontend is there, 1 or 2: which
/// of the place's two entries in [`PLACED`] counts.
pub const PLACES: &str = "PLACES";
/// The frontend at each place, [`crate::types::Placed`], found without a call. Of several at a place one is here, the others
/// are found by [`FRONTENDS_V4`].
pub const PLACED: &str = "PLACED";
/// One inner table per service: an array of one value, the slots.
pub const TABLES: &str = "TABLES";
/// Backends, by index.
pub const BACKENDS: &str = "BACKENDS";
/// Records of clients that are known to be real, least recently used go first.
pub const CLIENTS: &str = "CLIENTS";
/// Records of clients that only ever sent a first packet, whose source anybody can invent.
pub const CANDIDATES: &str = "CANDIDATES";
/// Flows that came through a frontend and whose client is real, by what their replies look like: those that are not at a
/// place in [`OPENINGS`].
pub const FLOWS: &str = "FLOWS";
/// Connections from when they open, one value of an [`crate::types::Opening`] each: nothing is inserted or removed for those
/// that end before another wants their place.
pub const OPENINGS: &str = "OPENINGS";
/// Flows that open and found their place in [`OPENINGS`] taken, flows of datagrams that may not go on, and closed ones.
pub const TRANSIENT: &str = "TRANSIENT";
/// Handshakes that wait for the client's answer.
pub const HANDSHAKES: &str = "HANDSHAKES";
/// A byte of the number that each of them waits for: one byte to read for the packets of everybody else, and not a place in
/// a map too large for the cache.
pub const HANDSHAKE_TAGS: &str = "HANDSHAKE_TAGS";
/// Clients whose records were written in this tick, as one value of a [`crate::types::Mark`] each. Not pinned.
pub const MARKS: &str = "MARKS";
/// Fragmented datagrams of which the first fragment went by.
pub const FRAGMENTS: &str = "FRAGMENTS";
/// Which sources may connect: for each prefix whether it may, the longest one counts.
pub const RULES: &str = "RULES";
/// When the next connection of a client is due, for services with a rate.
pub const RATES: &str = "RATES";
/// When the next answer of our own is due, per CPU.
pub const ANSWERS: &str = "ANSWERS";
/// Packets and bytes towards backends, per CPU and for [`BACKENDS_COUNTED`] of them in one value: the kernel takes its time to
/// make room for each value.
pub const BACKEND_STATS: &str = "BACKEND_STATS";
/// What of these counters was of backends that had the same index before (user space only).
pub const BACKEND_BASES: &str = "BACKEND_BASES";
/// Packets by [`crate::outcome::Outcome`], per CPU.
pub const OUTCOMES: &str = "OUTCOMES";
/// Identity of what each service index stands for (user space only; for adoption after a restart).
pub const SERVICE_IDS: &str = "SERVICE_IDS";
/// Identity of what each backend index stands for (user space only; for adoption after a restart).
pub const BACKEND_IDS: &str = "BACKEND_IDS";
/// What `sticky capture` wants, [`crate::types::capture::Request`].
pub const CAPTURE: &str = "CAPTURE";
/// Nanoseconds of the monotonic clock until which packets are wanted; 0: none are. Whoever captures puts it off again and
/// again, so that a capture that was killed ends by itself.
pub const CAPTURE_UNTIL: &str = "CAPTURE_UNTIL";
/// The ring of captured packets.
pub const CAPTURED: &str = "CAPTURED";

/// Bytes of that ring: a power of two.
pub const CAPTURED_BYTES: u32 = 4 << 20;
/// Frontends at most.
pub const MAX_FRONTENDS: u32 = 65_536;
/// Places of frontends on IPv4, as a power of two.
pub const PLACE_BITS: u32 = 16;
/// Services at most. A service index is below the last, whose identity is that of the hash key.
pub const MAX_SERVICES: u32 = 16_384;
/// Backends at most. A backend index is below this and fits [`crate::types::Slot`].
pub const MAX_BACKENDS: u32 = 131_072;
/// Backends whose counters are one value: half of what the kernel gives out per CPU at once (percpu.h, PCPU_MIN_UNIT_SIZE).
pub const BACKENDS_COUNTED: u32 = 1024;
/// Client records and flows when nobody says otherwise; user space sets the real number at load.
pub const DEFAULT_MAX_CLIENTS: u32 = 1_000_000;

/// Candidates and transient flows at most: enough for the handshakes of a busy second, few enough to be forgotten at once.
pub const MAX_TRANSIENT: u32 = 131_072;
/// Places of connections, as a power of two.
pub const OPENING_BITS: u32 = 15;
/// Handshakes that wait at a time, as a power of two.
pub const HANDSHAKE_BITS: u32 = 18;
/// Clients that are marked at a time, as a power of two.
pub const MARK_BITS: u32 = 18;
/// Fragmented datagrams at a time.
pub const MAX_FRAGMENTS: u32 = 16_384;
/// Prefixes of source rules at most.
pub const MAX_RULES: u32 = 262_144;
/// Clients whose rate is counted at a time.
pub const MAX_RATES: u32 = 131_072;

/// Table sizes a user can choose: primes, as Maglev needs (NSDI'16, section 3.4).
pub const TABLE_SIZES: [u32; 2] = [16_381, 65_537];

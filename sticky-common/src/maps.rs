//! Names and sizes of the maps, for both sides.

/// Frontends, by address, port and protocol.
pub const FRONTENDS_V4: &str = "FRONTENDS_V4";
/// One inner table per service: an array of one value, the slots.
pub const TABLES: &str = "TABLES";
/// Backends, by index.
pub const BACKENDS: &str = "BACKENDS";
/// Client records, least recently used go first.
pub const CLIENTS_V4: &str = "CLIENTS_V4";
/// The same on IPv6. Only the proxy fills it.
pub const CLIENTS_V6: &str = "CLIENTS_V6";
/// Flows that came through a frontend, by what their replies look like.
pub const FLOWS_V4: &str = "FLOWS_V4";
/// Packets and bytes towards each backend, per CPU.
pub const BACKEND_STATS: &str = "BACKEND_STATS";
/// Packets by [`crate::outcome::Outcome`], per CPU.
pub const OUTCOMES: &str = "OUTCOMES";
/// Identity of what each service index stands for (user space only; for adoption after a restart).
pub const SERVICE_IDS: &str = "SERVICE_IDS";
/// Identity of what each backend index stands for (user space only; for adoption after a restart).
pub const BACKEND_IDS: &str = "BACKEND_IDS";

/// Frontends at most.
pub const MAX_FRONTENDS: u32 = 65_536;
/// Services at most. A service index is below the last, whose identity is that of the hash key.
pub const MAX_SERVICES: u32 = 16_384;
/// Backends at most. A backend index is below this and fits [`crate::types::Slot`].
pub const MAX_BACKENDS: u32 = 131_072;
/// Client records and flows when nobody says otherwise; user space sets the real number at load.
pub const DEFAULT_MAX_CLIENTS: u32 = 1_000_000;

/// Table sizes a user can choose: primes, as Maglev needs (NSDI'16, section 3.4).
pub const TABLE_SIZES: [u32; 2] = [16_381, 65_537];

//! What the kernel side and the user side of sticky must agree on: the layout of the maps, the hash of a client,
//! the Maglev table, the decision itself, checksum arithmetic and the outcomes.
//!
//! Everything here is plain Rust without allocation, so that the eBPF programs and the user-space program run the same
//! lines, and so that it can be tested without a kernel.
#![no_std]

pub mod checksum;
pub mod decide;
pub mod hash;
pub mod maglev;
pub mod maps;
pub mod outcome;
pub mod types;

/// Version of the map layouts and of what their contents mean.
///
/// Part of the pin directory's path. Raise it with any change to [`types`], [`maps`] or [`hash`]. What another version
/// left is taken over if its maps agree with ours in name, kind and the sizes of key and value: a map that means something
/// else in the same form needs another name.
pub const ABI_VERSION: u32 = 4;

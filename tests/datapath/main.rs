//! The programs and maps themselves. Needs root.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod attach;
mod forward;
mod frames;
mod not_ours;
mod places;
mod rig;
mod suite;

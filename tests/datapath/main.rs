//! The programs and maps themselves. Needs root.

mod forward;
mod frames;
mod not_ours;
mod rig;

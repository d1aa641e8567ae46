//! The programs and maps themselves. Needs root.

mod forward;
mod rig;

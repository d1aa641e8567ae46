//! sticky.

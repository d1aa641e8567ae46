//! sticky between network namespaces, with backends from a file. Needs root.

mod crash;
mod explain;
mod fixture;
mod harness;
mod mistakes;

//! sticky between network namespaces, with backends from a file. Needs root.

mod bodies;
mod capture;
mod crash;
mod doctor;
mod drain;
mod explain;
mod fixture;
mod harness;
mod interfaces;
mod mistakes;
mod relay;
mod spread;
mod takeover;

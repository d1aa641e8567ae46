//! sticky between network namespaces, with backends from a file. Needs root.

mod bodies;
mod both;
mod capture;
mod cells;
mod chaos;
mod crash;
mod doctor;
mod drain;
mod dual;
mod explain;
mod failover;
mod fixture;
mod flood;
mod harness;
mod interfaces;
mod mistakes;
mod path_mtu;
mod refused;
mod relay;
mod rules;
mod shares;
mod slow_start;
mod spread;
mod stacks;
mod takeover;
mod ways_back;

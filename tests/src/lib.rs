//! What the lab and the tests are made of: network namespaces, a private Docker Swarm, sticky itself, and clients that look closely.
//!
//! Everything is a value that undoes itself when dropped, also when a test panics. Values are dropped in the reverse order of their
//! creation: keep namespaces first and programs last. Needs root.

pub mod bulk;
pub mod command;
pub mod curl;
pub mod datagrams;
pub mod demo;
pub mod dockerd;
pub mod fake_docker;
pub mod http;
pub mod lab;
pub mod lines;
pub mod load;
pub mod names;
pub mod netns;
pub mod process;
pub mod spoof;
pub mod sticky;
pub mod swarm;
pub mod topology;
pub mod wait;

//! sticky in front of a real, private Swarm. Needs root and `dockerd`.

mod harness;

//! sticky in front of a real, private Swarm. Needs root and `dockerd`.

mod apcera;
mod bystanders;
mod docker_lost;
mod draining;
mod endings;
mod fixture;
mod harness;
mod leaving;
mod life;
mod plain;
mod relay;
mod scaling;
mod seeds;
mod sessions;
mod survival;
mod updates;
mod watch;

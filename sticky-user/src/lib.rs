//! sticky: a load balancer for Docker Swarm that keeps the client's address and the client's session.
//!
//! The code map; who may import whom is checked by `cargo xtask tidy`.

pub mod admin;
pub mod app;
pub mod capture;
pub mod cli;
pub mod clients;
pub mod config;
pub mod control;
pub mod datapath;
pub mod docker;
pub mod doctor;
pub mod drains;
pub mod failure;
pub mod file_provider;
pub mod firewall;
pub mod health;
pub mod keys;
pub mod labels;
pub mod listeners;
pub mod metrics;
pub mod model;
pub mod netinfo;
mod netlink;
pub mod parallel;
pub mod permissions;
pub mod provider;
pub mod proxy;
pub mod relay;
pub mod run;
pub mod socket;
pub mod state;
pub mod status;
pub mod swarm;
pub mod telemetry;
pub mod views;
pub mod whereis;

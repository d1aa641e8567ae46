//! The commands of `sticky` without a data path: no root, loopback only.

mod access_log;
mod configuration;
mod health;
mod keys;
mod labels;
mod life;
mod node;
mod takeover;
mod views;

//! Who decides for a client of an `ip_hash` service: one choice for both layers (P6).
//!
//! With a data path loaded, its tables and records answer; where it has none (`--iface none`, or backends that only the
//! proxy reaches), the same decision over a table in memory does.

pub mod memory;
pub mod tables;

use std::net::{IpAddr, Ipv6Addr};

use sticky_common::hash::{self, HashKey};
use sticky_common::outcome::Outcome;
use sticky_common::types::{Addr, addr};

use crate::model::IpPrefix;

/// The client that an address stands for, in the form of the maps.
#[must_use]
pub fn masked(client: IpAddr, prefix: IpPrefix) -> Addr {
    match client.to_canonical() {
        IpAddr::V4(v4) => addr::masked(&addr::mapped(v4.octets()), addr::V4_PREFIX + prefix.v4),
        IpAddr::V6(v6) => addr::masked(&addr::from_bytes(v6.octets()), prefix.v6),
    }
}

/// The hash of a client.
#[must_use]
pub fn hash_of(key: HashKey, client: &Addr) -> u64 {
    let v4 = Ipv6Addr::from(addr::bytes(client)).to_ipv4_mapped().is_some();
    hash::client(key.keyed(), client, v4)
}

/// The backend of a client, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Id of the backend, as in the snapshot.
    pub backend: String,
    pub reason: Outcome,
}

/// Answers for the clients of `ip_hash` services.
pub trait ClientTable: Send + Sync {
    /// The backend for a new request or connection of `client` to the service with this id, remembered as its choice.
    /// `None`: the service is unknown or has no backend that is up.
    fn choose(&self, service: &str, client: IpAddr) -> Option<Choice>;

    /// The same answer, changing nothing.
    fn look(&self, service: &str, client: IpAddr) -> Option<Choice>;

    /// The backend that the client's record names, whatever state it is in; `None` if there is no record, or it is too old.
    fn home(&self, service: &str, client: IpAddr) -> Option<String>;

    /// The slot owner for any key of this service: no record is read or written.
    fn hashed(&self, service: &str, key: &[u8]) -> Option<Choice>;

    /// Whether it has a backend of this service.
    fn knows(&self, service: &str) -> bool;
}

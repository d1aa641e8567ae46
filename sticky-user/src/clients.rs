//! Who decides for a client of an `ip_hash` service: one choice for both layers (P6).
//!
//! With a data path loaded, its tables and records answer; where it has none (`--iface none`, or backends that only the
//! proxy reaches), the same decision over a table in memory does.

pub mod memory;
pub mod tables;

use std::net::IpAddr;

use sticky_common::outcome::Outcome;

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

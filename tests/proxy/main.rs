//! The proxy over loopback, against servers that behave or misbehave on request. Needs no privileges.

#![expect(clippy::unwrap_used, reason = "what cannot go on is a failed test")]

mod affinity;
mod answers;
mod attributes;
mod backend;
mod client;
mod crash;
mod demo;
mod drain;
mod failure;
mod forgery;
mod headers;
mod idle;
mod keys;
mod leaving;
mod limits;
mod pool;
mod proxy;
mod quiet;
mod routing;
mod shared;
mod smuggling;
mod streaming;
mod survival;
mod update;
mod upgrade;

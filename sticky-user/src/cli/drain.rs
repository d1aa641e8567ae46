//! `sticky drain` and `sticky undrain`.

use std::path::Path;

use anyhow::Context;

use crate::drains::{Done, Order};
use crate::failure::Failure;
use crate::socket::client::Client;

pub(super) const HELP: &str = "\
Examples:
  sticky drain demo.2             before its container is worked on; its own clients stay
  sticky drain service:demo       all of a service's version; new clients go to the other versions of its host
  sticky drain node:host1         all backends on a node
  sticky undrain demo.2

A drain holds until it is taken back or what is drained is gone, also over restarts of sticky.
Each node's sticky has drains of its own.";

pub(super) fn run(socket: &Path, what: String, undo: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.context("no runtime for the order")?;
    let order = Order { what, undo };
    let Done { what, backends } =
        runtime.block_on(async { Client::connect(socket).await?.drain(&order).await })?;
    let then = if undo { "takes new clients again" } else { "gets no new client, its own stay" };
    let backends = match backends.as_slice() {
        [] => "no backend now".to_owned(),
        some => some.join(", "),
    };
    anstream::println!("{} {then}: {backends}", what.join(", "));
    Ok(())
}

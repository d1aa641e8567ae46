//! Work for a sticky that counts which ways it takes, for the profile that its release is optimised by. Nothing is measured,
//! and it is ended in order each time, since it writes its counts then.

use sticky_tests::demo::sticky_binary;

use crate::{l7, scale};

/// Requests of each kind, and a Swarm that starts and changes.
pub fn run() -> anyhow::Result<()> {
    l7::train()?;
    scale::train(&sticky_binary()?)
}

//! The release program, and beside it what the lab and the tests need.

use std::path::PathBuf;

use anyhow::Result;

use crate::apt::Install;
use crate::workspace::{cargo, target};
use crate::{layout, profile, progress, setup};

/// Builds `target/release/sticky` and names it.
pub(crate) fn sticky(mode: Install) -> Result<PathBuf> {
    let built = compiled(mode)?;
    layout::apply(&built, mode)?;
    Ok(built)
}

/// The same as the linker leaves it.
pub(crate) fn compiled(mode: Install) -> Result<PathBuf> {
    setup::toolchain(mode)?;
    let mut build = cargo(["rustc", "--release", "--package", "sticky-user", "--bin", "sticky"]);
    profile::apply(&mut build)?;
    build.args(["--", layout::RELOCATIONS]);
    progress::run_open("building sticky (release)", &mut build)?;
    Ok(target("release/sticky"))
}

/// Builds the program of the lab and names it.
pub(crate) fn lab() -> Result<PathBuf> {
    let mut build =
        cargo(["build", "--release", "--package", "sticky-tests", "--bin", "sticky-lab"]);
    // Otherwise all libraries would be built twice.
    profile::apply(&mut build)?;
    progress::run_open("building the lab (release)", &mut build)?;
    Ok(target("release/sticky-lab"))
}

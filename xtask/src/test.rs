//! `cargo xtask test`: every test, with all that they need.

use anyhow::Result;

use crate::apt::Install;
use crate::{build, host, image, progress};

/// Runs the tests whose names contain one of `filters`, all if there are none. What the test
/// runner prints last is the last that is printed.
pub(crate) fn run(filters: &[String], mode: Install) -> Result<()> {
    host::need_root("the test suite")?;
    host::for_tests(mode)?;
    let sticky = build::sticky(mode)?;
    let demo = image::build()?;
    let mut nextest = host::cargo_tool("cargo-nextest", "running the tests", mode)?;
    nextest
        .args(["nextest", "run", "--workspace", "--exclude", "sticky-ebpf"])
        .args(filters)
        .env("PATH", host::path())
        .env("STICKY_BIN", sticky)
        .env("STICKY_DEMO_BIN", demo.program)
        .env("STICKY_DEMO_IMAGE", demo.image);
    progress::run_open("building and running the tests", &mut nextest)
}

//! `cargo xtask ci`: what has to hold before a change goes in, the tests last.

use std::time::Instant;

use anyhow::{Result, bail};

use crate::apt::Install;
use crate::bench::BenchArgs;
use crate::progress::{self, say};
use crate::workspace::{cargo, target};
use crate::{bench, host, setup, test, tidy};

type Check = (&'static str, fn(Install) -> Result<()>);

/// Cheap ones first. Each is tried, whatever the others found.
const CHECKS: [Check; 7] = [
    ("format", |_| progress::run("cargo fmt --check", &mut cargo(["fmt", "--all", "--check"]))),
    ("tidy", |_| tidy::run()),
    ("clippy", clippy),
    ("clippy of the kernel half", clippy_ebpf),
    ("documentation", documentation),
    ("dependencies", dependencies),
    ("verdicts of the benchmark", |mode| bench::run(&BenchArgs::QUICK, mode)),
];

/// Runs all checks and all tests; the tests' summary is the last that is printed if all is well.
pub(crate) fn run(mode: Install) -> Result<()> {
    let begin = Instant::now();
    host::need_root("the test suite")?;
    setup::toolchain(mode)?;
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let begin = Instant::now();
        let verdict = match check(mode) {
            Ok(()) => "passed",
            Err(error) => {
                say(&format!("{error:#}"));
                failed.push(name);
                "FAILED"
            }
        };
        say(&format!("ci: {name} {verdict}, {} s", begin.elapsed().as_secs()));
    }
    say(&format!("ci: the tests begin after {} s", begin.elapsed().as_secs()));
    if let Err(error) = test::run(&[], mode) {
        say(&format!("{error:#}"));
        failed.push("tests");
    }
    if !failed.is_empty() {
        bail!("ci: failed after {} s: {}", begin.elapsed().as_secs(), failed.join(", "));
    }
    Ok(())
}

fn clippy(_: Install) -> Result<()> {
    let mut cmd = cargo(["clippy", "--workspace", "--exclude", "sticky-ebpf", "--all-targets"]);
    progress::run("cargo clippy", cmd.args(["--", "-D", "warnings"]))
}

/// Clippy needs a `core` made by its own compiler, and there is none for BPF. The lints do not
/// depend on the target, so they run on this machine's.
fn clippy_ebpf(_: Install) -> Result<()> {
    let mut cmd = cargo(["clippy", "--release", "--package", "sticky-ebpf", "--all-features"]);
    cmd.args(["--", "-D", "warnings"])
        .env("CARGO_TARGET_DIR", target("ebpf-clippy"))
        .env("RUSTC_BOOTSTRAP", crate::toolchain::ASSEMBLY)
        .env("RUSTFLAGS", "-Cpanic=abort --cfg=bpf_target_arch=\"x86_64\"");
    progress::run("cargo clippy of sticky-ebpf", &mut cmd)
}

fn documentation(_: Install) -> Result<()> {
    let mut cmd = cargo(["doc", "--workspace", "--exclude", "sticky-ebpf", "--no-deps"]);
    cmd.arg("--document-private-items").env("RUSTDOCFLAGS", "-D warnings");
    progress::run("cargo doc", &mut cmd)
}

/// Advisories need a database from the network, so they are not part of this.
fn dependencies(mode: Install) -> Result<()> {
    let mut cmd = host::cargo_tool("cargo-deny", "checking licences and sources", mode)?;
    cmd.args(["--all-features", "check", "bans", "licenses", "sources"]);
    progress::run("cargo deny check bans licenses sources", &mut cmd)
}

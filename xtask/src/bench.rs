//! `cargo xtask bench`: what a packet costs, side by side with a program that does nothing.

use anyhow::Result;
use clap::Args;

use crate::apt::Install;
use crate::progress;
use crate::toolchain::TARGET;
use crate::workspace::{cargo, root, target};
use crate::{host, setup};

/// What `bench` is told.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// Short rounds, too few to compare times: checks that every verdict is right
    #[arg(long)]
    quick: bool,
}

impl BenchArgs {
    /// What CI asks for.
    pub(crate) const QUICK: Self = Self { quick: true };
}

/// Builds what measures, and measures. The results are left in `target/bench`.
pub(crate) fn run(args: &BenchArgs, mode: Install) -> Result<()> {
    host::need_root("the benchmark")?;
    host::for_tests(mode)?;
    let found = setup::toolchain(mode)?;
    let dir = target("ebpf");
    let mut programs = found.command();
    programs
        .args(found.arguments("build", &dir))
        .args(["--features", "bench", "--bin", "sticky-bench-ebpf"])
        .current_dir(root());
    progress::run("building the programs that measure", &mut programs)?;
    // What takes time is in the kernel, so the profile of the tests does.
    let mut build = cargo(["build", "--package", "sticky-tests", "--bin", "sticky-bench"]);
    progress::run("building the benchmark", &mut build)?;
    let mut bench = std::process::Command::new(target("debug/sticky-bench"));
    bench.arg("--programs").arg(dir.join(TARGET).join("release/sticky-bench-ebpf"));
    bench.arg("--out").arg(target("bench"));
    if args.quick {
        bench.arg("--quick");
    }
    progress::run_open("measuring", &mut bench)
}

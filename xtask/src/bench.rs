//! `cargo xtask bench`: what it costs, side by side with others, one benchmark after the other.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::apt::Install;
use crate::toolchain::TARGET;
use crate::workspace::{cargo, root, target};
use crate::{build, host, image, profile, progress, setup};

/// What `bench` is told.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// What is measured; everything unless something is named
    #[arg(value_enum)]
    what: Vec<What>,
    /// Short rounds, too few to compare times: checks that every verdict is right
    #[arg(long)]
    quick: bool,
}

/// A benchmark, with its name on the command line.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// What a packet costs at XDP, and what `e2e` measures
    L4,
    /// What a connection costs from client to backend, beside other ways to forward it
    E2e,
    /// What a request costs the proxy, beside nginx, HAProxy, Envoy and Caddy
    L7,
    /// What a large Swarm costs
    Scale,
    /// What a change costs those who are under way
    Update,
}

impl BenchArgs {
    /// What CI asks for.
    pub(crate) const QUICK: Self = Self { what: Vec::new(), quick: true };
}

/// Builds what measures, and measures. The results are left in `target/bench`.
pub(crate) fn run(args: &BenchArgs, mode: Install) -> Result<()> {
    host::need_root("the benchmark")?;
    host::for_tests(mode)?;
    let named = |what: &What| {
        args.what.is_empty()
            || args.what.contains(what)
            || *what == What::E2e && args.what.contains(&What::L4)
    };
    for what in What::value_variants().iter().filter(|what| named(what)) {
        let mut bench = match what {
            What::L4 => l4(mode)?,
            What::E2e => e2e(args.quick, mode)?,
            What::L7 => l7(args.quick, mode)?,
            What::Scale => scale(mode)?,
            What::Update => update(args.quick, mode)?,
        };
        if args.quick {
            bench.arg("--quick");
        }
        bench.arg("--out").arg(target("bench")).env("PATH", host::path());
        progress::run_open("measuring", &mut bench)?;
    }
    Ok(())
}

fn l4(mode: Install) -> Result<Command> {
    let found = setup::toolchain(mode)?;
    let dir = target("ebpf");
    let mut programs = found.command();
    programs
        .args(found.arguments("build", &dir))
        .args(["--features", "bench", "--bin", "sticky-bench-ebpf"])
        .current_dir(root());
    progress::run("building the programs that measure", &mut programs)?;
    // What takes time is in the kernel, so the profile of the tests does.
    let mut bench = Command::new(program(false)?);
    bench.arg("l4").arg("--programs").arg(dir.join(TARGET).join("release/sticky-bench-ebpf"));
    Ok(bench)
}

fn e2e(quick: bool, mode: Install) -> Result<Command> {
    let sticky = build::sticky(mode)?;
    let demo = image::build()?;
    host::peers(mode);
    let mut bench = Command::new(program(!quick)?);
    bench.arg("e2e").env("STICKY_BIN", sticky).env("STICKY_DEMO_IMAGE", demo.image);
    Ok(bench)
}

fn l7(quick: bool, mode: Install) -> Result<Command> {
    let sticky = build::sticky(mode)?;
    host::peers(mode);
    let mut bench = Command::new(program(!quick)?);
    bench.arg("l7").env("STICKY_BIN", sticky);
    if let Some(envoy) = host::envoy(mode) {
        bench.env("ENVOY_BIN", envoy);
    }
    Ok(bench)
}

fn scale(mode: Install) -> Result<Command> {
    let sticky = build::sticky(mode)?;
    // What is measured is another process.
    let mut bench = Command::new(program(false)?);
    bench.arg("scale").arg("--sticky").arg(sticky);
    Ok(bench)
}

fn update(quick: bool, mode: Install) -> Result<Command> {
    let sticky = build::sticky(mode)?;
    let demo = image::build()?;
    let mut bench = Command::new(program(!quick)?);
    bench.arg("update").arg("--sticky").arg(sticky).env("STICKY_DEMO_IMAGE", demo.image);
    Ok(bench)
}

/// Builds what measures, and names it.
pub(crate) fn program(release: bool) -> Result<PathBuf> {
    let mut build = cargo(["build", "--package", "sticky-tests", "--bin", "sticky-bench"]);
    if release {
        build.arg("--release");
        profile::apply(&mut build)?;
    }
    progress::run("building the benchmark", &mut build)?;
    Ok(target(if release { "release" } else { "debug" }).join("sticky-bench"))
}

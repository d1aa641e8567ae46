//! `sticky-bench`: what `cargo xtask bench` measures, one file for each benchmark.
//!
//! Whatever is compared takes turns in rounds and the medians count, since a machine is never twice as fast as it was
//! before. What counts is the ratio within one run.

mod e2e;
mod l4;
mod l7;
mod machine;
mod pace;
mod report;
#[path = "../datapath/rig.rs"]
#[expect(dead_code, reason = "the tests of the data path use the rest of it")]
mod rig;
mod scale;
mod train;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures; the tables also go to files.
#[derive(Debug, Parser)]
#[command(name = "sticky-bench")]
struct Args {
    /// Where the results go
    #[arg(long, value_name = "DIR", global = true, default_value = "target/bench")]
    out: PathBuf,
    /// Few and short rounds: checks that every verdict is right
    #[arg(long, global = true)]
    quick: bool,
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// What a packet costs
    L4 {
        /// The programs that measure, as `cargo xtask bench` builds them
        #[arg(long, value_name = "PATH")]
        programs: PathBuf,
    },
    /// What a connection costs from client to backend, beside other ways to forward it
    E2e,
    /// What a request costs the proxy, beside nginx, HAProxy, Envoy and Caddy
    L7,
    /// What a large Swarm costs
    Scale {
        /// The sticky that is measured
        #[arg(long, value_name = "PATH")]
        sticky: PathBuf,
    },
    /// Nothing: work for a sticky that counts which ways it takes
    Train,
    /// What a change costs those who are under way
    Update {
        /// The sticky that is measured
        #[arg(long, value_name = "PATH")]
        sticky: PathBuf,
    },
}

fn run(args: &Args) -> anyhow::Result<()> {
    let report = match &args.what {
        What::Train => return train::run(),
        What::L4 { programs } => l4::run(programs, args.quick)?,
        What::E2e => e2e::run(args.quick)?,
        What::L7 => l7::run(args.quick)?,
        What::Scale { sticky } => scale::run(sticky, args.quick)?,
        What::Update { sticky } => update::run(sticky, args.quick)?,
    };
    report.publish(&args.out, args.quick)
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sticky-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

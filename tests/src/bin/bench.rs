//! `sticky-bench`: what a packet costs, for `cargo xtask bench`.
//!
//! Each case runs in a program that restores the packet between two runs and counts the verdicts; cases take turns in
//! rounds and the medians are compared, since a machine is never twice as fast as it was before. What counts is the ratio
//! to a program that sends the frame back at once.

#[path = "bench/case.rs"]
mod case;
#[path = "bench/report.rs"]
mod report;
#[path = "../../datapath/rig.rs"]
#[expect(dead_code, reason = "the tests of the data path use the rest of it")]
mod rig;
#[path = "bench/wrapper.rs"]
mod wrapper;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;

/// What a packet costs.
#[derive(Debug, Parser)]
#[command(name = "sticky-bench")]
struct Args {
    /// The programs that measure, as `cargo xtask bench` builds them
    #[arg(long, value_name = "PATH")]
    programs: PathBuf,
    /// Where the results go
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Few and short rounds: checks that every verdict is right
    #[arg(long)]
    quick: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let done = case::run(&args.programs, args.quick)
        .and_then(|results| report::write(&results, &args.out));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sticky-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

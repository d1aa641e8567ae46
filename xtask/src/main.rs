//! Everything one does with this tree: set it up, build it, run it, test it.

mod apt;
mod bench;
mod build;
mod ci;
mod docker;
mod fuzz;
mod host;
mod image;
mod layout;
mod profile;
mod progress;
mod run;
mod setup;
mod test;
mod tidy;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use apt::Install;
use progress::say;
use run::{LabArgs, RunArgs};

/// Set up, build, run and test sticky.
///
/// `run` and `test` do all of their own set-up, on a Debian or Ubuntu machine with Rust and nothing else. As root they
/// install what is missing and say so; otherwise they print the command that does and stop.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    /// Never install anything: name what is missing and stop
    #[arg(long, global = true)]
    no_install: bool,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Build everything and run the balancer: for real with ARGS, else on this host's Swarm if you agree, else in the lab
    Run(RunArgs),
    /// Build everything and run every test, or those whose names contain a FILTER
    Test {
        /// Parts of test names, or options of `cargo nextest run` after `--`
        filters: Vec<String>,
    },
    /// Run the lab: clients, balancer and a private Swarm in network namespaces (`run --lab`)
    Lab(LabArgs),
    /// Find or install the toolchain for the eBPF programs
    Setup,
    /// Build target/release/sticky, one file that needs nothing else
    Build,
    /// Make anew what `build` goes by, sticky-user/release.profdata and release.layout.gz, from a sticky that counts under
    /// the benchmark's loads
    Profile,
    /// Build the demo application and its image, target/sticky-demo.tar
    Image,
    /// Check who imports what
    Tidy,
    /// Feed a TARGET of tests/fuzz, or each in turn, with inputs that somebody might send
    Fuzz(fuzz::FuzzArgs),
    /// Measure, side by side with others; tables and plots also go to target/bench
    Bench(bench::BenchArgs),
    /// Everything that CI checks: format, lints, import rules, documentation, licences, all tests
    Ci,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    let mode = if cli.no_install { Install::Never } else { Install::Allowed };
    match cli.verb {
        Verb::Run(args) => run::run(&args, mode),
        Verb::Test { filters } => test::run(&filters, mode),
        Verb::Lab(args) => run::lab(&args, mode),
        Verb::Setup => setup::toolchain(mode).map(|found| say(&format!("ready: {found}"))),
        Verb::Build => build::sticky(mode).map(|path| say(&format!("built {}", path.display()))),
        Verb::Profile => profile::make(mode),
        Verb::Image => image::build()
            .map(|demo| say(&format!("built {} ({})", demo.image.display(), image::TAG))),
        Verb::Tidy => tidy::run(),
        Verb::Fuzz(args) => fuzz::run(&args, mode),
        Verb::Bench(args) => bench::run(&args, mode),
        Verb::Ci => ci::run(mode),
    }
}

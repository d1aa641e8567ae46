//! `sticky-lab`: what `cargo xtask run` starts when there is no Swarm to balance.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use sticky_tests::{lab, wait};

#[derive(Debug, Parser)]
#[command(
    name = "sticky-lab",
    about = "A network in namespaces, a private Swarm, sticky, and its walk-throughs"
)]
enum Command {
    /// Build the lab, walk through it, and stay up
    Run(Run),
}

#[derive(Debug, clap::Args)]
struct Run {
    /// End after the walk-through, with code 0 only if every check in it held
    #[arg(long)]
    exit: bool,
    /// What runs the demo's backends
    #[arg(long, value_enum, default_value = "swarm")]
    engine: Engine,
    /// The balancer
    #[arg(long, value_name = "PATH")]
    sticky: PathBuf,
    /// The demo application
    #[arg(long, value_name = "PATH")]
    demo: PathBuf,
    /// The demo application's image, an archive for `docker load`
    #[arg(long, value_name = "TAR")]
    demo_image: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Engine {
    /// A private Docker Swarm
    Swarm,
    /// Programs in a namespace, under the file provider
    Embedded,
}

fn main() -> ExitCode {
    let Command::Run(run) = Command::parse();
    if let Err(error) = wait::watch_signals() {
        eprintln!("sticky-lab: {error:#}");
        return ExitCode::FAILURE;
    }
    let options = lab::Options {
        sticky: run.sticky,
        demo: run.demo,
        image: run.demo_image,
        embedded: run.engine == Engine::Embedded,
        exit: run.exit,
    };
    match lab::run(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sticky-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}

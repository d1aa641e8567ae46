//! Everything one does with this tree: set it up, build it, run it, test it.

mod apt;
mod image;
mod progress;
mod setup;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use apt::Install;
use workspace::{cargo, target};

/// Set up, build, run and test sticky.
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
    /// Find or install the toolchain for the eBPF programs
    Setup,
    /// Build target/release/sticky, one file that needs nothing else
    Build,
    /// Build the demo application and its image, target/sticky-demo.tar
    Image,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let mode = if cli.no_install { Install::Never } else { Install::Allowed };
    match cli.verb {
        Verb::Setup => {
            let found = setup::toolchain(mode)?;
            progress::say(&format!("ready: {found}"));
        }
        Verb::Build => {
            setup::toolchain(mode)?;
            progress::run_open(
                "building sticky (release)",
                &mut cargo(["build", "--release", "--package", "sticky-user"]),
            )?;
            progress::say(&format!("built {}", target("release/sticky").display()));
        }
        Verb::Image => {
            let demo = image::build()?;
            progress::say(&format!("built {} ({})", demo.image.display(), image::TAG));
        }
    }
    Ok(ExitCode::SUCCESS)
}

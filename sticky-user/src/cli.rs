//! The command line: what there is to say, and who answers it.

mod check_config;
mod failure;
mod run_args;

use std::io;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::Settings;
pub use failure::Failure;

/// A load balancer for Docker Swarm that keeps the client's address and the client's session.
#[derive(Debug, Parser)]
#[command(
    name = "sticky",
    version,
    propagate_version = true,
    arg_required_else_help = true,
    max_term_width = 120
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    places: PlaceFlags,
}

/// The flags of every command.
#[derive(Clone, Debug, Args)]
struct PlaceFlags {
    /// Control socket of the running sticky [default: /run/sticky/sticky.sock]
    #[arg(
        long,
        global = true,
        env = "STICKY_SOCKET",
        value_name = "PATH",
        help_heading = "Places"
    )]
    socket: Option<PathBuf>,
    /// Directory of generated keys and the last snapshot [default: /var/lib/sticky]
    #[arg(
        long,
        global = true,
        env = "STICKY_STATE_DIR",
        value_name = "PATH",
        help_heading = "Places"
    )]
    state_dir: Option<PathBuf>,
    /// Directory of pinned programs and maps in a BPF file system [default: /sys/fs/bpf/sticky]
    #[arg(
        long,
        global = true,
        env = "STICKY_PIN_DIR",
        value_name = "PATH",
        help_heading = "Places"
    )]
    pin_dir: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Validate a configuration or a file of services
    #[command(after_help = check_config::HELP)]
    CheckConfig {
        /// A file for `--config`, or a file of services [default: what `sticky run` would use]
        file: Option<PathBuf>,
    },
    /// Print the completions of a shell
    #[command(after_help = "Example:\n  sticky completions bash > /etc/bash_completion.d/sticky")]
    Completions { shell: Shell },
    /// Print the manual page
    #[command(after_help = "Example:\n  sticky man | man -l -")]
    Man,
}

/// Reads the command line and does what it says.
///
/// # Errors
/// What to tell the user, with the exit code.
pub fn run() -> Result<(), Failure> {
    let Cli { command, places } = Cli::parse();
    match command {
        Command::CheckConfig { file } => check_config::run(file.as_deref(), &places),
        Command::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "sticky", &mut io::stdout());
            Ok(())
        }
        Command::Man => {
            let page = clap_mangen::Man::new(Cli::command());
            Ok(page.render(&mut io::stdout()).context("the manual page cannot be written")?)
        }
    }
}

impl PlaceFlags {
    fn settings(&self) -> Settings {
        let Self { socket, state_dir, pin_dir } = self.clone();
        Settings { socket, state_dir, pin_dir, ..Settings::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}

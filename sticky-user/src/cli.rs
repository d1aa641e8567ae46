//! The command line: what there is to say, and who answers it.

mod app;
mod ask;
mod capture;
mod check_config;
mod detach;
mod doctor;
mod drain;
mod keys;
mod run_args;

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::config::{Places, Settings};
use crate::failure::Failure;
use crate::whereis::Question;
use run_args::RunArgs;

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
    /// Run the balancer on this node
    #[command(after_help = run_args::HELP)]
    Run(Box<RunArgs>),
    /// Show services, frontends, backends and the data path
    #[command(after_help = ask::STATUS_HELP)]
    Status {
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
        /// Again every second, until interrupted
        #[arg(long)]
        watch: bool,
    },
    /// Show the backend a client gets, and why
    #[command(after_help = ask::WHERE_HELP)]
    Where {
        /// Address of the client
        client: IpAddr,
        /// Name or id of a service [default: all]
        #[arg(long, value_name = "SERVICE")]
        service: Option<String>,
        /// Value of our cookie that the client sends
        #[arg(long, value_name = "VALUE")]
        cookie: Option<String>,
        /// As JSON, for programs
        #[arg(long)]
        json: bool,
    },
    /// Give Swarm services sticky sessions
    #[command(after_help = app::HELP)]
    App(app::App),
    /// Make, rotate or list keys
    #[command(after_help = keys::HELP)]
    Keys {
        #[command(subcommand)]
        command: keys::Keys,
    },
    /// Validate a configuration or a file of services
    #[command(after_help = check_config::HELP)]
    CheckConfig {
        /// A file for `--config`, or a file of services [default: what `sticky run` would use]
        file: Option<PathBuf>,
    },
    /// Show or save packets with the verdict and backend sticky gave them
    #[command(after_help = capture::HELP)]
    Capture(capture::CaptureArgs),
    /// Check whether this host is fit: kernel, interfaces, Docker, ports, permissions
    #[command(after_help = doctor::HELP)]
    Doctor(doctor::DoctorArgs),
    /// Send no new client to a backend, a service or a node; its own clients stay
    #[command(after_help = drain::HELP)]
    Drain {
        /// Name or id as `sticky status` shows it; `service:NAME` or `node:NAME` where there are several
        #[arg(value_name = "BACKEND|SERVICE|NODE")]
        what: String,
    },
    /// Take a drain back
    #[command(after_help = drain::HELP)]
    Undrain {
        /// What was drained
        #[arg(value_name = "BACKEND|SERVICE|NODE")]
        what: String,
    },
    /// Remove every program, map and rule of sticky from this host
    #[command(after_help = detach::HELP)]
    Detach {
        /// Also while sticky runs
        #[arg(long)]
        force: bool,
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
        Command::Run(args) => crate::run::run(args.config(&places)?),
        Command::Status { json, watch } => ask::status(&places.places().socket, json, watch),
        Command::Where { client, service, cookie, json } => {
            let question = Question { client, service, cookie };
            ask::locate(&places.places().socket, &question, json)
        }
        Command::App(app) => app::run(app),
        Command::Keys { command } => keys::run(command),
        Command::Capture(args) => crate::capture::run(&places.places(), &args.wanted()),
        Command::Doctor(args) => args.run(&places),
        Command::Drain { what } => drain::run(&places.places().socket, what, false),
        Command::Undrain { what } => drain::run(&places.places().socket, what, true),
        Command::Detach { force } => detach::run(&places.places(), force),
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

    fn places(self) -> Places {
        let default = Places::default();
        Places {
            socket: self.socket.unwrap_or(default.socket),
            state_dir: self.state_dir.unwrap_or(default.state_dir),
            pin_dir: self.pin_dir.unwrap_or(default.pin_dir),
        }
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

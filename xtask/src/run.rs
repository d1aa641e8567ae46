//! `cargo xtask run`: the real thing where a Swarm is at hand and the user says so, else the lab.

use std::io::{self, BufRead, IsTerminal, Write};
use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};

use crate::apt::Install;
use crate::docker;
use crate::progress::say;
use crate::{build, host, image};

/// What to run.
#[derive(Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    lab: LabArgs,
    /// The lab, whatever this host has
    #[arg(long = "lab")]
    lab_only: bool,
    /// Arguments of `sticky run`: the real thing on this host
    #[arg(last = true, conflicts_with_all = ["lab_only", "exit", "nodes", "engine"])]
    args: Vec<String>,
}

/// What the lab is made of.
#[derive(Args)]
pub(crate) struct LabArgs {
    /// End after the walk-through, with code 0 only if every check in it held
    #[arg(long)]
    exit: bool,
    /// Nodes of the lab [default: 1]
    #[arg(long, value_name = "N")]
    nodes: Option<u32>,
    /// What runs the demo's backends [default: swarm with dockerd on PATH, else embedded]
    #[arg(long, value_enum)]
    engine: Option<Engine>,
}

/// What runs the demo's backends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Engine {
    /// A private Docker Swarm, apart from any Docker of this host
    Swarm,
    /// Processes in namespaces, under the file provider
    Embedded,
}

/// Runs sticky with the given arguments, or what suits this host. Returns only on failure: the
/// program takes our place.
pub(crate) fn run(args: &RunArgs, mode: Install) -> Result<()> {
    if !args.args.is_empty() {
        return real(&args.args, mode);
    }
    let chosen =
        args.lab_only || args.lab.exit || args.lab.nodes.is_some() || args.lab.engine.is_some();
    if !chosen && let Some(manager) = docker::swarm_manager() {
        if io::stdin().is_terminal() && io::stderr().is_terminal() {
            if agrees(&manager)? {
                return real(&[], mode);
            }
        } else {
            say(&format!(
                "a Swarm manager answers at {manager}; without a terminal to ask, this is the lab (`cargo xtask run -- ARGS` balances for real)"
            ));
        }
    }
    lab(&args.lab, mode)
}

/// Runs the lab: namespaces for clients, the balancer and the backends.
pub(crate) fn lab(args: &LabArgs, mode: Install) -> Result<()> {
    if args.nodes.is_some_and(|nodes| nodes != 1) {
        bail!("--nodes: the lab has one node, as sticky does not carry packets between nodes yet");
    }
    host::need_root("the lab")?;
    host::for_lab(mode)?;
    let engine = engine(args.engine)?;
    let sticky = build::sticky(mode)?;
    let demo = image::build()?;
    let mut lab = Command::new(build::lab()?);
    lab.env("PATH", host::path()).arg("run").arg("--sticky").arg(sticky);
    lab.arg("--demo").arg(demo.program).arg("--demo-image").arg(demo.image);
    lab.args(["--engine", if engine == Engine::Swarm { "swarm" } else { "embedded" }]);
    if args.exit {
        lab.arg("--exit");
    }
    Err(lab.exec()).context("the lab does not start")
}

fn engine(wanted: Option<Engine>) -> Result<Engine> {
    const HOW: &str = "`apt-get install docker.io` brings one";
    match (wanted, host::find("dockerd")) {
        (Some(Engine::Swarm), None) => {
            bail!("--engine swarm needs dockerd, which is not on PATH: {HOW}")
        }
        (None, None) => {
            say(&format!(
                "no dockerd here, so the lab uses embedded backends in place of a private Swarm ({HOW})"
            ));
            Ok(Engine::Embedded)
        }
        (Some(engine), _) => Ok(engine),
        (None, Some(_)) => Ok(Engine::Swarm),
    }
}

fn real(args: &[String], mode: Install) -> Result<()> {
    let sticky = build::sticky(mode)?;
    Err(Command::new(&sticky).arg("run").args(args).exec())
        .with_context(|| format!("{} does not start", sticky.display()))
}

fn agrees(manager: &str) -> Result<bool> {
    eprint!(
        "A Swarm manager answers at {manager}.\n\
         Balance its services for real, on this host's default-route interface? [y/N] (no: the lab) "
    );
    io::stderr().flush()?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

//! `sticky-lab`: what `cargo xtask run` starts when there is no Swarm to balance.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use sticky_tests::{lab, wait};
use tokio::signal::unix::{SignalKind, signal};

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
    if let Err(error) = watch_signals() {
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

/// From here on Ctrl-C, SIGTERM and a closed terminal make every wait fail, so that the lab is taken down in order.
fn watch_signals() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let guard = runtime.enter();
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    drop(guard);
    std::thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! { _ = interrupt.recv() => {} _ = terminate.recv() => {} _ = hangup.recv() => {} }
            wait::interrupt();
            // The handlers stay: a second signal must not stop the clean-up.
            std::future::pending::<()>().await;
        });
    });
    Ok(())
}

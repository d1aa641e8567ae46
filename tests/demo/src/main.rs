//! The application that the lab and the tests put behind sticky.
//!
//! It has the habits of `docker-demo`, the application of Interlock's documentation: `/ping` names the instance, sessions live in
//! memory and are lost with it, and SIGTERM ends it at once. Besides, it tells what it saw, so that a test can count.

mod app;
mod args;
mod body;
mod check;
mod line;
mod routes;
mod serve;
mod sessions;
mod websocket;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::Parser;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let args = args::Args::parse();
    match if args.check { check::run(&args) } else { run(args) } {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sticky-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// One thread is plenty, and a lab runs ten of these beside the balancer.
#[tokio::main(flavor = "current_thread")]
async fn run(args: args::Args) -> anyhow::Result<()> {
    // As process 1 of a container there is no default action: without handlers these would be ignored.
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;

    let app = Arc::new(app::App::new(&args)?);
    let http = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("cannot listen on {}", args.listen))?;
    if let Some(addr) = args.tcp {
        let lines =
            TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {addr}"))?;
        tokio::spawn(line::serve(lines, app.clone()));
    }
    eprintln!("sticky-demo: instance {} listens on {}", app.instance, http.local_addr()?);

    let crash = async {
        match args.crash {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    let server = serve::Server::new(http, app.clone());
    tokio::select! {
        () = server.accept() => Ok(()),
        _ = interrupt.recv() => Ok(()),
        () = crash => anyhow::bail!("crashes, as it was told to"),
        _ = term.recv() => {
            app.told_to_end();
            if let Some(limit) = args.graceful {
                server.drain(limit).await;
            }
            Ok(())
        }
    }
}

//! The lab: the two walk-throughs that sticky was made for, on real packets, with every claim checked as it goes.

mod cookie;
mod embedded;
mod engine;
mod hash;
mod private_swarm;
mod report;
mod scale;
mod stay;

use std::path::PathBuf;

use crate::demo::{HTTP_PORT, LINE_PORT};
use crate::sticky::Sticky;
use crate::topology::Topology;
use crate::wait;
use embedded::Embedded;
use engine::Engine;
use private_swarm::PrivateSwarm;
use report::Report;

/// What to build the lab of.
#[derive(Debug)]
pub struct Options {
    /// The balancer.
    pub sticky: PathBuf,
    /// The demo application, for embedded backends.
    pub demo: PathBuf,
    /// Its image, for the Swarm.
    pub image: PathBuf,
    /// Demo applications under the file provider in place of a Swarm.
    pub embedded: bool,
    /// End after the walk-through.
    pub exit: bool,
}

/// The lab's parts; dropped in this order.
struct Lab {
    sticky: Sticky,
    engine: Box<dyn Engine>,
    net: Topology,
    report: Report,
}

/// Builds the lab, walks through it, stays up if wanted, and removes it. Returns whether every check held.
pub fn run(options: &Options) -> anyhow::Result<bool> {
    let mut report = Report::new();
    report.title("The lab");
    report.note(
        "making network namespaces: a node, its clients, and a host on another network of the node",
    );
    let net = Topology::new()?;
    let engine: Box<dyn Engine> = if options.embedded {
        Box::new(Embedded::start(&net, &options.demo)?)
    } else {
        report.note("starting a private Docker Swarm on the node; the Docker of this host, if any, is not touched");
        Box::new(PrivateSwarm::start(&net, &options.image)?)
    };
    let mut arguments = vec!["--iface".to_owned(), "eth0".to_owned()];
    arguments.extend(engine.arguments());
    report.command(&format!("sticky run {}", arguments.join(" ")));
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let sticky = Sticky::start_binary(options.sticky.clone(), &net.node, &arguments)?;
    report.check(true, "sticky is ready");

    let mut lab = Lab { sticky, engine, net, report };
    let walked = cookie::walk(&mut lab)
        .and_then(|()| hash::walk(&mut lab))
        .and_then(|()| scale::walk(&mut lab));
    let interrupted = wait::interrupted();
    if let Err(error) = &walked
        && !interrupted
    {
        lab.report.check(false, &format!("the walk-through could go on: {error:#}"));
        lab.report.lines(
            "sticky said last",
            lab.sticky.log().iter().rev().take(15).rev().map(|line| &line.text),
        );
    }
    if !interrupted {
        lab.report.summary();
        if !options.exit {
            stay::stay(&mut lab, options)?;
        }
    }
    lab.report.note("removing the lab");
    Ok(lab.report.all_held() && !interrupted)
}

/// The ports of the demo application that the lab publishes.
const PUBLISHED: [u16; 2] = [HTTP_PORT, LINE_PORT];

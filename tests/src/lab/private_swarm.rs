//! The demo on a private Docker Swarm, by the commands of Interlock's documentation.

use std::path::Path;

use super::PUBLISHED;
use super::engine::{Affinity, Engine, SERVICE};
use super::report::Report;
use crate::demo::{IMAGE, LINE_PORT};
use crate::swarm::Swarm;
use crate::topology::{NODE, Topology};

#[derive(Debug)]
pub(super) struct PrivateSwarm {
    swarm: Swarm,
    deployed: bool,
}

impl PrivateSwarm {
    pub(super) fn start(net: &Topology, image: &Path) -> anyhow::Result<Self> {
        Ok(Self { swarm: Swarm::start(&net.node, &NODE.to_string(), image)?, deployed: false })
    }

    fn docker(&self, report: &Report, args: &[&str]) -> anyhow::Result<()> {
        report.command(&format!("docker {}", args.join(" ")));
        let printed = self.swarm.docker(args)?;
        // The rest is progress that a terminal would overwrite.
        report.output(printed.lines().last().unwrap_or_default());
        Ok(())
    }
}

impl Engine for PrivateSwarm {
    fn arguments(&self) -> Vec<String> {
        vec![
            "--provider".to_owned(),
            "swarm".to_owned(),
            "--docker-host".to_owned(),
            self.swarm.daemon.url(),
        ]
    }

    fn deploy(&mut self, report: &Report, affinity: Affinity) -> anyhow::Result<()> {
        if self.deployed {
            report.command("docker service rm demo");
            self.swarm.remove(SERVICE)?;
        } else {
            self.docker(report, &["network", "create", "-d", "overlay", "demo"])?;
        }
        self.deployed = true;
        let labels = affinity.labels().map(|(key, value)| format!("--label={key}={value}"));
        let (lines, publish) = (
            format!("TCP=0.0.0.0:{LINE_PORT}"),
            PUBLISHED.map(|port| format!("--publish={port}:{port}")),
        );
        let mut args = vec![
            "service",
            "create",
            "--name",
            SERVICE,
            "--network",
            "demo",
            "--detach=false",
            "--replicas=5",
        ];
        args.extend(labels.iter().map(String::as_str));
        args.extend(["--env", "METADATA=demo-sticky"]);
        if affinity == Affinity::IpHash {
            args.extend(["--env", &lines]);
            args.extend(publish.iter().map(String::as_str));
        }
        // There is no registry to ask, and nobody here wants to wait for a slow end.
        args.extend(["--no-resolve-image", "--stop-grace-period=2s", IMAGE]);
        report.note("waiting for five tasks to run and to be stable");
        self.docker(report, &args)?;
        self.swarm.wait_running(SERVICE, 5).map(|_| ())
    }

    fn scale(&mut self, report: &Report, replicas: usize) -> anyhow::Result<()> {
        report.command(&format!("docker service scale {SERVICE}={replicas}"));
        self.swarm.scale(SERVICE, replicas)?;
        self.swarm.wait_running(SERVICE, replicas).map(|_| ())
    }

    fn instances(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.swarm.serving(SERVICE)?.iter().map(|task| task.instance().to_owned()).collect())
    }

    fn hints(&self) -> Vec<(String, String)> {
        vec![
            (
                format!("export DOCKER_HOST={}", self.swarm.daemon.url()),
                "talk to the private Swarm".to_owned(),
            ),
            (
                format!("docker service scale {SERVICE}=8"),
                "change the number of replicas".to_owned(),
            ),
            (format!("docker service ps {SERVICE}"), "see them come and go".to_owned()),
        ]
    }
}

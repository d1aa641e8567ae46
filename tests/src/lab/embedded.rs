//! The demo without Docker: programs in a namespace, listed in a file that sticky watches.

use std::fmt::Write as _;
use std::fs;
use std::net::IpAddr;
use std::path::Path;

use super::PUBLISHED;
use super::engine::{Affinity, Engine, SERVICE};
use super::report::Report;
use crate::demo::{Backends, HTTP_PORT, backend_name};
use crate::names::TempDir;
use crate::netns::Netns;
use crate::topology::Topology;

/// As many as the walk-through needs at most.
const BACKENDS: u8 = 10;

/// All backends run all the time; those in the file are in service.
#[derive(Debug)]
pub(super) struct Embedded {
    _backends: Backends,
    _netns: Netns,
    addresses: Vec<IpAddr>,
    dir: TempDir,
    affinity: Affinity,
    replicas: usize,
}

impl Embedded {
    pub(super) fn start(net: &Topology, demo: &Path) -> anyhow::Result<Self> {
        let (netns, addresses) = net.backends(BACKENDS)?;
        let backends = Backends::start(&netns, demo, &addresses)?;
        let dir = TempDir::new()?;
        let embedded = Self {
            _backends: backends,
            _netns: netns,
            addresses,
            dir,
            affinity: Affinity::Cookie,
            replicas: 0,
        };
        fs::write(embedded.file(), "# nothing yet\n")?;
        Ok(embedded)
    }

    fn file(&self) -> std::path::PathBuf {
        self.dir.join("services.toml")
    }

    /// Replaces the file in one step, so that nobody reads half of it.
    fn write(&self, text: &str) -> anyhow::Result<()> {
        let new = self.dir.join("services.toml.new");
        fs::write(&new, text)?;
        fs::rename(&new, self.file())?;
        Ok(())
    }

    fn services(&self) -> String {
        let mut text = format!("[[service]]\nname = \"{SERVICE}\"\n");
        if self.affinity == Affinity::IpHash {
            let publish = PUBLISHED.map(|port| format!("\"{port}:{port}/tcp\"")).join(", ");
            let _ = writeln!(text, "publish = [{publish}]");
        }
        let in_service = &self.addresses[..self.replicas];
        let backends: Vec<_> =
            in_service.iter().map(|address| format!("\"{address}:{HTTP_PORT}\"")).collect();
        let _ = writeln!(text, "backends = [{}]\n[service.labels]", backends.join(", "));
        for (key, value) in self.affinity.labels() {
            let _ = writeln!(text, "\"{key}\" = \"{value}\"");
        }
        text
    }
}

impl Engine for Embedded {
    fn arguments(&self) -> Vec<String> {
        vec!["--provider".to_owned(), format!("file:{}", self.file().display())]
    }

    fn deploy(&mut self, report: &Report, affinity: Affinity) -> anyhow::Result<()> {
        (self.affinity, self.replicas) = (affinity, 5);
        let text = self.services();
        report.command(&format!("cat > {}", self.file().display()));
        report.output(&text);
        self.write(&text)
    }

    fn scale(&mut self, report: &Report, replicas: usize) -> anyhow::Result<()> {
        report.command(&format!("edit {}: {replicas} backends", self.file().display()));
        self.replicas = replicas;
        self.write(&self.services())
    }

    fn instances(&self) -> anyhow::Result<Vec<String>> {
        Ok(self.addresses[..self.replicas].iter().map(backend_name).collect())
    }

    fn hints(&self) -> Vec<(String, String)> {
        vec![(
            format!("$EDITOR {}", self.file().display()),
            "change the backends and labels".to_owned(),
        )]
    }
}

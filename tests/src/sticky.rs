//! The program under test.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::Value;

use crate::command::output;
use crate::demo::sticky_binary;
use crate::http;
use crate::names::{BPF_DIR, TempDir, unique};
use crate::netns::{self, Netns, command_in};
use crate::process::{Line, Process};
use crate::wait;

/// `sticky` on a node. Dropped, it leaves neither program nor pin nor rule.
#[derive(Debug)]
pub struct Sticky {
    process: Option<Process>,
    node: PathBuf,
    binary: PathBuf,
    arguments: Vec<String>,
    pin_dir: PathBuf,
    dir: TempDir,
}

impl Sticky {
    /// Starts `sticky run` on `node` with `arguments` besides the directories, and waits until it is ready.
    pub fn start(node: &Netns, arguments: &[&str]) -> anyhow::Result<Self> {
        Self::start_binary(sticky_binary()?, node, arguments)
    }

    /// Like [`Sticky::start`], of a given binary.
    pub fn start_binary(binary: PathBuf, node: &Netns, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut sticky = Self {
            process: None,
            node: node.path(),
            binary,
            arguments: arguments.iter().map(|&argument| argument.to_owned()).collect(),
            pin_dir: PathBuf::from(BPF_DIR).join(unique()),
            dir: TempDir::new()?,
        };
        sticky.run()?;
        Ok(sticky)
    }

    /// Starts `sticky run` again, after its end, with the same arguments and directories.
    pub fn run(&mut self) -> anyhow::Result<()> {
        let mut command = self.command(&["run"]);
        command.args(&self.arguments);
        // Why a backend was not up is what is asked first of a test that failed.
        command.env("RUST_LOG", "info,sticky::health=debug");
        let mut process = Process::spawn("sticky", &command)?;
        let node = self.node.clone();
        let ready = wait::until("sticky to be ready", Duration::from_secs(30), || {
            process.check()?;
            Ok(readiness(&node)
                .map_err(|error| format!("{error:#}; it said:\n{}", process.tail(20))))
        });
        self.process = Some(process);
        ready
    }

    /// The command `sticky ARGS` for this instance.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = command_in(&self.node, &self.binary.to_string_lossy());
        command.args(args);
        command.arg("--socket").arg(self.dir.join("sticky.sock"));
        command.arg("--state-dir").arg(self.dir.join("state"));
        command.arg("--pin-dir").arg(&self.pin_dir);
        for (key, _) in
            std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("STICKY_"))
        {
            command.env_remove(key);
        }
        command
    }

    /// Runs `sticky ARGS` to its end and returns what it printed.
    pub fn sticky(&self, args: &[&str]) -> anyhow::Result<String> {
        output(&mut self.command(args))
    }

    /// `sticky status --json`.
    pub fn status(&self) -> anyhow::Result<Value> {
        let text = self.sticky(&["status", "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("status: not JSON: {text}"))
    }

    /// The entry of one service in `sticky status --json`; `Null` if it is not there.
    pub fn service(&self, name: &str) -> anyhow::Result<Value> {
        let status = self.status()?;
        let services = status["services"].as_array().context("status has services")?;
        Ok(services.iter().find(|service| service["name"] == name).cloned().unwrap_or_default())
    }

    /// `sticky where CLIENT --service SERVICE --json`.
    pub fn where_is(&self, client: &str, service: &str) -> anyhow::Result<Value> {
        let text = self.sticky(&["where", client, "--service", service, "--json"])?;
        serde_json::from_str(&text).with_context(|| format!("where: not JSON: {text}"))
    }

    /// Waits until a service's entry in the status is as `wanted` says.
    pub fn wait_service(
        &self,
        service: &str,
        what: &str,
        limit: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        wait::until(&format!("service {service}: {what}"), limit, || {
            let entry = self.service(service)?;
            Ok(if wanted(&entry) { Ok(entry) } else { Err(entry.to_string()) })
        })
    }

    /// Waits until exactly `count` backends of a service are up.
    pub fn wait_up(&self, service: &str, count: usize, limit: Duration) -> anyhow::Result<Value> {
        self.wait_service(service, &format!("{count} backends up"), limit, |entry| {
            up(entry) == count
        })
    }

    /// The running program; an error if it was ended.
    pub fn process(&mut self) -> anyhow::Result<&mut Process> {
        self.process.as_mut().context("sticky does not run")
    }

    /// What it logged since it was last started.
    pub fn log(&self) -> Vec<Line> {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// Its lines about changes of the maps of `service`, since `from` log lines.
    pub fn updates(&self, service: &str, from: usize) -> Vec<Line> {
        let start = format!("service {service}: ");
        let wanted = |line: &Line| {
            line.text.contains(&start) && line.text.contains(" backends, generation ")
        };
        self.log().into_iter().skip(from).filter(wanted).collect()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// An upgrade: a second one, with the same arguments, succeeds the first.
    pub fn take_over(&mut self) -> anyhow::Result<()> {
        const LIMIT: Duration = Duration::from_secs(20);
        let mut command = self.command(&["run", "--takeover"]);
        command.args(&self.arguments);
        let mut successor = Process::spawn("successor", &command)?;
        successor.wait_line(LIMIT, 0, |line| line.contains("took over"))?;
        if let Some(mut first) = self.process.replace(successor) {
            let code = first.wait(LIMIT)?.code();
            anyhow::ensure!(code == Some(0), "the first one ended with {code:?}");
        }
        Ok(())
    }

    /// SIGTERM, and waits for the end.
    pub fn terminate(&mut self, limit: Duration) -> anyhow::Result<Duration> {
        let started = Instant::now();
        if let Some(mut process) = self.process.take() {
            process.signal(Signal::SIGTERM)?;
            process.wait(limit)?;
        }
        Ok(started.elapsed())
    }

    /// Where its programs, links and maps are pinned.
    pub fn pin_dir(&self) -> &std::path::Path {
        &self.pin_dir
    }
}

/// The number of backends that are up in a service's entry of the status.
pub fn up(service: &Value) -> usize {
    let backends = service["backends"].as_array().map(Vec::as_slice).unwrap_or_default();
    backends.iter().filter(|backend| backend["state"] == "up").count()
}

/// Asked here and not by a program of its own: a benchmark of the start would measure that too.
fn readiness(node: &std::path::Path) -> anyhow::Result<()> {
    const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9880);
    let answer = netns::enter(node, || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(http::get(None, ADMIN, "localhost", "/readyz", &[]))
    })??;
    anyhow::ensure!(answer.status == 200, "{}: {}", answer.status, answer.text());
    Ok(())
}

impl Drop for Sticky {
    fn drop(&mut self) {
        self.process = None;
        if let Err(error) = self.sticky(&["detach"]) {
            eprintln!("sticky detach: {error:#}");
        }
        // Pins of a version that could not detach would keep its programs loaded.
        let _ = fs::remove_dir_all(&self.pin_dir);
    }
}

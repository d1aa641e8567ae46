//! A private Docker daemon inside a network namespace.
//!
//! Its bridges and rules are made in the namespace. The daemon, containerd and all containers live in one PID namespace and one
//! mount namespace: when its first process is killed, the kernel ends every program and every mount of it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::command::output;
use crate::http;
use crate::names::{TempDir, remove_cgroups, unique};
use crate::netns::Netns;
use crate::process::Process;
use crate::wait;

/// A running daemon, ended and removed with the value.
#[derive(Debug)]
pub struct Dockerd {
    process: Process,
    cgroup: String,
    dir: TempDir,
}

/// Run as process 1 of the namespaces; `$1` is the daemon's directory and `$2` its control group. The daemon must neither
/// read nor write the host's /etc/docker, /run/docker and /run/containerd. It looks for a newer image in a registry before it starts
/// a task: a name server that refuses makes that short. The shell waits, and so reaps orphans.
const SCRIPT: &str = r#"
set -e
mount --make-rprivate /
mkdir "$1/etc" "$1/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc 2>/dev/null ||
    { mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker; }
rm -rf /etc/docker/*
echo "nameserver 127.0.0.1" > "$1/resolv.conf"
mount --bind "$1/resolv.conf" /etc/resolv.conf
mount -t tmpfs tmpfs /run
dockerd --data-root "$1/data" --exec-root "$1/exec" --pidfile "$1/pid" --host "unix://$1/docker.sock" \
    --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$2"
"#;

impl Dockerd {
    /// Starts a daemon in `netns` and waits until it answers.
    pub fn start(netns: &Netns) -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let cgroup = unique();
        let mut command = netns.command("unshare");
        command.args([
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
            "sh",
            "-c",
            SCRIPT,
            "dockerd",
        ]);
        command.arg(dir.path()).arg(&cgroup);
        let process = Process::spawn("dockerd", &command)?;
        let mut daemon = Self { process, cgroup, dir };
        wait::until("dockerd to answer", Duration::from_secs(60), || {
            daemon.process.check().context("is docker.io (dockerd) installed?")?;
            Ok(daemon.docker(&["version"]).map(|_| ()).map_err(|error| error.to_string()))
        })?;
        Ok(daemon)
    }

    /// Its socket, as `docker --host` and `sticky --docker-host` want it.
    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.dir.join("docker.sock")
    }

    /// The `docker` command line with `args` for this daemon, untouched by the user's contexts and settings.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .args(args)
            .env("DOCKER_HOST", self.url())
            .env("DOCKER_CONFIG", self.dir.join("cli"));
        command
            .env_remove("DOCKER_CONTEXT")
            .env_remove("DOCKER_TLS_VERIFY")
            .env_remove("DOCKER_CERT_PATH");
        command
    }

    /// Runs `docker` with `args` and returns what it printed.
    pub fn docker(&self, args: &[&str]) -> anyhow::Result<String> {
        output(&mut self.command(args))
    }

    /// Asks the API for `path` (with its version prefix added) and returns the JSON.
    pub fn api(&self, path: &str) -> anyhow::Result<Value> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let answer = runtime.block_on(http::get_unix(&self.socket(), &format!("/v1.41{path}")))?;
        anyhow::ensure!(answer.status == 200, "{path}: {}: {}", answer.status, answer.text());
        answer.json()
    }

    /// The last lines of its log.
    pub fn tail(&self, count: usize) -> String {
        self.process.tail(count)
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        self.process.kill();
        // The containers are dying now, and a control group goes only after its last process.
        for _ in 0..100 {
            remove_cgroups(&self.cgroup);
            if !std::path::Path::new("/sys/fs/cgroup/pids").join(&self.cgroup).exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

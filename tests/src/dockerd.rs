//! A private Docker daemon inside a network namespace.
//!
//! Its bridges and rules are made in the namespace. The daemon, containerd and all containers live in one PID namespace and one
//! mount namespace: when its first process is killed, the kernel ends every program and every mount of it. As where it is
//! installed, containerd is a program of its own: the containers outlive a daemon that is killed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::command::{output, run};
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

/// Run as process 1 of the namespaces, with the daemon's directory, its control group and its further options. The daemon must
/// neither read nor write the host's /etc/docker, /run/docker and /run/containerd. It looks for a newer image in a registry
/// before it starts a task: a name server that refuses makes that short. The shell waits, and so reaps orphans. While there is a
/// file `away` a daemon that has ended is missed and not mourned: it starts again when the file is gone.
const SCRIPT: &str = r#"
set -e
dir=$1 cgroup=$2
shift 2
mount --make-rprivate /
mkdir "$dir/etc" "$dir/work"
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$dir/etc,workdir=$dir/work" /etc 2>/dev/null ||
    { mkdir -p /etc/docker && mount -t tmpfs tmpfs /etc/docker; }
rm -rf /etc/docker/*
echo "nameserver 127.0.0.1" > "$dir/resolv.conf"
mount --bind "$dir/resolv.conf" /etc/resolv.conf
mount -t tmpfs tmpfs /run
printf 'version = 2\ndisabled_plugins = ["io.containerd.grpc.v1.cri"]\n' > "$dir/containerd.toml"
containerd --config "$dir/containerd.toml" --log-level error --root "$dir/containerd" \
    --state /run/containerd --address "$dir/containerd.sock" &
while :; do
    status=0
    dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" --host "unix://$dir/docker.sock" \
        --containerd "$dir/containerd.sock" --exec-opt native.cgroupdriver=cgroupfs --cgroup-parent "/$cgroup" "$@" ||
        status=$?
    [ -e "$dir/away" ] || exit "$status"
    while [ -e "$dir/away" ]; do sleep 0.05; done
done
"#;

impl Dockerd {
    /// Starts a daemon in `netns` and waits until it answers.
    pub fn start(netns: &Netns) -> anyhow::Result<Self> {
        Self::start_with(netns, &[])
    }

    /// The same with further options of `dockerd`.
    pub fn start_with(netns: &Netns, options: &[&str]) -> anyhow::Result<Self> {
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
        command.arg(dir.path()).arg(&cgroup).args(options);
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

    /// `kill -9`, of the daemon alone, and waits for its end: until it has written what it is writing to disk, its
    /// connections are open. It stays away until [`Dockerd::come_back`].
    pub fn kill(&self) -> anyhow::Result<()> {
        fs::write(self.away(), "")?;
        // The id is that of the namespace whose first process our own program has started.
        let id = fs::read_to_string(self.dir.join("pid")).context("dockerd's process id")?;
        let namespace = format!("--pid=/proc/{}/ns/pid_for_children", self.process.id());
        let signal = |signal| run("nsenter", &[&namespace, "kill", signal, id.trim()]);
        signal("-KILL")?;
        wait::until_true("dockerd to end", Duration::from_secs(30), || Ok(signal("-0").is_err()))
    }

    /// Starts a daemon that was killed, and returns at once.
    pub fn come_back(&self) -> anyhow::Result<()> {
        fs::remove_file(self.away()).context("dockerd is not away")
    }

    /// A file of the daemon's mounts, as we reach it.
    pub fn file(&self, path: &Path) -> PathBuf {
        let path = path.strip_prefix("/").unwrap_or(path);
        PathBuf::from(format!("/proc/{}/root", self.process.id())).join(path)
    }

    fn away(&self) -> PathBuf {
        self.dir.join("away")
    }

    /// Whether a container has processes, as the kernel knows it and whatever the daemon does.
    pub fn lives(&self, container: &str) -> bool {
        // A hierarchy for each controller (version 1), or one for all.
        ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].iter().any(|hierarchy| {
            let group = Path::new(hierarchy).join(&self.cgroup).join(container);
            fs::read_to_string(group.join("cgroup.procs"))
                .is_ok_and(|processes| !processes.is_empty())
        })
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
            if !Path::new("/sys/fs/cgroup/pids").join(&self.cgroup).exists() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

//! Network namespaces and the links between them.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use nix::sched::{CloneFlags, setns};

use crate::command::{output, run};
use crate::names::{NETNS_DIR, unique};

/// A network namespace, removed with the value.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Creates one; `role` makes its name readable.
    pub fn new(role: &str) -> anyhow::Result<Self> {
        let name = format!("{}-{role}", unique());
        run("ip", &["netns", "add", &name])?;
        let netns = Self { name };
        netns.ip("link set lo up")?;
        // Nobody else has our addresses; while the kernel makes sure of that, a second or two, it finds no neighbour.
        netns.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        Ok(netns)
    }

    /// Its name for `ip netns`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(NETNS_DIR).join(&self.name)
    }

    /// Runs `ip -n NAME ARGS`; `args` are split at spaces.
    pub fn ip(&self, args: &str) -> anyhow::Result<String> {
        output(Command::new("ip").args(["-n", &self.name]).args(args.split_whitespace()))
    }

    /// A command that runs `program` in the namespace. Unlike `ip netns exec` it leaves /sys, and with it the BPF file system, in place.
    pub fn command(&self, program: &str) -> Command {
        command_in(&self.path(), program)
    }

    /// Runs `program` in the namespace to its end.
    pub fn run(&self, program: &str, args: &[&str]) -> anyhow::Result<String> {
        output(self.command(program).args(args))
    }

    /// Sets a `sysctl` of the namespace, `net.ipv4.ip_forward` for instance.
    pub fn sysctl(&self, key: &str, value: &str) -> anyhow::Result<()> {
        let path = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| {
            std::fs::write(&path, value).with_context(|| format!("cannot set {key} to {value}"))
        })?
    }

    /// Packets that a device has sent.
    pub fn sent(&self, device: &str) -> anyhow::Result<u64> {
        let shown = self.run("ip", &["-s", "-j", "link", "show", "dev", device])?;
        let shown: serde_json::Value = serde_json::from_str(&shown)?;
        shown[0]["stats64"]["tx"]["packets"].as_u64().context("`ip` shows no counter")
    }

    /// Runs `work` on a thread of its own inside the namespace. Sockets it opens stay in the namespace wherever they go.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
        enter(&self.path(), work)
    }

    /// Runs a future to its end inside the namespace, on a runtime of one thread.
    pub fn block_on<T: Send, F: Future<Output = T>>(
        &self,
        work: impl FnOnce() -> F + Send,
    ) -> anyhow::Result<T> {
        self.enter(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok(runtime.block_on(work()))
        })?
    }

    /// Connects this namespace's new device `here` to `other`'s new device `there`, both up, each with an address and prefix.
    pub fn link(
        &self,
        here: (&str, &str),
        other: &Netns,
        there: (&str, &str),
    ) -> anyhow::Result<()> {
        self.ip(&format!(
            "link add {} type veth peer name {} netns {}",
            here.0, there.0, other.name
        ))?;
        for (netns, (device, address)) in [(self, here), (other, there)] {
            if !address.is_empty() {
                // Without duplicate address detection an IPv6 address is usable at once.
                netns.ip(&format!("addr add {address} dev {device} nodad"))?;
            }
            netns.ip(&format!("link set {device} up"))?;
        }
        Ok(())
    }
}

/// Moves this thread into the network namespace that the file `path` stands for.
pub fn join(path: &Path) -> anyhow::Result<()> {
    let file = File::open(path).with_context(|| format!("namespace {} is gone", path.display()))?;
    setns(&file, CloneFlags::CLONE_NEWNET)
        .context("cannot enter a network namespace: are you root?")
}

/// Runs `work` on a thread of its own inside the network namespace that the file `path` stands for.
pub fn enter<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(move || {
            join(path)?;
            Ok(work())
        });
        match thread.join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// A command that runs `program` in the network namespace that the file `path` stands for.
pub fn command_in(path: &Path, program: &str) -> Command {
    let mut command = Command::new("nsenter");
    command.arg(format!("--net={}", path.display())).arg("--").arg(program);
    command
}

impl Drop for Netns {
    fn drop(&mut self) {
        // A namespace that cannot be removed now is swept by the next run.
        let _ = run("ip", &["netns", "del", &self.name]);
    }
}

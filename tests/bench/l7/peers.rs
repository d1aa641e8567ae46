//! The proxies that are compared, each with its own sticky sessions, side by side on ports of their own.

pub mod config;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use sticky_tests::command::both;
use sticky_tests::demo::sticky_binary;
use sticky_tests::names::TempDir;
use sticky_tests::netns::Netns;
use sticky_tests::process::Process;

/// Where all proxies listen.
pub const PROXY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sticky,
    Nginx,
    Haproxy,
    /// Told to tell backends and clients what sticky tells them.
    NginxTells,
    HaproxyTells,
    Envoy,
    Caddy,
}

impl Kind {
    pub const ALL: [Self; 7] = [
        Self::Sticky,
        Self::Nginx,
        Self::Haproxy,
        Self::NginxTells,
        Self::HaproxyTells,
        Self::Envoy,
        Self::Caddy,
    ];

    /// The others, as they come.
    pub const PEERS: [Self; 4] = [Self::Nginx, Self::Haproxy, Self::Envoy, Self::Caddy];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
            Self::NginxTells => "nginx with sticky's headers",
            Self::HaproxyTells => "HAProxy with sticky's headers",
            Self::Envoy => "Envoy",
            Self::Caddy => "Caddy",
        }
    }

    /// How many of a load's requests it gets, so that a slow one does not take the whole time.
    pub const fn part(self) -> f64 {
        match self {
            Self::Envoy => 0.4,
            Self::Caddy => 0.2,
            _ => 1.0,
        }
    }

    /// How it keeps sessions.
    pub const fn affinity(self) -> &'static str {
        match self {
            Self::Sticky => "its sealed cookie beside the application's, opened with each request",
            Self::Nginx => "`hash $cookie_session consistent`, since this build has no `sticky`",
            Self::Haproxy => "`cookie SRV insert indirect nocache`, in plain text",
            Self::NginxTells | Self::HaproxyTells => {
                "the same, and the headers that sticky adds: seven in a request, five in a response"
            }
            Self::Envoy => "the filter `stateful_session`, whose cookie is the address in base64",
            Self::Caddy => "`lb_policy cookie`, whose cookie is an HMAC of the address",
        }
    }

    /// Its program and what it calls its version, if it is here.
    pub fn find(self) -> anyhow::Result<(PathBuf, String)> {
        let (program, flag) = match self {
            Self::Sticky => (sticky_binary()?, "--version"),
            Self::Nginx | Self::NginxTells => (PathBuf::from("nginx"), "-v"),
            Self::Haproxy | Self::HaproxyTells => (PathBuf::from("haproxy"), "-v"),
            Self::Envoy => {
                (std::env::var_os("ENVOY_BIN").map_or("envoy".into(), Into::into), "--version")
            }
            Self::Caddy => (PathBuf::from("caddy"), "version"),
        };
        let version = both(Command::new(&program).arg(flag))?;
        let version = version.lines().find(|line| !line.is_empty()).unwrap_or_default();
        let version = version.rsplit("version: ").next().unwrap_or_default().trim().to_owned();
        Ok((program, version))
    }
}

/// How a proxy is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    pub access_log: bool,
    /// On the first so many, with as many workers.
    pub cpus: usize,
}

impl Mode {
    /// On one, without a log.
    pub const PLAIN: Self = Self { access_log: false, cpus: 1 };
}

/// A running one.
pub struct Proxy {
    pub kind: Kind,
    pub addr: SocketAddr,
    process: Process,
    dir: TempDir,
}

impl Proxy {
    /// Starts one on the first CPUs.
    pub fn start(
        kind: Kind,
        mode: Mode,
        port: u16,
        netns: &Netns,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        let addr = SocketAddr::new(IpAddr::V4(PROXY), port);
        Self::start_with(kind, mode, addr, netns, &config::text(kind, addr, mode, backends))
    }

    /// The same, told to do what `text` says.
    pub fn start_with(
        kind: Kind,
        mode: Mode,
        addr: SocketAddr,
        netns: &Netns,
        text: &str,
    ) -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let (program, _) = kind.find()?;
        // Envoy goes by the name.
        let config = dir.join(if kind == Kind::Envoy { "config.json" } else { "config" });
        fs::write(&config, text.replace("DIR", &dir.path().to_string_lossy()))?;
        let mut command = netns.command("taskset");
        // What it prints, a log among it, goes to a file.
        let log = dir.join("log");
        let shell = format!("exec \"$0\" \"$@\" >>{} 2>&1", log.display());
        command.args(["--cpu-list", &format!("0-{}", mode.cpus - 1), "sh", "-c", &shell]);
        if mode.cpus > 1 {
            // Workers that are processes end with the first one.
            command.args(["unshare", "--pid", "--fork", "--kill-child"]);
        }
        command.arg(program);
        match kind {
            Kind::Sticky => {
                let log = if mode.access_log { "info" } else { "info,access=off" };
                command.env("STICKY_LOG", log).arg("run");
                command.arg("--provider").arg(format!("file:{}", config.display()));
                command.args(["--iface", "none", "--http", &addr.to_string()]);
                command.args(["--admin", &format!("127.0.0.1:{}", addr.port() + 1000)]);
                command.arg("--socket").arg(dir.join("sock"));
                command.arg("--state-dir").arg(dir.join("state"));
                command.arg("--pin-dir").arg(dir.join("pins"));
            }
            Kind::Nginx | Kind::NginxTells => {
                command.arg("-p").arg(dir.path()).arg("-c").arg(&config);
            }
            Kind::Haproxy | Kind::HaproxyTells => {
                command.arg("-f").arg(&config);
            }
            Kind::Envoy => {
                command.arg("--config-path").arg(&config).args(["--log-level", "error"]);
                command.args(["--disable-hot-restart", "--concurrency", &mode.cpus.to_string()]);
            }
            Kind::Caddy => {
                command.env("GOMAXPROCS", mode.cpus.to_string());
                command.env("HOME", dir.path()).env("XDG_CONFIG_HOME", dir.path());
                command.args(["run", "--adapter", "caddyfile", "--config"]).arg(&config);
            }
        }
        let process = Process::spawn(kind.name(), &command)?;
        Ok(Self { kind, addr, process, dir })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// SIGTERM, and waits for the end.
    pub fn end(mut self) -> anyhow::Result<()> {
        self.process.signal(Signal::SIGTERM)?;
        let status = self.process.wait(Duration::from_secs(60))?;
        anyhow::ensure!(status.success(), "{} ended with {status}", self.kind.name());
        Ok(())
    }

    /// Fails, with its last words, if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        self.process.check().with_context(|| self.said())
    }

    /// The last that it printed.
    pub fn said(&self) -> String {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }

    /// Empties its log: a long run must not fill the disk.
    pub fn forget_log(&self) -> anyhow::Result<()> {
        for name in ["log", "access.log"] {
            let file = self.dir.join(name);
            if file.exists() {
                fs::OpenOptions::new().write(true).open(file)?.set_len(0)?;
            }
        }
        Ok(())
    }
}

//! The proxies that are compared, each with its own sticky sessions, side by side on ports of their own.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use sticky_tests::command::both;
use sticky_tests::demo::sticky_binary;
use sticky_tests::names::TempDir;
use sticky_tests::netns::Netns;
use sticky_tests::process::Process;

use super::client::HOST;

/// Where all proxies listen.
pub const PROXY: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);

/// A kind of proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Sticky,
    Nginx,
    Haproxy,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Sticky, Self::Nginx, Self::Haproxy];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Sticky => "sticky",
            Self::Nginx => "nginx",
            Self::Haproxy => "HAProxy",
        }
    }

    /// How it keeps sessions.
    pub const fn affinity(self) -> &'static str {
        match self {
            Self::Sticky => "its sealed cookie beside the application's, opened with each request",
            Self::Nginx => "`hash $cookie_session consistent`, since this build has no `sticky`",
            Self::Haproxy => "`cookie SRV insert indirect nocache`, in plain text",
        }
    }

    /// Its program and what it calls its version, if it is here.
    pub fn find(self) -> anyhow::Result<(PathBuf, String)> {
        let (program, flag) = match self {
            Self::Sticky => (sticky_binary()?, "--version"),
            Self::Nginx => (PathBuf::from("nginx"), "-v"),
            Self::Haproxy => (PathBuf::from("haproxy"), "-v"),
        };
        let version = both(Command::new(&program).arg(flag))?;
        let version = version.lines().next().unwrap_or_default().trim().to_owned();
        Ok((program, version))
    }
}

/// How a proxy is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mode {
    pub access_log: bool,
}

/// A running one.
pub struct Proxy {
    pub kind: Kind,
    pub addr: SocketAddr,
    process: Process,
    dir: TempDir,
}

impl Proxy {
    /// Starts one on the first CPU.
    pub fn start(
        kind: Kind,
        mode: Mode,
        port: u16,
        netns: &Netns,
        backends: &[SocketAddr],
    ) -> anyhow::Result<Self> {
        let dir = TempDir::new()?;
        let (program, _) = kind.find()?;
        let config = dir.join("config");
        let addr = SocketAddr::new(IpAddr::V4(PROXY), port);
        let text = match kind {
            Kind::Sticky => sticky(backends),
            Kind::Nginx => nginx(addr, mode, backends),
            Kind::Haproxy => haproxy(addr, mode, backends),
        };
        fs::write(&config, text.replace("DIR", &dir.path().to_string_lossy()))?;
        let mut command = netns.command("taskset");
        // What it prints, a log among it, goes to a file.
        let log = dir.join("log");
        let shell = format!("exec \"$0\" \"$@\" >>{} 2>&1", log.display());
        command.args(["--cpu-list", "0", "sh", "-c", &shell]).arg(program);
        match kind {
            Kind::Sticky => {
                let log = if mode.access_log { "info" } else { "info,access=off" };
                command.env("STICKY_LOG", log).arg("run");
                command.arg("--provider").arg(format!("file:{}", config.display()));
                command.args(["--iface", "none", "--http", &addr.to_string()]);
                command.args(["--admin", &format!("127.0.0.1:{}", port + 1000)]);
                command.arg("--socket").arg(dir.join("sock"));
                command.arg("--state-dir").arg(dir.join("state"));
                command.arg("--pin-dir").arg(dir.join("pins"));
            }
            Kind::Nginx => {
                command.arg("-p").arg(dir.path()).arg("-c").arg(&config);
            }
            Kind::Haproxy => {
                command.arg("-f").arg(&config);
            }
        }
        let process = Process::spawn(kind.name(), &command)?;
        Ok(Self { kind, addr, process, dir })
    }

    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Fails, with its last words, if it has ended.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let said = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        self.process.check().with_context(|| said)
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

fn sticky(backends: &[SocketAddr]) -> String {
    let all: Vec<String> = backends.iter().map(|addr| format!("{:?}", addr.to_string())).collect();
    format!(
        "[[service]]\nname = \"bench\"\nbackends = [{}]\n[service.labels]\n\
         \"com.docker.lb.hosts\" = \"{HOST}\"\n\"com.docker.lb.sticky_session_cookie\" = \"session\"\n",
        all.join(", ")
    )
}

fn nginx(addr: SocketAddr, mode: Mode, backends: &[SocketAddr]) -> String {
    let servers: String = backends.iter().map(|addr| format!("server {addr};\n")).collect();
    // Written in batches, as sticky's is.
    let log = if mode.access_log { "DIR/access.log combined buffer=64k flush=1s" } else { "off" };
    format!(
        "daemon off;\nmaster_process off;\nuser root;\nworker_rlimit_nofile 20000;\npid DIR/pid;\nerror_log stderr;\n\
         events {{ worker_connections 18000; }}\n\
         http {{\naccess_log {log};\nkeepalive_requests 100000000;\nkeepalive_timeout 75s;\n\
         client_body_temp_path DIR/a; proxy_temp_path DIR/b; fastcgi_temp_path DIR/c; uwsgi_temp_path DIR/d; scgi_temp_path DIR/e;\n\
         upstream app {{\nhash $cookie_session consistent;\n{servers}keepalive 8192;\nkeepalive_requests 100000000;\n}}\n\
         server {{\nlisten {addr} backlog=4096;\nserver_name {HOST};\nlocation / {{\nproxy_pass http://app;\nproxy_http_version 1.1;\n\
         proxy_set_header Connection \"\";\nproxy_set_header Host $host;\nproxy_set_header X-Forwarded-For $remote_addr;\n}}\n}}\n}}\n"
    )
}

fn haproxy(addr: SocketAddr, mode: Mode, backends: &[SocketAddr]) -> String {
    let servers: String = (0..)
        .zip(backends)
        .map(|(number, addr)| format!("    server s{number} {addr} cookie s{number} check\n"))
        .collect();
    let log = if mode.access_log { "    log global\n    option httplog\n" } else { "" };
    format!(
        "global\n    maxconn 9000\n    nbthread 1\n    log stdout format raw local0 info\n\
         defaults\n    mode http\n{log}    timeout connect 5s\n    timeout client 75s\n    timeout server 75s\n\
         frontend f\n    bind {addr} backlog 4096\n    option forwardfor\n    default_backend b\n\
         backend b\n    balance leastconn\n    http-reuse always\n    cookie SRV insert indirect nocache\n{servers}"
    )
}

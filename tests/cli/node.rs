//! A `sticky run --iface none` on free ports of the loopback, with a backend to serve.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::Context;
use sticky_tests::demo::sticky_binary;
use sticky_tests::names::TempDir;
use sticky_tests::process::Process;

/// How long any step may take.
pub const LIMIT: Duration = Duration::from_secs(20);

/// A directory with a file of services, and where sticky keeps its things in this test.
pub struct Place {
    pub dir: TempDir,
}

/// A running sticky.
pub struct Node {
    pub process: Process,
    pub http: SocketAddr,
    pub admin: SocketAddr,
}

impl Place {
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self { dir: TempDir::new()? })
    }

    pub fn socket(&self) -> PathBuf {
        self.dir.join("run/sticky.sock")
    }

    /// Writes the file of services: one service `demo` with these backends and `ip_hash`.
    pub fn serve(&self, backends: &[SocketAddr]) -> anyhow::Result<()> {
        self.serve_by("\"com.docker.lb.ip_hash\" = \"true\"", backends)
    }

    /// The same with another label.
    pub fn serve_by(&self, label: &str, backends: &[SocketAddr]) -> anyhow::Result<()> {
        let backends: Vec<_> = backends.iter().map(|addr| format!("\"{addr}\"")).collect();
        let text = format!(
            "[[service]]\nname = \"demo\"\nbackends = [{}]\n[service.labels]\n\
             \"com.docker.lb.hosts\" = \"demo.local\"\n{label}\n",
            backends.join(", ")
        );
        Ok(std::fs::write(self.dir.join("services.toml"), text)?)
    }

    /// `sticky ARGS`, in this place and with nothing of the environment of the tests.
    pub fn command(&self, args: &[&str]) -> anyhow::Result<Command> {
        let mut command = Command::new(sticky_binary()?);
        for (key, _) in
            std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("STICKY_"))
        {
            command.env_remove(key);
        }
        command.args(args);
        command.arg("--socket").arg(self.socket());
        command.arg("--state-dir").arg(self.dir.join("state"));
        command.arg("--pin-dir").arg(self.dir.join("pins"));
        Ok(command)
    }

    pub fn sticky(&self, args: &[&str]) -> anyhow::Result<Output> {
        self.command(args)?.output().context("sticky does not start")
    }

    /// Starts `sticky run` with `more` arguments.
    pub fn run(&self, http: &str, admin: &str, more: &[&str]) -> anyhow::Result<Process> {
        let provider = format!("file:{}", self.dir.join("services.toml").display());
        let mut args = vec!["run", "--iface", "none", "--provider", &provider];
        args.extend(["--http", http, "--admin", admin, "--log-format", "json"]);
        args.extend(more);
        Process::spawn("sticky", &self.command(&args)?)
    }

    /// Starts it on free ports and waits until it is ready.
    pub fn start(&self, more: &[&str]) -> anyhow::Result<Node> {
        let mut process = self.run("127.0.0.1:0", "127.0.0.1:0", more)?;
        let line = process.wait_line(LIMIT, 0, |line| line.contains("\"listening\""))?.text;
        let said: serde_json::Value = serde_json::from_str(&line)?;
        let addr = |key: &str| said[key].as_str().unwrap_or_default().parse().context(line.clone());
        process.wait_line(LIMIT, 0, |line| line.contains("\"ready\""))?;
        Ok(Node { http: addr("http")?, admin: addr("admin")?, process })
    }
}

/// A server that answers each request with its own address and a cookie, those for `/slow` after a second.
pub fn backend() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, addr));
        }
    });
    Ok(addr)
}

fn answer(mut stream: TcpStream, addr: SocketAddr) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut first = String::new();
    while reader.read_line(&mut first)? > 0 {
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        if first.contains("/slow") {
            std::thread::sleep(Duration::from_secs(1));
        }
        let body = addr.to_string();
        let length = body.len();
        write!(
            stream,
            "HTTP/1.1 200 OK\r\nset-cookie: session=1; Path=/\r\ncontent-length: {length}\r\n\r\n{body}"
        )?;
        first.clear();
    }
    Ok(())
}

/// The whole answer to one request.
pub fn get(to: SocketAddr, path: &str) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(LIMIT))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: demo.local\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// What a command printed to stderr.
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command printed to stdout.
pub fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

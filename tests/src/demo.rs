//! The demo application and the other programs under test: where they are, and backends made of them without Docker.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;

use crate::netns::Netns;
use crate::process::Process;

/// The port on which backends serve HTTP.
pub const HTTP_PORT: u16 = 8080;
/// The port on which backends serve lines.
pub const LINE_PORT: u16 = 9090;
/// The name of the demo application's image.
pub const IMAGE: &str = "sticky-demo:latest";

/// The `sticky` to test: `STICKY_BIN`, or the one built beside this program.
pub fn sticky_binary() -> anyhow::Result<PathBuf> {
    built("STICKY_BIN", "sticky")
}

/// The demo application: `STICKY_DEMO_BIN`, or the one built beside this program.
pub fn demo_binary() -> anyhow::Result<PathBuf> {
    built("STICKY_DEMO_BIN", "sticky-demo")
}

/// The demo application's image as an archive for `docker load`: `STICKY_DEMO_IMAGE`, or the one that `cargo xtask image` made.
pub fn demo_image() -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os("STICKY_DEMO_IMAGE") {
        return Ok(path.into());
    }
    let found =
        targets()?.into_iter().map(|dir| dir.join("sticky-demo.tar")).find(|path| path.exists());
    found.context("no sticky-demo.tar in the target directory: run `cargo xtask image`, or name it in STICKY_DEMO_IMAGE")
}

fn built(variable: &str, name: &str) -> anyhow::Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable) {
        return Ok(path.into());
    }
    let found = targets()?.into_iter().map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("{name} is not built: run `cargo xtask build`, or name it in {variable}")
    })
}

/// The directories above this program, `target/PROFILE/deps` first, each also with `release` in it.
fn targets() -> anyhow::Result<Vec<PathBuf>> {
    let program = std::env::current_exe()?;
    let above = program.ancestors().skip(1).take(3);
    Ok(above.flat_map(|dir| [dir.join("release"), dir.to_owned(), dir.join("debug")]).collect())
}

/// Demo applications in a namespace, one for each address, all called `backend-ADDRESS`.
#[derive(Debug)]
pub struct Backends(Vec<Process>);

impl Backends {
    /// Starts one on each address: HTTP on [`HTTP_PORT`] and lines on [`LINE_PORT`].
    pub fn start(
        netns: &Netns,
        demo: &Path,
        addresses: &[std::net::IpAddr],
    ) -> anyhow::Result<Self> {
        let mut all = Vec::new();
        for address in addresses {
            let mut command = netns.command(&demo.to_string_lossy());
            command.env("LISTEN", SocketAddr::new(*address, HTTP_PORT).to_string());
            command.env("TCP", SocketAddr::new(*address, LINE_PORT).to_string());
            command.env("INSTANCE", backend_name(address)).env("METADATA", "demo-sticky");
            all.push(Process::spawn("sticky-demo", &command)?);
        }
        for process in &mut all {
            process.wait_line(Duration::from_secs(10), 0, |line| line.contains("listens on"))?;
        }
        Ok(Self(all))
    }

    /// Kills one backend.
    pub fn kill(&mut self, index: usize) {
        self.0[index].kill();
    }
}

/// The instance name of the backend on `address`.
pub fn backend_name(address: &std::net::IpAddr) -> String {
    format!("backend-{address}")
}

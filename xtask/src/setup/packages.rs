//! What Debian and Ubuntu call the parts of an eBPF toolchain.

use std::path::Path;

use anyhow::{Result, anyhow};

use crate::apt::{self, Install};
use crate::toolchain::OLDEST;

/// Debian's rustc for building browsers, and a prebuilt `core` for BPF.
const DEBIAN: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const ANOTHER_WAY: &str = "(Or have a nightly with rust-src, `rustup toolchain install nightly --component rust-src`, and a bpf-linker on PATH.)";

/// Installs a compiler for BPF.
pub(super) fn compiler(mode: Install) -> Result<()> {
    apt::update(mode);
    let (packages, rustc) = names();
    let list = packages.join(" ");
    // The number of its LLVM is known once the compiler is there.
    let command = format!(
        "sudo apt-get update && sudo apt-get install {list} && \
         n=$({rustc} -vV | sed -n 's/^LLVM version: \\([0-9]*\\).*/\\1/p') && \
         sudo apt-get install llvm-$n-dev libpolly-$n-dev"
    );
    let packages: Vec<&str> = packages.iter().map(String::as_str).collect();
    apt::install(&packages, "compiling the eBPF programs", &command, mode)
        .map_err(|error| anyhow!("{error:#}\n{ANOTHER_WAY}"))
}

/// Debian's packages where they are known, else Ubuntu's newest compiler with the source of
/// `core`; and where it will be.
fn names() -> (Vec<String>, String) {
    let debian = || (DEBIAN.map(String::from).into(), "/usr/bin/rustc".into());
    if apt::is_known(DEBIAN[2]) {
        return debian();
    }
    let known = apt::names("rustc-1.");
    let versions =
        known.iter().filter_map(|name| name.strip_prefix("rustc-1.")?.parse::<u32>().ok());
    let fits = |minor: &u32| *minor >= OLDEST && apt::is_known(&format!("rust-1.{minor}-src"));
    match versions.filter(fits).max() {
        None => debian(),
        Some(minor) => {
            let packages = [
                format!("rustc-1.{minor}"),
                format!("cargo-1.{minor}"),
                format!("rust-1.{minor}-src"),
            ];
            (packages.into(), format!("/usr/lib/rust-1.{minor}/bin/rustc"))
        }
    }
}

/// Installs what bpf-linker is built with, if it is not there.
pub(super) fn llvm(number: u32, mode: Install) -> Result<()> {
    let prefix = llvm_prefix(number);
    if ["bin/llvm-config", "lib/libPolly.a"]
        .iter()
        .all(|file| Path::new(&prefix).join(file).exists())
    {
        return Ok(());
    }
    let packages = [format!("llvm-{number}-dev"), format!("libpolly-{number}-dev")];
    let command = format!("sudo apt-get update && sudo apt-get install {}", packages.join(" "));
    apt::install(&[&packages[0], &packages[1]], "building bpf-linker", &command, mode)
        .map_err(|error| anyhow!("{error:#}\n{ANOTHER_WAY}"))
}

/// Where the packages put an LLVM.
pub(super) fn llvm_prefix(number: u32) -> String {
    format!("/usr/lib/llvm-{number}")
}

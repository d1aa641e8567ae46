//! `cargo xtask setup`: an eBPF toolchain, found or installed, and recorded for the build script.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};

use crate::apt::{self, Install};
use crate::progress::{self, say};
use crate::toolchain::{self, Toolchain, distribution_llvm, linker_path};
use crate::workspace::{cargo, root, target};

/// The linker we build when the user has none that fits.
const LINKER_VERSION: &str = "0.13.0";
/// The LLVMs that this linker can be built with.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

/// A rustc with a prebuilt BPF `core`; Debian carries it for building browsers.
const RUST_PACKAGES: [&str; 3] = ["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];
const WHY_RUST: &str = "compiling the eBPF programs";
const ANOTHER_WAY: &str = "(Or have a nightly with rust-src, `rustup toolchain install nightly --component rust-src`, and a bpf-linker on PATH.)";

/// The toolchain for the kernel half, installed first if it is missing and that is allowed.
/// Costs a few `stat` calls when nothing changed since the last time.
pub(crate) fn toolchain(mode: Install) -> Result<Toolchain> {
    if let Some(found) = Toolchain::recorded(root()) {
        return Ok(found);
    }
    let found = match Toolchain::nightly().filter(works) {
        Some(found) => found,
        None => distribution(mode)?,
    };
    let record = found.record().with_context(|| format!("{found} is there, yet cannot be read"))?;
    let path = toolchain::record_path(root());
    fs::create_dir_all(target(""))
        .and_then(|()| fs::write(&path, record))
        .with_context(|| format!("{} cannot be written", path.display()))?;
    say(&format!("eBPF toolchain: {found}"));
    Ok(found)
}

/// A linker older than the compiler's LLVM cannot read what the compiler writes, and only a
/// build shows it.
fn works(found: &Toolchain) -> bool {
    let mut build = found.command();
    build.args(found.arguments("build", &target("ebpf"))).current_dir(root());
    let tried = progress::run(&format!("trying {found}"), &mut build);
    if let Err(error) = &tried {
        say(&format!("{error:#}; looking at the distribution's compiler instead"));
    }
    tried.is_ok()
}

fn distribution(mode: Install) -> Result<Toolchain> {
    if distribution_llvm().is_none() || !Path::new("/usr/bin/cargo").exists() {
        apt::install(&RUST_PACKAGES, WHY_RUST, &command_for_all(), mode)
            .map_err(|error| anyhow!("{error:#}\n{ANOTHER_WAY}"))?;
    }
    let llvm = distribution_llvm().context(
        "/usr/bin/rustc has no core for bpfel-unknown-none although libstd-rust-web-dev-bpf is installed: is it another package's?",
    )?;
    if !linker_path(root(), llvm).exists() {
        build_linker(llvm, mode)?;
    }
    Toolchain::distribution(root()).context("the linker was built, yet is not where it should be")
}

fn build_linker(llvm: u32, mode: Install) -> Result<()> {
    if !LINKER_LLVM.contains(&llvm) {
        bail!(
            "/usr/bin/rustc uses LLVM {llvm}, and bpf-linker {LINKER_VERSION} knows {} to {}: upgrade the older of the two",
            LINKER_LLVM.start(),
            LINKER_LLVM.end()
        );
    }
    let prefix = format!("/usr/lib/llvm-{llvm}");
    let polly = format!("{prefix}/lib/libPolly.a");
    if ![format!("{prefix}/bin/llvm-config"), polly].iter().all(|file| Path::new(file).exists()) {
        let (dev, polly) = (format!("llvm-{llvm}-dev"), format!("libpolly-{llvm}-dev"));
        apt::install(&[&dev, &polly], "building bpf-linker", &command_for_all(), mode)?;
    }
    let place = target(&format!("tools/llvm-{llvm}"));
    let mut install = cargo(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION]);
    install
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
        .arg(&place)
        .env_remove("CARGO_TARGET_DIR")
        // Without it llvm-sys finds a /usr that has no -lLLVM.
        .env("LLVM_PREFIX", prefix);
    progress::run(
        &format!("building bpf-linker {LINKER_VERSION} with LLVM {llvm} (links the eBPF programs)"),
        &mut install,
    )
}

/// Everything `distribution` may install, in one line; the LLVM number is that of the compiler
/// which the first half brings.
fn command_for_all() -> String {
    let rust = RUST_PACKAGES.join(" ");
    match distribution_llvm() {
        Some(n) => {
            format!("sudo apt-get update && sudo apt-get install llvm-{n}-dev libpolly-{n}-dev")
        }
        None => format!(
            "sudo apt-get update && sudo apt-get install {rust} && \
             n=$(/usr/bin/rustc -vV | sed -n 's/^LLVM version: \\([0-9]*\\).*/\\1/p') && \
             sudo apt-get install llvm-$n-dev libpolly-$n-dev"
        ),
    }
}

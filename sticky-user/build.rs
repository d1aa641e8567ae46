//! Builds the kernel half, so that the library can embed it.

use std::path::Path;
use std::{env, fs};

#[path = "../xtask/src/toolchain.rs"]
mod toolchain;

use toolchain::{TARGET, Toolchain, record_path};

fn main() {
    if let Err(message) = run() {
        println!("cargo::error={message}");
    }
}

fn run() -> Result<(), String> {
    let manifest_dir = env::var("CARGO_MANIFEST_DIR").map_err(|e| e.to_string())?;
    let root = Path::new(&manifest_dir).parent().ok_or("sticky-user has no workspace around it")?;
    let out = env::var("OUT_DIR").map_err(|e| e.to_string())?;

    for input in ["sticky-ebpf", "sticky-common", "Cargo.lock", "xtask/src/toolchain.rs"] {
        watch(&root.join(input));
    }
    let found = Toolchain::recorded(root)
        .or_else(Toolchain::nightly)
        .or_else(|| Toolchain::distribution(root))
        .ok_or(
        "there is no toolchain for eBPF here: run `cargo xtask setup`, which finds or installs one",
    )?;
    // A path that is not there would have cargo run this script every time.
    let programs = [&record_path(root), &found.linker, &found.rustc];
    programs.into_iter().filter(|path| path.exists()).for_each(|path| watch(path));

    // One directory for all profiles and tools: the object is the same in each.
    let target_dir = root.join("target/ebpf");
    let mut build = found.command();
    build
        .args(found.arguments("build", &target_dir))
        .arg("--message-format=short")
        .current_dir(root);
    let done =
        build.output().map_err(|e| format!("{} did not start: {e}", found.cargo.display()))?;
    let messages = String::from_utf8_lossy(&done.stderr);
    if !done.status.success() {
        eprintln!("{messages}");
        return Err(format!(
            "sticky-ebpf does not build with {found}; what the compiler said is below"
        ));
    }
    for line in messages.lines().filter(|line| line.contains(": warning: ")) {
        println!("cargo::warning={line}");
    }
    let object = target_dir.join(TARGET).join("release/sticky-ebpf");
    fs::copy(&object, Path::new(&out).join("sticky-ebpf"))
        .map_err(|e| format!("{} cannot be copied to {out}: {e}", object.display()))?;
    Ok(())
}

fn watch(path: &Path) {
    println!("cargo::rerun-if-changed={}", path.display());
}

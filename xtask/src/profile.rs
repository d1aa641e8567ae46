//! The profile that release builds are optimised by: which ways the program takes, as it counted them under the loads of the
//! benchmark. What is rarely needed then lies apart from what each request needs, and that fits into the caches.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::apt::Install;
use crate::progress::{self, say};
use crate::toolchain::llvm_number;
use crate::workspace::{cargo, root, target};
use crate::{bench, build, host, layout, setup};

/// Between flags, as cargo wants them.
const AND: &str = "\x1f";

/// Poly1305 without AVX2. For what a cookie holds, some 90 bytes, the vectors cost 2 µs more than they spare: poly1305 0.9
/// calls each instruction of theirs as a function.
const SOFT: &str = "--cfg=poly1305_backend=\"soft\"";

fn file() -> PathBuf {
    root().join("sticky-user/release.profdata")
}

/// Has a release build go by the profile. A function that it does not know as it is now is compiled as without it: one that
/// has changed since, or all of them with another compiler than the profile was made with.
pub(crate) fn apply(build: &mut Command) -> Result<()> {
    let file = file();
    let profile = fs::read(&file).with_context(|| format!("{} cannot be read", file.display()))?;
    let mut hash = DefaultHasher::new();
    hash.write(&profile);
    let path = file.to_str().with_context(|| format!("{} is no UTF-8", file.display()))?;
    let ours = [
        format!("-Cprofile-use={path}"),
        "-Cllvm-args=-no-pgo-warn-mismatch".to_owned(),
        // Cargo does not look into the file, but builds anew when a flag changes.
        format!("--cfg=profile_{:x}", hash.finish()),
    ];
    flags(build, &ours);
    Ok(())
}

/// Adds to the flags that the user wants for rustc, for a release with a profile or for one.
fn flags(build: &mut Command, ours: &[String]) {
    let encoded = env::var("CARGO_ENCODED_RUSTFLAGS").ok();
    let plain = || env::var("RUSTFLAGS").unwrap_or_default();
    let given = encoded.unwrap_or_else(|| plain().split_whitespace().collect::<Vec<_>>().join(AND));
    let given = given.split(AND).filter(|flag| !flag.is_empty()).map(str::to_owned);
    let all: Vec<String> = given.chain([SOFT.to_owned()]).chain(ours.iter().cloned()).collect();
    build.env("CARGO_ENCODED_RUSTFLAGS", all.join(AND));
}

/// Makes the profile anew, from a program that counts; then the layout, from one that was built by the profile.
pub(crate) fn make(mode: Install) -> Result<()> {
    host::need_root("the benchmark")?;
    host::for_tests(mode)?;
    setup::toolchain(mode)?;
    let merge = setup::llvm_tool("llvm-profdata", llvm()?, mode)?;
    let dir = target("profile");
    let counts = dir.join("counts");
    let mut build = cargo(["build", "--release", "--package", "sticky-user"]);
    build.env("CARGO_TARGET_DIR", &dir);
    flags(&mut build, &[format!("-Cprofile-generate={}", counts.display())]);
    progress::run_open("building a sticky that counts", &mut build)?;
    // The scripts and macros of the build have counted too.
    if counts.exists() {
        fs::remove_dir_all(&counts)
            .with_context(|| format!("{} cannot be emptied", counts.display()))?;
    }
    let bench = bench::program(false)?;
    let train = |sticky: &Path| {
        let mut train = Command::new(&bench);
        train.arg("train").env("STICKY_BIN", sticky).env("PATH", host::path());
        progress::run_open("having it work", &mut train)
    };
    train(&dir.join("release/sticky"))?;
    // Of what it never came to, there is nothing in the file.
    let mut merged = Command::new(merge);
    merged.args(["merge", "--sparse", "--output"]).arg(file()).arg(&counts);
    progress::run("merging the counts", &mut merged)?;
    say(&format!("wrote {}: build and measure with it before it goes in", file().display()));
    layout::make(&build::compiled(mode)?, mode, train)
}

/// The number of the LLVM that is in the compiler.
fn llvm() -> Result<u32> {
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let said = Command::new(&rustc).arg("-vV").output();
    let said = said.with_context(|| format!("{} does not start", Path::new(&rustc).display()))?;
    llvm_number(&String::from_utf8_lossy(&said.stdout)).context("rustc does not tell its LLVM")
}

//! `cargo xtask setup`: an eBPF toolchain, found or installed, and recorded for the build script.

mod packages;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::apt::Install;
use crate::progress::{self, say};
use crate::toolchain::{self, Compiler, Toolchain, linker_path};
use crate::workspace::{cargo, root, target};

/// The linker we build when the user has none that fits.
const LINKER_VERSION: &str = "0.13.0";
/// The LLVMs that this linker can be built with.
const LINKER_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

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
    let compiler = match Compiler::find() {
        Some(compiler) => compiler,
        None => {
            packages::compiler(mode)?;
            Compiler::find()
                .context("the packages are installed, yet none of their compilers knows BPF")?
        }
    };
    if !linker_path(root(), compiler.llvm).exists() {
        build_linker(&compiler, mode)?;
    }
    Toolchain::distribution(root()).context("the linker was built, yet is not where it should be")
}

/// A tool that comes with this LLVM.
pub(crate) fn llvm_tool(name: &str, llvm: u32, mode: Install) -> Result<PathBuf> {
    packages::llvm(llvm, mode)?;
    Ok(Path::new(&packages::llvm_prefix(llvm)).join("bin").join(name))
}

fn build_linker(compiler: &Compiler, mode: Install) -> Result<()> {
    let llvm = compiler.llvm;
    if !LINKER_LLVM.contains(&llvm) {
        bail!(
            "{} uses LLVM {llvm}, and bpf-linker {LINKER_VERSION} knows {} to {}: upgrade the older of the two",
            compiler.rustc.display(),
            LINKER_LLVM.start(),
            LINKER_LLVM.end()
        );
    }
    packages::llvm(llvm, mode)?;
    let mut install = cargo(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION]);
    install
        .args(["--no-default-features", "--features", &format!("llvm-{llvm}"), "--root"])
        .arg(target(&format!("tools/llvm-{llvm}")))
        .env_remove("CARGO_TARGET_DIR")
        // Without it llvm-sys finds a /usr that has no -lLLVM.
        .env("LLVM_PREFIX", packages::llvm_prefix(llvm));
    progress::run(
        &format!("building bpf-linker {LINKER_VERSION} with LLVM {llvm} (links the eBPF programs)"),
        &mut install,
    )
}

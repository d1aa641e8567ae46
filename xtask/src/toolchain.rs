//! Finds the compiler and the linker that build `sticky-ebpf` for the kernel.
//!
//! `sticky-user/build.rs` includes this file, so it uses `std` alone and never installs anything:
//! that is `cargo xtask setup`, which leaves a record of what it found.
//!
//! Two kinds of toolchain will do:
//! - a rustup nightly with `rust-src` and a `bpf-linker` on `PATH`: `core` is built from source;
//! - the distribution's rustc, and a `bpf-linker` made for its LLVM under `target/tools`. Debian
//!   has a prebuilt `core` for [`TARGET`], Ubuntu the source of it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs};

/// The target of every eBPF program here: little-endian, as are x86-64 and aarch64.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// Where a toolchain keeps the source of `core`, if it does.
const CORE_SOURCE: &str = "lib/rustlib/src/rust/library/core/Cargo.toml";
/// The oldest Rust that compiles the eBPF crate, as the minor version.
pub(crate) const OLDEST: u32 = 95;

/// What it takes to compile and link an eBPF object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Toolchain {
    pub(crate) rustc: PathBuf,
    pub(crate) cargo: PathBuf,
    pub(crate) linker: PathBuf,
    /// Whether `core` has to be built from `rust-src`.
    pub(crate) build_std: bool,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let core = if self.build_std { "core from rust-src" } else { "prebuilt core" };
        write!(f, "{} ({core}), {}", self.rustc.display(), self.linker.display())
    }
}

impl Toolchain {
    /// The toolchain that `cargo xtask setup` recorded, if none of its programs changed since.
    pub(crate) fn recorded(root: &Path) -> Option<Self> {
        let text = fs::read_to_string(record_path(root)).ok()?;
        let field = |name: &str| {
            text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(" = ").map(PathBuf::from))
        };
        let found = Self {
            rustc: field("rustc")?,
            cargo: field("cargo")?,
            linker: field("linker")?,
            build_std: field("build_std")?.as_os_str() == "true",
        };
        (found.record()? == text).then_some(found)
    }

    /// The text of the record, with the size and time of each program; none if one is missing.
    pub(crate) fn record(&self) -> Option<String> {
        let mut text =
            String::from("# Written by `cargo xtask setup`, read by sticky-user/build.rs.\n");
        for (name, path) in
            [("rustc", &self.rustc), ("cargo", &self.cargo), ("linker", &self.linker)]
        {
            let meta = fs::metadata(path).ok()?;
            let time = meta.modified().ok()?.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
            text += &format!("{name} = {}\n{name}.stamp = {} {time}\n", path.display(), meta.len());
        }
        Some(text + &format!("build_std = {}\n", self.build_std))
    }

    /// A rustup nightly that can build `core`, with a `bpf-linker` of the user's own.
    pub(crate) fn nightly() -> Option<Self> {
        let linker = on_path("bpf-linker")?;
        let home = env::var_os("RUSTUP_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".rustup")))?;
        let mut toolchains: Vec<PathBuf> = fs::read_dir(home.join("toolchains"))
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|dir| {
                dir.file_name().is_some_and(|n| n.to_string_lossy().starts_with("nightly"))
            })
            .filter(|dir| dir.join(CORE_SOURCE).exists())
            .collect();
        // Plain `nightly-HOST` sorts behind `nightly-DATE-HOST`, and is the one users keep fresh.
        toolchains.sort();
        let bin = toolchains.pop()?.join("bin");
        Some(Self { rustc: bin.join("rustc"), cargo: bin.join("cargo"), linker, build_std: true })
    }

    /// The distribution's compiler and the linker built for it.
    pub(crate) fn distribution(root: &Path) -> Option<Self> {
        let Compiler { rustc, cargo, build_std, llvm } = Compiler::find()?;
        let linker = linker_path(root, llvm);
        linker.exists().then_some(Self { rustc, cargo, linker, build_std })
    }

    /// A cargo command that sees nothing of the cargo that called us but the registry's settings.
    pub(crate) fn command(&self) -> Command {
        let mut cmd = Command::new(&self.cargo);
        for (name, _) in env::vars_os() {
            let text = name.to_string_lossy();
            let kept = ["CARGO_HOME", "CARGO_MAKEFLAGS", "RUSTUP_HOME", "RUST_BACKTRACE"]
                .contains(&&*text)
                || ["CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTR", "CARGO_TERM_"]
                    .iter()
                    .any(|p| text.starts_with(p));
            if !kept && (text.starts_with("CARGO") || text.starts_with("RUST")) {
                cmd.env_remove(&name);
            }
        }
        let arch = if cfg!(target_arch = "aarch64") { "aarch64" } else { "x86_64" };
        let flags = [
            format!("--cfg=bpf_target_arch=\"{arch}\""),
            format!("-Clinker={}", self.linker.display()),
            "-Clink-arg=--btf".into(),
            // Every kernel with tcx has its 32-bit instructions.
            "-Ctarget-cpu=v3".into(),
            // Copies of some bytes as a few stores, not as calls of a loop over bytes.
            "-Clink-arg=--disable-expand-memcpy-in-order".into(),
            "-Cdebuginfo=2".into(),
        ];
        cmd.env("RUSTC", &self.rustc)
            // Empty means none, whatever a configuration file says.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            // 0x1f separates flags, so that paths may hold blanks.
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
            // The verifier allows 512 bytes of stack: more than one unit, or none of the
            // optimiser, and the programs no longer fit.
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "1")
            .env("CARGO_PROFILE_RELEASE_LTO", "false")
            // aya-ebpf and our programs need one unstable feature, inline assembly for BPF, and cargo
            // another to build `core`.
            .env("RUSTC_BOOTSTRAP", if self.build_std { "1" } else { ASSEMBLY });
        cmd
    }

    /// Arguments for cargo's `verb` (`build`, `clippy`) on the eBPF crate, into `target_dir`.
    pub(crate) fn arguments(&self, verb: &str, target_dir: &Path) -> Vec<String> {
        let mut args: Vec<String> =
            [verb, "--release", "--locked", "--package", "sticky-ebpf", "--target", TARGET]
                .map(String::from)
                .into();
        args.extend(["--target-dir".into(), target_dir.display().to_string()]);
        // The linker of BPF code does that itself.
        args.extend(["--config".into(), "profile.release.lto=false".into()]);
        if self.build_std {
            args.extend(["-Z".into(), "build-std=core".into()]);
        }
        args
    }
}

/// The crates that contain assembly for BPF.
pub(crate) const ASSEMBLY: &str = "aya_ebpf,sticky_ebpf,sticky_bench_ebpf";

/// The file that tells build scripts what `cargo xtask setup` found.
pub(crate) fn record_path(root: &Path) -> PathBuf {
    root.join("target/sticky-toolchain")
}

/// The linker of our own for this LLVM; its place names the LLVM, so another one never fits.
pub(crate) fn linker_path(root: &Path, llvm: u32) -> PathBuf {
    root.join(format!("target/tools/llvm-{llvm}/bin/bpf-linker"))
}

/// A compiler of the distribution that can make BPF code.
pub(crate) struct Compiler {
    pub(crate) rustc: PathBuf,
    pub(crate) cargo: PathBuf,
    pub(crate) build_std: bool,
    /// The number of its LLVM.
    pub(crate) llvm: u32,
}

impl Compiler {
    /// Debian's with a prebuilt `core`, else the newest of Ubuntu's with the source of it.
    pub(crate) fn find() -> Option<Self> {
        let prebuilt = || {
            let core = fs::read_dir(format!("/usr/lib/rustlib/{TARGET}/lib")).ok()?;
            let is_core = |name: &str| name.starts_with("libcore-") && name.ends_with(".rlib");
            core.flatten().find(|entry| is_core(&entry.file_name().to_string_lossy()))?;
            Self::below(Path::new("/usr"), false)
        };
        let source = || {
            let versions = fs::read_dir("/usr/lib").ok()?.flatten();
            let minor = |name: &str| name.strip_prefix("rust-1.")?.parse::<u32>().ok();
            let newest = versions
                .filter_map(|entry| {
                    Some((minor(&entry.file_name().to_string_lossy())?, entry.path()))
                })
                .filter(|(minor, dir)| *minor >= OLDEST && dir.join(CORE_SOURCE).exists())
                .max()?;
            Self::below(&newest.1, true)
        };
        prebuilt().or_else(source)
    }

    fn below(dir: &Path, build_std: bool) -> Option<Self> {
        let (rustc, cargo) = (dir.join("bin/rustc"), dir.join("bin/cargo"));
        let version = Command::new(&rustc).args(["--version", "--verbose"]).output().ok()?;
        let llvm = llvm_number(&String::from_utf8_lossy(&version.stdout))?;
        cargo.exists().then_some(Self { rustc, cargo, build_std, llvm })
    }
}

/// Reads `LLVM version: 22.1.8` in the answer of `rustc --version --verbose`.
pub(crate) fn llvm_number(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|l| l.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

/// The first executable file of this name on `PATH`.
pub(crate) fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

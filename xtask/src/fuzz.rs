//! `cargo xtask fuzz`: cargo-fuzz on the targets of `tests/fuzz`.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use crate::apt::Install;
use crate::progress::{self, say};
use crate::workspace::{cargo, root, target};
use crate::{host, setup};

/// What `fuzz` is told.
#[derive(Args)]
pub(crate) struct FuzzArgs {
    /// A target [default: each in turn]
    target: Option<String>,
    /// How long each runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,
    /// Compile without optimisation: sooner there, slower then
    #[arg(long)]
    dev: bool,
}

/// Runs the targets until the time is up or one finds something, which cargo-fuzz then shows how to see again.
pub(crate) fn run(args: &FuzzArgs, mode: Install) -> Result<()> {
    let targets = targets()?;
    let chosen = match &args.target {
        None => targets,
        Some(one) if targets.contains(one) => vec![one.clone()],
        Some(other) => bail!("there is no target {other}; there are: {}", targets.join(", ")),
    };
    setup::toolchain(mode)?;
    if chosen.iter().any(|name| name != DATAPATH) {
        nightly(mode)?;
        host::for_fuzzing(mode)?;
    }
    for name in chosen {
        if name == DATAPATH {
            datapath(args.seconds, mode)?;
            continue;
        }
        let corpus = target("fuzz-corpus").join(&name);
        fs::create_dir_all(&corpus)
            .with_context(|| format!("{} cannot be made", corpus.display()))?;
        let mut fuzz = host::cargo_tool("cargo-fuzz", "fuzzing", mode)?;
        fuzz.args(["fuzz", "run", "--fuzz-dir", "tests/fuzz", "--features", "fuzzer"]);
        if args.dev {
            fuzz.arg("--dev");
        }
        fuzz.arg("--target-dir").arg(target("fuzz")).arg(&name);
        // New inputs go to the first directory, the seeds stay as they are.
        fuzz.arg(&corpus).arg(root().join("tests/fuzz/seeds").join(&name));
        fuzz.args(["--", &format!("-max_total_time={}", args.seconds)]);
        fuzz.env("RUSTUP_TOOLCHAIN", "nightly").env_remove("CARGO").env_remove("RUSTC");
        progress::run_open(&format!("fuzzing {name} for {} s", args.seconds), &mut fuzz)?;
    }
    Ok(())
}

/// The programs in the kernel: no fuzzer sees their branches, so random packets, changes of the maps and bytes go through
/// them and through a plain model of the decision.
const DATAPATH: &str = "datapath";

fn datapath(seconds: u32, mode: Install) -> Result<()> {
    host::need_root("fuzzing the programs in the kernel")?;
    host::for_tests(mode)?;
    let mut test = cargo(["test", "--package", "sticky-tests", "--test", "datapath", "--"]);
    test.args(["suite::random", "suite::raw", "--nocapture", "--test-threads", "1"]);
    // Each of the two properties has half of the time.
    test.env("PATH", host::path()).env("STICKY_FUZZ_SECONDS", (seconds / 2).max(1).to_string());
    progress::run_open(&format!("fuzzing {DATAPATH} for {seconds} s"), &mut test)
}

/// The names of all targets, sorted.
fn targets() -> Result<Vec<String>> {
    let dir = root().join("tests/fuzz/targets");
    let read = fs::read_dir(&dir).with_context(|| format!("{} cannot be read", dir.display()))?;
    let mut names = Vec::new();
    for entry in read {
        names.extend(entry?.path().file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.push(DATAPATH.to_owned());
    names.sort_unstable();
    Ok(names)
}

/// Sanitizers and coverage are a nightly compiler's.
fn nightly(mode: Install) -> Result<()> {
    let mut ask = Command::new("rustc");
    let asked = ask.args(["+nightly", "--version"]).env_remove("RUSTUP_TOOLCHAIN").output();
    if asked.is_ok_and(|answer| answer.status.success()) {
        return Ok(());
    }
    const INSTALL: [&str; 5] = ["toolchain", "install", "nightly", "--profile", "minimal"];
    if mode == Install::Never {
        bail!(
            "fuzzing needs a nightly compiler: `rustup {}`, then run this again",
            INSTALL.join(" ")
        );
    }
    say("fuzzing needs a nightly compiler, which rustup installs");
    progress::run("rustup toolchain install nightly", Command::new("rustup").args(INSTALL))
}

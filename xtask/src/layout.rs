//! Where the code of a release lies: BOLT moves what each request runs through together, block by block and in the order in
//! which it runs. The compiler, which has counted before it optimised and sees one function at a time, cannot do that.

use std::env::consts::ARCH;
use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::apt::{self, Install};
use crate::progress::{self, say};
use crate::toolchain::on_path;
use crate::workspace::{root, target};

/// What the linker leaves for BOLT, which it takes out again: what refers to what.
pub(crate) const RELOCATIONS: &str = "-Clink-arg=-Wl,--emit-relocs";

const HOW: [&str; 7] = [
    "-reorder-blocks=ext-tsp",
    "-reorder-functions=cdsort",
    "-split-functions",
    "-split-all-cold",
    "-split-eh",
    "-plt=hot",
    "-update-debug-sections",
];
/// Knows all of these.
const OLDEST: u32 = 19;
/// Of the processor that the counts are from.
const COUNTED_ON: &str = "x86_64";
/// What was run through less often is not kept: the way of a start, or of a change, may lie anywhere.
const OFTEN: u64 = 100;

/// As BOLT writes it, function by function, but gzipped.
fn file() -> PathBuf {
    root().join("sticky-user/release.layout.gz")
}

/// Lays out the program at `built`, where there is BOLT or it can be had. Without it a program is as right, and slower.
pub(crate) fn apply(built: &Path, mode: Install) -> Result<()> {
    if ARCH != COUNTED_ON {
        return Ok(());
    }
    let laid = bolt(mode).and_then(|bolt| lay(&bolt, built));
    match laid {
        Ok(laid) => put(&laid, built),
        Err(error) => {
            say(&format!("{error:#}"));
            say("going on without; a request costs some hundredths more");
            Ok(())
        }
    }
}

/// The program as BOLT lays it out; made anew only when something is not as it was.
fn lay(bolt: &Path, built: &Path) -> Result<PathBuf> {
    let (laid, of) = (target("layout/sticky"), target("layout/of"));
    let mut hash = DefaultHasher::new();
    for path in [built, &file(), bolt] {
        hash.write(&fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?);
    }
    HOW.iter().for_each(|option| hash.write(option.as_bytes()));
    let now = format!("{:x}", hash.finish());
    if laid.exists() && fs::read_to_string(&of).is_ok_and(|was| was == now) {
        return Ok(laid);
    }
    fs::create_dir_all(target("layout"))?;
    let counts = target("layout/counts");
    piped("gzip", &["--decompress", "--stdout"], &file(), &counts)?;
    let mut run = Command::new(bolt);
    run.arg(built).arg("-data").arg(&counts).arg("-o").arg(&laid).args(HOW);
    progress::run("laying out the code (BOLT)", &mut run)?;
    fs::write(&of, now).with_context(|| format!("{} cannot be written", of.display()))?;
    Ok(laid)
}

/// In one step, for the old one may be running. Cargo brings its own back with the next build.
fn put(laid: &Path, to: &Path) -> Result<()> {
    let beside = to.with_extension("laid");
    fs::copy(laid, &beside)
        .and_then(|_| fs::rename(&beside, to))
        .with_context(|| format!("{} cannot be put in place", to.display()))
}

/// Counts anew how `built` runs while `train` has it work.
pub(crate) fn make(
    built: &Path,
    mode: Install,
    train: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    if ARCH != COUNTED_ON {
        bail!("the layout is counted on {COUNTED_ON}, and this is {ARCH}");
    }
    let bolt = bolt(mode)?;
    let dir = target("profile/layout");
    if dir.exists() {
        fs::remove_dir_all(&dir).with_context(|| format!("{} cannot be emptied", dir.display()))?;
    }
    fs::create_dir_all(&dir)?;
    let at = |name: &str| dir.join(name);
    let mut counting = Command::new(&bolt);
    counting.arg(built).args(["-instrument", "-instrumentation-file-append-pid"]);
    counting.arg("-instrumentation-file").arg(at("each")).arg("-o").arg(at("sticky"));
    progress::run("having it count its ways (BOLT)", &mut counting)?;
    train(&at("sticky"))?;
    let mut merge = Command::new(bolt.with_file_name("merge-fdata"));
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|end| end == "fdata") {
            merge.arg(path);
        }
    }
    let merged = merge.output().context("merge-fdata does not start")?;
    let said = String::from_utf8_lossy(&merged.stderr);
    anyhow::ensure!(merged.status.success(), "merge-fdata ended with {}: {said}", merged.status);
    fs::write(at("often"), often(&String::from_utf8_lossy(&merged.stdout)))?;
    let mut write = Command::new(&bolt);
    write.arg(built).arg("-data").arg(at("often")).args(["-o", "/dev/null", "-w"]);
    progress::run("writing the counts (BOLT)", write.arg(at("counts")).args(HOW))?;
    piped("gzip", &["-9", "--no-name", "--stdout"], &at("counts"), &file())?;
    say(&format!("wrote {}: build and measure with it before it goes in", file().display()));
    Ok(())
}

/// The lines, one for each jump, whose count, the last field, is high enough.
fn often(lines: &str) -> String {
    let count = |line: &str| line.rsplit(' ').next()?.parse().ok();
    let kept = lines.lines().filter(|line| count(line).is_none_or(|count: u64| count >= OFTEN));
    kept.flat_map(|line| [line, "\n"]).collect()
}

/// `program` from one file into another.
fn piped(program: &str, args: &[&str], from: &Path, to: &Path) -> Result<()> {
    let input =
        fs::File::open(from).with_context(|| format!("{} cannot be read", from.display()))?;
    let out =
        fs::File::create(to).with_context(|| format!("{} cannot be written", to.display()))?;
    let mut run = Command::new(program);
    let status = run.args(args).stdin(Stdio::from(input)).stdout(Stdio::from(out)).status();
    let status = status.with_context(|| format!("{program} does not start"))?;
    anyhow::ensure!(status.success(), "{program} of {} ended with {status}", from.display());
    Ok(())
}

/// BOLT, installed first if it is missing and that is allowed.
fn bolt(mode: Install) -> Result<PathBuf> {
    if let Some(found) = find() {
        return Ok(found);
    }
    // A system that has none must not look for it with every build: these are the lists as they are.
    let known = apt::names("bolt-");
    let numbers = known.iter().filter_map(|name| name.strip_prefix("bolt-")?.parse::<u32>().ok());
    let Some(newest) = numbers.filter(|number| *number >= OLDEST).max() else {
        bail!(
            "laying out the code of releases needs llvm-bolt {OLDEST} or newer, which is not here"
        );
    };
    let package = format!("bolt-{newest}");
    let command = format!("sudo apt-get update && sudo apt-get install {package}");
    apt::install(&[&package], "laying out the code of releases", &command, mode)?;
    find().with_context(|| format!("{package} is installed, yet llvm-bolt is not there"))
}

/// The distribution's newest, else what is on `PATH`.
fn find() -> Option<PathBuf> {
    let number = |entry: fs::DirEntry| {
        let found = entry.file_name().to_str()?.strip_prefix("llvm-")?.parse::<u32>().ok()?;
        let program = entry.path().join("bin/llvm-bolt");
        (found >= OLDEST && program.exists()).then_some((found, program))
    };
    let all = fs::read_dir("/usr/lib").ok()?.filter_map(Result::ok);
    all.filter_map(number).max().map(|(_, program)| program).or_else(|| on_path("llvm-bolt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_ran_often_is_kept() {
        let lines = "1 a/1 3f 1 b 0 0 99\n1 a/1 3f 1 c 12 0 100\n1 b 0 1 a 1 7 62326\n";
        assert_eq!(often(lines), "1 a/1 3f 1 c 12 0 100\n1 b 0 1 a 1 7 62326\n");
    }

    #[test]
    fn what_has_no_count_is_kept() {
        assert_eq!(often("boltedcollection\nno_lbr"), "boltedcollection\nno_lbr\n");
    }
}

//! Where things are in this tree, and the cargo that works on it.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The workspace's directory.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().expect("xtask lies in the workspace")
}

/// A path below the target directory, which is always `target` of this tree: the places of what
/// we leave there are promised.
pub(crate) fn target(path: &str) -> PathBuf {
    root().join("target").join(path)
}

/// The cargo that runs us, in the workspace.
pub(crate) fn cargo<const N: usize>(args: [&str; N]) -> Command {
    let mut cmd = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cmd.args(args).current_dir(root()).env("CARGO_TARGET_DIR", target(""));
    cmd
}

//! Debian and Ubuntu packages: installed as root, otherwise the command is named and we stop.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result, bail};

use crate::progress;

const APT_GET: &str = "/usr/bin/apt-get";
/// Debian's question "may this service start now?"; exit code 101 means no.
const POLICY: &str = "/usr/sbin/policy-rc.d";

/// May we install what is missing?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Install {
    /// Yes, if we are root.
    Allowed,
    /// No: `--no-install`.
    Never,
}

/// Whether this process may install packages and make network namespaces.
pub(crate) fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Installs `packages`, which are needed for `why`. Where that is not for us to do, the error
/// holds `command`, the one line that does it.
pub(crate) fn install(packages: &[&str], why: &str, command: &str, mode: Install) -> Result<()> {
    let names = packages.join(" ");
    if !Path::new(APT_GET).exists() {
        bail!(
            "{why} needs what Debian and Ubuntu call {names}, and this system has no apt-get: install it by hand"
        );
    }
    if mode == Install::Never || !is_root() {
        bail!(
            "{why} needs packages that are missing ({names}). Install them with\n\n    {command}\n\nand run this again."
        );
    }
    update(mode);
    if let Some(missing) = packages.iter().find(|name| !is_known(name)) {
        bail!("{why} needs the package {missing}, which no package source of this system has");
    }
    let _quiet = NoServices::begin()?;
    // Nobody's packages are removed for ours.
    let mut args = vec!["install", "--yes", "--no-install-recommends", "--no-remove"];
    args.extend_from_slice(packages);
    progress::run(&format!("installing {names} ({why})"), &mut apt_get(&args))
}

/// Brings the package lists up to date, once, if that is ours to do: old ones name packages that
/// the mirrors no longer have. A mirror that fails is not fatal, for the others may do.
pub(crate) fn update(mode: Install) {
    static DONE: Once = Once::new();
    if mode == Install::Allowed && is_root() && Path::new(APT_GET).exists() {
        DONE.call_once(|| {
            let mut cmd = apt_get(&["update"]);
            if let Err(error) = progress::run("apt-get update (to know what there is)", &mut cmd) {
                progress::say(&format!("{error:#}; going on with the lists that are there"));
            }
        });
    }
}

/// Names of all packages that begin with `prefix`.
pub(crate) fn names(prefix: &str) -> Vec<String> {
    let found = Command::new("apt-cache").args(["pkgnames", prefix]).output();
    found.map_or(Vec::new(), |out| {
        String::from_utf8_lossy(&out.stdout).lines().map(str::to_owned).collect()
    })
}

fn apt_get(args: &[&str]) -> Command {
    let mut cmd = Command::new(APT_GET);
    cmd.args(["-q", "-o", "DPkg::Lock::Timeout=300"])
        .args(args)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .env("NEEDRESTART_SUSPEND", "1");
    cmd
}

/// Whether some package source has this package.
pub(crate) fn is_known(package: &str) -> bool {
    let policy = Command::new("apt-cache").args(["policy", package]).env("LC_ALL", "C").output();
    policy.is_ok_and(|out| {
        let text = String::from_utf8_lossy(&out.stdout);
        text.lines().any(|l| l.trim().strip_prefix("Candidate: ").is_some_and(|v| v != "(none)"))
    })
}

/// While it lives, no package starts a system daemon.
struct NoServices {
    /// Where the administrator's own policy waits.
    saved: Option<PathBuf>,
}

impl NoServices {
    fn begin() -> Result<Self> {
        let saved = PathBuf::from(format!("{POLICY}.before-sticky"));
        let saved = if Path::new(POLICY).exists() {
            fs::rename(POLICY, &saved).with_context(|| format!("{POLICY} cannot be set aside"))?;
            Some(saved)
        } else {
            None
        };
        let guard = Self { saved };
        fs::write(POLICY, "#!/bin/sh\nexit 101\n")
            .with_context(|| format!("{POLICY} cannot be written"))?;
        fs::set_permissions(POLICY, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("{POLICY} cannot be made executable"))?;
        Ok(guard)
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        let undone = match &self.saved {
            Some(saved) => fs::rename(saved, POLICY),
            None => fs::remove_file(POLICY),
        };
        if let Err(error) = undone {
            progress::say(&format!("{POLICY} could not be put back as it was: {error}"));
        }
    }
}

//! Names of what a run creates, and the removal of what a killed run left.
//!
//! Every namespace, directory, pin directory and control group is called `sticky-test-PID-N`, so that runs do not meet,
//! and the next one finds what belongs to nobody.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

const PREFIX: &str = "sticky-test-";

/// Where `ip netns` keeps its names.
pub const NETNS_DIR: &str = "/var/run/netns";
/// The BPF file system.
pub const BPF_DIR: &str = "/sys/fs/bpf";
const CGROUP_DIR: &str = "/sys/fs/cgroup";

/// A name that nothing on this host has.
pub fn unique() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static SWEEP: Once = Once::new();
    SWEEP.call_once(sweep);
    format!("{PREFIX}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A directory for files that is removed with the value.
#[derive(Debug)]
pub struct TempDir(PathBuf);

impl TempDir {
    /// Creates it, empty and private.
    pub fn new() -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(unique());
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of `name` in it.
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        // What cannot be removed now is swept by the next run.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Removes the control groups called `name` of every hierarchy, with all below them.
pub fn remove_cgroups(name: &str) {
    for hierarchy in entries(Path::new(CGROUP_DIR)) {
        remove_group(&hierarchy.join(name));
    }
    remove_group(&Path::new(CGROUP_DIR).join(name));
}

/// The files of a control group cannot be removed, and go with it.
fn remove_group(group: &Path) {
    for child in entries(group).into_iter().filter(|child| child.is_dir()) {
        remove_group(&child);
    }
    // A group that still has a task stays, for the next run to sweep.
    let _ = fs::remove_dir(group);
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir)
        .map(|dir| dir.flatten().map(|entry| entry.path()).collect())
        .unwrap_or_default()
}

/// Removes what killed runs left: everything of ours whose process is gone.
fn sweep() {
    for namespace in orphans(Path::new(NETNS_DIR)) {
        if let Some(name) = namespace.file_name() {
            let _ = std::process::Command::new("ip").args(["netns", "del"]).arg(name).status();
        }
    }
    for dir in orphans(&std::env::temp_dir()).into_iter().chain(orphans(Path::new(BPF_DIR))) {
        let _ = fs::remove_dir_all(dir);
    }
    // A hierarchy for each controller (version 1), or one for all.
    for hierarchy in entries(Path::new(CGROUP_DIR)).into_iter().chain([PathBuf::from(CGROUP_DIR)]) {
        orphans(&hierarchy).iter().for_each(|group| remove_group(group));
    }
}

fn orphans(dir: &Path) -> Vec<PathBuf> {
    let orphan = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let owner = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        owner
            .is_some_and(|pid| pid.parse::<u32>().is_ok() && !Path::new("/proc").join(pid).exists())
    };
    entries(dir).into_iter().filter(orphan).collect()
}

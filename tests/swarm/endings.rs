//! When each instance was told to end, by its own account.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use sticky_tests::names::TempDir;

/// The file that the instances of a service write to.
pub struct Endings {
    file: PathBuf,
    /// What makes `docker service create` give it to them.
    pub options: [String; 2],
}

impl Endings {
    /// In the directory `dir`, which they see as `/journal`.
    pub fn new(dir: &TempDir) -> Self {
        let mount = format!("--mount=type=bind,src={},dst=/journal", dir.path().display());
        Self {
            file: dir.join("endings"),
            options: [mount, "--env=ENDINGS=/journal/endings".to_owned()],
        }
    }

    /// When SIGTERM came, by instance.
    pub fn read(&self) -> anyhow::Result<BTreeMap<String, SystemTime>> {
        read(&self.file).with_context(|| format!("{}", self.file.display()))
    }
}

fn read(file: &Path) -> anyhow::Result<BTreeMap<String, SystemTime>> {
    let text = std::fs::read_to_string(file)?;
    let line = |line: &str| {
        let (instance, millis) = line.split_once(' ').context("two words")?;
        Ok((instance.to_owned(), UNIX_EPOCH + Duration::from_millis(millis.parse()?)))
    };
    text.lines().map(line).collect()
}

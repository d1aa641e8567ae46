//! The state directory: generated keys, the last snapshot and the operator's drains, for nobody else's eyes.

mod saved;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::drains::Drain;
use anyhow::Context;
pub use saved::{Saved, Saver, read};

const DRAINS: &str = "drains.json";
/// Bytes written at once.
const CHUNK: usize = 64 * 1024;

/// A directory with mode 0700.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// Makes the directory if it is missing, and closes it to others.
    ///
    /// # Errors
    /// The file system refuses.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.and_then(|()| fs::set_permissions(path, Permissions::from_mode(0o700))).with_context(
            || {
                format!(
                    "the state directory {} cannot be used; choose another with --state-dir",
                    path.display()
                )
            },
        )?;
        Ok(Self(path.to_owned()))
    }

    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The snapshot of an earlier run. `None`: there is none that this version can read.
    #[must_use]
    pub fn last_snapshot(&self) -> Option<Saved> {
        saved::read(&self.0)
    }

    /// What the operator drained in an earlier run.
    #[must_use]
    pub fn drains(&self) -> Vec<Drain> {
        let path = self.0.join(DRAINS);
        let read = fs::read(&path).map_err(anyhow::Error::from);
        match read.and_then(|text| Ok(serde_json::from_slice(&text)?)) {
            Ok(drains) => drains,
            Err(error) if is_missing(&error) => Vec::new(),
            Err(error) => {
                tracing::warn!(file = %path.display(), %error, "the drains of the operator cannot be read, nothing is drained");
                Vec::new()
            }
        }
    }

    /// Keeps what the operator drains.
    ///
    /// # Errors
    /// The file system refuses; what was kept before stays.
    pub fn save_drains(&self, drains: &[Drain]) -> io::Result<()> {
        let text = serde_json::to_vec(drains).map_err(io::Error::other)?;
        replace(&self.0.join(DRAINS), |file| file.write_all(&text)).map(|_| ())
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// Replaces a file in one step: whoever reads it sees the old or the new content, also after a crash.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> io::Result<File> {
    let next = path.with_extension(format!("{}.new", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)
        .and_then(|file| {
            let mut file = BufWriter::with_capacity(CHUNK, file);
            write(&mut file)?;
            let file = file.into_inner()?;
            file.sync_all()?;
            fs::rename(&next, path)?;
            Ok(file)
        });
    if written.is_err() {
        // What was begun is removed as far as possible; the first error is the one to tell.
        let _ = fs::remove_file(&next);
        return written;
    }
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        fs::write(dir.path().join("taken/x"), "").unwrap();
        assert!(replace(&dir.path().join("taken"), |file| file.write_all(b"x")).is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

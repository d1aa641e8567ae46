//! The state directory: generated keys, the last snapshot and the operator's drains, for nobody else's eyes.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::drains::Drain;
use crate::model::{Service, Snapshot};

const SNAPSHOT: &str = "snapshot.json";
const DRAINS: &str = "drains.json";

/// A directory with mode 0700.
#[derive(Clone, Debug)]
pub struct StateDir(PathBuf);

/// A snapshot and when the provider read it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Saved {
    pub read_at: SystemTime,
    pub snapshot: Snapshot,
}

/// The same, of services that are text already.
#[derive(Serialize)]
struct ToSave<'a> {
    read_at: SystemTime,
    snapshot: Services<'a>,
}

#[derive(Serialize)]
struct Services<'a> {
    services: Vec<&'a RawValue>,
}

/// Saves one snapshot after the other: what did not change is not written out again.
#[derive(Debug)]
pub struct Saver {
    state: StateDir,
    /// The services of the last one, and their text.
    texts: Vec<(Arc<Service>, Box<RawValue>)>,
}

impl Saver {
    #[must_use]
    pub fn new(state: StateDir) -> Self {
        Self { state, texts: Vec::new() }
    }

    /// Keeps a snapshot for a start without the provider. A full disk is a warning, not an end.
    pub fn save(&mut self, snapshot: &Snapshot, read_at: SystemTime) {
        let path = self.state.0.join(SNAPSHOT);
        let saved = self
            .text(snapshot, read_at)
            .map_err(io::Error::other)
            .and_then(|text| replace(&path, &text));
        if let Err(error) = saved {
            tracing::warn!(file = %path.display(), %error, "the snapshot cannot be saved; a start without the provider would serve an older one");
        }
    }

    fn text(&mut self, snapshot: &Snapshot, read_at: SystemTime) -> serde_json::Result<Vec<u8>> {
        let before = std::mem::take(&mut self.texts).into_iter();
        let mut before: HashMap<_, _> =
            before.map(|(service, text)| (Arc::as_ptr(&service), (service, text))).collect();
        for service in &snapshot.services {
            let text = match before.remove(&Arc::as_ptr(service)) {
                Some((_, text)) => text,
                None => serde_json::value::to_raw_value(service)?,
            };
            self.texts.push((Arc::clone(service), text));
        }
        let services = self.texts.iter().map(|(_, text)| &**text).collect();
        serde_json::to_vec(&ToSave { read_at, snapshot: Services { services } })
    }
}

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
        read(&self.0)
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
        replace(&self.0.join(DRAINS), &text)
    }
}

/// The last snapshot in a state directory, which need not be ours. `None`: there is none that this version can read.
#[must_use]
pub fn read(dir: &Path) -> Option<Saved> {
    let path = dir.join(SNAPSHOT);
    let read = fs::read(&path).map_err(anyhow::Error::from);
    match read.and_then(|text| Ok(serde_json::from_slice(&text)?)) {
        Ok(saved) => Some(saved),
        Err(error) if is_missing(&error) => None,
        Err(error) => {
            tracing::warn!(file = %path.display(), %error, "the last snapshot cannot be read, going on without it");
            None
        }
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// Replaces a file in one step: whoever reads it sees the old or the new content, also after a crash.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let next = path.with_extension(format!("{}.new", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&next)
        .and_then(|mut file| {
            file.write_all(content)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&next, path));
    if written.is_err() {
        // What was begun is removed as far as possible; the first error is the one to tell.
        let _ = fs::remove_file(&next);
        return written;
    }
    path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceConfig;

    fn snapshot(name: &str) -> Snapshot {
        let service = Service {
            id: name.into(),
            name: name.into(),
            config: ServiceConfig::default(),
            publish: Vec::new(),
            backends: Vec::new(),
            errors: Vec::new(),
        };
        Snapshot { services: vec![service.into()] }
    }

    #[test]
    fn keeps_the_last_snapshot_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(&dir.path().join("a/b")).unwrap();
        assert!(state.last_snapshot().is_none());
        let mut saver = Saver::new(state.clone());
        saver.save(&snapshot("old"), SystemTime::UNIX_EPOCH);
        let mut two = snapshot("new");
        two.services.extend(snapshot("newer").services);
        saver.save(&two, SystemTime::UNIX_EPOCH);
        two.services.remove(0);
        two.services.extend(snapshot("newest").services);
        saver.save(&two, SystemTime::UNIX_EPOCH);
        let saved = state.last_snapshot().unwrap();
        assert_eq!(saved.snapshot, two);
        assert_eq!(saved.read_at, SystemTime::UNIX_EPOCH);
        assert_eq!(fs::read_dir(state.path()).unwrap().count(), 1);
        assert_eq!(fs::metadata(state.path()).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn garbage_is_no_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::open(dir.path()).unwrap();
        fs::write(dir.path().join(SNAPSHOT), "{\"read_at\":").unwrap();
        assert!(state.last_snapshot().is_none());
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("taken")).unwrap();
        fs::write(dir.path().join("taken/x"), "").unwrap();
        assert!(replace(&dir.path().join("taken"), b"x").is_err());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}

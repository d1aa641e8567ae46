//! Key files on disk: loading, generating, rotating, following.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use arc_swap::ArcSwap;
use tracing::{info, warn};

use super::{KeyId, Keys, generate, rotated};

/// Name of the generated file in the state directory.
pub const GENERATED: &str = "keys";
/// How often [`follow`] looks.
const LOOK: Duration = Duration::from_secs(1);

/// Reads a key file; one that others can read is a warning.
pub fn load(path: &Path) -> anyhow::Result<Keys> {
    let text = fs::read_to_string(path)
        .with_context(|| format!("cannot read the key file {}", path.display()))?;
    let keys = Keys::parse(&text).with_context(|| format!("key file {}", path.display()))?;
    let mode = fs::metadata(path).map(|data| data.mode() & 0o777).unwrap_or_default();
    if mode & 0o077 != 0 {
        warn!(
            file = %path.display(), mode = format!("{mode:04o}"),
            "key file can be read by others than its owner: chmod 0600"
        );
    }
    Ok(keys)
}

/// The keys of the state directory, generated at the first start.
pub fn load_or_generate(state_dir: &Path) -> anyhow::Result<Keys> {
    let path = state_dir.join(GENERATED);
    let text = generate()?;
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(mut file) => {
            file.write_all(text.as_bytes())
                .and_then(|()| file.sync_all())
                .with_context(|| format!("cannot write the key file {}", path.display()))?;
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => {
            return Err(error)
                .with_context(|| format!("cannot create the key file {}", path.display()));
        }
    }
    let keys = load(&path)?;
    warn!(
        file = %path.display(), hash = %keys.hash_id(),
        "keys are local to this node: give every node the same --cookie-key-file"
    );
    Ok(keys)
}

/// Puts a new cookie key first and replaces the file in one step, with the permissions it had. Returns the new key's id.
pub fn rotate(path: &Path) -> anyhow::Result<KeyId> {
    // The file behind a symbolic link is what must change.
    let path = fs::canonicalize(path)
        .with_context(|| format!("cannot find the key file {}", path.display()))?;
    let text = fs::read_to_string(&path)
        .with_context(|| format!("cannot read the key file {}", path.display()))?;
    Keys::parse(&text).with_context(|| format!("key file {}", path.display()))?;
    let text = rotated(&text)?;
    let keys = Keys::parse(&text).context("the rotated key file does not read")?;
    replace(&path, &text)
        .with_context(|| format!("cannot replace the key file {}", path.display()))?;
    Ok(keys.sealing().id())
}

fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let old = fs::metadata(path)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let next = path.with_file_name(name);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        file.write_all(text.as_bytes())?;
        file.set_permissions(old.permissions())?;
        // Only root can give a file away; for anybody else it is their own already.
        if nix::unistd::geteuid().is_root() {
            std::os::unix::fs::fchown(&file, Some(old.uid()), Some(old.gid()))?;
        }
        file.sync_all()?;
        fs::rename(&next, path)
    })();
    if written.is_err() {
        // The error of the write is the one to tell; what is left over is removed as far as possible.
        let _ = fs::remove_file(&next);
        return written;
    }
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// What `sticky keys list` prints: kind and id of each key, never the key.
pub fn list(path: &Path) -> anyhow::Result<Vec<(&'static str, KeyId)>> {
    let keys = load(path)?;
    let mut all = vec![("hash", keys.hash_id())];
    all.extend(keys.cookie_ids().map(|id| ("cookie", id)));
    Ok(all)
}

/// Reads the file again into `keys`. A bad file, or one with another hash key, leaves the old keys in force.
pub fn reload(path: &Path, keys: &ArcSwap<Keys>) -> anyhow::Result<()> {
    let next = load(path)?;
    let old = keys.load();
    if next.hash != old.hash {
        bail!(
            "key file {} has another hash key ({} instead of {}), which would move every client: restore it, or restart \
             sticky on all nodes",
            path.display(),
            next.hash_id(),
            old.hash_id()
        );
    }
    info!(file = %path.display(), seals = %next.sealing().id(), keys = next.cookies.len(), "cookie keys loaded");
    keys.store(Arc::new(next));
    Ok(())
}

/// Reloads whenever the file changes, for ever. Polls, because a mounted secret changes by ways that no watch sees.
pub async fn follow(path: PathBuf, keys: Arc<ArcSwap<Keys>>) {
    let mut seen = version(&path);
    let mut ticks = tokio::time::interval(LOOK);
    loop {
        ticks.tick().await;
        let now = version(&path);
        if now == seen {
            continue;
        }
        seen = now;
        if let Err(error) = reload(&path, &keys) {
            warn!(error = format!("{error:#}"), "keys not reloaded, the old ones stay in force");
        }
    }
}

fn version(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let data = fs::metadata(path).ok()?;
    Some((data.ino(), data.size(), data.mtime(), data.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_once_then_kept() {
        let dir = tempfile::tempdir().unwrap();
        let first = load_or_generate(dir.path()).unwrap();
        let second = load_or_generate(dir.path()).unwrap();
        assert_eq!(first.hash_id(), second.hash_id());
        let mode = fs::metadata(dir.path().join(GENERATED)).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn rotation_replaces_the_file_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(GENERATED);
        let old = load_or_generate(dir.path()).unwrap();
        let id = rotate(&path).unwrap();
        let listed = list(&path).unwrap();
        assert_eq!(listed[1], ("cookie", id));
        assert_eq!(listed[2], ("cookie", old.sealing().id()));
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn a_bad_file_or_another_hash_key_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("k");
        let keys = ArcSwap::from_pointee(load_or_generate(dir.path()).unwrap());
        let before = keys.load().sealing().id();
        fs::write(&path, "hash zz").unwrap();
        assert!(reload(&path, &keys).is_err());
        fs::write(&path, generate().unwrap()).unwrap();
        assert!(reload(&path, &keys).unwrap_err().to_string().contains("another hash key"));
        assert_eq!(keys.load().sealing().id(), before);
        let generated = dir.path().join(GENERATED);
        let id = rotate(&generated).unwrap();
        reload(&generated, &keys).unwrap();
        assert_eq!(keys.load().sealing().id(), id);
    }
}

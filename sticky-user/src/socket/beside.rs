//! A socket beside the control socket, where a successor waits for what the one before it brings.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixListener;

/// Listens; removed when dropped.
pub struct Beside {
    path: PathBuf,
    listener: UnixListener,
}

fn place(control: &Path, what: &str) -> PathBuf {
    control.with_added_extension(what)
}

impl Beside {
    /// `control` is the control socket, `what` is brought here.
    ///
    /// # Errors
    /// The place cannot be listened at.
    pub fn new(control: &Path, what: &str) -> io::Result<Self> {
        let path = place(control, what);
        // Of one that was killed in the middle of it.
        let _ = fs::remove_file(&path);
        let listener = UnixListener::bind(&path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o600))?;
        Ok(Self { path, listener })
    }

    /// Waits at most this long for a process of our own user; blocking from then on.
    ///
    /// # Errors
    /// Nobody came, or a stranger.
    pub async fn came(self, patience: Duration) -> io::Result<UnixStream> {
        let (stream, _) = tokio::time::timeout(patience, self.listener.accept())
            .await
            .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if stream.peer_cred()?.uid() != nix::unistd::geteuid().as_raw() {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let stream = stream.into_std()?;
        stream.set_nonblocking(false)?;
        Ok(stream)
    }

    /// The way to a successor that waits.
    ///
    /// # Errors
    /// Nobody waits there.
    pub fn connect(control: &Path, what: &str) -> io::Result<UnixStream> {
        UnixStream::connect(place(control, what))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next one replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

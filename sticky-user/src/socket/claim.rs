//! Who owns the control socket. A lock beside it says so, which ends with its process whatever ends that.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

/// The socket, bound, for this process alone; given free when dropped.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    listener: UnixListener,
    /// Held, not read.
    _lock: Lock,
}

/// Why the socket is not ours.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    #[error(
        "sticky runs already on {} (pid {}); stop it, choose another --socket, or take over from it with --takeover",
        path.display(), pid.as_deref().unwrap_or("unknown")
    )]
    Running { path: PathBuf, pid: Option<String> },
    #[error("{} is there and is no socket; choose another --socket", .0.display())]
    NoSocket(PathBuf),
    #[error("the control socket {} cannot be made: {error}; choose another with --socket", path.display())]
    Io { path: PathBuf, error: io::Error },
}

impl Claim {
    /// Binds the socket with mode 0600; one that a dead process left is replaced.
    ///
    /// # Errors
    /// Another process runs there, or the file system refuses.
    pub fn new(path: &Path) -> Result<Self, ClaimError> {
        let io = |error| ClaimError::Io { path: path.to_owned(), error };
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let lock = Lock::new(path)?;
        match fs::symlink_metadata(path) {
            Ok(there) if !there.file_type().is_socket() => {
                return Err(ClaimError::NoSocket(path.to_owned()));
            }
            Ok(_) => fs::remove_file(path).map_err(io)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io(error)),
        }
        // Under another name first, so that nobody can connect before the mode is set.
        let mut hidden = path.as_os_str().to_owned();
        hidden.push(format!(".{}", std::process::id()));
        let listener = UnixListener::bind(&hidden).map_err(io)?;
        fs::set_permissions(&hidden, Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&hidden, path))
            .map_err(io)?;
        Ok(Self { path: path.to_owned(), listener, _lock: lock })
    }

    /// The listening socket, for a runtime.
    pub(super) fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        let listener = self.listener.try_clone()?;
        listener.set_nonblocking(true)?;
        tokio::net::UnixListener::from_std(listener)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // Nothing is lost if it stays: the next one replaces it.
        let _ = fs::remove_file(&self.path);
    }
}

#[derive(Debug)]
struct Lock {
    path: PathBuf,
    _file: Flock<File>,
}

impl Lock {
    fn new(socket: &Path) -> Result<Self, ClaimError> {
        let io = |error| ClaimError::Io { path: socket.to_owned(), error };
        let mut path = socket.as_os_str().to_owned();
        path.push(".lock");
        let path = PathBuf::from(path);
        loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .map_err(io)?;
            let mut file = match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => file,
                Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                    let mut pid = String::new();
                    let read = file.read_to_string(&mut pid);
                    let pid =
                        read.ok().map(|_| pid.trim().to_owned()).filter(|pid| !pid.is_empty());
                    return Err(ClaimError::Running { path: socket.to_owned(), pid });
                }
                Err((_, errno)) => return Err(io(errno.into())),
            };
            // Its last owner may have removed the file between our two steps.
            let same = fs::metadata(&path)
                .is_ok_and(|there| file.metadata().is_ok_and(|ours| ours.ino() == there.ino()));
            if same {
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{}", std::process::id()))
                    .map_err(io)?;
                return Ok(Self { path, _file: file });
            }
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While it is still locked, so that nobody else's is removed.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_owner_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run/sticky.sock");
        let first = Claim::new(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let refused = Claim::new(&path).unwrap_err().to_string();
        assert!(refused.contains(&format!("pid {}", std::process::id())), "{refused}");
        drop(first);
        assert_eq!(fs::read_dir(dir.path().join("run")).unwrap().count(), 0);
        Claim::new(&path).unwrap();
    }

    #[test]
    fn a_dead_processes_socket_is_replaced_and_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sticky.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Claim::new(&path).unwrap());
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Claim::new(&path), Err(ClaimError::NoSocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }
}

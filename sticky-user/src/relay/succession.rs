//! Open connections go from one sticky to the next: an upgrade breaks none (P2).

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{debug, info, warn};

use super::parcel::{self, Label, Received};
use super::pipe::Pipe;
use super::{Shared, tcp};

/// How long a successor waits for the one before to come, and that one for each write.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to be handed over; it counts as open until that is done.
pub(super) struct Leaving {
    pub(super) label: Label,
    pub(super) pipe: Pipe,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Where a successor takes connections, beside its control socket.
pub(super) fn place(socket: &Path) -> PathBuf {
    socket.with_added_extension("relay")
}

/// Waits for the one before, in the background, and carries on what it brings.
///
/// # Errors
/// The place cannot be listened at.
pub(super) fn inherit(shared: Arc<Shared>, place: PathBuf) -> io::Result<()> {
    // Of one that was killed in the middle of it.
    let _ = fs::remove_file(&place);
    let listener = UnixListener::bind(&place)?;
    fs::set_permissions(&place, fs::Permissions::from_mode(0o600))?;
    tokio::spawn(async move {
        let came = tokio::time::timeout(PATIENCE, listener.accept()).await;
        // Nobody else is expected; that it is gone already is no harm.
        let _ = fs::remove_file(&place);
        let Ok(Ok((stream, _))) = came else {
            return debug!("the one before brought no connections");
        };
        let own =
            stream.peer_cred().is_ok_and(|peer| peer.uid() == nix::unistd::geteuid().as_raw());
        if !own {
            return warn!("a stranger offered connections");
        }
        let received = tokio::task::spawn_blocking(move || {
            let mut stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            let mut count = 0;
            while let Some((label, received)) = parcel::receive(&mut stream)? {
                resume(&shared, label, received);
                count += 1;
            }
            io::Result::Ok(count)
        });
        match received.await {
            Ok(Ok(count)) => info!(count, "the relay carries on open connections"),
            Ok(Err(error)) => warn!(%error, "not all open connections came over"),
            Err(error) => warn!(%error, "not all open connections came over"),
        }
    });
    Ok(())
}

fn resume(shared: &Arc<Shared>, label: Label, received: Received) {
    let pipe = match received.unpack() {
        Ok(pipe) => pipe,
        Err(error) => return debug!(%error, "what came over is no connection"),
    };
    let service = shared.routes.borrow().service(&label.service).cloned();
    let backend = service.as_ref().and_then(|s| s.backends.get(&label.backend)).cloned();
    let permit = Arc::clone(&shared.room).try_acquire_owned();
    let (Some(service), Some(backend), Ok(permit)) = (service, backend, permit) else {
        debug!(backend = label.backend, "a connection came over without a backend");
        return pipe.reset();
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        let open = service.stats.open();
        tcp::serve_pipe(&shared, label, pipe, &backend, permit).await;
        drop(open);
    });
}

/// Brings all open connections to a successor that waits for them, in the background. Connections that are just being made
/// follow when they are.
///
/// # Errors
/// Nobody waits there.
pub(super) fn hand_over(shared: &Shared, place: &Path) -> io::Result<()> {
    let mut stream = UnixStream::connect(place)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let (sender, mut leaving) = mpsc::unbounded_channel::<Leaving>();
    if shared.leave.set(sender).is_err() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    tokio::task::spawn_blocking(move || {
        while let Some(Leaving { label, pipe, permit }) = leaving.blocking_recv() {
            let client = label.client;
            if let Err(error) = parcel::send(&mut stream, label, &pipe) {
                debug!(%client, %error, "a connection could not be handed over");
                pipe.reset();
            }
            drop((pipe, permit));
        }
    });
    shared.leaving.cancel();
    Ok(())
}

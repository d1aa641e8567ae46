//! Open connections go from one sticky to the next: an upgrade breaks none (P2).

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tracing::{debug, info, warn};

use super::parcel::{self, Label, Received};
use super::pipe::Pipe;
use super::{Shared, tcp};
use crate::socket::Beside;

/// What the place for connections is called.
const WHAT: &str = "relay";
/// How long a successor waits for the one before to come, and that one for each write.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection to be handed over; it counts as open until that is done.
pub(super) struct Leaving {
    pub(super) label: Label,
    pub(super) pipe: Pipe,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Waits for the one before, in the background, and carries on what it brings.
///
/// # Errors
/// The place cannot be listened at.
pub(super) fn inherit(shared: Arc<Shared>, control: &Path) -> io::Result<()> {
    let place = Beside::new(control, WHAT)?;
    tokio::spawn(async move {
        let mut stream = match place.came(PATIENCE).await {
            Ok(stream) => stream,
            Err(error) => return debug!(%error, "the one before brought no connections"),
        };
        let received = tokio::task::spawn_blocking(move || {
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
pub(super) fn hand_over(shared: &Shared, control: &Path) -> io::Result<()> {
    let mut stream = Beside::connect(control, WHAT)?;
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

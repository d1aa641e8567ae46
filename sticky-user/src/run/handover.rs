//! One sticky succeeds another: the maps have one writer at a time.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::bequest;
use crate::control::plan::{Loaded, Plan};
use crate::control::settle::Known;
use crate::control::{Census, DataPath, Error, Moved, Reach};
use crate::failure::Failure;
use crate::socket::client::{Client, ClientError};
use crate::socket::{Claim, ClaimError};

/// How long the other one may take to give the socket free.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket, and what comes with it.
pub(super) struct Succession {
    pub(super) claim: Claim,
    /// To be told to end when we serve.
    pub(super) predecessor: Option<Client>,
    /// Those of the predecessor, for HTTP.
    pub(super) listeners: Vec<TcpListener>,
}

/// Claims the socket; with `takeover` from the one that runs.
///
/// # Errors
/// Somebody runs and is not to be succeeded, or does not let go.
pub(super) async fn claim(socket: &Path, takeover: bool) -> Result<Succession, Failure> {
    let alone = |claim| Succession { claim, predecessor: None, listeners: Vec::new() };
    if !takeover {
        return Ok(alone(Claim::new(socket)?));
    }
    match Client::connect(socket).await {
        Ok(mut client) => {
            let place = bequest::expect(socket)
                .inspect_err(|error| tracing::warn!(%error, "no place for the listening sockets"));
            client.begin_handover().await?;
            let claim = freed(socket).await?;
            let listeners = match place {
                Ok(place) => bequest::take(place).await,
                Err(_) => Vec::new(),
            };
            Ok(Succession { claim, predecessor: Some(client), listeners })
        }
        Err(ClientError::NotRunning(_)) => {
            tracing::info!("nobody runs here to take over from");
            Ok(alone(freed(socket).await?))
        }
        Err(error) => Err(error.into()),
    }
}

/// Claims a socket that its owner is about to give free.
///
/// # Errors
/// It does not.
pub(super) async fn freed(socket: &Path) -> Result<Claim, ClaimError> {
    let end = Instant::now() + PATIENCE;
    loop {
        match Claim::new(socket) {
            Err(ClaimError::Running { .. }) if Instant::now() < end => {
                sleep(Duration::from_millis(10)).await;
            }
            claim => return claim,
        }
    }
}

/// We serve: the predecessor drains and ends. Until it is told it would go on if we ended.
pub(super) async fn finish(mut predecessor: Client) {
    match predecessor.finish_handover().await {
        Ok(()) => tracing::info!("took over, the one before drains and ends"),
        Err(error) => tracing::warn!(%error, "took over, but the one before does not answer"),
    }
}

/// Keeps a data path from being changed while somebody else changes it.
#[derive(Clone, Default)]
pub(super) struct Hold(Arc<RwLock<bool>>);

impl Hold {
    /// Waits for the change in progress, and refuses those after it.
    pub(super) fn set(&self, held: bool) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = held;
    }

    fn free(&self) -> Result<std::sync::RwLockReadGuard<'_, bool>, Error> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        if *held { Err(Error("a successor is taking over".to_owned())) } else { Ok(held) }
    }
}

/// A data path that can be held.
pub(super) struct Holdable<D> {
    pub(super) inner: D,
    pub(super) hold: Hold,
}

impl<D: DataPath> DataPath for Holdable<D> {
    fn loaded(&mut self) -> Result<Loaded, Error> {
        self.inner.loaded()
    }

    fn look(&mut self) -> Result<Moved, Error> {
        let _free = self.hold.free()?;
        self.inner.look()
    }

    fn reach(&mut self, addrs: &[IpAddr]) -> Result<HashMap<IpAddr, Reach>, Error> {
        let _free = self.hold.free()?;
        self.inner.reach(addrs)
    }

    fn apply(&mut self, plan: &Plan, after: &Loaded) -> Result<(), Error> {
        let _free = self.hold.free()?;
        self.inner.apply(plan, after)
    }

    fn census(&self) -> Result<Arc<Census>, Error> {
        self.inner.census()
    }

    fn records(&self, each: &mut dyn FnMut(&Known)) -> Result<(), Error> {
        self.inner.records(each)
    }

    fn forget(&self, stale: &[Known]) -> Result<(), Error> {
        let _free = self.hold.free()?;
        self.inner.forget(stale)
    }

    fn sweep(&self, living: &HashSet<u32>, now: u32) -> Result<(), Error> {
        let _free = self.hold.free()?;
        self.inner.sweep(living, now)
    }

    fn table_size(&self) -> u32 {
        self.inner.table_size()
    }

    fn rekeyed(&self) -> bool {
        self.inner.rekeyed()
    }
}

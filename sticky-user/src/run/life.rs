//! From ready to the end: signals, successors, failures.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::anyhow;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tracing::{error, info, warn};

use super::bequest;
use super::handover;
use super::parts::Parts;
use crate::failure::Failure;
use crate::socket::Handover;
use crate::state::Saver;

/// How long a successor waits for something in force before it leaves the work to the one before.
const SUCCESSION: Duration = Duration::from_secs(15);

/// Why the process ends.
pub(super) enum Ended {
    Signal(&'static str),
    Succeeded,
    Failed(Failure),
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Signal(name) => f.write_str(name),
            Self::Succeeded => f.write_str("a successor took over"),
            Self::Failed(failure) => write!(f, "{failure}"),
        }
    }
}

impl Ended {
    pub(super) fn into_result(self) -> Result<(), Failure> {
        match self {
            Self::Failed(failure) => Err(failure),
            Self::Signal(_) | Self::Succeeded => Ok(()),
        }
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind, name| signal(kind).map_err(|e| anyhow!("{name} cannot be waited for: {e}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate(), "SIGTERM")?,
            interrupt: listen(SignalKind::interrupt(), "SIGINT")?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Waits for the reason to end.
pub(super) async fn until_the_end(parts: &mut Parts) -> Ended {
    let mut signals = match Signals::new() {
        Ok(signals) => signals,
        Err(failure) => return Ended::Failed(failure),
    };
    if let Some(predecessor) = parts.predecessor.take() {
        let mut in_force = parts.in_force.clone();
        let ready = tokio::time::timeout(SUCCESSION, in_force.wait_for(Option::is_some)).await;
        match ready.is_ok_and(|watched| watched.is_ok()) {
            true => {
                if let Some(relay) = &parts.relay {
                    relay.ready().await;
                    if let Err(error) = relay.inherit(&parts.places.socket) {
                        warn!(%error, "what the relay of the one before carries ends with it");
                    }
                }
                handover::finish(predecessor).await;
            }
            false => {
                return Ended::Failed(Failure::Failed(anyhow!(
                    "nothing came in force in {} s, the one before goes on; `sticky status` says what its provider is missing",
                    SUCCESSION.as_secs()
                )));
            }
        }
    }
    loop {
        tokio::select! {
            name = signals.next() => return Ended::Signal(name),
            _ = &mut parts.control_ended => {
                let failure = anyhow!("the control loop ended, which is a mistake in sticky; layer 4 goes on as it is");
                return Ended::Failed(Failure::Failed(failure));
            }
            Some(order) = parts.handover.1.recv() => match order {
                Handover::Begin(done) => begin(parts, done).await,
                Handover::Finish => {
                    if let Some(relay) = &parts.relay
                        && let Err(error) = relay.hand_over(&parts.places.socket)
                    {
                        warn!(%error, "the successor takes no open connections of the relay");
                    }
                    return Ended::Succeeded;
                }
                Handover::Abandoned => go_on(parts).await,
            },
        }
    }
}

/// Lets go of the maps and of the socket; requests are still served.
async fn begin(parts: &mut Parts, done: oneshot::Sender<()>) {
    parts.paused.send_replace(true);
    let hold = parts.hold.clone();
    // Waits for a commit in progress.
    if tokio::task::spawn_blocking(move || hold.set(true)).await.is_err() {
        return;
    }
    parts.socket.abort();
    // Its only end is the abort.
    let _ = (&mut parts.socket).await;
    info!("handing over to a successor");
    let given = parts.proxy.listeners().and_then(|all| bequest::give(&parts.places.socket, &all));
    if let Err(error) = given {
        warn!(%error, "the successor does not take the listening sockets and listens beside them");
    }
    if done.send(()).is_err() {
        warn!("the successor went away");
    }
}

/// Takes the work up again.
async fn go_on(parts: &mut Parts) {
    warn!("the successor gave up, going on");
    // Its connection may end a moment before its lock.
    match handover::freed(&parts.places.socket).await {
        Ok(claim) => parts.serve_again(claim),
        Err(error) => error!(%error, "the control socket is lost"),
    }
    parts.hold.set(false);
    parts.paused.send_replace(false);
}

/// Finishes the requests in progress and what the relay carries, at most for `timeout`; a second signal ends the wait. Returns how many connections
/// were cut.
pub(super) async fn drain(parts: &Parts, timeout: Duration) -> usize {
    parts.ready.store(false, Ordering::Release);
    let Ok(mut signals) = Signals::new() else { return end(parts, Duration::ZERO).await };
    tokio::select! {
        cut = end(parts, timeout) => cut,
        name = signals.next() => {
            info!(signal = name, "again, so without waiting");
            end(parts, Duration::ZERO).await
        }
    }
}

async fn end(parts: &Parts, timeout: Duration) -> usize {
    let (proxy, relay) = (Arc::clone(&parts.proxy), parts.relay.clone());
    let relay = async {
        match relay {
            Some(relay) => relay.drain(timeout).await,
            None => 0,
        }
    };
    let (requests, connections) = tokio::join!(proxy.drain(timeout), relay);
    requests + connections
}

/// The last change is on disk, and no commit is in progress. Waits for both, so not for a thread of a runtime.
pub(super) fn settle(parts: &Parts, succeeded: bool) {
    parts.hold.set(true);
    let in_force = parts.in_force.borrow().clone();
    // A successor saves what it knows better.
    if let Some(in_force) = in_force.filter(|_| !succeeded) {
        let read_at = parts.views.found.borrow().status.last_update;
        Saver::new(parts.state.clone()).save(&in_force.snapshot, read_at);
    }
}

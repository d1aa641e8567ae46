//! Services and tasks of a Docker Swarm, as a manager's API tells them.
//!
//! Events say that there is something to look at; what is handed over always comes from lists, whole.

mod api;
mod build;
mod decode;
mod ports;
mod session;
#[cfg(test)]
mod tests;
mod view;
mod watched;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::docker::engine;
use crate::labels::{Instance, Memory};
use crate::provider::{Found, Publisher};

/// Pauses between attempts to reach Docker: the first, and the longest. What its return has changed is to be known at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Follows a Swarm through the API of one of its managers.
#[derive(Debug)]
pub struct Provider {
    docker_host: Option<String>,
    instance: Instance,
    publisher: Publisher,
    memory: Memory,
    built: build::Built,
    pause: Duration,
}

impl Provider {
    /// A provider that starts from what an earlier run found, and where it publishes. `docker_host` is a URL; `None`
    /// is what `DOCKER_HOST` says, or else the local socket. Nothing is asked before [`Provider::run`].
    #[must_use]
    pub fn new(
        docker_host: Option<String>,
        instance: Instance,
        initial: Found,
    ) -> (Self, watch::Receiver<Arc<Found>>) {
        let memory = Memory::of(&initial.snapshot);
        let (publisher, found) = Publisher::new(initial);
        let built = build::Built::default();
        (Self { docker_host, instance, publisher, memory, built, pause: FIRST_PAUSE }, found)
    }

    /// Follows the Swarm, and reaches for Docker again whenever it is lost; ends only with its task.
    pub async fn run(mut self) {
        loop {
            let Err(error) = session::follow(&mut self).await;
            self.publisher.lost(engine::explain(&error));
            sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Docker answers.
    fn reached(&mut self) {
        self.pause = FIRST_PAUSE;
    }
}

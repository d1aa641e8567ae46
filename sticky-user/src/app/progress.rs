//! How far Swarm has come with the tasks of a service.

use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use serde::Deserialize;
use tokio::time::sleep;

use super::{Error, Swarm};
use crate::docker::client::filters;

/// Time between two looks.
const LOOK: Duration = Duration::from_millis(200);
/// Tasks that change nothing for so long will not run by themselves.
const PATIENCE: Duration = Duration::from_secs(60);

/// A line on a terminal, written again and again; elsewhere nothing.
#[derive(Debug)]
pub struct Progress {
    terminal: bool,
    written: String,
}

impl Progress {
    /// On stderr, so that it is not in what others read.
    #[must_use]
    pub fn new() -> Self {
        Self { terminal: std::io::stderr().is_terminal(), written: String::new() }
    }

    fn show(&mut self, line: String) {
        if self.terminal && line != self.written {
            // ECMA-48 EL: what was longer is cleared.
            let _ = write!(std::io::stderr(), "\r{line}\x1b[K");
            self.written = line;
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if !self.written.is_empty() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Task {
    #[serde(rename = "ServiceID", default)]
    pub(super) service: String,
    #[serde(default)]
    created_at: String,
    #[serde(default)]
    pub(super) desired_state: String,
    #[serde(default)]
    pub(super) status: Status,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Status {
    pub(super) state: String,
    err: String,
}

impl Task {
    pub(super) fn wanted(&self) -> bool {
        // `ready`: it waits for the end of the one it replaces.
        matches!(self.desired_state.as_str(), "running" | "ready")
    }

    pub(super) fn runs(&self) -> bool {
        self.desired_state == "running" && self.status.state == "running"
    }
}

impl Swarm {
    /// Waits until `wanted` tasks of a service run.
    pub(super) async fn settle(
        &self,
        service: &str,
        id: &str,
        wanted: u64,
        progress: &mut Progress,
    ) -> Result<(), Error> {
        let (mut last, mut since) = (None, Instant::now());
        loop {
            let tasks: Vec<Task> = self
                .docker
                .get("/tasks", &[filters("service", &[id])])
                .await
                .map_err(|error| self.explain(error))?;
            let running = count(tasks.iter().filter(|task| task.runs()));
            let planned = count(tasks.iter().filter(|task| task.wanted()));
            if running == wanted && planned == wanted {
                return Ok(());
            }
            let newest = tasks
                .iter()
                .filter(|task| !task.status.err.is_empty())
                .max_by(|a, b| a.created_at.cmp(&b.created_at));
            let reason = newest.map(|task| task.status.err.clone());
            let trouble = reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default();
            progress.show(format!("{service}: {running} of {wanted} tasks run{trouble}"));
            let stopped =
                |reason| Error::NotRunning { service: service.to_owned(), running, wanted, reason };
            if let Some(reason) = reason.clone().filter(|reason| reason.contains("No such image")) {
                return Err(stopped(reason));
            }
            if last.as_ref() != Some(&(running, reason.clone())) {
                (last, since) = (Some((running, reason)), Instant::now());
            } else if since.elapsed() > PATIENCE {
                let nothing = || "nothing has changed for a minute".to_owned();
                return Err(stopped(reason.unwrap_or_else(nothing)));
            }
            sleep(LOOK).await;
        }
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> u64 {
    items.fold(0, |count, _| count + 1)
}

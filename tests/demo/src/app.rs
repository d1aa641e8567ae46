//! What one instance knows and counts.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use serde_json::{Value, json};

use crate::args::Args;
use crate::sessions::Sessions;

/// State of one instance, shared by its connections.
#[derive(Debug)]
pub struct App {
    pub instance: String,
    pub version: String,
    pub metadata: String,
    pub sessions: Sessions,
    /// Connections accepted since the start.
    pub connections: AtomicU64,
    /// Requests answered or in progress since the start.
    pub requests: AtomicU64,
    /// WebSockets and line connections open now: what a graceful end waits for besides requests.
    tunnels: AtomicU64,
    /// How often each `X-Idempotency` id was executed: more than once is a request that somebody repeated.
    executions: Mutex<HashMap<String, u64>>,
    /// Where executions are told to whoever counts those of all instances.
    journal: Option<File>,
    /// Where SIGTERM is told to whoever watches the ends of all instances.
    endings: Option<File>,
    /// What /health says.
    pub well: AtomicBool,
    started: Instant,
}

impl App {
    /// An instance named by `args`, or else by the host.
    pub fn new(args: &Args) -> anyhow::Result<Self> {
        let instance = match &args.instance {
            Some(name) => name.clone(),
            None => std::fs::read_to_string("/proc/sys/kernel/hostname")
                .context("cannot read the host name, give --instance")?
                .trim()
                .to_owned(),
        };
        let append = |path| OpenOptions::new().create(true).append(true).open(path);
        let journal = args.executions.as_ref().map(append).transpose();
        let endings = args.endings.as_ref().map(append).transpose();
        Ok(Self {
            instance,
            version: args.version.clone(),
            metadata: args.metadata.clone(),
            sessions: Sessions::default(),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            tunnels: AtomicU64::new(0),
            executions: Mutex::default(),
            journal: journal.context("the file of executions cannot be written")?,
            endings: endings.context("the file of endings cannot be written")?,
            well: AtomicBool::new(true),
            started: Instant::now(),
        })
    }

    /// Counts one execution of the request `id` and returns how many there were, this one included.
    pub fn executed(&self, id: &str) -> u64 {
        let mut executions =
            self.executions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(mut journal) = self.journal.as_ref() {
            // One write, so that lines of several instances do not mix. A full disk shows as a count that is too low.
            let _ = journal.write_all(format!("{id} {}\n", self.instance).as_bytes());
        }
        let count = executions.entry(id.to_owned()).or_default();
        *count += 1;
        *count
    }

    /// Notes that SIGTERM has come.
    pub fn told_to_end(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        if let Some(mut endings) = self.endings.as_ref() {
            // One write, as above; a full disk shows as an end that nobody was told of.
            let _ = endings.write_all(format!("{} {now}\n", self.instance).as_bytes());
        }
    }

    /// Counts a tunnel as open until the guard is dropped.
    pub fn tunnel(self: &Arc<Self>) -> Tunnel {
        self.tunnels.fetch_add(1, Ordering::Relaxed);
        Tunnel(self.clone())
    }

    /// Tunnels open now.
    pub fn tunnels(&self) -> u64 {
        self.tunnels.load(Ordering::Relaxed)
    }

    /// The counters of `/stats`.
    pub fn stats(&self) -> Value {
        let executions =
            self.executions.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        json!({
            "instance": self.instance,
            "uptime_ms": u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            "connections": self.connections.load(Ordering::Relaxed),
            "requests": self.requests.load(Ordering::Relaxed),
            "sessions": self.sessions.created(),
            "tunnels": self.tunnels(),
            "executions": executions,
        })
    }
}

/// An open WebSocket or line connection.
#[derive(Debug)]
pub struct Tunnel(Arc<App>);

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.0.tunnels.fetch_sub(1, Ordering::Relaxed);
    }
}

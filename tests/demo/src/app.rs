//! What one instance knows and counts.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

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
        Ok(Self {
            instance,
            version: args.version.clone(),
            metadata: args.metadata.clone(),
            sessions: Sessions::default(),
            connections: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            tunnels: AtomicU64::new(0),
            executions: Mutex::default(),
            started: Instant::now(),
        })
    }

    /// Counts one execution of the request `id` and returns how many there were, this one included.
    pub fn executed(&self, id: &str) -> u64 {
        let mut executions =
            self.executions.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let count = executions.entry(id.to_owned()).or_default();
        *count += 1;
        *count
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

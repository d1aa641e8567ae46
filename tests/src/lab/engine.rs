//! What runs the demo's backends.

use super::report::Report;

/// The name of the demo's service.
pub(super) const SERVICE: &str = "demo";

/// The label that makes the difference between the two walk-throughs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Affinity {
    /// `com.docker.lb.sticky_session_cookie=session`
    Cookie,
    /// `com.docker.lb.ip_hash=true`, and published ports
    IpHash,
}

impl Affinity {
    /// The labels of the service.
    pub(super) fn labels(self) -> [(&'static str, &'static str); 3] {
        let affinity = match self {
            Self::Cookie => ("com.docker.lb.sticky_session_cookie", "session"),
            Self::IpHash => ("com.docker.lb.ip_hash", "true"),
        };
        [("com.docker.lb.hosts", "demo.local"), affinity, ("com.docker.lb.port", "8080")]
    }
}

/// A private Swarm, or something that does without.
pub(super) trait Engine {
    /// What `sticky run` needs to find it.
    fn arguments(&self) -> Vec<String>;
    /// Makes the service with five replicas, replacing one that is there, and waits until they run.
    fn deploy(&mut self, report: &Report, affinity: Affinity) -> anyhow::Result<()>;
    /// Sets the number of replicas and waits until as many run.
    fn scale(&mut self, report: &Report, replicas: usize) -> anyhow::Result<()>;
    /// The names of the instances that run.
    fn instances(&self) -> anyhow::Result<Vec<String>>;
    /// Commands for the user's own trials: each with what it does.
    fn hints(&self) -> Vec<(String, String)>;
}

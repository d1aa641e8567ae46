//! Active checks (contract, `sticky.health.*`): a backend whose task runs is up once it answers, and down when it
//! stops to. Takes what a provider found and hands on the same with the states that checks give.

mod check;
mod journal;
mod judge;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::sleep;
use tracing::debug;

use crate::model::{Backend, DrainMode, Snapshot, State};
use crate::provider::Found;
use check::Checker;
use journal::Journal;
use judge::Verdict;
use plan::Plan;

/// Checks that run at the same time, which bounds the descriptors they take.
const AT_ONCE: usize = 256;
/// Backends often change together: what comes within this time is handed on as one change.
const COALESCE: Duration = Duration::from_millis(5);

/// Service and backend id.
type Key = (String, String);

/// A verdict on a backend, from the checker with this number.
struct Report {
    key: Key,
    checker: u64,
    verdict: Verdict,
    /// An IPv6 address beside one of IPv4, and whether it answers.
    v6: Option<(IpAddr, bool)>,
}

/// The checks of one backend.
struct Entry {
    checker: u64,
    plan: Plan,
    verdict: Verdict,
    task: AbortHandle,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Checks the backends of every service.
pub struct Monitor {
    found: watch::Receiver<Arc<Found>>,
    effective: watch::Sender<Arc<Found>>,
    entries: HashMap<Key, Entry>,
    /// The IPv6 addresses beside one of IPv4 that were asked, and whether they answer: once and for all.
    v6: HashMap<Key, (IpAddr, bool)>,
    checkers: u64,
    reports: (mpsc::Sender<Report>, mpsc::Receiver<Report>),
    limit: Arc<Semaphore>,
    journal: Journal,
}

impl Monitor {
    /// A monitor of what a provider finds, and where it hands on. It starts with what an earlier run handed on: those
    /// states are taken as they are until checks say otherwise.
    #[must_use]
    pub fn new(
        mut found: watch::Receiver<Arc<Found>>,
        saved: Arc<Snapshot>,
    ) -> (Self, watch::Receiver<Arc<Found>>) {
        let initial = Found::clone(&found.borrow_and_update());
        let (effective, receiver) = watch::channel(Arc::new(Found { snapshot: saved, ..initial }));
        let monitor = Self {
            found,
            effective,
            entries: HashMap::new(),
            v6: HashMap::new(),
            checkers: 0,
            reports: mpsc::channel(1024),
            limit: Arc::new(Semaphore::new(AT_ONCE)),
            journal: Journal::default(),
        };
        (monitor, receiver)
    }

    /// Checks until the provider ends.
    pub async fn run(mut self) {
        let mut latest = Arc::clone(&self.found.borrow());
        let saved = Arc::clone(&self.effective.borrow().snapshot);
        self.v6 = answering(&saved);
        self.follow(&latest.snapshot, &verdicts(&saved));
        loop {
            tokio::select! {
                changed = self.found.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    latest = Arc::clone(&self.found.borrow_and_update());
                    self.follow(&latest.snapshot, &HashMap::new());
                    self.hand_on(&latest, latest.event_at);
                }
                Some(report) = self.reports.1.recv() => {
                    let seen_at = Instant::now();
                    let mut flipped = self.take(report);
                    sleep(COALESCE).await;
                    while let Ok(report) = self.reports.1.try_recv() {
                        flipped |= self.take(report);
                    }
                    if flipped {
                        self.hand_on(&latest, seen_at);
                    }
                }
            }
        }
    }

    /// Starts checks of new backends and ends those of old ones.
    fn follow(&mut self, snapshot: &Snapshot, known: &HashMap<Key, Verdict>) {
        let mut old = std::mem::take(&mut self.entries);
        for service in &snapshot.services {
            for backend in &service.backends {
                let key = (service.id.clone(), backend.id.clone());
                let Some(plan) = Plan::of(service, backend) else { continue };
                let entry = match old.remove(&key) {
                    Some(entry) if entry.plan == plan => entry,
                    // Other settings change how it is asked, not what is known of it.
                    Some(entry) => self.start(key.clone(), plan, entry.verdict.clone()),
                    None => {
                        let verdict = known.get(&key).cloned().unwrap_or_else(Verdict::starting);
                        self.start(key.clone(), plan, verdict)
                    }
                };
                self.entries.insert(key, entry);
            }
        }
        let there: HashSet<Key> = backends(snapshot).map(|(key, _)| key).collect();
        self.v6.retain(|key, _| there.contains(key));
    }

    fn start(&mut self, key: Key, plan: Plan, verdict: Verdict) -> Entry {
        self.checkers += 1;
        let v6 = plan.v6.addr();
        let ask_v6 = v6.is_some() && self.v6.get(&key).map(|(addr, _)| *addr) != v6;
        let checker = Checker {
            key,
            number: self.checkers,
            plan: plan.clone(),
            ask_v6,
            reports: self.reports.0.clone(),
            limit: Arc::clone(&self.limit),
        };
        let task = tokio::spawn(checker.run(verdict.clone())).abort_handle();
        Entry { checker: self.checkers, plan, verdict, task }
    }

    /// Whether a report changes anything.
    fn take(&mut self, report: Report) -> bool {
        let Report { key, checker, verdict, v6 } = report;
        let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.checker == checker)
        else {
            return false;
        };
        let changed = entry.verdict != verdict || v6.is_some();
        entry.verdict = verdict;
        if let Some((addr, answers)) = v6 {
            debug!(service = key.0, backend = key.1, %addr, answers, "asked at its second address");
            self.v6.insert(key, (addr, answers));
        }
        changed
    }

    /// Hands on what was found, with the states that the checks give.
    fn hand_on(&mut self, found: &Found, event_at: Instant) {
        let mut snapshot = Snapshot::clone(&found.snapshot);
        for service in &mut snapshot.services {
            for backend in &mut service.backends {
                let key = (service.id.clone(), backend.id.clone());
                if let Some(entry) = self.entries.get(&key) {
                    apply(backend, &entry.verdict);
                }
                let v6 = backend.addr_v6.map(|addr| (IpAddr::V6(addr), true));
                backend.addr_v6 = backend.addr_v6.filter(|_| self.v6.get(&key).copied() == v6);
            }
        }
        self.journal.write(&snapshot);
        let last = Arc::clone(&self.effective.borrow());
        if *last.snapshot == snapshot && last.status == found.status {
            return;
        }
        let snapshot = if *last.snapshot == snapshot {
            Arc::clone(&last.snapshot)
        } else {
            Arc::new(snapshot)
        };
        self.effective.send_replace(Arc::new(Found {
            snapshot,
            event_at,
            status: found.status.clone(),
        }));
    }
}

/// What an earlier run knew of each backend.
fn verdicts(saved: &Snapshot) -> HashMap<Key, Verdict> {
    backends(saved).map(|(key, backend)| (key, Verdict::known(backend))).collect()
}

/// The second addresses that answered an earlier run.
fn answering(saved: &Snapshot) -> HashMap<Key, (IpAddr, bool)> {
    let asked = backends(saved).filter(|(_, backend)| backend.state != State::Starting);
    asked.filter_map(|(key, backend)| Some((key, (backend.addr_v6?.into(), true)))).collect()
}

fn backends(snapshot: &Snapshot) -> impl Iterator<Item = (Key, &Backend)> {
    snapshot.services.iter().flat_map(|service| {
        service.backends.iter().map(|backend| ((service.id.clone(), backend.id.clone()), backend))
    })
}

/// Checks decide between a running task's states; what Swarm or the operator ordered stands above them, but for a backend
/// that is to keep its clients and does not answer them.
fn apply(backend: &mut Backend, verdict: &Verdict) {
    let lost = verdict.state == State::Down;
    // Whoever keeps its sessions must answer them.
    if backend.state == State::Up || (lost && backend.state == State::Draining(DrainMode::Sessions))
    {
        backend.state = verdict.state;
        backend.reason.clone_from(&verdict.reason);
    }
}

//! Active checks (contract, `sticky.health.*`): a backend whose task runs is up once it answers, and down when it
//! stops to. Takes what a provider found and hands on the same with the states that checks give.

mod check;
mod connect;
mod journal;
mod judge;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout_at};
use tracing::debug;

use crate::model::{Backend, DrainMode, Service, Snapshot, State};
use crate::provider::Found;
use check::Checker;
use journal::Journal;
use judge::Verdict;
use plan::Plan;

/// Checks that run at the same time, which bounds the descriptors they take.
const AT_ONCE: usize = 256;
/// Backends often change together: what comes within this time is handed on as one change.
const COALESCE: Duration = Duration::from_millis(5);
/// A new backend that answers within this time is up in the change that tells of it.
const FIRST_ANSWER: Duration = Duration::from_millis(20);

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

/// A service whose backends are checked.
struct Watched {
    /// As it was found.
    source: Arc<Service>,
    /// With the states that the checks give.
    effective: Arc<Service>,
    /// By backend id, as all below.
    entries: HashMap<String, Entry>,
    /// The IPv6 addresses beside one of IPv4 that were asked, and whether they answer: once and for all.
    v6: HashMap<String, (IpAddr, bool)>,
    journal: Journal,
    /// `effective` is to be made anew.
    stale: bool,
}

/// Checks the backends of every service.
pub struct Monitor {
    found: watch::Receiver<Arc<Found>>,
    effective: watch::Sender<Arc<Found>>,
    /// In the order of what was found last.
    services: Vec<Watched>,
    /// Their places, by id.
    places: HashMap<String, usize>,
    checkers: Checkers,
    reports: mpsc::Receiver<Report>,
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
        let (sender, reports) = mpsc::channel(1024);
        let checkers = Checkers {
            last: 0,
            unknown: 0,
            reports: sender,
            limit: Arc::new(Semaphore::new(AT_ONCE)),
        };
        let (services, places) = (Vec::new(), HashMap::new());
        let monitor = Self { found, effective, services, places, checkers, reports };
        (monitor, receiver)
    }

    /// Checks until the provider ends.
    pub async fn run(mut self) {
        let mut latest = Arc::clone(&self.found.borrow());
        let saved = Arc::clone(&self.effective.borrow().snapshot);
        self.follow(&latest.snapshot, &Known::of(&saved));
        loop {
            tokio::select! {
                changed = self.found.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    latest = Arc::clone(&self.found.borrow_and_update());
                    let new = self.follow(&latest.snapshot, &Known::default());
                    self.first_answers(new).await;
                    self.hand_on(&latest, latest.event_at);
                }
                Some(report) = self.reports.recv() => {
                    let seen_at = Instant::now();
                    let mut flipped = self.take(report);
                    sleep(COALESCE).await;
                    while let Ok(report) = self.reports.try_recv() {
                        flipped |= self.take(report);
                    }
                    if flipped {
                        self.hand_on(&latest, seen_at);
                    }
                }
            }
        }
    }

    /// Starts checks of new backends and ends those of old ones. Returns how many nothing is known of.
    fn follow(&mut self, snapshot: &Snapshot, known: &Known) -> usize {
        let unknown = self.checkers.unknown;
        let services = &snapshot.services;
        // Most changes are of services that are there.
        let same = |(watched, service): (&Watched, &Arc<Service>)| watched.is_of(service);
        if self.services.len() != services.len() || !self.services.iter().zip(services).all(same) {
            self.sort(services, known);
        }
        for (watched, service) in self.services.iter_mut().zip(services) {
            watched.follow(service, known, &mut self.checkers);
        }
        self.checkers.unknown - unknown
    }

    /// Puts the services in this order, with what is new, and ends what is gone.
    fn sort(&mut self, services: &[Arc<Service>], known: &Known) {
        let all = std::mem::take(&mut self.services).into_iter();
        let mut before: HashMap<String, Watched> =
            all.map(|watched| (watched.source.id.clone(), watched)).collect();
        for service in services {
            let watched = before
                .remove(&service.id)
                .unwrap_or_else(|| Watched::new(service, known, &mut self.checkers));
            self.services.push(watched);
        }
        before.into_values().for_each(|gone| gone.journal.end());
        let ids = services.iter().map(|service| service.id.clone());
        self.places = ids.zip(0..).collect();
    }

    /// Takes in reports while some of so many `new` backends may be about to answer for the first time.
    async fn first_answers(&mut self, new: usize) {
        let end = tokio::time::Instant::now() + FIRST_ANSWER;
        for _ in 0..new {
            let Ok(Some(report)) = timeout_at(end, self.reports.recv()).await else { return };
            self.take(report);
        }
    }

    /// Whether a report changes anything.
    fn take(&mut self, report: Report) -> bool {
        let Report { key: (service, backend), checker, verdict, v6 } = report;
        let place = self.places.get(&service);
        let Some(watched) = place.and_then(|at| self.services.get_mut(*at)) else { return false };
        let entry = watched.entries.get_mut(&backend).filter(|entry| entry.checker == checker);
        let Some(entry) = entry else { return false };
        let changed = entry.verdict != verdict || v6.is_some();
        entry.verdict = verdict;
        if let Some((addr, answers)) = v6 {
            debug!(service, backend, %addr, answers, "asked at its second address");
            watched.v6.insert(backend, (addr, answers));
        }
        watched.stale |= changed;
        changed
    }

    /// Hands on what was found, with the states that the checks give.
    fn hand_on(&mut self, found: &Found, event_at: Instant) {
        let services = self.services.iter_mut().map(Watched::now).collect();
        let snapshot = Snapshot { services };
        let last = Arc::clone(&self.effective.borrow());
        let same = *last.snapshot == snapshot;
        if same && last.status == found.status {
            return;
        }
        let snapshot = if same { Arc::clone(&last.snapshot) } else { Arc::new(snapshot) };
        self.effective.send_replace(Arc::new(Found {
            snapshot,
            event_at,
            status: found.status.clone(),
        }));
    }
}

impl Watched {
    fn new(service: &Arc<Service>, known: &Known, checkers: &mut Checkers) -> Self {
        let mut watched = Self {
            source: Arc::clone(service),
            effective: Arc::clone(service),
            entries: HashMap::new(),
            v6: HashMap::new(),
            journal: Journal::default(),
            stale: true,
        };
        watched.check(known, checkers);
        watched
    }

    fn is_of(&self, service: &Arc<Service>) -> bool {
        Arc::ptr_eq(&self.source, service) || self.source.id == service.id
    }

    /// Takes the service as it is now.
    fn follow(&mut self, service: &Arc<Service>, known: &Known, checkers: &mut Checkers) {
        if !Arc::ptr_eq(&self.source, service) {
            self.source = Arc::clone(service);
            self.stale = true;
            self.check(known, checkers);
        }
    }

    /// Starts checks of its new backends and ends those of old ones.
    fn check(&mut self, known: &Known, checkers: &mut Checkers) {
        let service = &*self.source;
        let mut old = std::mem::take(&mut self.entries);
        let mut old_v6 = std::mem::take(&mut self.v6);
        for backend in &service.backends {
            let key = (service.id.clone(), backend.id.clone());
            if let Some(asked) = old_v6.remove(&backend.id).or_else(|| known.v6.get(&key).copied())
            {
                self.v6.insert(backend.id.clone(), asked);
            }
            let Some(plan) = Plan::of(service, backend) else { continue };
            let ask_v6 = plan.v6.addr().is_some()
                && self.v6.get(&backend.id).map(|(addr, _)| *addr) != plan.v6.addr();
            let entry = match old.remove(&backend.id) {
                Some(entry) if entry.plan == plan => entry,
                // Other settings change how it is asked, not what is known of it.
                Some(entry) => checkers.start(key, plan, ask_v6, entry.verdict.clone()),
                None => {
                    let verdict = known.verdicts.get(&key).cloned();
                    checkers.unknown += usize::from(verdict.is_none());
                    let verdict = verdict.unwrap_or_else(Verdict::starting);
                    checkers.start(key, plan, ask_v6, verdict)
                }
            };
            self.entries.insert(backend.id.clone(), entry);
        }
    }

    /// The service with the states that the checks give; the same as before if these are.
    fn now(&mut self) -> Arc<Service> {
        if std::mem::take(&mut self.stale) {
            let mut service = Service::clone(&self.source);
            for backend in &mut service.backends {
                if let Some(entry) = self.entries.get(&backend.id) {
                    apply(backend, &entry.verdict);
                }
                let v6 = backend.addr_v6.map(|addr| (IpAddr::V6(addr), true));
                backend.addr_v6 =
                    backend.addr_v6.filter(|_| self.v6.get(&backend.id).copied() == v6);
            }
            self.journal.write(&service);
            if service != *self.effective {
                self.effective = Arc::new(service);
            }
        }
        Arc::clone(&self.effective)
    }
}

/// Starts the checks, each with a number of its own.
struct Checkers {
    last: u64,
    /// How many were started for backends that nothing was known of.
    unknown: usize,
    reports: mpsc::Sender<Report>,
    limit: Arc<Semaphore>,
}

impl Checkers {
    fn start(&mut self, key: Key, plan: Plan, ask_v6: bool, verdict: Verdict) -> Entry {
        self.last += 1;
        let checker = Checker {
            key,
            number: self.last,
            plan: plan.clone(),
            ask_v6,
            reports: self.reports.clone(),
            limit: Arc::clone(&self.limit),
        };
        let task = tokio::spawn(checker.run(verdict.clone())).abort_handle();
        Entry { checker: self.last, plan, verdict, task }
    }
}

/// What an earlier run knew.
#[derive(Default)]
struct Known {
    verdicts: HashMap<Key, Verdict>,
    /// The second addresses that answered.
    v6: HashMap<Key, (IpAddr, bool)>,
}

impl Known {
    fn of(saved: &Snapshot) -> Self {
        let asked = backends(saved).filter(|(_, backend)| backend.state != State::Starting);
        Self {
            verdicts: backends(saved).map(|(key, b)| (key, Verdict::known(b))).collect(),
            v6: asked.filter_map(|(key, b)| Some((key, (b.addr_v6?.into(), true)))).collect(),
        }
    }
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

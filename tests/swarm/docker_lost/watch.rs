//! What is true while Docker cannot be asked, and what it says when it can.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sticky_tests::dockerd::Dockerd;

/// Backends in service: their ids, and their containers.
pub type Serving = BTreeMap<String, String>;

/// How the kernel says when the containers end.
#[derive(Debug, Default)]
pub struct Deaths(Mutex<BTreeMap<String, Option<Instant>>>);

impl Deaths {
    /// Looks at these containers too from now on.
    pub fn expect(&self, containers: impl Iterator<Item = String>) {
        let mut all = self.all();
        containers.for_each(|container| {
            all.entry(container).or_default();
        });
    }

    pub fn watch(&self, daemon: &Dockerd, stop: &AtomicBool) {
        while !stop.load(Ordering::Relaxed) {
            for (container, death) in self.all().iter_mut().filter(|(_, death)| death.is_none()) {
                *death = (!daemon.lives(container)).then(Instant::now);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// When a container, or the instance in it, was first seen to be dead.
    pub fn of(&self, instance: &str) -> Option<Instant> {
        let all = self.all();
        all.iter().find(|(container, _)| container.starts_with(instance)).and_then(|(_, at)| *at)
    }

    /// The times of those since then, in order.
    pub fn since(&self, from: Instant) -> Vec<Instant> {
        let mut times: Vec<_> =
            self.all().values().flatten().copied().filter(|at| *at >= from).collect();
        times.sort();
        times
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<String, Option<Instant>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What Docker says after its return.
#[derive(Debug, Default)]
pub struct Said {
    /// When it answered for the first time.
    pub back: Option<Instant>,
    /// When it first called each backend in service.
    pub called: BTreeMap<String, Instant>,
    /// When each of them first answered here too, and its container. Docker calls a task running before it can be
    /// reached, now and then by seconds: nobody can know it as up before.
    pub began: BTreeMap<String, (Instant, String)>,
    /// What it called so last.
    pub serving: Serving,
}

impl Said {
    /// Takes in what is in service now; which of that has not answered yet.
    fn hear(&mut self, serving: Serving) -> Serving {
        let now = Instant::now();
        for id in serving.keys() {
            self.called.entry(id.clone()).or_insert(now);
        }
        self.serving = serving;
        let new = self.serving.iter().filter(|(id, _)| !self.began.contains_key(*id));
        new.map(|(id, container)| (id.clone(), container.clone())).collect()
    }

    /// How long after Docker called it running one of them answered, at the longest.
    pub fn unreachable(&self) -> Duration {
        let late = |(id, (began, _)): (&String, &(Instant, String))| {
            self.called.get(id).map(|called| *began - *called)
        };
        self.began.iter().filter_map(late).max().unwrap_or_default()
    }
}

/// Asks again and again until `stop`. `answering`: those of some containers that answer at their addresses.
pub fn listen(
    daemon: &Dockerd,
    truth: &(dyn Fn() -> anyhow::Result<Serving> + Sync),
    answering: &(dyn Fn(&Serving) -> anyhow::Result<Vec<String>> + Sync),
    said: &Mutex<Said>,
    stop: &AtomicBool,
) {
    let lock = || said.lock().unwrap_or_else(PoisonError::into_inner);
    while !stop.load(Ordering::Relaxed) {
        // While it is away, and while it has only begun, there is no answer.
        if daemon.api("/version").is_ok() {
            lock().back.get_or_insert_with(Instant::now);
            if let Ok(serving) = truth() {
                let new = lock().hear(serving);
                let now = Instant::now();
                let answering = if new.is_empty() { Ok(Vec::new()) } else { answering(&new) };
                for (id, container) in new {
                    if answering.as_ref().is_ok_and(|answering| answering.contains(&container)) {
                        lock().began.insert(id, (now, container));
                    }
                }
            }
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

//! Observers that run beside a test: when tasks changed, and what happened to connections meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sticky_tests::demo::HTTP_PORT;
use sticky_tests::lines::LineConnection;
use sticky_tests::load;
use sticky_tests::netns::Netns;
use sticky_tests::swarm::{Swarm, Task};
use sticky_tests::topology::vip;

/// Ends those who watch when it is dropped: at the end, or where an assertion fails while they run.
pub struct Stop<'a>(pub &'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// When each instance was first and last seen to be in service, by its name.
#[derive(Debug)]
pub struct Tasks {
    pub began: BTreeMap<String, Instant>,
    pub ended: BTreeMap<String, Instant>,
}

impl Tasks {
    /// What is known before anything changes: these tasks are in service now.
    pub fn start(tasks: &[Task]) -> Self {
        let now = Instant::now();
        let began = tasks.iter().map(|task| (task.instance().to_owned(), now)).collect();
        Self { began, ended: BTreeMap::new() }
    }

    /// Asks the manager again and again until `stop`.
    pub fn watch(self, swarm: &Swarm, service: &str, stop: &AtomicBool) -> anyhow::Result<Self> {
        let mut seen = self;
        while !stop.load(Ordering::Relaxed) {
            let serving = swarm.serving(service)?;
            let now = Instant::now();
            let serving: BTreeSet<_> =
                serving.iter().map(|task| task.instance().to_owned()).collect();
            for instance in &serving {
                seen.began.entry(instance.clone()).or_insert(now);
            }
            for instance in seen.began.keys().filter(|instance| !serving.contains(*instance)) {
                seen.ended.entry(instance.clone()).or_insert(now);
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        Ok(seen)
    }

    /// Whether an instance was in service at `at`, as far as was known then.
    pub fn served(&self, instance: &str, at: Instant) -> bool {
        // What sticky does within the pause of our own asking is no surprise.
        self.ended.get(instance).is_none_or(|ended| at + Duration::from_millis(150) < *ended)
    }

    /// The times in `from..to` at which instances came and went.
    pub fn changes(&self, from: Instant, to: Instant) -> (Vec<Instant>, Vec<Instant>) {
        let within = |times: &BTreeMap<String, Instant>| {
            let mut times: Vec<_> =
                times.values().copied().filter(|at| (from..to).contains(at)).collect();
            times.sort();
            times
        };
        (within(&self.began), within(&self.ended))
    }
}

/// A client that came to another instance than before.
#[derive(Debug)]
pub struct Move {
    pub at: Instant,
    pub client: u32,
    pub from: String,
    pub to: String,
}

/// What became of clients that come and go.
#[derive(Debug, Default)]
pub struct Visits {
    pub count: usize,
    pub moves: Vec<Move>,
    pub failures: Vec<(Instant, String)>,
}

impl Visits {
    /// The clients of `known` come by again and again, ten at a time, until `stop`.
    pub fn watch(netns: &Netns, mut known: BTreeMap<u32, load::Visit>, stop: &AtomicBool) -> Self {
        let mut seen = Self::default();
        let clients: Vec<u32> = known.keys().copied().collect();
        for some in clients.chunks(10).cycle() {
            if stop.load(Ordering::Relaxed) {
                break;
            }
            let visits = match load::visit(netns, some.iter().copied(), vip(HTTP_PORT)) {
                Ok(visits) => visits,
                Err(error) => {
                    seen.failures.push((Instant::now(), format!("{error:#}")));
                    continue;
                }
            };
            let at = Instant::now();
            for (client, visit) in visits {
                seen.count += 1;
                if known[&client].instance != visit.instance {
                    let (from, to) = (known[&client].instance.clone(), visit.instance.clone());
                    seen.moves.push(Move { at, client, from, to });
                    known.insert(client, visit);
                }
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        seen
    }
}

/// A connection that broke.
#[derive(Debug)]
pub struct Break {
    pub at: Instant,
    pub instance: String,
    pub error: String,
}

/// Talks on each connection until it breaks or `stop`.
pub fn talk(mut open: Vec<LineConnection>, stop: &AtomicBool) -> (Vec<LineConnection>, Vec<Break>) {
    let mut breaks = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let mut still = Vec::new();
        for mut connection in open {
            match connection.ask("still there?") {
                Ok(()) => still.push(connection),
                Err(error) => {
                    let (at, instance, error) =
                        (Instant::now(), connection.instance, format!("{error:#}"));
                    breaks.push(Break { at, instance, error });
                }
            }
        }
        open = still;
        std::thread::sleep(Duration::from_millis(50));
    }
    (open, breaks)
}

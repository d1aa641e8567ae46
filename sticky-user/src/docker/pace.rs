//! When to look again.

use std::time::{Duration, Instant};

/// Events that come together are answered by one look.
const COALESCE: Duration = Duration::from_millis(15);
/// Looks are at least this far apart, however many events come.
const APART: Duration = Duration::from_millis(50);
/// The whole cluster is listed at least this often.
const WHOLE: Duration = Duration::from_secs(60);
/// How often a cluster is looked at where nothing changes; a large one less often, in proportion to what a look costs both
/// sides, but as often as it is listed.
const QUIET: Duration = Duration::from_secs(12);
const QUIET_PER_TASK: Duration = Duration::from_millis(6);

/// How much a look asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Some services and their tasks.
    Some,
    /// The tasks of all.
    Tasks,
    Whole,
}

/// What is to be looked at, and since when.
#[derive(Debug)]
pub(crate) struct Pace {
    last_look: Instant,
    /// At all tasks.
    last_list: Instant,
    last_whole: Instant,
    /// The last event, or change that a look found.
    last_change: Instant,
    quiet: Duration,
    /// The first event that no look has answered yet.
    pub(crate) event_at: Option<Instant>,
}

impl Pace {
    /// Just after a first look at everything.
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            last_look: now,
            last_list: now,
            last_whole: now,
            last_change: now,
            quiet: QUIET,
            event_at: None,
        }
    }

    pub(crate) fn event(&mut self, now: Instant) {
        self.event_at.get_or_insert(now);
        self.last_change = now;
    }

    /// The cluster has so many tasks.
    pub(crate) fn sized(&mut self, tasks: usize) {
        let tasks = u32::try_from(tasks).unwrap_or(u32::MAX);
        self.quiet = QUIET_PER_TASK.saturating_mul(tasks).clamp(QUIET, WHOLE);
    }

    pub(crate) fn looked(&mut self, now: Instant, extent: Extent, changed: bool) {
        self.last_look = now;
        self.event_at = None;
        if extent != Extent::Some {
            self.last_list = now;
        }
        if extent == Extent::Whole {
            self.last_whole = now;
        }
        if changed {
            self.last_change = now;
        }
    }

    /// When to look again: soon after an event, else when something is `due`, rarely when all is quiet.
    pub(crate) fn next_look(&self, due: Option<Instant>) -> Instant {
        if let Some(event_at) = self.event_at {
            return (event_at + COALESCE).max(self.last_look + APART);
        }
        let quiet = self.last_list + self.quiet;
        due.map_or(quiet, |due| due.min(quiet)).max(self.last_look + APART)
    }

    /// When a look is due where each is at everything; `None`: nothing happens.
    pub(crate) fn due(&self, unsettled: bool) -> Option<Instant> {
        let since_change = self.last_look.saturating_duration_since(self.last_change);
        Some(self.last_look + pause(since_change, unsettled)?)
    }

    /// Whether the next look is to be at everything.
    pub(crate) fn whole(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_whole) >= WHOLE
    }
}

/// How long to wait before asking again about what changed last so long ago: less and less, since the tasks of a change come
/// soon after its event, and what goes on for long goes on. `None`: no more, until something happens.
pub(crate) fn pause(since_change: Duration, unsettled: bool) -> Option<Duration> {
    let millis = match (since_change.as_millis(), unsettled) {
        (0..300, _) | (0..1_000, true) => 100,
        (0..10_000, true) => 250,
        (0..3_000, false) | (0..30_000, true) => 500,
        (_, false) => return None,
        (0..120_000, true) => 1_000,
        (_, true) => 5_000,
    };
    Some(Duration::from_millis(millis))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn looks_follow_events_at_once_and_slow_down_after_them() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::new(start);
        pace.event(at(10_000));
        pace.event(at(10_005));
        assert_eq!(pace.next_look(None), at(10_015));
        pace.looked(at(10_015), Extent::Whole, true);
        assert_eq!(pace.next_look(pace.due(false)), at(10_115));
        pace.event(at(10_020));
        assert_eq!(pace.next_look(None), at(10_065));
        pace.looked(at(10_065), Extent::Some, false);
        pace.looked(at(11_500), Extent::Some, false);
        assert_eq!(pace.next_look(pace.due(false)), at(12_000));
        assert_eq!(pace.next_look(pace.due(true)), at(11_750));
        assert_eq!(pace.next_look(Some(at(11_505))), at(11_550), "not at once again");
        pace.looked(at(14_000), Extent::Some, false);
        assert_eq!(pace.next_look(pace.due(false)), at(22_015), "since all were listed");
        assert_eq!(pace.next_look(pace.due(true)), at(14_250));
        pace.looked(at(50_000), Extent::Tasks, false);
        assert_eq!(pace.next_look(pace.due(true)), at(51_000));
        assert!(!pace.whole(at(70_014)) && pace.whole(at(70_015)));
    }

    #[test]
    fn a_large_quiet_cluster_is_looked_at_less_often() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let seconds = |pace: &Pace| pace.next_look(None).duration_since(start).as_secs();
        for (tasks, quiet) in [(0, 12), (2_000, 12), (5_000, 30), (10_000, 60), (1_000_000, 60)] {
            pace.sized(tasks);
            assert_eq!(seconds(&pace), quiet);
        }
    }
}

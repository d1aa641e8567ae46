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

/// What is to be looked at, and since when.
#[derive(Debug)]
pub(crate) struct Pace {
    last_look: Instant,
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
        Self { last_look: now, last_whole: now, last_change: now, quiet: QUIET, event_at: None }
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

    pub(crate) fn looked(&mut self, now: Instant, whole: bool, changed: bool) {
        self.last_look = now;
        self.event_at = None;
        if whole {
            self.last_whole = now;
        }
        if changed {
            self.last_change = now;
        }
    }

    /// When to look again: soon after an event, fast while something is changing (what goes on for long is asked for less
    /// and less), rarely when all is quiet.
    pub(crate) fn next_look(&self, unsettled: bool) -> Instant {
        if let Some(event_at) = self.event_at {
            return (event_at + COALESCE).max(self.last_look + APART);
        }
        let since_change = self.last_look.saturating_duration_since(self.last_change);
        let pause = match since_change.as_millis() {
            // The tasks of a change come some time after its event.
            0..1_000 => Duration::from_millis(100),
            1_000..3_000 => Duration::from_millis(250),
            _ if !unsettled => self.quiet,
            3_000..30_000 => Duration::from_millis(250),
            30_000..120_000 => Duration::from_secs(1),
            _ => Duration::from_secs(5),
        };
        self.last_look + pause
    }

    /// Whether the next look is to be at everything.
    pub(crate) fn whole(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_whole) >= WHOLE
    }
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
        assert_eq!(pace.next_look(false), at(10_015));
        pace.looked(at(10_015), false, true);
        assert_eq!(pace.next_look(false), at(10_115));
        pace.event(at(10_020));
        assert_eq!(pace.next_look(false), at(10_065));
        pace.looked(at(10_065), false, false);
        pace.looked(at(11_500), false, false);
        assert_eq!(pace.next_look(false), at(11_750));
        pace.looked(at(14_000), false, false);
        assert_eq!(pace.next_look(false), at(26_000));
        assert_eq!(pace.next_look(true), at(14_250));
        pace.looked(at(50_000), false, false);
        assert_eq!(pace.next_look(true), at(51_000));
        assert!(!pace.whole(at(59_999)) && pace.whole(at(60_000)));
    }

    #[test]
    fn a_large_quiet_cluster_is_looked_at_less_often() {
        let start = Instant::now();
        let mut pace = Pace::new(start);
        let seconds = |pace: &Pace| pace.next_look(false).duration_since(start).as_secs();
        pace.last_look += Duration::from_secs(3);
        for (tasks, quiet) in [(0, 12), (2_000, 12), (5_000, 30), (10_000, 60), (1_000_000, 60)] {
            pace.sized(tasks);
            assert_eq!(seconds(&pace), 3 + quiet);
        }
    }
}

//! Which services to ask about, and when: those that something happens to, and those that are unsettled.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use crate::docker::pace;

/// Services whose time comes within this are asked about together.
const TOGETHER: Duration = Duration::from_millis(20);

#[derive(Debug, Default)]
pub(super) struct Watched(HashMap<String, Watch>);

#[derive(Debug)]
struct Watch {
    /// The last event that named it, or change that a look found.
    changed: Instant,
    next: Instant,
    /// An event named it since it was asked about.
    named: bool,
}

/// What to ask about now.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// Whose tasks may be others.
    pub(super) services: Vec<String>,
    /// Those of them that may be other themselves: an event tells of each such change.
    pub(super) named: Vec<String>,
}

impl Watched {
    /// An event names it.
    pub(super) fn named(&mut self, id: String, now: Instant) {
        self.0.insert(id, Watch { changed: now, next: now, named: true });
    }

    /// A look found it changed.
    pub(super) fn changed(&mut self, id: &str, now: Instant) {
        if let Some(pause) = pace::pause(Duration::ZERO, true) {
            self.0.insert(id.to_owned(), Watch { changed: now, next: now + pause, named: false });
        }
    }

    /// When to ask again.
    pub(super) fn next(&self) -> Option<Instant> {
        self.0.values().map(|watch| watch.next).min()
    }

    pub(super) fn due(&self, now: Instant) -> Due {
        let mut due = Due::default();
        for (id, watch) in self.0.iter().filter(|(_, watch)| watch.next <= now + TOGETHER) {
            due.services.push(id.clone());
            due.named.extend(watch.named.then(|| id.clone()));
        }
        due
    }

    /// A look at `asked`, `None`: at all, began then. What is neither unsettled nor new is left alone from now on.
    pub(super) fn asked(
        &mut self,
        asked: Option<&[String]>,
        unsettled: &HashSet<String>,
        now: Instant,
    ) {
        self.0.retain(|id, watch| {
            if asked.is_some_and(|asked| !asked.contains(id)) {
                return true;
            }
            let pause =
                pace::pause(now.saturating_duration_since(watch.changed), unsettled.contains(id));
            (watch.next, watch.named) = (now + pause.unwrap_or_default(), false);
            pause.is_some()
        });
        for id in unsettled {
            if !self.0.contains_key(id) {
                self.changed(id, now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_service_is_asked_about_at_its_own_pace() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let (slow, new) = ("slow".to_owned(), "new".to_owned());
        let unsettled = HashSet::from([slow.clone()]);
        let mut watched = Watched::default();
        watched.asked(None, &unsettled, at(0));
        assert_eq!(watched.next(), Some(at(100)), "an unsettled one is watched by itself");
        watched.asked(Some(std::slice::from_ref(&slow)), &unsettled, at(200_000));
        assert_eq!(watched.next(), Some(at(205_000)));

        watched.named(new.clone(), at(201_000));
        let due = watched.due(at(201_015));
        assert_eq!(due.services, std::slice::from_ref(&new), "the slow one is not asked with it");
        assert_eq!(due.named, due.services);
        let ask = |watched: &mut Watched, millis| {
            watched.asked(Some(std::slice::from_ref(&new)), &unsettled, at(millis));
            watched.next()
        };
        assert_eq!(ask(&mut watched, 201_015), Some(at(201_115)));
        assert!(
            watched.due(at(201_115)).named.is_empty(),
            "its tasks come later, without an event"
        );
        assert_eq!(ask(&mut watched, 201_500), Some(at(202_000)));
        assert_eq!(ask(&mut watched, 204_500), Some(at(205_000)), "it has settled");
        assert_eq!(watched.due(at(205_000)).services, [slow]);
    }
}

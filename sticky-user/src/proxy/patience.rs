//! How long one waits for the next piece of a body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Runs out when nothing has come for its time. Costs nothing until somebody has to wait, and little after that: the alarm
/// is not set for each piece, but looks then how long the last wait is.
pub(super) struct Patience {
    limit: Duration,
    /// Made at the first wait.
    alarm: Option<Pin<Box<Sleep>>>,
    /// When it runs out; `None`: nobody has waited since something came.
    due: Option<Instant>,
}

impl Patience {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, alarm: None, due: None }
    }

    /// The wait begins `now`, for who has looked at the clock already.
    pub(super) fn begins(&mut self, now: Instant) {
        self.due = Some(now + self.limit);
    }

    /// Something came.
    pub(super) const fn moved(&mut self) {
        self.due = None;
    }

    /// Nothing is there; ready when that is so for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let due = *self.due.get_or_insert_with(|| Instant::now() + self.limit);
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(due)));
        while alarm.as_mut().poll(cx).is_ready() {
            if due <= Instant::now() {
                return Poll::Ready(());
            }
            alarm.as_mut().reset(due);
        }
        Poll::Pending
    }
}

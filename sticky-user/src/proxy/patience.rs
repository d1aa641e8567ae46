//! How long one waits for the next piece of a body.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep};

/// Runs out when nothing has come for its time. Costs nothing until somebody has to wait.
pub(super) struct Patience {
    limit: Duration,
    /// Made at the first wait.
    alarm: Option<Pin<Box<Sleep>>>,
    /// Something came since the alarm was last set.
    moved: bool,
}

impl Patience {
    pub(super) const fn new(limit: Duration) -> Self {
        Self { limit, alarm: None, moved: false }
    }

    /// Something came.
    pub(super) const fn moved(&mut self) {
        self.moved = true;
    }

    /// Nothing is there; ready when that is so for too long.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.limit;
        let alarm = self.alarm.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        if self.moved {
            self.moved = false;
            alarm.as_mut().reset(Instant::now() + limit);
        }
        alarm.as_mut().poll(cx)
    }
}

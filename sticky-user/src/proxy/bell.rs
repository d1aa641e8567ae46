//! Rung by whatever a connection waits for. So a task that looks after several connections sees which of them it was woken
//! for, and does not wake itself by what it does to the others.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Wake};

use futures_util::task::AtomicWaker;
use tokio::sync::Notify;

use super::crowd;

/// Whoever looks after the connection is at it, and will ask.
const QUIET: u8 = 0;
/// Somebody wanted something since.
const RUNG: u8 = 1;
/// The task sleeps, and is woken.
const ARMED: u8 = 2;
/// Nobody uses the connection: who keeps such ones is told.
const RESTING: u8 = 3;

/// Of one connection.
pub(super) struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
    keeper: Option<Arc<Notify>>,
}

impl Bell {
    /// It has rung: nobody has looked at the connection yet. The keeper is told while it rests.
    pub(super) fn new(keeper: Option<Arc<Notify>>) -> Arc<Self> {
        Arc::new(Self { state: AtomicU8::new(RUNG), task: AtomicWaker::new(), keeper })
    }

    /// Whether it has rung. From now on it only says so.
    pub(super) fn answer(&self) -> bool {
        self.state.load(Ordering::Acquire) != QUIET
            && self.state.swap(QUIET, Ordering::AcqRel) == RUNG
    }

    /// From now on the task is woken; false if it has rung already.
    pub(super) fn arm(&self, cx: &Context<'_>) -> bool {
        self.task.register(cx.waker());
        self.state.compare_exchange(QUIET, ARMED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// From now on the keeper is told.
    pub(super) fn rest(self: &Arc<Self>) {
        if self.state.swap(RESTING, Ordering::AcqRel) == RUNG {
            self.wake_by_ref();
        }
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        match (self.state.swap(RUNG, Ordering::AcqRel), &self.keeper) {
            (ARMED, _) => {
                crowd::join();
                self.task.wake();
            }
            (RESTING, Some(keeper)) => keeper.notify_one(),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::task::Waker;

    use futures_util::FutureExt;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn wakes_who_sleeps_and_tells_who_asks() {
        let keeper = Arc::new(Notify::new());
        let bell = Bell::new(Some(keeper.clone()));
        let count = Arc::new(Count::default());
        let waker = Waker::from(count.clone());
        let cx = Context::from_waker(&waker);
        let woken = || count.0.swap(0, Ordering::Relaxed);
        let told = || keeper.notified().now_or_never().is_some();
        assert!(!bell.arm(&cx), "nobody has looked yet");
        assert!(bell.answer() && !bell.answer());
        bell.wake_by_ref();
        assert!(!bell.arm(&cx), "it rang between");
        assert!(bell.answer() && bell.arm(&cx) && woken() == 0);
        bell.wake_by_ref();
        bell.wake_by_ref();
        assert_eq!((woken(), told()), (1, false));
        assert!(bell.answer() && bell.arm(&cx));
        assert!(!bell.answer(), "woken for something else");
        bell.wake_by_ref();
        assert_eq!(woken(), 0, "who looks after it is at it");
        bell.rest();
        assert!(told(), "it rang before it rested");
        assert!(bell.answer());
        bell.rest();
        assert!(!told());
        bell.wake_by_ref();
        assert_eq!((woken(), told()), (0, true));
        assert!(bell.answer());
    }
}

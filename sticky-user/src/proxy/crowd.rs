//! How many client connections of this thread wait for their turn. With few of them a request goes as far as it can at once,
//! for the sake of its p99. With many, each step is taken for one after the other, so that its code stays in the processor's
//! caches: a twentieth of a request's CPU time.

use std::cell::Cell;
use std::pin::pin;
use std::task::{Context, Poll};

use tokio::task::yield_now;

/// More than wait at seven tenths of what the proxy can do, but for bursts; about as many as wait of 64 clients that ask again
/// at once. With 17, 23 and 28 the CPU time is the same (`bench l7`), and p99 1.11, 1.03 to 1.06 and 1.03 times nginx's.
const LARGE: usize = 28;

thread_local! {
    /// One too many where both ends of a connection have woken its task, until nobody waits.
    static WAITING: Cell<usize> = const { Cell::new(0) };
}

/// One more waits.
pub(super) fn join() {
    WAITING.with(|waiting| waiting.set(waiting.get() + 1));
}

/// It is somebody's turn.
pub(super) fn turn() {
    WAITING.with(|waiting| waiting.set(waiting.get().saturating_sub(1)));
}

/// The thread sleeps: nobody waits.
pub(super) fn gone() {
    WAITING.with(|waiting| waiting.set(0));
}

/// Whether many wait.
pub(super) fn is_large() -> bool {
    WAITING.with(Cell::get) > LARGE
}

/// The others have their turns first.
pub(super) fn last<T>(cx: &mut Context<'_>) -> Poll<T> {
    let alone = WAITING.with(Cell::get) == 0;
    join();
    if alone {
        // The thread looks for whom something has come before it is this one's turn again.
        let _pending = pin!(yield_now()).poll(cx);
    } else {
        cx.waker().wake_by_ref();
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    #[test]
    fn is_large_while_more_wait_than_it_says() {
        let mut cx = Context::from_waker(Waker::noop());
        turn();
        assert!(!is_large());
        for _ in 0..LARGE {
            join();
        }
        assert!(!is_large());
        assert!(last::<()>(&mut cx).is_pending() && is_large());
        turn();
        assert!(!is_large());
        join();
        gone();
        turn();
        assert!(!is_large());
        assert!(last::<()>(&mut cx).is_pending());
        turn();
        assert!(WAITING.with(Cell::get) == 0);
    }
}

//! Much of the same work on all processors at once.

use std::thread;

/// Fewer than this are done sooner than another thread starts.
const FEW: usize = 32;

/// What `make` makes of each, in their order.
pub fn map<T: Sync, R: Send>(all: &[T], make: impl Fn(&T) -> R + Sync) -> Vec<R> {
    // The limits of the control group are read for this, from files.
    let threads = || thread::available_parallelism().map_or(1, usize::from);
    let threads = if all.len() < FEW { 1 } else { threads() };
    if threads == 1 {
        return all.iter().map(make).collect();
    }
    let make = &make;
    thread::scope(|scope| {
        let parts = all.chunks(all.len().div_ceil(threads));
        let working: Vec<_> = parts
            .map(|part| scope.spawn(move || part.iter().map(make).collect::<Vec<_>>()))
            .collect();
        let done = working.into_iter().map(|thread| thread.join());
        done.flat_map(|made| made.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_stays() {
        for count in [0, 1, FEW, 1001] {
            let all: Vec<usize> = (0..count).collect();
            assert_eq!(map(&all, |one| one * 2), all.iter().map(|one| one * 2).collect::<Vec<_>>());
        }
    }
}

//! Work on many things by several threads, with what comes of it in the order of the things.

use std::panic::resume_unwind;
use std::sync::{Mutex, PoisonError};
use std::thread::{Builder, scope};

/// Works on each of `items` in `workers` threads, of which the calling one is the last: it does `meanwhile` first. What comes
/// of each item is in the order of the items, whoever was done when.
pub(super) fn together<T: Send, R: Send, M>(
    workers: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
    meanwhile: impl FnOnce() -> M,
) -> (Vec<R>, M) {
    let items = Mutex::new(items.into_iter().enumerate());
    let next = || items.lock().unwrap_or_else(PoisonError::into_inner).next();
    let some = || {
        let mut done = Vec::new();
        while let Some((index, item)) = next() {
            done.push((index, work(item)));
        }
        done
    };
    let (mut done, other) = scope(|scope| {
        // Where there is no thread to be had, those that are there do the work.
        let others = (1..workers)
            .map_while(|_| Builder::new().name("dry-run".to_owned()).spawn_scoped(scope, some).ok());
        let others: Vec<_> = others.collect();
        let other = meanwhile();
        let mut done = some();
        for worker in others {
            done.extend(worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
        (done, other)
    });
    done.sort_unstable_by_key(|(index, _)| *index);
    (done.into_iter().map(|(_, result)| result).collect(), other)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Barrier;

    #[test]
    fn results_are_in_the_order_of_the_items_whoever_was_done_when() {
        let both = Barrier::new(2);
        // The first item is done only once another worker has begun with a later one.
        let work = |item: usize| {
            if item == 0 || item == 7 {
                both.wait();
            }
            item * 2
        };
        let (doubled, other) = together(2, (0..100).collect(), work, || "meanwhile");
        assert_eq!((doubled, other), ((0..100).map(|item| item * 2).collect(), "meanwhile"));
    }

    #[test]
    fn one_worker_or_none_is_the_calling_thread() {
        let caller = std::thread::current().id();
        for workers in [0, 1] {
            let (threads, ()) = together(workers, vec![(); 5], |()| std::thread::current().id(), || ());
            assert_eq!(threads, vec![caller; 5]);
        }
        assert_eq!(together(4, Vec::<u8>::new(), |item| item, || 7), (Vec::new(), 7));
    }

    #[test]
    #[should_panic(expected = "of the work")]
    fn worker_that_panics_is_heard() {
        let both = Barrier::new(2);
        let caller = std::thread::current().id();
        let work = |()| {
            both.wait();
            assert_eq!(std::thread::current().id(), caller, "of the work");
        };
        together(2, vec![(); 2], work, || ());
    }
}

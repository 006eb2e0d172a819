//! Work in parallel, over what comes out of one iterator: nothing is held but what each worker has in hand.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::collect::Shared;
use super::error::FilesError;
use super::hash::Worker;

/// Has workers take items until there are none, or one fails. The error is the first that was found.
pub(crate) fn each<'s, T: Send>(
    shared: &'s Shared<'s>,
    workers: NonZero<usize>,
    items: impl Iterator<Item = Result<T, FilesError>> + Send,
    work: impl Fn(T, &mut Worker<'s>) -> Result<(), FilesError> + Sync,
) -> Result<(), FilesError> {
    let items = Mutex::new(items.fuse());
    let failure = Mutex::new(None);
    let lock_failure = || failure.lock().unwrap_or_else(PoisonError::into_inner);
    thread::scope(|scope| {
        for _ in 0..workers.get() {
            scope.spawn(|| {
                let mut worker = Worker::new(shared);
                while lock_failure().is_none() {
                    let item = items.lock().unwrap_or_else(PoisonError::into_inner).next();
                    let Some(item) = item else { break };
                    if let Err(error) = item.and_then(|item| work(item, &mut worker)) {
                        lock_failure().get_or_insert(error);
                    }
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

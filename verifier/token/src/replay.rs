//! Proofs that were seen (RFC 9449, 11.1): each counts once.
//!
//! A proof is remembered under the window of its nonce, for as long as that nonce is taken: two generations of entries are
//! all that there is, and the older one goes as a whole. Nothing within is ever forgotten to make room: where there is none, new
//! proofs are refused. No clock is asked, so that none that is set back lets an old proof through.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::dpop::{FreshProof, VerifiedProof};
use crate::nonce::Window;

/// Why a proof does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Its key used this `jti` for this URI before.
    #[error("the DPoP proof was used before")]
    Replayed,
    /// It was verified, and then shown so late that what was seen at its time is forgotten.
    #[error("the DPoP proof outlived its nonce")]
    Outlived,
    /// As many proofs as are remembered were seen in two windows.
    #[error("too many DPoP proofs are remembered to take another")]
    Full,
}

impl ReplayError {
    /// A stable name.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Replayed => "dpop_replayed",
            Self::Outlived => "dpop_outlived",
            Self::Full => "dpop_store_full",
        }
    }

    /// The error code of OAuth: `invalid_dpop_proof` (RFC 9449, 5), a fresh nonce for whoever was late, and what RFC 6749
    /// (4.1.2.1) has for a server that has no room.
    #[must_use]
    pub const fn oauth_error(self) -> &'static str {
        match self {
            Self::Replayed => "invalid_dpop_proof",
            Self::Outlived => "use_dpop_nonce",
            Self::Full => "temporarily_unavailable",
        }
    }
}

/// What stands for a proof: 16 bytes of a hash over its key, its URI and its `jti`.
pub(crate) type Entry = [u8; 16];

/// The proofs that were seen.
#[derive(Debug)]
pub struct Replays {
    shards: [Mutex<Shard>; SHARDS],
    entries: AtomicUsize,
    capacity: usize,
}

/// Each with a lock of its own, so that cores do not wait for each other.
const SHARDS: usize = 64;

/// Windows with even and with odd numbers.
#[derive(Debug)]
struct Shard {
    even: Generation,
    odd: Generation,
}

#[derive(Debug)]
struct Generation {
    window: Window,
    seen: HashSet<Entry>,
}

impl Generation {
    fn new() -> Self {
        Self { window: Window(i64::MIN), seen: HashSet::new() }
    }

    /// Makes it that of `window`, empty, and says how many entries are gone.
    fn restart(&mut self, window: Window) -> usize {
        self.window = window;
        std::mem::take(&mut self.seen).len()
    }
}

impl Replays {
    /// Room for a million proofs in two windows: some 40 MB at the most.
    pub const CAPACITY: usize = 1_000_000;

    /// An empty store for so many proofs.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        let shard = |_| Mutex::new(Shard { even: Generation::new(), odd: Generation::new() });
        Self { shards: std::array::from_fn(shard), entries: AtomicUsize::new(0), capacity }
    }

    /// Spends a proof.
    ///
    /// Established when this returns: no proof of this key for this URI with this `jti` was spent before, as long as its nonce
    /// is taken. To be asked only once the caller is known, where it is a matter of who may fill the store.
    pub fn take(&self, proof: VerifiedProof) -> Result<FreshProof, ReplayError> {
        self.spend(proof.entry(), proof.window())?;
        Ok(FreshProof::of(proof))
    }

    fn spend(&self, entry: Entry, window: Window) -> Result<(), ReplayError> {
        if !self.reserve() {
            self.sweep(window);
            if !self.reserve() {
                return Err(ReplayError::Full);
            }
        }
        let spent = self.insert(entry, window);
        if spent.is_err() {
            self.release(1);
        }
        spent
    }

    fn insert(&self, entry: Entry, window: Window) -> Result<(), ReplayError> {
        let [first, ..] = entry;
        let shard = self.shards.get(usize::from(first) % SHARDS).ok_or(ReplayError::Full)?;
        let mut shard = locked(shard);
        let Shard { even, odd } = &mut *shard;
        let (own, other) = if window.0.rem_euclid(2) == 0 { (even, odd) } else { (odd, even) };
        // The other generation is of the window before or after, or so old that it counts no more.
        if own.window > window || other.window.0 > window.0.saturating_add(1) {
            return Err(ReplayError::Outlived);
        }
        if own.window < window {
            self.release(own.restart(window));
        }
        if other.window.0 < window.0.saturating_sub(1) {
            self.release(other.restart(Window(window.0.saturating_sub(1))));
        }
        if other.seen.contains(&entry) || !own.seen.insert(entry) {
            return Err(ReplayError::Replayed);
        }
        Ok(())
    }

    /// Lets go of what is older than the window before this one, in shards that nobody came to since.
    fn sweep(&self, window: Window) {
        let before = window.0.saturating_sub(1);
        for shard in &self.shards {
            let mut shard = locked(shard);
            let Shard { even, odd } = &mut *shard;
            for generation in [even, odd] {
                if generation.window.0 < before {
                    self.release(std::mem::take(&mut generation.seen).len());
                }
            }
        }
    }

    fn reserve(&self) -> bool {
        let more = |entries: usize| (entries < self.capacity).then_some(entries + 1);
        self.entries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn release(&self, entries: usize) {
        self.entries.fetch_sub(entries, Ordering::Relaxed);
    }
}

/// A panic elsewhere leaves a set as it was.
fn locked(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::crypto::sha256;

    fn entry(number: u64) -> Entry {
        sha256(&[&number.to_be_bytes()])[..16].try_into().unwrap()
    }

    fn count(replays: &Replays) -> usize {
        replays.entries.load(Ordering::Relaxed)
    }

    #[test]
    fn a_proof_counts_once_while_its_nonce_is_taken() {
        let replays = Replays::new(100);
        let spend = |number, window| replays.spend(entry(number), Window(window));
        assert_eq!(spend(1, 10), Ok(()));
        assert_eq!(spend(1, 10), Err(ReplayError::Replayed));
        assert_eq!(spend(1, 9), Err(ReplayError::Replayed), "the same by a nonce of the window before");
        assert_eq!(spend(1, 11), Err(ReplayError::Replayed), "and of the next");
        assert_eq!(spend(1, 9), Err(ReplayError::Outlived), "which ends the one before");
        assert_eq!(count(&replays), 1);
        // Two windows on its nonce is dead, and so is every proof with it.
        assert_eq!(spend(1, 12), Ok(()));
        assert_eq!(spend(1, 10), Err(ReplayError::Outlived));
        assert_eq!(spend(1, 11), Err(ReplayError::Replayed));
        assert_eq!(spend(1, 20), Ok(()));
        for outlived in [9, 11, 12, 13, i64::MIN] {
            assert_eq!(spend(1, outlived), Err(ReplayError::Outlived), "{outlived}");
        }
        assert_eq!(count(&replays), 1);
        for end in [i64::MAX - 1, i64::MAX] {
            assert!(spend(2, end).is_ok() || spend(2, end) == Err(ReplayError::Replayed));
        }
    }

    #[test]
    fn a_full_store_refuses_and_forgets_nothing() {
        let replays = Replays::new(1000);
        let spend = |number, window| replays.spend(entry(number), Window(window));
        for number in 0..500 {
            assert_eq!(spend(number, 10), Ok(()));
            assert_eq!(spend(500 + number, 11), Ok(()));
        }
        for number in 1000..1100 {
            assert_eq!(spend(number, 11), Err(ReplayError::Full));
        }
        assert_eq!(count(&replays), 1000);
        // A window later the first half makes room, whichever shard a proof comes to.
        for number in 1000..1500 {
            assert_eq!(spend(number, 12), Ok(()), "{number}");
        }
        assert_eq!(spend(1500, 12), Err(ReplayError::Full));
        assert_eq!(count(&replays), 1000);
        let replays = Replays::new(1001);
        assert_eq!(replays.spend(entry(1), Window(1)), Ok(()));
        for _ in 0..2000 {
            assert_eq!(replays.spend(entry(1), Window(1)), Err(ReplayError::Replayed));
        }
        assert_eq!(count(&replays), 1, "a replay takes no room");
    }

    #[test]
    fn a_million_proofs_of_one_window_are_each_taken_once() {
        let replays = Replays::new(Replays::CAPACITY);
        let numbered = |number: u32| {
            // Spread like a hash.
            let mixed = u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes();
            let mut entry = [0; 16];
            entry[..8].copy_from_slice(&mixed);
            entry
        };
        for number in 0..1_000_000 {
            assert_eq!(replays.spend(numbered(number), Window(7)), Ok(()));
        }
        for number in [0, 1, 499_999, 999_999] {
            // As full as it is, no replay passes.
            assert_eq!(replays.spend(numbered(number), Window(7)), Err(ReplayError::Full));
        }
        assert_eq!(replays.spend(numbered(1_000_000), Window(7)), Err(ReplayError::Full));
        for number in 1_000_000..1_001_000 {
            assert_eq!(replays.spend(numbered(number), Window(9)), Ok(()), "two windows later there is room");
        }
        assert_eq!(count(&replays), 1000);
    }

    #[test]
    fn of_threads_with_one_proof_one_has_it() {
        let replays = Replays::new(10_000);
        let taken = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for number in 0..1000 {
                        if replays.spend(entry(number), Window(1)).is_ok() {
                            taken.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        assert_eq!((taken.into_inner(), count(&replays)), (1000, 1000));
    }

    #[test]
    fn each_refusal_has_its_codes() {
        let codes = [ReplayError::Replayed, ReplayError::Outlived, ReplayError::Full]
            .map(|error| (error.code(), error.oauth_error()));
        assert_eq!(
            codes,
            [
                ("dpop_replayed", "invalid_dpop_proof"),
                ("dpop_outlived", "use_dpop_nonce"),
                ("dpop_store_full", "temporarily_unavailable"),
            ]
        );
    }
}

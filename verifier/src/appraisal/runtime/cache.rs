//! Signatures that were verified once are not verified again.

use std::sync::{Mutex, PoisonError};

/// What names a verified signature: a hash over digest, path and signature, and the key's fingerprint, one upon the other.
/// Two names that are the same for different signatures are as hard to find as a collision of SHA-256: the fingerprints
/// are those of few keys, which the operator chose.
type Slot = [u8; 32];

/// Ways of one set: they lie in two lines of memory.
const WAYS: usize = 4;
/// Locks: more than there are cores.
const SHARDS: usize = 64;

/// Signatures that verify, for all nodes. Bounded: an older one makes room for a newer.
///
/// Only what verified is in it, so that a wrong signature costs each time what it costs; [`super::Judge`] bounds those.
#[derive(Debug)]
pub struct SignatureCache {
    shards: Box<[Mutex<Shard>]>,
    sets_per_shard: usize,
}

#[derive(Debug)]
struct Shard {
    slots: Box<[Slot]>,
    /// The way that is replaced next, by set.
    next: Box<[u8]>,
}

/// A signature that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignatureName {
    slot: Slot,
    shard: usize,
    set: usize,
}

impl SignatureCache {
    /// Room for so many signatures, twice over: 65 bytes each.
    #[must_use]
    pub fn with_capacity(signatures: usize) -> Self {
        // A set is full before all are.
        let sets_per_shard = signatures.saturating_mul(2).div_ceil(WAYS * SHARDS).max(1);
        let shard = || {
            Mutex::new(Shard {
                slots: vec![[0; 32]; sets_per_shard * WAYS].into(),
                next: vec![0; sets_per_shard].into(),
            })
        };
        Self { shards: (0..SHARDS).map(|_| shard()).collect(), sets_per_shard }
    }

    /// `data_hash` is a hash of at least 256 bits over digest, path and signature; a longer one is cut.
    pub(super) fn name(&self, data_hash: &[u8], key: &[u8; 32]) -> SignatureName {
        let mut slot = *key;
        for (to, from) in slot.iter_mut().zip(data_hash) {
            *to ^= *from;
        }
        let number = slot.first_chunk().map_or(0, |front| u64::from_le_bytes(*front));
        let number = usize::try_from(number).unwrap_or(0);
        SignatureName { slot, shard: number % SHARDS, set: number / SHARDS % self.sets_per_shard }
    }

    pub(super) fn has(&self, name: &SignatureName) -> bool {
        self.with(name, |ways, _| ways.contains(&name.slot)).unwrap_or(false)
    }

    pub(super) fn insert(&self, name: &SignatureName) {
        self.with(name, |ways, next| {
            if !ways.contains(&name.slot)
                && let Some(way) = ways.get_mut(usize::from(*next) % WAYS)
            {
                *way = name.slot;
                *next = next.wrapping_add(1);
            }
        });
    }

    fn with<R>(&self, name: &SignatureName, work: impl FnOnce(&mut [Slot], &mut u8) -> R) -> Option<R> {
        // Nothing panics under the lock; and a half-written slot would be one that nobody asks for.
        let mut shard = self.shards.get(name.shard)?.lock().unwrap_or_else(PoisonError::into_inner);
        let Shard { slots, next } = &mut *shard;
        let start = name.set * WAYS;
        Some(work(slots.get_mut(start..start + WAYS)?, next.get_mut(name.set)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::crypto::sha256;

    #[test]
    fn a_full_cache_keeps_the_newest_and_knows_nothing_else() {
        let cache = SignatureCache::with_capacity(1);
        let name = |number: u32| cache.name(&sha256(&[&number.to_be_bytes()]), &[1; 32]);
        for number in 0..10_000 {
            assert!(!cache.has(&name(number)));
            cache.insert(&name(number));
            cache.insert(&name(number));
            assert!(cache.has(&name(number)));
        }
        let kept = (0..10_000).filter(|number| cache.has(&name(*number))).count();
        assert_eq!(kept, WAYS * SHARDS);
        let other_key = cache.name(&sha256(&[&9_999u32.to_be_bytes()]), &[2; 32]);
        assert!(!cache.has(&other_key), "what one key signed, another did not");
    }
}

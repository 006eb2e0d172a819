//! Signatures that were verified once are not verified again.

use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

/// What names a verified signature: a hash over digest, path and signature, and the key's fingerprint, one upon the other.
/// Two names that are the same for different signatures are as hard to find as a collision of SHA-256: the fingerprints
/// are those of few keys, which the operator chose.
type Name = [u64; 4];

/// Slots of one set: they lie in two or three lines of memory.
const WAYS: usize = 4;

/// Signatures that verify, for all nodes. Bounded: an older one makes room for a newer.
///
/// Only what verified is in it, so that a wrong signature costs each time what it costs; [`super::Judge`] bounds those.
///
/// There is no lock: a name that is read while another one is written over it is a mixture of both, word by word, and has
/// to be equal in all of its 256 bits to be taken for the one that is asked for.
#[derive(Debug)]
pub struct SignatureCache {
    sets: Box<[[Slot; WAYS]]>,
}

#[derive(Debug, Default)]
struct Slot([AtomicU64; 4]);

/// A signature that is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct SignatureName {
    name: Name,
    set: usize,
}

impl SignatureCache {
    /// Room for so many signatures, twice over, since some sets are full before others: 64 bytes each.
    #[must_use]
    pub fn with_capacity(signatures: usize) -> Self {
        let sets = signatures.saturating_mul(2).div_ceil(WAYS).max(1);
        Self { sets: (0..sets).map(|_| Default::default()).collect() }
    }

    /// `data_hash` is a hash of at least 256 bits over digest, path and signature; a longer one is cut.
    pub(super) fn name(&self, data_hash: &[u8], key: &[u8; 32]) -> SignatureName {
        let mut name = [0; 4];
        let (hash, key) = (data_hash.as_chunks::<8>().0, key.as_chunks::<8>().0);
        for ((word, hash), key) in name.iter_mut().zip(hash).zip(key) {
            *word = u64::from_le_bytes(*hash) ^ u64::from_le_bytes(*key);
        }
        let [front, ..] = name;
        // `sets` is never empty; on a machine of 32 bits, the lower ones are enough.
        let set = usize::try_from(front & u64::from(u32::MAX)).unwrap_or(0) % self.sets.len().max(1);
        SignatureName { name, set }
    }

    /// Brings a signature's set into the cache of the processor.
    pub(super) fn fetch(&self, name: &SignatureName) {
        if let Some([first, .., last]) = self.sets.get(name.set) {
            black_box(first.word() ^ last.word());
        }
    }

    #[inline]
    pub(super) fn has(&self, name: &SignatureName) -> bool {
        self.sets.get(name.set).is_some_and(|set| set.iter().any(|slot| slot.read() == name.name))
    }

    pub(super) fn insert(&self, name: &SignatureName) {
        let Some(set) = self.sets.get(name.set) else { return };
        let [.., last] = name.name;
        // A free one, or whichever the name says: that is as good as any.
        let chosen = usize::try_from(last >> 60).unwrap_or(0) % WAYS;
        if !self.has(name)
            && let Some(slot) = set.iter().find(|slot| slot.read() == [0; 4]).or(set.get(chosen))
        {
            slot.write(name.name);
        }
    }
}

impl Slot {
    fn word(&self) -> u64 {
        let [first, ..] = &self.0;
        first.load(Ordering::Relaxed)
    }

    #[inline]
    fn read(&self) -> Name {
        self.0.each_ref().map(|word| word.load(Ordering::Relaxed))
    }

    fn write(&self, name: Name) {
        for (word, value) in self.0.iter().zip(name) {
            word.store(value, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::crypto::sha256;

    #[test]
    fn a_full_cache_keeps_the_newest_and_knows_nothing_else() {
        let cache = SignatureCache::with_capacity(512);
        let name = |number: u32| cache.name(&sha256(&[&number.to_be_bytes()]), &[1; 32]);
        for number in 0..20_000 {
            assert!(!cache.has(&name(number)));
            cache.insert(&name(number));
            cache.insert(&name(number));
            assert!(cache.has(&name(number)));
        }
        let kept = (0..20_000).filter(|number| cache.has(&name(*number))).count();
        assert_eq!(kept, 1024);
        let other_key = cache.name(&sha256(&[&19_999u32.to_be_bytes()]), &[2; 32]);
        assert!(!cache.has(&other_key), "what one key signed, another did not");
    }

    #[test]
    fn a_cache_keeps_as_many_as_it_has_room_for() {
        let cache = SignatureCache::with_capacity(10_000);
        let name = |number: u32| cache.name(&sha256(&[&number.to_be_bytes()]), &[1; 32]);
        (0..10_000).for_each(|number| cache.insert(&name(number)));
        let kept = (0..10_000).filter(|number| cache.has(&name(*number))).count();
        assert!(kept > 9_500, "{kept} of 10000");
    }
}

//! What was verified once, by SHA-256 of the text: signatures, which do not change. How a node stands is never among it.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use rootbound_common::crypto::sha256;

/// About 1 KB each. With one more all are forgotten, and verified again where they are shown.
const MOST: usize = 1 << 15;

/// Names a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct TextHash([u8; 32]);

impl TextHash {
    pub(super) fn of(text: &[u8]) -> Self {
        Self(sha256(&[text]))
    }
}

/// Things that were verified, by what names their text.
#[derive(Debug)]
pub(super) struct Known<T>(RwLock<HashMap<TextHash, Arc<T>>>);

impl<T> Default for Known<T> {
    fn default() -> Self {
        Self(RwLock::default())
    }
}

impl<T> Known<T> {
    pub(super) fn find(&self, hash: &TextHash) -> Option<Arc<T>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    pub(super) fn add(&self, hash: TextHash, thing: &Arc<T>) {
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.clear();
        }
        known.insert(hash, Arc::clone(thing));
    }

    /// What verified them has changed.
    pub(super) fn forget(&self) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_bounded_and_forgets_when_told() {
        let known = Known::default();
        let hash = |number: usize| TextHash::of(&number.to_be_bytes());
        for number in 0..MOST {
            known.add(hash(number), &Arc::new(number));
        }
        assert_eq!(known.find(&hash(0)).as_deref(), Some(&0));
        known.add(hash(MOST), &Arc::new(MOST));
        assert_eq!(known.find(&hash(0)), None);
        assert_eq!(known.find(&hash(MOST)).as_deref(), Some(&MOST));
        known.forget();
        assert_eq!(known.find(&hash(MOST)), None);
    }
}

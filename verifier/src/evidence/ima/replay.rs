//! The value of PCR 10 after each entry.

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::HashAlgorithm;
use serde::{Deserialize, Serialize};

use super::entry::Entry;
use super::sha256;

/// What a kernel extends a bank with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BankMode {
    /// The hash of the template data in the bank's own algorithm: Linux 5.8 and later.
    Native,
    /// The SHA-1 of the template data with zeros after it: Linux before 5.8 in every bank, later ones in a bank whose hash
    /// is not built in. Weak: who finds a SHA-1 collision chooses between two entries. In a SHA-1 bank, no different.
    PaddedSha1,
}

/// PCR 10 of one bank, entry by entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    mode: BankMode,
    value: Digest,
}

impl Replay {
    /// Goes on from a value; a boot starts from zeros.
    #[must_use]
    pub fn from(value: Digest, mode: BankMode) -> Self {
        Self { mode, value }
    }

    /// What it extends with.
    #[must_use]
    pub fn mode(&self) -> BankMode {
        self.mode
    }

    /// The value now.
    #[must_use]
    pub fn value(&self) -> &Digest {
        &self.value
    }

    /// Whether this is the value now: mostly not, which the first bytes tell.
    #[inline]
    pub(super) fn is_at(&self, value: &Digest) -> bool {
        self.value.as_bytes().first_chunk::<8>() == value.as_bytes().first_chunk::<8>()
            && self.value == *value
    }

    /// Extends with an entry. Returns the hash of its data in the bank; none where all ones are extended instead.
    #[inline]
    pub fn extend(&mut self, entry: &Entry<'_>) -> Option<Digest> {
        let bank = self.value.algorithm();
        if entry.is_violation() {
            // Before Linux 5.8, 20 bytes of 0xff in every bank; later ones fill the bank even where other entries are padded
            // (`ima_init_digests`). SHA-256 is always built in there, so that its bank is padded by old kernels only.
            let filled = match self.mode {
                BankMode::PaddedSha1 if bank == HashAlgorithm::Sha256 => 20,
                BankMode::PaddedSha1 | BankMode::Native => bank.size(),
            };
            let ones = [0xff; 64].get(..filled).and_then(|ones| padded(bank, ones));
            if let Some(ones) = ones {
                self.value = extended(&self.value, ones.as_bytes());
            }
            return None;
        }
        match self.mode {
            BankMode::Native => {
                let hashed = entry.hash_data(bank);
                self.value = extended(&self.value, hashed.as_bytes());
                Some(hashed)
            }
            BankMode::PaddedSha1 => {
                let hashed = entry.hash_data(HashAlgorithm::Sha1);
                if let Some(padded) = padded(bank, hashed.as_bytes()) {
                    self.value = extended(&self.value, padded.as_bytes());
                }
                Some(hashed)
            }
        }
    }
}

fn padded(bank: HashAlgorithm, front: &[u8]) -> Option<Digest> {
    let mut bytes = [0; 64];
    for (to, from) in bytes.iter_mut().zip(front) {
        *to = *from;
    }
    bytes.get(..bank.size()).and_then(|bytes| Digest::from_slice(bank, bytes))
}

/// TPM2_PCR_Extend: the hash of the old value and the digest.
#[inline]
fn extended(value: &Digest, digest: &[u8]) -> Digest {
    let algorithm = value.algorithm();
    if let (HashAlgorithm::Sha256, Some(left), Some(right)) =
        (algorithm, value.as_bytes().first_chunk::<32>(), digest.first_chunk::<32>())
    {
        return Digest::of_sha256(&sha256::of_pair(left, right));
    }
    hash(algorithm, &[value.as_bytes(), digest])
}

/// A hash of bytes that lie together.
#[inline]
pub(super) fn one_shot(algorithm: HashAlgorithm, bytes: &[u8]) -> Digest {
    match algorithm {
        HashAlgorithm::Sha256 => Digest::of_sha256(&sha256::of(bytes)),
        HashAlgorithm::Sha1 | HashAlgorithm::Sha384 | HashAlgorithm::Sha512 => hash(algorithm, &[bytes]),
    }
}

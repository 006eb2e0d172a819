//! Digests that know their algorithm.

use std::fmt;

use sha1::Sha1;
use sha2::{Digest as _, Sha256, Sha384, Sha512};

use crate::tpm::HashAlgorithm;

/// A digest with its algorithm; two are equal only when both agree.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: HashAlgorithm,
    // Bytes after the algorithm's size are zero, so that the derived comparisons hold.
    bytes: [u8; 64],
}

impl Digest {
    /// A digest of exactly the algorithm's size, or nothing.
    #[must_use]
    pub fn from_slice(algorithm: HashAlgorithm, slice: &[u8]) -> Option<Self> {
        if slice.len() != algorithm.size() {
            return None;
        }
        let mut bytes = [0; 64];
        bytes.get_mut(..slice.len())?.copy_from_slice(slice);
        Some(Self { algorithm, bytes })
    }

    /// A SHA-256 digest.
    #[must_use]
    #[inline]
    pub fn of_sha256(sha256: &[u8; 32]) -> Self {
        let mut bytes = [0; 64];
        bytes.as_chunks_mut::<32>().0.iter_mut().take(1).for_each(|front| *front = *sha256);
        Self { algorithm: HashAlgorithm::Sha256, bytes }
    }

    /// A digest from lower-case hex of exactly the algorithm's size.
    #[must_use]
    pub fn from_hex(algorithm: HashAlgorithm, text: &str) -> Option<Self> {
        let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).ok()?;
        Self::from_slice(algorithm, &bytes)
    }

    /// The digest of zero bytes, the value of a PCR after a reset (0 to 16, 23).
    #[must_use]
    pub const fn zero(algorithm: HashAlgorithm) -> Self {
        Self { algorithm, bytes: [0; 64] }
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// The bytes.
    #[must_use]
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.size()).unwrap_or(&self.bytes)
    }

    /// Whether each byte is `byte`.
    #[must_use]
    pub fn is_all(&self, byte: u8) -> bool {
        self.as_bytes().iter().all(|one| *one == byte)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&data_encoding::HEXLOWER.encode(self.as_bytes()))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{self}", self.algorithm)
    }
}

/// A hash in progress.
#[derive(Clone)]
pub struct Hasher {
    state: State,
}

#[derive(Clone)]
enum State {
    Sha1(Sha1),
    Sha256(Sha256),
    Sha384(Sha384),
    Sha512(Sha512),
}

impl Hasher {
    /// Starts a hash.
    #[must_use]
    pub fn new(algorithm: HashAlgorithm) -> Self {
        let state = match algorithm {
            HashAlgorithm::Sha1 => State::Sha1(Sha1::new()),
            HashAlgorithm::Sha256 => State::Sha256(Sha256::new()),
            HashAlgorithm::Sha384 => State::Sha384(Sha384::new()),
            HashAlgorithm::Sha512 => State::Sha512(Sha512::new()),
        };
        Self { state }
    }

    /// Adds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.state {
            State::Sha1(state) => state.update(bytes),
            State::Sha256(state) => state.update(bytes),
            State::Sha384(state) => state.update(bytes),
            State::Sha512(state) => state.update(bytes),
        }
    }

    /// Ends the hash.
    #[must_use]
    pub fn finish(self) -> Digest {
        fn padded(algorithm: HashAlgorithm, digest: &[u8]) -> Digest {
            let mut bytes = [0; 64];
            for (to, from) in bytes.iter_mut().zip(digest) {
                *to = *from;
            }
            Digest { algorithm, bytes }
        }
        match self.state {
            State::Sha1(state) => padded(HashAlgorithm::Sha1, &state.finalize()),
            State::Sha256(state) => padded(HashAlgorithm::Sha256, &state.finalize()),
            State::Sha384(state) => padded(HashAlgorithm::Sha384, &state.finalize()),
            State::Sha512(state) => padded(HashAlgorithm::Sha512, &state.finalize()),
        }
    }
}

/// The hash of the parts, one after the other.
#[must_use]
pub fn hash(algorithm: HashAlgorithm, parts: &[&[u8]]) -> Digest {
    let mut hasher = Hasher::new(algorithm);
    for part in parts {
        hasher.update(part);
    }
    hasher.finish()
}

/// The SHA-256 of the parts, one after the other, as bytes: for ids and keys of rows.
#[must_use]
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut state = Sha256::new();
    for part in parts {
        state.update(part);
    }
    state.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// FIPS 180-4 examples, message "abc".
    #[test]
    fn digests_of_abc_are_those_of_the_standard() {
        for (algorithm, expected) in [
            (HashAlgorithm::Sha1, "a9993e364706816aba3e25717850c26c9cd0d89d"),
            (HashAlgorithm::Sha256, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
            (
                HashAlgorithm::Sha384,
                "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7",
            ),
            (
                HashAlgorithm::Sha512,
                "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
            ),
        ] {
            assert_eq!(hash(algorithm, &[b"a", b"bc"]).to_string(), expected);
        }
    }

    #[test]
    fn a_sha256_digest_is_the_same_by_either_way() {
        let bytes = sha256(&[b"abc"]);
        assert_eq!(Some(Digest::of_sha256(&bytes)), Digest::from_slice(HashAlgorithm::Sha256, &bytes));
    }

    #[test]
    fn equal_bytes_of_different_algorithms_differ() {
        assert_ne!(Digest::zero(HashAlgorithm::Sha1), Digest::zero(HashAlgorithm::Sha256));
    }

    #[test]
    fn digest_of_a_wrong_size_is_none() {
        assert_eq!(Digest::from_slice(HashAlgorithm::Sha256, &[0; 20]), None);
        assert_eq!(Digest::from_hex(HashAlgorithm::Sha1, &"0".repeat(41)), None);
    }
}

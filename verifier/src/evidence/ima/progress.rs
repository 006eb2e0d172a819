//! What is kept of a walk, for the next one of the same boot.

use rootbound_common::crypto::Digest;
use rootbound_common::tpm::HashAlgorithm;

use super::{ImaError, MAX_BYTES, MAX_ENTRIES};

/// A place in a list: how many entries are before it, and what they come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Entries of the boot.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
    /// PCR 10 after them; its algorithm names the bank.
    pub value: Digest,
}

impl Position {
    /// Where a boot starts.
    #[must_use]
    pub fn start(bank: HashAlgorithm) -> Self {
        Self { entries: 0, bytes: 0, value: Digest::zero(bank) }
    }
}

/// How far the list of one boot is verified, and what was claimed of it beyond. A walk makes it, and the store brings it
/// back. It is worth nothing once the machine has booted again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    prefix: Position,
    claim: Option<Position>,
}

impl Progress {
    pub(super) fn of_walk(prefix: Position, claim: Option<Position>) -> Self {
        Self { prefix, claim }
    }

    /// Nothing yet.
    #[must_use]
    pub fn start(bank: HashAlgorithm) -> Self {
        Self { prefix: Position::start(bank), claim: None }
    }

    /// Progress out of a row. Established when this returns: it is one that a walk could have left behind.
    pub fn restore(prefix: Position, claim: Option<Position>) -> Result<Self, ImaError> {
        let broken = |rule| Err(ImaError::Stored { rule });
        for position in claim.iter().chain([&prefix]) {
            if position.entries > MAX_ENTRIES || position.bytes > MAX_BYTES {
                return broken("more than one boot has");
            }
            if (position.entries == 0) != position.value.is_all(0) {
                return broken("a value of zeros is that of no entry, and of no other number");
            }
            // PCR, hash, length of the name, name and data: at the very least.
            if position.bytes / 32 < position.entries {
                return broken("fewer bytes than its entries have");
            }
        }
        if let Some(claim) = claim {
            if claim.value.algorithm() != prefix.value.algorithm() {
                return broken("prefix and claim are of one bank");
            }
            if claim.entries <= prefix.entries || claim.bytes <= prefix.bytes {
                return broken("the claim goes beyond the prefix");
            }
        }
        Ok(Self { prefix, claim })
    }

    /// As far as a quote vouches. The next list begins after it.
    #[must_use]
    pub fn prefix(&self) -> &Position {
        &self.prefix
    }

    /// As far as the last list went, if it went further. The next one has to pass through it.
    #[must_use]
    pub fn claim(&self) -> Option<&Position> {
        self.claim.as_ref()
    }
}

//! Separators: where firmware hands over, in PCRs 0 to 7 (PFP, 3.3.2.2 and 10.4.1).

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::HashAlgorithm;

/// What a separator says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Separator {
    /// 0 or 0xFFFFFFFF: what follows is no longer the firmware's word alone.
    Normal,
    /// 1: firmware failed to measure, and capped the PCR.
    Error,
}

/// The digests of separators in one bank. A separator is known by its digest: what a log calls it does not matter.
#[derive(Debug, Clone, Copy)]
pub struct SeparatorDigests {
    zeros: Digest,
    ones: Digest,
    error: Digest,
}

impl SeparatorDigests {
    /// Those of a bank.
    #[must_use]
    pub fn of(bank: HashAlgorithm) -> Self {
        let of = |value: u32| hash(bank, &[&value.to_le_bytes()]);
        Self { zeros: of(0), ones: of(u32::MAX), error: of(1) }
    }

    /// What a digest says, where it is a separator's.
    #[must_use]
    pub fn recognise(&self, digest: &Digest) -> Option<Separator> {
        if *digest == self.zeros || *digest == self.ones {
            Some(Separator::Normal)
        } else if *digest == self.error {
            Some(Separator::Error)
        } else {
            None
        }
    }
}

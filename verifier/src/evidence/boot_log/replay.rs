//! Replay: the value that a log gives each PCR it speaks of.

use std::collections::BTreeMap;

use rootbound_common::crypto::{Digest, Hasher};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};

use super::event::EventType;
use super::log::ParsedBootLog;

/// What a log says of one PCR in one bank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replayed {
    /// Every event has a digest, and they come to this value.
    Value(Digest),
    /// An event has no digest of this bank: the log says nothing of the PCR.
    MissingDigest {
        /// The place of the first such event.
        event: usize,
    },
}

impl ParsedBootLog<'_> {
    /// The value of each PCR that the log extends, in one bank.
    ///
    /// A PCR begins at zero. PCR 0 counts the locality of TPM2_Startup (Part 3, 9.3; PFP, 10.4.5.3): what StartupLocality
    /// states, or 4 where the log has an H-CRTM event and states none. PCRs 17 to 22 have events after a dynamic launch
    /// only, which resets them to zero (PC Client Platform TPM Profile, 4.6.2).
    #[must_use]
    pub fn replay(&self, bank: HashAlgorithm) -> BTreeMap<PcrIndex, Replayed> {
        let mut values: BTreeMap<PcrIndex, Replayed> = BTreeMap::new();
        for event in self.events() {
            let Some(pcr) = event.extends() else { continue };
            let so_far = values.entry(pcr).or_insert_with(|| Replayed::Value(self.start(bank, pcr)));
            *so_far = match (*so_far, event.digest(bank)) {
                (Replayed::Value(value), Some(digest)) => Replayed::Value(extended(&value, digest)),
                (Replayed::Value(_), None) => Replayed::MissingDigest { event: event.index() },
                (missing @ Replayed::MissingDigest { .. }, _) => missing,
            };
        }
        values
    }

    fn start(&self, bank: HashAlgorithm, pcr: PcrIndex) -> Digest {
        let zero = Digest::zero(bank);
        if pcr.get() != 0 {
            return zero;
        }
        let h_crtm = || {
            let measured = self.events().iter().any(|event| event.event_type() == EventType::EFI_HCRTM_EVENT);
            if measured { 4 } else { 0 }
        };
        let mut bytes = zero.as_bytes().to_vec();
        if let Some(last) = bytes.last_mut() {
            *last = self.startup_locality().unwrap_or_else(h_crtm);
        }
        Digest::from_slice(bank, &bytes).unwrap_or(zero)
    }
}

/// TPM2_PCR_Extend (Part 1, 17.2).
fn extended(value: &Digest, digest: &[u8]) -> Digest {
    let mut hasher = Hasher::new(value.algorithm());
    hasher.update(value.as_bytes());
    hasher.update(digest);
    hasher.finish()
}

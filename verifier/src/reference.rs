//! Reference values and profiles: what is expected of which nodes. Named, versioned, immutable.
//!
//! - `profile`: what is expected of which nodes; `book`: what is current of all, which appraisals read
//! - [`boot_set`]: values of boots, for the rules of profiles
//! - `content`: values of any kind, compared and joined; `change`: the book as it would be
//! - [`deny`]: what nothing makes acceptable
//! - [`exchange`]: sets on their way to another verifier, signed; [`corim`]: the same as a CoRIM

mod book;
pub mod boot_set;
mod change;
mod content;
pub mod corim;
pub mod deny;
pub mod exchange;
mod profile;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};
use serde::{Deserialize, Serialize};

use crate::appraisal::runtime::DigestSet;
use crate::node::Name;

pub use book::{CompiledBoot, NoProfile, ReferenceBook, References, RuleBook};
pub use boot_set::{BootSet, BootSetError, BootSetVersion};
pub use change::{ChangeError, ReferenceChange};
pub use content::{ContentError, Difference, Differences, SetContent, SetKind, Side};
pub use deny::{DeniedAs, DenyEntry, DenyError, DenyList};
pub use profile::{JudgedBy, LogKind, Observe, Profile, ProfileBody, ProfileError};

/// One version of something that has a name, printed as `name@version`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Versioned {
    /// The name.
    pub name: Name,
    /// 1 for the first.
    pub version: u32,
}

impl fmt::Display for Versioned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// Who made a version, when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The operator, as the administrative socket saw them: `uid 0`.
    pub author: String,
    /// In the operator's words; may be empty.
    pub reason: String,
    /// When.
    pub created_at: Timestamp,
}

/// Accepted PCR values: several per PCR, since machines and versions differ.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcceptedPcrs {
    values: BTreeMap<(HashAlgorithm, PcrIndex), BTreeSet<Digest>>,
}

/// Why values are no reference values.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// There is none.
    #[error("a reference set needs at least one value: an empty one would expect nothing")]
    Empty,
    /// Too many values for one PCR.
    #[error("{bank} PCR {pcr} has more than {} accepted values", AcceptedPcrs::MAX_PER_PCR)]
    TooMany {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
    },
    /// A SHA-1 bank cannot be relied on.
    #[error("SHA-1 banks are refused as reference values: collisions can be made")]
    Sha1,
    /// The bank is not in use: all of its PCRs are still at their start value.
    #[error(
        "bank {bank} is idle: each quoted PCR still has its start value, so that it would match any machine"
    )]
    IdleBank {
        /// The bank.
        bank: HashAlgorithm,
    },
}

impl AcceptedPcrs {
    /// Accepted values of one PCR in one set: some dozens of firmware and kernel versions at once.
    pub const MAX_PER_PCR: usize = 256;

    /// The values that a node showed, as the only accepted ones.
    pub fn captured(values: &PcrValues) -> Result<Self, ReferenceError> {
        if let Some(bank) = idle_bank(values) {
            return Err(ReferenceError::IdleBank { bank });
        }
        Self::new(values.iter().map(|(_, pcr, value)| (pcr, *value)))
    }

    /// These values; the algorithm of each names its bank.
    pub fn new(values: impl IntoIterator<Item = (PcrIndex, Digest)>) -> Result<Self, ReferenceError> {
        let mut accepted = Self::default();
        for (pcr, value) in values {
            let bank = value.algorithm();
            if bank == HashAlgorithm::Sha1 {
                return Err(ReferenceError::Sha1);
            }
            let of_pcr = accepted.values.entry((bank, pcr)).or_default();
            of_pcr.insert(value);
            if of_pcr.len() > Self::MAX_PER_PCR {
                return Err(ReferenceError::TooMany { bank, pcr });
            }
        }
        if accepted.values.is_empty() { Err(ReferenceError::Empty) } else { Ok(accepted) }
    }

    /// The accepted values of a PCR; none where the set does not speak of it.
    pub fn of(&self, bank: HashAlgorithm, pcr: PcrIndex) -> impl Iterator<Item = &Digest> {
        self.values.get(&(bank, pcr)).into_iter().flatten()
    }

    /// Every accepted value.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlgorithm, PcrIndex, &Digest)> {
        self.values.iter().flat_map(|((bank, pcr), values)| values.iter().map(|value| (*bank, *pcr, value)))
    }
}

/// A bank whose every stated PCR is still at a start value (all zeros, or all ones for 17 to 22; PCR 0 counts the locality
/// of TPM2_Startup): nothing was measured into it, so its values say nothing about the machine (CVE-2021-42299).
#[must_use]
pub fn idle_bank(values: &PcrValues) -> Option<HashAlgorithm> {
    // The highest locality is 4 (PC Client profile, 4.6).
    let is_locality = |value: &Digest| {
        let split = value.as_bytes().split_last();
        split.is_some_and(|(last, before)| *last <= 4 && before.iter().all(|byte| *byte == 0))
    };
    let started = |pcr: PcrIndex, value: &Digest| {
        value.is_all(0) || value.is_all(0xff) || (pcr.get() == 0 && is_locality(value))
    };
    let of = |bank| values.iter().filter(move |(other, _, _)| *other == bank);
    HashAlgorithm::ALL
        .into_iter()
        .find(|bank| of(*bank).next().is_some() && of(*bank).all(|(_, pcr, value)| started(pcr, value)))
}

/// As JSON: `{"sha256": {"0": ["<hex>", …], …}}`.
impl Serialize for AcceptedPcrs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut banks: BTreeMap<HashAlgorithm, BTreeMap<u8, Vec<String>>> = BTreeMap::new();
        for (bank, pcr, value) in self.iter() {
            let bank = banks.entry(bank).or_default();
            bank.entry(pcr.get()).or_default().push(value.to_string());
        }
        banks.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AcceptedPcrs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let banks: BTreeMap<HashAlgorithm, BTreeMap<u8, Vec<String>>> = BTreeMap::deserialize(deserializer)?;
        let mut values = Vec::new();
        for (bank, pcrs) in banks {
            for (pcr, accepted) in pcrs {
                let index = PcrIndex::new(pcr).ok_or_else(|| D::Error::custom("a PCR number is 0 to 23"))?;
                for hex in accepted {
                    let value = Digest::from_hex(bank, &hex).ok_or_else(|| {
                        D::Error::custom(format_args!("{bank} PCR {pcr}: not a value in lower-case hex"))
                    })?;
                    values.push((index, value));
                }
            }
        }
        Self::new(values).map_err(D::Error::custom)
    }
}

/// One version of a reference set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReferenceSet {
    /// Its name and version.
    pub id: Versioned,
    /// The values.
    pub accepted: AcceptedPcrs,
    /// Who made it.
    pub provenance: Provenance,
}

/// One version of a digest set.
#[derive(Debug, Clone)]
pub struct DigestSetVersion {
    /// Its name and version.
    pub id: Versioned,
    /// What it accepts; shared by all versions and sets that accept the same.
    pub digests: Arc<DigestSet>,
    /// Who made it.
    pub provenance: Provenance,
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::crypto::hash;

    fn pcr(index: u8) -> PcrIndex {
        PcrIndex::new(index).unwrap()
    }

    #[test]
    fn values_of_an_idle_or_sha1_bank_are_no_reference() {
        let mut idle = PcrValues::default();
        idle.insert(pcr(0), Digest::zero(HashAlgorithm::Sha256));
        idle.insert(pcr(17), Digest::from_slice(HashAlgorithm::Sha256, &[0xff; 32]).unwrap());
        let bank = HashAlgorithm::Sha256;
        assert_eq!(AcceptedPcrs::captured(&idle), Err(ReferenceError::IdleBank { bank }));
        idle.insert(pcr(1), hash(bank, &[b"measured"]));
        assert!(AcceptedPcrs::captured(&idle).is_ok());
        let sha1 = hash(HashAlgorithm::Sha1, &[b"measured"]);
        assert_eq!(AcceptedPcrs::new([(pcr(0), sha1)]), Err(ReferenceError::Sha1));
        assert_eq!(AcceptedPcrs::new([]), Err(ReferenceError::Empty));
        let many = (0..=256u32).map(|n| (pcr(0), hash(bank, &[&n.to_be_bytes()])));
        assert_eq!(AcceptedPcrs::new(many), Err(ReferenceError::TooMany { bank, pcr: pcr(0) }));
    }

    #[test]
    fn bank_that_counts_only_the_locality_of_its_startup_is_idle() {
        let values = |pcr_0: u8, pcr_7: u8| {
            let mut values = PcrValues::default();
            for (index, last) in [(0, pcr_0), (7, pcr_7)] {
                let mut value = [0; 32];
                value[31] = last;
                values.insert(pcr(index), Digest::from_slice(HashAlgorithm::Sha256, &value).unwrap());
            }
            values
        };
        for locality in [0, 3, 4] {
            assert_eq!(idle_bank(&values(locality, 0)), Some(HashAlgorithm::Sha256), "{locality}");
        }
        assert_eq!(idle_bank(&values(5, 0)), None);
        assert_eq!(idle_bank(&values(3, 3)), None);
    }

    #[test]
    fn accepted_values_round_trip_as_json() {
        let bank = HashAlgorithm::Sha256;
        let set = AcceptedPcrs::new([(pcr(0), hash(bank, &[b"a"])), (pcr(0), hash(bank, &[b"b"]))]).unwrap();
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<AcceptedPcrs>(&json).unwrap(), set);
        for bad in [r"{}", r#"{"sha256":{"24":["00"]}}"#, r#"{"sha256":{"0":["00"]}}"#] {
            assert!(serde_json::from_str::<AcceptedPcrs>(bad).is_err(), "{bad}");
        }
    }
}

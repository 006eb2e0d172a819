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

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrValues};
use rootbound_compute::values::Source;
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

/// Accepted PCR values: several per PCR, since machines and versions differ; each with where it comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AcceptedPcrs {
    values: BTreeMap<(HashAlgorithm, PcrIndex), BTreeMap<Digest, Source>>,
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
    /// What is said of where a value comes from can be shown to nobody.
    #[error(
        "{bank} PCR {pcr}: where a value comes from, `{field}`: must have 1 to {} characters, that show",
        BootSet::MAX_WORDS
    )]
    Source {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
        /// Of [`Source`].
        field: &'static str,
    },
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

    /// These values, of which nothing is known; the algorithm of each names its bank.
    pub fn new(values: impl IntoIterator<Item = (PcrIndex, Digest)>) -> Result<Self, ReferenceError> {
        Self::with_sources(values.into_iter().map(|(pcr, value)| (pcr, value, Source::default())))
    }

    /// These values, each with where it comes from: of one that comes twice, what is known first.
    pub fn with_sources(
        values: impl IntoIterator<Item = (PcrIndex, Digest, Source)>,
    ) -> Result<Self, ReferenceError> {
        let mut accepted = Self::default();
        for (pcr, value, source) in values {
            let bank = value.algorithm();
            if bank == HashAlgorithm::Sha1 {
                return Err(ReferenceError::Sha1);
            }
            if let Some(field) = boot_set::unfit_part(&source) {
                return Err(ReferenceError::Source { bank, pcr, field });
            }
            let of_pcr = accepted.values.entry((bank, pcr)).or_default();
            let known = of_pcr.entry(value).or_default();
            if known.is_unknown() {
                *known = source;
            }
            if of_pcr.len() > Self::MAX_PER_PCR {
                return Err(ReferenceError::TooMany { bank, pcr });
            }
        }
        if accepted.values.is_empty() { Err(ReferenceError::Empty) } else { Ok(accepted) }
    }

    /// The same, from there; but for those that are known to be from elsewhere.
    #[must_use]
    pub fn from_source(mut self, source: &Source) -> Self {
        let unknown = self.values.values_mut().flat_map(BTreeMap::values_mut);
        unknown.filter(|known| known.is_unknown()).for_each(|unknown| unknown.clone_from(source));
        self
    }

    /// The accepted values of a PCR; none where the set does not speak of it.
    pub fn of(&self, bank: HashAlgorithm, pcr: PcrIndex) -> impl Iterator<Item = &Digest> {
        self.with_source_of(bank, pcr).map(|(value, _)| value)
    }

    /// The same, each with where it comes from.
    pub fn with_source_of(
        &self,
        bank: HashAlgorithm,
        pcr: PcrIndex,
    ) -> impl Iterator<Item = (&Digest, &Source)> {
        self.values.get(&(bank, pcr)).into_iter().flatten()
    }

    /// Every accepted value.
    pub fn iter(&self) -> impl Iterator<Item = (HashAlgorithm, PcrIndex, &Digest)> {
        self.iter_with_source().map(|(bank, pcr, value, _)| (bank, pcr, value))
    }

    /// Every accepted value, with where it comes from.
    pub fn iter_with_source(&self) -> impl Iterator<Item = (HashAlgorithm, PcrIndex, &Digest, &Source)> {
        self.values.iter().flat_map(|((bank, pcr), values)| {
            values.iter().map(|(value, source)| (*bank, *pcr, value, source))
        })
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

/// A value as it is written: with where it comes from, as far as that is known.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "a value in lower-case hex, or a table of `value` and `source`")]
enum Written {
    Bare(String),
    Sourced(Sourced),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sourced {
    value: String,
    source: Source,
}

/// As JSON: `{"sha256": {"0": ["<hex>", {"value": "<hex>", "source": {"package": …}}, …], …}}`.
impl Serialize for AcceptedPcrs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut banks: BTreeMap<HashAlgorithm, BTreeMap<u8, Vec<Written>>> = BTreeMap::new();
        for (bank, pcr, value, source) in self.iter_with_source() {
            let value = value.to_string();
            let written = match source.is_unknown() {
                true => Written::Bare(value),
                false => Written::Sourced(Sourced { value, source: source.clone() }),
            };
            banks.entry(bank).or_default().entry(pcr.get()).or_default().push(written);
        }
        banks.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for AcceptedPcrs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        use serde::de::Error;
        let banks: BTreeMap<HashAlgorithm, BTreeMap<u8, Vec<Written>>> = BTreeMap::deserialize(deserializer)?;
        let mut values = Vec::new();
        for (bank, pcrs) in banks {
            for (pcr, accepted) in pcrs {
                let index = PcrIndex::new(pcr).ok_or_else(|| D::Error::custom("a PCR number is 0 to 23"))?;
                for written in accepted {
                    let (hex, source) = match written {
                        Written::Bare(hex) => (hex, Source::default()),
                        Written::Sourced(Sourced { value, source }) => (value, source),
                    };
                    let value = Digest::from_hex(bank, &hex).ok_or_else(|| {
                        D::Error::custom(format_args!("{bank} PCR {pcr}: not a value in lower-case hex"))
                    })?;
                    values.push((index, value, source));
                }
            }
        }
        Self::with_sources(values).map_err(D::Error::custom)
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
        let value = hash(bank, &[b"a"]).to_string();
        let bare = |value: &str| format!(r#"{{"sha256":{{"0":[{value}]}}}}"#);
        for bad in [
            "{}".to_owned(),
            r#"{"sha256":{"24":["00"]}}"#.to_owned(),
            bare("\"00\""),
            bare("7"),
            bare(&format!(r#"{{"value":"{value}"}}"#)),
            bare(&format!(r#"{{"value":"{value}","source":{{"file":""}}}}"#)),
            bare(&format!(r#"{{"value":"{value}","source":{{"file":"a\nb"}}}}"#)),
            bare(&format!(r#"{{"value":"{value}","source":{{"packet":"a"}}}}"#)),
            bare(&format!(r#"{{"value":"{value}","source":{{}},"label":"a"}}"#)),
        ] {
            assert!(serde_json::from_str::<AcceptedPcrs>(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn values_keep_where_they_come_from_as_json_and_as_toml() {
        let bank = HashAlgorithm::Sha256;
        let (a, b, c) = (hash(bank, &[b"a"]), hash(bank, &[b"b"]), hash(bank, &[b"c"]));
        let node = |name: &str| Source { node: Some(name.to_owned()), ..Source::default() };
        let package = Source { package: Some("linux".to_owned()), ..Source::default() };
        let unknown = Source::default;
        let values = [
            (pcr(4), a, package.clone()),
            (pcr(4), b, unknown()),
            (pcr(4), b, node("first")),
            (pcr(4), b, node("second")),
            (pcr(9), c, unknown()),
        ];
        let set = AcceptedPcrs::with_sources(values).unwrap();
        let of = |set: &AcceptedPcrs| -> Vec<_> {
            let all = set.iter_with_source();
            all.map(|(_, pcr, value, source)| (pcr.get(), *value, source.clone())).collect()
        };
        let mut expected = vec![(4, a, package), (4, b, node("first")), (9, c, unknown())];
        expected.sort_by_key(|(pcr, value, _)| (*pcr, *value));
        assert_eq!(of(&set), expected);
        let json = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<AcceptedPcrs>(&json).unwrap(), set);
        let toml = toml::to_string(&set).unwrap();
        assert_eq!(toml::from_str::<AcceptedPcrs>(&toml).unwrap(), set, "{toml}");
        let empty = Source { version: Some(String::new()), ..Source::default() };
        let refused = AcceptedPcrs::with_sources([(pcr(4), a, empty)]);
        assert_eq!(refused, Err(ReferenceError::Source { bank, pcr: pcr(4), field: "version" }));
        let all = set.from_source(&node("third"));
        assert_eq!(of(&all).pop().unwrap().2, node("third"));
        assert_eq!(
            all.with_source_of(bank, pcr(4)).filter(|(_, source)| **source == node("first")).count(),
            1
        );
    }
}

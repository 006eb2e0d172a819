//! Reference values and profiles: what is expected of which nodes. Named, versioned, immutable.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet, PcrValues};
use rootbound_common::wire::v1::CredentialPolicy;
use serde::{Deserialize, Serialize};

use crate::node::{Labels, Name};

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

/// The content of a profile, as an operator writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileBody {
    /// Nodes that have all of these labels; empty is every node.
    #[serde(default)]
    pub match_labels: Labels,
    /// The PCRs to quote; each needs a reference value.
    pub pcrs: PcrSelection,
    /// The PCRs that credential keys are tied to.
    pub credential_policy: CredentialPolicy,
    /// The sets whose values are accepted, together.
    pub references: Vec<Name>,
    /// How often nodes attest.
    #[serde(with = "humantime_serde")]
    pub interval: Duration,
    /// After how many intervals without evidence a node is stale.
    pub stale_after: u32,
    /// Life of a credential.
    #[serde(with = "humantime_serde")]
    pub credential_lifetime: Duration,
}

/// Why a profile is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProfileError {
    /// No PCR is quoted.
    #[error("pcrs: select at least one PCR of a SHA-256, SHA-384 or SHA-512 bank")]
    NoPcrs,
    /// A SHA-1 bank is selected.
    #[error("pcrs: SHA-1 banks are refused: collisions can be made")]
    Sha1,
    /// A credential key would be tied to no PCR.
    #[error("credential_policy: name at least one PCR, so that the TPM itself refuses after another boot")]
    NoCredentialPcrs,
    /// A credential key would be tied to a PCR that is not quoted.
    #[error("credential_policy: every PCR must be one of `pcrs`, in the same bank")]
    CredentialPcrNotQuoted,
    /// A credential key would be tied to the IMA PCR.
    #[error("credential_policy: PCR 10 moves as the machine works (IMA); a key tied to it dies at once")]
    CredentialPcr10,
    /// No set is named.
    #[error("references: name at least one set; without one nothing is ever accepted")]
    NoReferences,
    /// Too many sets are named.
    #[error("references: at most {} sets", ProfileBody::MAX_REFERENCES)]
    TooManyReferences,
    /// A duration or count is out of bounds.
    #[error("{what}: must be between {low} and {high}")]
    OutOfBounds {
        /// The field.
        what: &'static str,
        /// The least.
        low: &'static str,
        /// The most.
        high: &'static str,
    },
}

impl ProfileBody {
    /// Sets in one profile: staged rollouts need a handful.
    pub const MAX_REFERENCES: usize = 32;

    /// The profile that `init` writes: every node, the eleven PCRs of a Linux boot (firmware 0 to 7, boot loader 8 and
    /// 9, MOK 14), the set `default`, evidence each minute, stale after three, credentials of ten minutes.
    #[must_use]
    pub fn initial(references: Name) -> Self {
        let pcrs: PcrSet = (0..=9).chain([14]).filter_map(PcrIndex::new).collect();
        Self {
            match_labels: Labels::default(),
            pcrs: PcrSelection::of_bank(HashAlgorithm::Sha256, pcrs),
            credential_policy: CredentialPolicy { bank: HashAlgorithm::Sha256, pcrs },
            references: vec![references],
            interval: Duration::from_secs(60),
            stale_after: 3,
            credential_lifetime: Duration::from_secs(600),
        }
    }

    /// Refuses a profile that would check nothing, or could never be met.
    pub fn check(&self) -> Result<(), ProfileError> {
        const HOUR: u64 = 3600;
        let between = |value: u64, low: u64, high: u64| (low..=high).contains(&value);
        let out = |what, low, high| Err(ProfileError::OutOfBounds { what, low, high });
        if self.pcrs.is_empty() || self.pcrs.banks().any(|(_, pcrs)| pcrs.is_empty()) {
            return Err(ProfileError::NoPcrs);
        }
        if self.pcrs.banks().any(|(bank, _)| bank == HashAlgorithm::Sha1) {
            return Err(ProfileError::Sha1);
        }
        let CredentialPolicy { bank, pcrs } = self.credential_policy;
        if pcrs.is_empty() {
            return Err(ProfileError::NoCredentialPcrs);
        }
        if PcrIndex::new(10).is_some_and(|ima| pcrs.contains(ima)) {
            return Err(ProfileError::CredentialPcr10);
        }
        if !pcrs.is_subset_of(self.pcrs.pcrs(bank)) {
            return Err(ProfileError::CredentialPcrNotQuoted);
        }
        if self.references.is_empty() {
            return Err(ProfileError::NoReferences);
        }
        if self.references.len() > Self::MAX_REFERENCES {
            return Err(ProfileError::TooManyReferences);
        }
        if !between(self.interval.as_secs(), 1, 24 * HOUR) {
            return out("interval", "1s", "1day");
        }
        if !between(u64::from(self.stale_after), 2, 100) {
            return out("stale_after", "2", "100");
        }
        if !between(self.credential_lifetime.as_secs(), 60, 24 * HOUR) {
            return out("credential_lifetime", "1min", "1day");
        }
        Ok(())
    }

    /// How old evidence may be before its node is stale.
    #[must_use]
    pub fn freshness(&self) -> Duration {
        self.interval * self.stale_after
    }
}

/// One version of a profile. Made by [`Profile::new`] only, which checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    id: Versioned,
    body: ProfileBody,
    provenance: Provenance,
}

impl Profile {
    /// Checks and takes a profile.
    pub fn new(id: Versioned, body: ProfileBody, provenance: Provenance) -> Result<Self, ProfileError> {
        body.check()?;
        Ok(Self { id, body, provenance })
    }

    /// Its name and version.
    #[must_use]
    pub fn id(&self) -> &Versioned {
        &self.id
    }

    /// Its content.
    #[must_use]
    pub fn body(&self) -> &ProfileBody {
        &self.body
    }

    /// Who made it.
    #[must_use]
    pub fn provenance(&self) -> &Provenance {
        &self.provenance
    }
}

/// Every current profile and reference set: what appraisals read. Replaced as a whole when one changes.
#[derive(Debug, Clone, Default)]
pub struct ReferenceBook {
    profiles: Vec<Profile>,
    sets: BTreeMap<Name, ReferenceSet>,
}

/// Why no profile is a node's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoProfile {
    /// None fits its labels.
    #[error("no profile fits the node's labels")]
    None,
    /// Two fit equally well.
    #[error("profiles {first} and {second} fit the node's labels equally well")]
    Ambiguous {
        /// One of them.
        first: Versioned,
        /// Another.
        second: Versioned,
    },
}

impl ReferenceBook {
    /// The book of the current version of each profile and set.
    #[must_use]
    pub fn new(profiles: Vec<Profile>, sets: Vec<ReferenceSet>) -> Self {
        Self { profiles, sets: sets.into_iter().map(|set| (set.id.name.clone(), set)).collect() }
    }

    /// The profile of a node with these labels: of those whose labels the node all has, the one that names most.
    pub fn profile(&self, labels: &Labels) -> Result<&Profile, NoProfile> {
        let mut best: Option<&Profile> = None;
        let mut rival: Option<&Profile> = None;
        for profile in self.profiles.iter().filter(|profile| profile.body.match_labels.all_in(labels)) {
            let names = profile.body.match_labels.len();
            match best.map(|best| best.body.match_labels.len()) {
                Some(most) if names < most => {}
                Some(most) if names == most => rival = Some(profile),
                Some(_) | None => (best, rival) = (Some(profile), None),
            }
        }
        match (best, rival) {
            (None, _) => Err(NoProfile::None),
            (Some(best), None) => Ok(best),
            (Some(best), Some(rival)) => {
                Err(NoProfile::Ambiguous { first: best.id.clone(), second: rival.id.clone() })
            }
        }
    }

    /// The current version of a set.
    #[must_use]
    pub fn set(&self, name: &Name) -> Option<&ReferenceSet> {
        self.sets.get(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::crypto::hash;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn pcr(index: u8) -> PcrIndex {
        PcrIndex::new(index).unwrap()
    }

    fn profile(title: &str, labels: &[(&str, &str)]) -> Profile {
        let mut body = ProfileBody::initial(name("default"));
        for (key, value) in labels {
            body.match_labels.set(name(key), Some(name(value))).unwrap();
        }
        let provenance = Provenance {
            author: "uid 0".into(),
            reason: String::new(),
            created_at: Timestamp::from_millis(0),
        };
        Profile::new(Versioned { name: name(title), version: 1 }, body, provenance).unwrap()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        let mut labels = Labels::default();
        for (key, value) in pairs {
            labels.set(name(key), Some(name(value))).unwrap();
        }
        labels
    }

    #[test]
    fn the_profile_that_names_most_labels_wins() {
        let book = ReferenceBook::new(
            vec![
                profile("any", &[]),
                profile("prod", &[("env", "prod")]),
                profile("prod-db", &[("env", "prod"), ("role", "db")]),
            ],
            vec![],
        );
        let of = |pairs: &[(&str, &str)]| book.profile(&labels(pairs)).unwrap().id().to_string();
        assert_eq!(of(&[]), "any@1");
        assert_eq!(of(&[("env", "test")]), "any@1");
        assert_eq!(of(&[("env", "prod")]), "prod@1");
        assert_eq!(of(&[("env", "prod"), ("role", "db"), ("rack", "b7")]), "prod-db@1");
    }

    #[test]
    fn profiles_that_fit_equally_well_or_not_at_all_give_none() {
        let book = ReferenceBook::new(
            vec![profile("a", &[("env", "prod")]), profile("b", &[("role", "db")])],
            vec![],
        );
        assert_eq!(book.profile(&labels(&[])), Err(NoProfile::None));
        let both = book.profile(&labels(&[("env", "prod"), ("role", "db")]));
        assert!(matches!(both, Err(NoProfile::Ambiguous { .. })), "{both:?}");
    }

    #[test]
    fn a_profile_that_would_check_nothing_is_refused() {
        let good = ProfileBody::initial(name("default"));
        assert_eq!(good.check(), Ok(()));
        let of =
            |bank, pcrs: &[u8]| PcrSelection::of_bank(bank, pcrs.iter().map(|index| pcr(*index)).collect());
        let policy = |pcrs: &[u8]| CredentialPolicy {
            bank: HashAlgorithm::Sha256,
            pcrs: pcrs.iter().map(|index| pcr(*index)).collect(),
        };
        let bounds = |what, low, high| ProfileError::OutOfBounds { what, low, high };
        let base = || good.clone();
        for (bad, expected) in [
            (ProfileBody { pcrs: of(HashAlgorithm::Sha256, &[]), ..base() }, ProfileError::NoPcrs),
            (ProfileBody { pcrs: of(HashAlgorithm::Sha1, &[0]), ..base() }, ProfileError::Sha1),
            (ProfileBody { credential_policy: policy(&[]), ..base() }, ProfileError::NoCredentialPcrs),
            (ProfileBody { credential_policy: policy(&[10]), ..base() }, ProfileError::CredentialPcr10),
            (
                ProfileBody { credential_policy: policy(&[23]), ..base() },
                ProfileError::CredentialPcrNotQuoted,
            ),
            (ProfileBody { references: vec![], ..base() }, ProfileError::NoReferences),
            (ProfileBody { references: vec![name("a"); 33], ..base() }, ProfileError::TooManyReferences),
            (ProfileBody { interval: Duration::ZERO, ..base() }, bounds("interval", "1s", "1day")),
            (ProfileBody { stale_after: 1, ..base() }, bounds("stale_after", "2", "100")),
            (
                ProfileBody { credential_lifetime: Duration::from_secs(59), ..base() },
                bounds("credential_lifetime", "1min", "1day"),
            ),
        ] {
            assert_eq!(bad.check(), Err(expected));
        }
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

//! Reference values and profiles: what is expected of which nodes. Named, versioned, immutable.
//!
//! - [`boot_set`]: values of boots, for the rules of profiles
//! - `change`: the book as it would be; `kind`: sorts of values
//! - [`deny`]: what nothing makes acceptable
//! - [`exchange`]: sets on their way to another verifier, signed

pub mod boot_set;
mod change;
pub mod deny;
pub mod exchange;
mod kind;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet, PcrValues};
use rootbound_common::wire::v1::CredentialPolicy;
use serde::{Deserialize, Serialize};

use crate::appraisal::boot::{BootRules, BootRulesError};
use crate::appraisal::runtime::{CompiledRules, DigestSet, RuntimeRules, RuntimeRulesError};
use crate::evidence::ima;
use crate::node::{Labels, Name};

pub use boot_set::{BootSet, BootSetError, BootSetVersion};
pub use change::{ChangeError, ReferenceChange};
pub use deny::{DeniedAs, DenyEntry, DenyError, DenyList};
pub use kind::SetKind;

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
    /// PCRs that are quoted and not judged, in any bank: what differs from machine to machine.
    #[serde(default, skip_serializing_if = "is_empty")]
    pub ignored: PcrSet,
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
    /// Logs that are asked for and kept, but not judged: to look at, and to make rules of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub collect: Vec<LogKind>,
    /// What may have booted, by the boot event log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<BootRules>,
    /// What may run, by the IMA list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runtime: Option<RuntimeRules>,
    /// Whether deviations are recorded and not acted on, for now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observe: Option<Observe>,
}

/// Until when a profile records deviations without acting: its nodes stand at `warning` instead of `contraindicated`, and are
/// `contraindicated` by themselves from then on. What is denied by name is acted on all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Observe {
    /// The end, as in RFC 3339: at most [`ProfileBody::LONGEST_OBSERVATION`] after the version was written.
    #[serde(with = "rfc3339")]
    pub until: Timestamp,
    /// Whether nodes that deviate get credentials. Without it they get none that a profile which enforces would not give.
    #[serde(default)]
    pub issue: bool,
}

/// A time as in RFC 3339, for people.
mod rfc3339 {
    use std::borrow::Cow;
    use std::time::UNIX_EPOCH;

    use humantime_serde::re::humantime::parse_rfc3339;
    use rootbound_common::clock::Timestamp;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(at: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(at)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        let since = parse_rfc3339(&text).ok().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        let millis = since.and_then(|since| i64::try_from(since.as_millis()).ok());
        millis
            .map(Timestamp::from_millis)
            .ok_or_else(|| D::Error::custom("a time is written `2026-12-24T00:00:00Z`"))
    }
}

/// A log that goes along with a quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogKind {
    /// What firmware and boot loaders measured.
    BootLog,
    /// What the kernel measured since.
    Ima,
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
    /// No PCR is judged.
    #[error("ignored: every PCR is; a profile that judges nothing would accept any machine")]
    NothingJudged,
    /// A PCR that is not judged is not quoted either, or is judged all the same.
    #[error("ignored: PCR {pcr} is {why}")]
    Ignored {
        /// The PCR.
        pcr: PcrIndex,
        /// What contradicts.
        why: &'static str,
    },
    /// Rules over logs about a PCR that is not quoted.
    #[error("{rules}: PCR {pcr} has to be one of `pcrs`, in bank {bank}")]
    LogPcrNotQuoted {
        /// The field.
        rules: &'static str,
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
    },
    /// The rules over the boot are refused.
    #[error("boot: {0}")]
    Boot(#[from] BootRulesError),
    /// The rules over what runs are refused.
    #[error(transparent)]
    Runtime(#[from] RuntimeRulesError),
    /// No set is named, and some PCR needs one.
    #[error("references: name at least one set; without one PCR {pcr} is never accepted")]
    NoReferences {
        /// The first that needs one.
        pcr: PcrIndex,
    },
    /// Too many sets are named.
    #[error("references: at most {} sets", ProfileBody::MAX_REFERENCES)]
    TooManyReferences,
    /// It would not act for too long, or never begins to observe.
    #[error("observe: `until` has to be after now, and at most {} days", ProfileBody::LONGEST_OBSERVATION.as_secs() / 86_400)]
    ObserveUntil,
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
    /// For how long a version of a profile may observe: who has not looked by then does not look.
    pub const LONGEST_OBSERVATION: Duration = Duration::from_secs(90 * 24 * 3600);
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
            ignored: PcrSet::EMPTY,
            references: vec![references],
            interval: Duration::from_secs(60),
            stale_after: 3,
            credential_lifetime: Duration::from_secs(600),
            collect: Vec::new(),
            boot: None,
            runtime: None,
            observe: None,
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
        self.check_logs()?;
        let mut quoted = self.pcrs.banks().flat_map(|(bank, pcrs)| pcrs.iter().map(move |pcr| (bank, pcr)));
        if quoted.all(|(bank, pcr)| self.judged_by(bank, pcr) == JudgedBy::Nothing) {
            return Err(ProfileError::NothingJudged);
        }
        let pinned = self.pcrs.banks().flat_map(|(bank, pcrs)| pcrs.iter().map(move |pcr| (bank, pcr)));
        if let Some((_, pcr)) =
            pinned.into_iter().find(|(bank, pcr)| self.judged_by(*bank, *pcr) == JudgedBy::Reference)
            && self.references.is_empty()
        {
            return Err(ProfileError::NoReferences { pcr });
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

    /// Rules over logs are about PCRs that are quoted; what is not judged is nothing else.
    fn check_logs(&self) -> Result<(), ProfileError> {
        let needs =
            |rules, bank, pcrs: PcrSet| match pcrs.iter().find(|pcr| !self.pcrs.pcrs(bank).contains(*pcr)) {
                Some(pcr) => Err(ProfileError::LogPcrNotQuoted { rules, bank, pcr }),
                None => Ok(()),
            };
        if let Some(rules) = &self.boot {
            rules.check()?;
            needs("boot.explained", rules.bank, rules.explained)?;
        }
        if let Some(rules) = &self.runtime {
            rules.check()?;
            needs("runtime", self.log_bank(), ima_pcr())?;
        }
        if self.collect.contains(&LogKind::Ima) {
            needs("collect", self.log_bank(), ima_pcr())?;
        }
        for pcr in self.ignored.iter() {
            let why = if !self.pcrs.banks().any(|(_, pcrs)| pcrs.contains(pcr)) {
                "not one of `pcrs`"
            } else if self.boot.as_ref().is_some_and(|rules| rules.explained.contains(pcr)) {
                "explained by the boot event log"
            } else if self.runtime.is_some() && ima_pcr().contains(pcr) {
                "explained by the IMA list"
            } else {
                continue;
            };
            return Err(ProfileError::Ignored { pcr, why });
        }
        Ok(())
    }

    /// Whether a log is asked for: to be judged, or kept at least.
    #[must_use]
    pub fn asks_for(&self, log: LogKind) -> bool {
        let judges = match log {
            LogKind::BootLog => self.boot.is_some(),
            LogKind::Ima => self.runtime.is_some(),
        };
        judges || self.collect.contains(&log)
    }

    /// Whether any log is asked for.
    #[must_use]
    pub fn asks_for_logs(&self) -> bool {
        self.asks_for(LogKind::BootLog) || self.asks_for(LogKind::Ima)
    }

    /// The bank that logs have to come to.
    #[must_use]
    pub fn log_bank(&self) -> HashAlgorithm {
        self.boot.as_ref().map_or(self.credential_policy.bank, |rules| rules.bank)
    }

    /// By what a quoted PCR is judged.
    #[must_use]
    pub fn judged_by(&self, bank: HashAlgorithm, pcr: PcrIndex) -> JudgedBy {
        if self.ignored.contains(pcr) {
            JudgedBy::Nothing
        } else if self.boot.as_ref().is_some_and(|rules| rules.bank == bank && rules.explained.contains(pcr))
        {
            JudgedBy::BootLog
        } else if self.runtime.is_some() && bank == self.log_bank() && ima_pcr().contains(pcr) {
            JudgedBy::ImaList
        } else {
            JudgedBy::Reference
        }
    }

    /// How old evidence may be before its node is stale.
    #[must_use]
    pub fn freshness(&self) -> Duration {
        self.interval * self.stale_after
    }
}

/// By what a quoted PCR is judged: each in one way, which the profile says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JudgedBy {
    /// It is pinned: a reference set has its value.
    Reference,
    /// It is explained, event by event.
    BootLog,
    /// It is explained, entry by entry.
    ImaList,
    /// It is not judged.
    Nothing,
}

fn is_empty(pcrs: &PcrSet) -> bool {
    pcrs.is_empty()
}

/// The PCR that IMA extends.
fn ima_pcr() -> PcrSet {
    PcrIndex::new(ima::PCR).into_iter().collect()
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
        if let Some(Observe { until, .. }) = body.observe {
            let at = provenance.created_at;
            if until <= at || until.since(at) > ProfileBody::LONGEST_OBSERVATION {
                return Err(ProfileError::ObserveUntil);
            }
        }
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

/// What a book is of: the current version of each profile and set.
#[derive(Debug, Clone, Default)]
pub struct References {
    /// Profiles.
    pub profiles: Vec<Profile>,
    /// Sets of PCR values.
    pub sets: Vec<ReferenceSet>,
    /// Sets of values of boots.
    pub boot_sets: Vec<BootSetVersion>,
    /// Sets of digests of what runs.
    pub digest_sets: Vec<DigestSetVersion>,
    /// What nothing makes acceptable.
    pub deny: DenyList,
}

/// Boot rules with the values of their sets.
#[derive(Debug)]
pub struct CompiledBoot {
    /// As if all were written in the profile.
    pub rules: BootRules,
    /// The versions that they came of.
    pub sets: Vec<Versioned>,
}

/// Every current profile and reference set: what appraisals read. Replaced as a whole when one changes.
#[derive(Debug, Clone, Default)]
pub struct ReferenceBook {
    profiles: Vec<Profile>,
    sets: BTreeMap<Name, ReferenceSet>,
    boot_sets: BTreeMap<Name, BootSetVersion>,
    digest_sets: BTreeMap<Name, DigestSetVersion>,
    deny: DenyList,
    /// The boot rules of each profile that has any.
    boot: BTreeMap<Name, Arc<CompiledBoot>>,
    /// The run-time rules of each profile that asks for the IMA list, ready for use.
    runtime: BTreeMap<Name, Arc<CompiledRules>>,
}

/// What a node is judged by.
#[derive(Debug, Clone, Copy)]
pub struct RuleBook<'a> {
    /// Its profile, where one fits.
    pub profile: Option<&'a ProfileBody>,
    /// The run-time rules of that.
    pub runtime: Option<&'a CompiledRules>,
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
    /// The book of profiles that name no boot sets.
    pub fn new(
        profiles: Vec<Profile>,
        sets: Vec<ReferenceSet>,
        digest_sets: Vec<DigestSetVersion>,
    ) -> Result<Self, ProfileError> {
        Self::of(References { profiles, sets, digest_sets, ..References::default() })
    }

    /// The book of the current version of each profile and set. Rules are compiled here, once.
    ///
    /// What a profile and its boot sets contradict each other about is refused where one is written ([`Self::check`]); a book
    /// of both is made all the same, and accepts what neither denies.
    pub fn of(references: References) -> Result<Self, ProfileError> {
        let References { profiles, sets, boot_sets, digest_sets, deny } = references;
        let boot_sets: BTreeMap<_, _> = boot_sets.into_iter().map(|set| (set.id.name.clone(), set)).collect();
        let boot = profiles.iter().filter_map(|profile| {
            let rules = profile.body.boot.as_ref()?;
            let named: Vec<_> = rules.sets.iter().filter_map(|name| boot_sets.get(name)).collect();
            let (rules, sets) =
                (rules.with_sets(named.iter().copied()), named.iter().map(|set| set.id.clone()));
            Some((profile.id.name.clone(), Arc::new(CompiledBoot { rules, sets: sets.collect() })))
        });
        let boot = boot.collect();
        let digest_sets: BTreeMap<_, _> =
            digest_sets.into_iter().map(|set| (set.id.name.clone(), set)).collect();
        let mut runtime = BTreeMap::new();
        for profile in &profiles {
            let find = |name: &Name| digest_sets.get(name).map(|set| Arc::clone(&set.digests));
            let compiled = match &profile.body.runtime {
                Some(rules) => CompiledRules::with_deny(rules.clone(), find, &deny)?,
                // What accepts nothing still replays, and nobody reads what it finds.
                None if profile.body.collect.contains(&LogKind::Ima) => {
                    let digest_sets = vec![Name::default_set()];
                    CompiledRules::new(RuntimeRules { digest_sets, ..RuntimeRules::default() }, |_| None)?
                }
                None => continue,
            };
            runtime.insert(profile.id.name.clone(), Arc::new(compiled));
        }
        let sets = sets.into_iter().map(|set| (set.id.name.clone(), set)).collect();
        Ok(Self { profiles, sets, boot_sets, digest_sets, deny, boot, runtime })
    }

    /// What it is of: to change something of, and see what that would come to.
    #[must_use]
    pub fn references(&self) -> References {
        References {
            profiles: self.profiles.clone(),
            sets: self.sets.values().cloned().collect(),
            boot_sets: self.boot_sets.values().cloned().collect(),
            digest_sets: self.digest_sets.values().cloned().collect(),
            deny: self.deny.clone(),
        }
    }

    /// Refuses a profile whose boot sets say what it could not have said itself.
    pub fn check(&self, body: &ProfileBody) -> Result<(), ProfileError> {
        let Some(rules) = &body.boot else { return Ok(()) };
        let sets: Vec<_> = rules.sets.iter().filter_map(|name| self.boot_sets.get(name)).collect();
        Ok(rules.check_with(&sets)?)
    }

    /// Refuses a boot set that contradicts a profile that names it.
    pub fn check_boot_set(&self, name: &Name, set: &BootSet) -> Result<(), (Versioned, BootRulesError)> {
        let provenance = Provenance {
            author: String::new(),
            reason: String::new(),
            created_at: Timestamp::from_millis(0),
        };
        let next =
            BootSetVersion { id: Versioned { name: name.clone(), version: 0 }, set: set.clone(), provenance };
        for profile in &self.profiles {
            let Some(rules) = profile.body.boot.as_ref().filter(|rules| rules.sets.contains(name)) else {
                continue;
            };
            let of = |named: &Name| if named == name { Some(&next) } else { self.boot_sets.get(named) };
            let sets: Vec<_> = rules.sets.iter().filter_map(of).collect();
            rules.check_with(&sets).map_err(|error| (profile.id.clone(), error))?;
        }
        Ok(())
    }

    /// The boot rules of a profile of this book, where it has any.
    #[must_use]
    pub fn boot(&self, profile: &Profile) -> Option<&CompiledBoot> {
        self.boot.get(&profile.id.name).map(Arc::as_ref)
    }

    /// The current version of a boot set.
    #[must_use]
    pub fn boot_set(&self, name: &Name) -> Option<&BootSetVersion> {
        self.boot_sets.get(name)
    }

    /// What nothing makes acceptable.
    #[must_use]
    pub fn deny(&self) -> &DenyList {
        &self.deny
    }

    /// What a node with these labels is judged by.
    #[must_use]
    pub fn rules(&self, labels: &Labels) -> RuleBook<'_> {
        let profile = self.profile(labels).ok();
        let runtime = profile.and_then(|profile| self.runtime.get(&profile.id.name));
        RuleBook { profile: profile.map(Profile::body), runtime: runtime.map(Arc::as_ref) }
    }

    /// The current version of a digest set.
    #[must_use]
    pub fn digest_set(&self, name: &Name) -> Option<&DigestSetVersion> {
        self.digest_sets.get(name)
    }

    /// Digests with this content, where a current set has them: they need not be compiled again.
    #[must_use]
    pub fn digests_of(&self, content: &[u8; 32]) -> Option<Arc<DigestSet>> {
        let mut sets = self.digest_sets.values();
        sets.find(|set| set.digests.id() == content).map(|set| Arc::clone(&set.digests))
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
    fn a_profile_observes_for_a_bounded_time() {
        let provenance = Provenance {
            author: "uid 0".into(),
            reason: String::new(),
            created_at: Timestamp::from_millis(1_000),
        };
        let with = |until| {
            let observe = Some(Observe { until, issue: false });
            let body = ProfileBody { observe, ..ProfileBody::initial(name("default")) };
            let id = Versioned { name: name("a"), version: 1 };
            Profile::new(id, body, provenance.clone()).map(|_| ())
        };
        let latest = provenance.created_at.plus(ProfileBody::LONGEST_OBSERVATION);
        assert_eq!(with(provenance.created_at.plus(Duration::from_millis(1))), Ok(()));
        assert_eq!(with(latest), Ok(()));
        for until in [provenance.created_at, latest.plus(Duration::from_millis(1))] {
            assert_eq!(with(until), Err(ProfileError::ObserveUntil));
        }
    }

    #[test]
    fn the_end_of_an_observation_is_written_as_people_write_times() {
        let observe: Observe = toml::from_str("until = \"2026-12-24T00:00:00Z\"").unwrap();
        assert_eq!(observe, Observe { until: Timestamp::from_millis(1_798_070_400_000), issue: false });
        let text = toml::to_string(&observe).unwrap();
        assert_eq!(toml::from_str::<Observe>(&text).unwrap(), observe, "{text}");
        for odd in [
            "until = 1798070400000",
            "until = \"tomorrow\"",
            "until = \"1969-12-24T00:00:00Z\"",
            "issue = true",
        ] {
            assert!(toml::from_str::<Observe>(odd).is_err(), "{odd}");
        }
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
            vec![],
        )
        .unwrap();
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
            vec![],
        )
        .unwrap();
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
            (
                ProfileBody { ignored: base().pcrs.pcrs(HashAlgorithm::Sha256), ..base() },
                ProfileError::NothingJudged,
            ),
            (ProfileBody { references: vec![], ..base() }, ProfileError::NoReferences { pcr: pcr(0) }),
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

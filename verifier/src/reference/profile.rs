//! Profiles: what is expected of which nodes.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet};
use rootbound_common::wire::v1::CredentialPolicy;
use serde::{Deserialize, Serialize};

use super::{Provenance, Versioned};
use crate::appraisal::boot::{BootRules, BootRulesError};
use crate::appraisal::runtime::{RuntimeRules, RuntimeRulesError};
use crate::evidence::ima;
use crate::node::{Labels, Name};

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

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    fn pcr(index: u8) -> PcrIndex {
        PcrIndex::new(index).unwrap()
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
}

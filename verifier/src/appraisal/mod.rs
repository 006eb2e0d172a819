//! Appraisal: what observed values mean, by reference values. A deviation is unexpected, not broken.
//!
//! - [`appraise`]: PCR values, by reference sets; and what the logs explain
//! - [`logs`]: what became of the boot event log and the IMA list; [`boot`], [`runtime`]: rules over them
//! - [`trust_vector`]: the same in the words of AR4SI, for relying parties

pub mod boot;
pub mod logs;
pub mod runtime;
pub mod trust_vector;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::Digest;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_common::wire::v1::DeviationReport;
use serde::{Deserialize, Serialize};

use crate::evidence::Observed;
use crate::node::Labels;
use crate::reference::{
    CompiledBoot, JudgedBy, NoProfile, Observe, Profile, ReferenceBook, Versioned, idle_bank,
};
use boot::Booted;
use logs::{BootEvidence, BootFinding, Logs, RuntimeEvidence, RuntimeFinding};

/// What an appraisal came to. Staleness is no verdict: it is read off the clock when somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Reference values explain everything observed.
    Affirming,
    /// They do not.
    Contraindicated,
}

/// An observed value that no reference value explains, or a judgement that could not be made: both count the same.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Deviation {
    /// No profile fits, or two do.
    #[error("{0}")]
    NoProfile(NoProfile),
    /// The profile asks for a PCR that the quote, made before the profile changed, does not have.
    #[error("{bank} PCR {pcr} was not quoted, and the profile needs it")]
    NotQuoted {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
    },
    /// Nothing was measured into the bank.
    #[error("bank {bank} is idle: nothing was measured into it, so its values say nothing")]
    IdleBank {
        /// The bank.
        bank: HashAlgorithm,
    },
    /// No current set has a value for the PCR.
    #[error("{bank} PCR {pcr} has no reference value (observed {observed})")]
    NoReference {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
        /// What was observed.
        observed: Digest,
    },
    /// The value is none of the accepted ones.
    #[error("{bank} PCR {pcr} is {observed}, none of the {} accepted values", accepted.len())]
    PcrMismatch {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
        /// What was observed.
        observed: Digest,
        /// What would have been accepted.
        accepted: Vec<Digest>,
    },
    /// The value is on the deny list.
    #[error("{bank} PCR {pcr} is {observed}, which is denied: {by}")]
    PcrDenied {
        /// The bank.
        bank: HashAlgorithm,
        /// The PCR.
        pcr: PcrIndex,
        /// What was observed.
        observed: Digest,
        /// The entry's label and the list's version.
        by: String,
    },
    /// About what booted.
    #[error(transparent)]
    Boot(BootFinding),
    /// About what ran.
    #[error(transparent)]
    Runtime(RuntimeFinding),
}

impl Deviation {
    /// Accepted values in a report: it is kept for each node, in memory too, and people read no more. The detail says how
    /// many there are.
    const MAX_REPORTED: usize = 8;

    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoProfile(NoProfile::None) => "no_profile",
            Self::NoProfile(NoProfile::Ambiguous { .. }) => "profile_ambiguous",
            Self::NotQuoted { .. } => "pcr_not_quoted",
            Self::IdleBank { .. } => "bank_idle",
            Self::NoReference { .. } => "no_reference_value",
            Self::PcrMismatch { .. } => "pcr_mismatch",
            Self::PcrDenied { .. } => "pcr_denied",
            Self::Boot(finding) => finding.code(),
            Self::Runtime(finding) => finding.code(),
        }
    }

    /// Whether a reference value would explain it. None explains what an operator has denied by name, a log that is not there or
    /// is not the one that was measured, and a bank that says nothing.
    #[must_use]
    pub const fn is_explicable(&self) -> bool {
        match self {
            Self::Boot(finding) => finding.is_explicable(),
            Self::Runtime(finding) => finding.is_explicable(),
            Self::NotQuoted { .. } | Self::NoReference { .. } | Self::PcrMismatch { .. } => true,
            Self::NoProfile(_) | Self::IdleBank { .. } | Self::PcrDenied { .. } => false,
        }
    }

    /// For the wire and the store.
    #[must_use]
    pub fn report(&self) -> DeviationReport {
        let (bank, pcr, observed, accepted) = match self {
            Self::NoProfile(_) | Self::Boot(_) | Self::Runtime(_) => (None, None, None, &[][..]),
            Self::NotQuoted { bank, pcr } => (Some(*bank), Some(*pcr), None, &[][..]),
            Self::IdleBank { bank } => (Some(*bank), None, None, &[][..]),
            Self::NoReference { bank, pcr, observed } | Self::PcrDenied { bank, pcr, observed, .. } => {
                (Some(*bank), Some(*pcr), Some(observed), &[][..])
            }
            Self::PcrMismatch { bank, pcr, observed, accepted } => {
                (Some(*bank), Some(*pcr), Some(observed), accepted.as_slice())
            }
        };
        DeviationReport {
            code: self.code().to_owned(),
            detail: self.to_string(),
            bank,
            pcr,
            observed: observed.map(ToString::to_string),
            accepted: accepted.iter().take(Self::MAX_REPORTED).map(ToString::to_string).collect(),
        }
    }
}

/// What one node's observed values mean, with the versions that say so. Only [`appraise`] makes it.
#[derive(Debug, Clone)]
pub struct Appraisal {
    node: NodeId,
    evidence_at: Timestamp,
    profile: Option<Profile>,
    references: Vec<Versioned>,
    deviations: Vec<Deviation>,
    weak: bool,
    booted: Booted,
}

impl Appraisal {
    /// Whose.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// Affirming when there is no deviation.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.deviations.is_empty() { Verdict::Affirming } else { Verdict::Contraindicated }
    }

    /// How the profile observes what deviates, where it does: all of it could be explained by a reference value.
    #[must_use]
    pub fn observed(&self) -> Option<Observe> {
        let observe = self.profile.as_ref()?.body().observe?;
        let acts = self.deviations.is_empty() || !self.deviations.iter().all(Deviation::is_explicable);
        (!acts).then_some(observe)
    }

    /// When the evidence was made, at the earliest.
    #[must_use]
    pub fn evidence_at(&self) -> Timestamp {
        self.evidence_at
    }

    /// The profile that was used; `None` is a deviation.
    #[must_use]
    pub fn profile(&self) -> Option<&Profile> {
        self.profile.as_ref()
    }

    /// The sets that were used, of each kind, and the deny list where it denies anything.
    #[must_use]
    pub fn references(&self) -> &[Versioned] {
        &self.references
    }

    /// Whether what ran is vouched for by SHA-1 only, as the profile accepts: an attestation result says so.
    #[must_use]
    pub fn is_weak(&self) -> bool {
        self.weak
    }

    /// What is proved of the boot, whether or not it is as expected.
    #[must_use]
    pub fn booted(&self) -> &Booted {
        &self.booted
    }

    /// What no reference value explains.
    #[must_use]
    pub fn deviations(&self) -> &[Deviation] {
        &self.deviations
    }
}

/// Appraises what was observed on a node with these labels.
///
/// Established when the verdict is affirming: exactly one profile fits best · every PCR that it selects was quoted · no
/// selected bank is idle · every selected PCR that the profile neither ignores nor explains by a log has a value that one of
/// the profile's current sets accepts · where the profile judges by a log, that came, replays to the quoted values, and
/// holds nothing that the rules do not accept · nothing of all this is on the deny list. A named set that does not exist
/// accepts nothing.
#[must_use]
pub fn appraise(observed: &Observed, logs: &Logs, labels: &Labels, book: &ReferenceBook) -> Appraisal {
    let mut appraisal = Appraisal {
        node: observed.node(),
        evidence_at: observed.evidence_at(),
        profile: None,
        references: Vec::new(),
        deviations: Vec::new(),
        weak: false,
        booted: Booted::of(observed.clock(), None),
    };
    let profile = match book.profile(labels) {
        Ok(profile) => profile,
        Err(none) => {
            appraisal.deviations.push(Deviation::NoProfile(none));
            return appraisal;
        }
    };
    let sets: Vec<_> = profile.body().references.iter().filter_map(|name| book.set(name)).collect();
    if let Some(bank) = idle_bank(observed.pcrs()) {
        appraisal.deviations.push(Deviation::IdleBank { bank });
    }
    let deny = book.deny();
    for (bank, pcr, value) in observed.pcrs().iter() {
        if let Some(by) = deny.denies(value) {
            appraisal.deviations.push(Deviation::PcrDenied { bank, pcr, observed: *value, by });
        }
    }
    for (bank, pcrs) in profile.body().pcrs.banks() {
        for pcr in pcrs.iter() {
            let accepted = sets.iter().flat_map(|set| set.accepted.of(bank, pcr));
            let deviation = match (observed.pcrs().get(bank, pcr), profile.body().judged_by(bank, pcr)) {
                (None, _) => Some(Deviation::NotQuoted { bank, pcr }),
                (Some(value), JudgedBy::Reference) => judge(bank, pcr, value, accepted),
                (Some(_), JudgedBy::BootLog | JudgedBy::ImaList | JudgedBy::Nothing) => None,
            };
            appraisal.deviations.extend(deviation);
        }
    }
    let mut boot_sets = Vec::new();
    if let Some(CompiledBoot { rules, sets }) = book.boot(profile) {
        if let BootEvidence::Authentic(history) = &logs.boot {
            appraisal.booted = Booted::of(observed.clock(), Some(history));
        }
        let findings = logs::judge_boot(&logs.boot, rules, deny);
        appraisal.deviations.extend(findings.into_iter().map(Deviation::Boot));
        boot_sets = sets.iter().collect();
    }
    let mut digest_sets = Vec::new();
    if let Some(rules) = &profile.body().runtime {
        let findings = logs::judge_runtime(&logs.runtime);
        appraisal.weak = matches!(&logs.runtime, RuntimeEvidence::Judged(judged) if judged.is_weak());
        appraisal.deviations.extend(findings.into_iter().map(Deviation::Runtime));
        digest_sets = rules.digest_sets.iter().filter_map(|name| book.digest_set(name)).collect();
    }
    let sets =
        sets.iter().map(|set| &set.id).chain(boot_sets).chain(digest_sets.into_iter().map(|set| &set.id));
    appraisal.references = sets.cloned().chain((!deny.is_empty()).then(|| deny.id())).collect();
    appraisal.profile = Some(profile.clone());
    appraisal
}

fn judge<'a>(
    bank: HashAlgorithm,
    pcr: PcrIndex,
    observed: &Digest,
    accepted: impl Iterator<Item = &'a Digest>,
) -> Option<Deviation> {
    let mut others = Vec::new();
    for value in accepted {
        if value == observed {
            return None;
        }
        others.push(*value);
    }
    Some(if others.is_empty() {
        Deviation::NoReference { bank, pcr, observed: *observed }
    } else {
        Deviation::PcrMismatch { bank, pcr, observed: *observed, accepted: others }
    })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::node::Name;
    use crate::reference::{AcceptedPcrs, ProfileBody, Provenance, ReferenceSet};
    use rootbound_common::crypto::hash;
    use rootbound_common::tpm::{PcrSelection, PcrSet, PcrValues};

    const BANK: HashAlgorithm = HashAlgorithm::Sha256;

    fn pcr(index: u8) -> PcrIndex {
        PcrIndex::new(index).unwrap()
    }

    pub(crate) fn value(text: &str) -> Digest {
        hash(BANK, &[text.as_bytes()])
    }

    pub(crate) fn observed(values: &[(u8, Digest)]) -> Observed {
        let mut pcrs = PcrValues::default();
        for (index, value) in values {
            pcrs.insert(pcr(*index), *value);
        }
        Observed::fabricated(NodeId::from_bytes([1; 32]), pcrs, Timestamp::from_millis(7))
    }

    fn provenance() -> Provenance {
        Provenance { author: "uid 0".into(), reason: String::new(), created_at: Timestamp::from_millis(0) }
    }

    fn named(name: &str) -> Versioned {
        Versioned { name: name.parse().unwrap(), version: 3 }
    }

    /// A profile over PCRs 0 and 7 that names the sets `a` and `b`, and these sets.
    pub(crate) fn book(sets: &[(&str, &[(u8, Digest)])]) -> ReferenceBook {
        let pcrs: PcrSet = [pcr(0), pcr(7)].into_iter().collect();
        let mut body = ProfileBody::initial("a".parse().unwrap());
        body.references.push("b".parse().unwrap());
        body.pcrs = PcrSelection::of_bank(BANK, pcrs);
        body.credential_policy.pcrs = pcrs;
        let profile = Profile::new(named("p"), body, provenance()).unwrap();
        let sets = sets.iter().map(|(name, values)| ReferenceSet {
            id: named(name),
            accepted: AcceptedPcrs::new(values.iter().map(|(index, value)| (pcr(*index), *value))).unwrap(),
            provenance: provenance(),
        });
        ReferenceBook::new(vec![profile], sets.collect(), Vec::new()).unwrap()
    }

    fn deviations(observed: &Observed, book: &ReferenceBook) -> Vec<Deviation> {
        let appraisal = appraise(observed, &Logs::none(), &Labels::default(), book);
        let expected =
            if appraisal.deviations().is_empty() { Verdict::Affirming } else { Verdict::Contraindicated };
        assert_eq!(appraisal.verdict(), expected);
        appraisal.deviations().to_vec()
    }

    #[test]
    fn values_of_any_named_set_affirm() {
        let book = book(&[
            ("a", &[(0, value("old firmware")), (7, value("keys"))]),
            ("b", &[(0, value("new firmware"))]),
            ("c", &[(0, value("somebody else's firmware"))]),
        ]);
        for firmware in ["old firmware", "new firmware"] {
            let seen = observed(&[(0, value(firmware)), (7, value("keys"))]);
            assert_eq!(deviations(&seen, &book), []);
        }
        let appraisal = appraise(
            &observed(&[(0, value("old firmware")), (7, value("keys"))]),
            &Logs::none(),
            &Labels::default(),
            &book,
        );
        assert_eq!(appraisal.references(), [named("a"), named("b")]);
        assert_eq!(appraisal.profile().unwrap().id(), &named("p"));
        let seen = observed(&[(0, value("somebody else's firmware")), (7, value("keys"))]);
        assert!(matches!(deviations(&seen, &book)[..], [Deviation::PcrMismatch { .. }]));
    }

    #[test]
    fn each_way_to_deviate_is_named() {
        let reference = book(&[("a", &[(0, value("firmware")), (7, value("keys"))])]);
        let (zero, seven) = ((0, value("firmware")), (7, value("keys")));
        let odd = (7, value("other keys"));
        let idle = Digest::zero(BANK);
        assert_eq!(deviations(&observed(&[zero, seven]), &reference), []);
        assert_eq!(
            deviations(&observed(&[zero, odd]), &reference),
            [Deviation::PcrMismatch { bank: BANK, pcr: pcr(7), observed: odd.1, accepted: vec![seven.1] }]
        );
        assert_eq!(
            deviations(&observed(&[zero]), &reference),
            [Deviation::NotQuoted { bank: BANK, pcr: pcr(7) }]
        );
        assert_eq!(
            deviations(&observed(&[zero, seven]), &book(&[("a", &[zero])])),
            [Deviation::NoReference { bank: BANK, pcr: pcr(7), observed: seven.1 }]
        );
        let bank_idle = Deviation::IdleBank { bank: BANK };
        let matching = book(&[("a", &[(0, idle), (7, idle)])]);
        assert_eq!(
            deviations(&observed(&[(0, idle), (7, idle)]), &matching),
            [bank_idle],
            "values of an idle bank match nothing, even where somebody wrote them down"
        );
        assert_eq!(
            deviations(&observed(&[zero, seven]), &ReferenceBook::default()),
            [Deviation::NoProfile(NoProfile::None)]
        );
    }

    #[test]
    fn sets_that_are_named_but_missing_accept_nothing() {
        let found = deviations(&observed(&[(0, value("firmware")), (7, value("keys"))]), &book(&[]));
        assert!(
            matches!(found[..], [Deviation::NoReference { .. }, Deviation::NoReference { .. }]),
            "{found:?}"
        );
    }

    #[test]
    fn a_report_says_what_was_observed_and_what_would_have_been_accepted() {
        let (is, was) = (value("is"), value("was"));
        let report =
            Deviation::PcrMismatch { bank: BANK, pcr: pcr(4), observed: is, accepted: vec![was] }.report();
        assert_eq!((report.bank, report.pcr), (Some(BANK), Some(pcr(4))));
        assert_eq!(report.observed, Some(is.to_string()));
        assert_eq!(report.accepted, [was.to_string()]);
        assert_eq!(report.code, "pcr_mismatch");
        assert!(report.detail.contains("sha256 PCR 4"), "{}", report.detail);
    }

    #[test]
    fn a_report_is_bounded() {
        let accepted: Vec<_> = (0..256).map(|n: u32| hash(BANK, &[&n.to_be_bytes()])).collect();
        let deviation = Deviation::PcrMismatch { bank: BANK, pcr: pcr(4), observed: value("is"), accepted };
        let report = deviation.report();
        assert_eq!(report.accepted.len(), 8);
        assert!(report.detail.contains("none of the 256 accepted values"), "{}", report.detail);
    }

    #[test]
    fn default_set_has_the_name_that_the_initial_profile_names() {
        assert_eq!(Name::default_set().as_str(), "default");
    }
}

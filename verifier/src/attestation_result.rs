//! Attestation results (RFC 9334, 8.4): what the verifier tells of one node at one moment.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{DeviationReport, PostureStatus};

use crate::appraisal::trust_vector::{Hardware, InstanceIdentity, Tier, TrustVector};
use crate::hold::{Hold, HoldKind};
use crate::node::{EndorsedBy, Standing};
use crate::posture::{LiveNode, Posture};

/// What is told of one node, with its end. Only [`Self::of`] makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttestationResult {
    node: NodeId,
    issued_at: Timestamp,
    not_after: Timestamp,
    status: Tier,
    claims: TrustVector,
    epoch: Option<u64>,
    evidence_at: Option<Timestamp>,
    profile: Option<String>,
    references: Vec<String>,
    deviations: Vec<DeviationReport>,
}

impl AttestationResult {
    /// A result that vouches for a node lives no longer: who holds it does not hear that the node has drifted since.
    pub const LONGEST: Duration = Duration::from_secs(300);

    /// The life of a result that vouches for nothing: soon the node may stand better.
    pub const OTHERWISE: Duration = Duration::from_secs(60);

    /// What is told of a node now.
    ///
    /// A node that is not ours is contraindicated by its identity alone, and one that is blocked by that alone, whatever
    /// they showed. Of one that is stale, or
    /// never showed evidence, nothing is claimed: an old appraisal must not look like a fresh one. Otherwise the claims
    /// are those of its last appraisal, and who vouches for its TPM; the status is no better than the worst of them,
    /// and the result ends when the evidence is stale, at the latest.
    #[must_use]
    pub fn of(id: NodeId, node: &LiveNode, now: Timestamp) -> Self {
        let stranger = |instance_identity| {
            let claims = TrustVector { instance_identity, ..TrustVector::NONE };
            Self::brief(id, now, Tier::Contraindicated, claims)
        };
        match node.standing {
            Standing::Pending => return stranger(InstanceIdentity::Unrecognized),
            Standing::Retired => return stranger(InstanceIdentity::Untrustworthy),
            Standing::Admitted { .. } => {}
        }
        let nothing = Self { epoch: Some(node.epoch), ..Self::brief(id, now, Tier::None, TrustVector::NONE) };
        let at_least = match node.status(now) {
            PostureStatus::Blocked => {
                return Self { status: Tier::Contraindicated, deviations: holds(node, now), ..nothing };
            }
            PostureStatus::Unknown | PostureStatus::Stale => {
                return Self {
                    evidence_at: node.posture.as_ref().map(|posture| posture.evidence_at),
                    ..nothing
                };
            }
            PostureStatus::Affirming => Tier::None,
            PostureStatus::Warning => Tier::Warning,
            PostureStatus::Contraindicated => Tier::Contraindicated,
        };
        let Some(posture) = &node.posture else { return nothing };
        let claims = posture.claims.worst(identity(node.endorsed_by));
        let status = claims.tier().max(at_least);
        let not_after = match status {
            Tier::Affirming | Tier::Warning => {
                posture.evidence_at.plus(posture.fresh_for).min(now.plus(Self::LONGEST))
            }
            Tier::None | Tier::Contraindicated => now.plus(Self::OTHERWISE),
        };
        let Posture { evidence_at, profile, references, mut deviations, .. } = posture.clone();
        deviations.extend(holds(node, now));
        let evidence_at = Some(evidence_at);
        Self {
            node: id,
            issued_at: now,
            not_after,
            status,
            claims,
            epoch: Some(node.epoch),
            evidence_at,
            profile,
            references,
            deviations,
        }
    }

    /// One that tells nothing of evidence.
    fn brief(node: NodeId, now: Timestamp, status: Tier, claims: TrustVector) -> Self {
        Self {
            node,
            issued_at: now,
            not_after: now.plus(Self::OTHERWISE),
            status,
            claims,
            epoch: None,
            evidence_at: None,
            profile: None,
            references: Vec::new(),
            deviations: Vec::new(),
        }
    }

    /// Of which node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// When it was told.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }

    /// From when on it counts no more.
    #[must_use]
    pub fn not_after(&self) -> Timestamp {
        self.not_after
    }

    /// The whole in one word: no better than the worst claim.
    #[must_use]
    pub fn status(&self) -> Tier {
        self.status
    }

    /// The claims.
    #[must_use]
    pub fn claims(&self) -> &TrustVector {
        &self.claims
    }

    /// The node's posture epoch; `None` of a node that is not ours.
    #[must_use]
    pub fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    /// When the evidence was made, at the earliest; `None` where the result rests on none.
    #[must_use]
    pub fn evidence_at(&self) -> Option<Timestamp> {
        self.evidence_at
    }

    /// The profile that was used, as `name@version`.
    #[must_use]
    pub fn profile(&self) -> Option<&str> {
        self.profile.as_deref()
    }

    /// The reference sets that were used, each as `name@version`.
    #[must_use]
    pub fn references(&self) -> &[String] {
        &self.references
    }

    /// What no reference value explains.
    #[must_use]
    pub fn deviations(&self) -> &[DeviationReport] {
        &self.deviations
    }
}

/// Each hold in force, told like what no reference value explains: its code, and nothing of who set it and why.
fn holds(node: &LiveNode, now: Timestamp) -> Vec<DeviationReport> {
    let told = |hold: &Hold| {
        let (code, what) = match hold.kind {
            HoldKind::Block => ("node_blocked", "blocked"),
            HoldKind::Lower => ("posture_warning", "lowered in standing"),
        };
        DeviationReport {
            code: code.to_owned(),
            detail: format!("the node is {what} since {} (hold {})", hold.since, hold.id),
            bank: None,
            pcr: None,
            observed: None,
            accepted: Vec::new(),
        }
    };
    node.holds_in_force(now).map(told).collect()
}

/// What is claimed of an admitted node for the sake of its EK: somebody vouches for this very TPM, and its AK was
/// activated in it. That it is genuine hardware, only its manufacturer can say.
const fn identity(endorsed_by: EndorsedBy) -> TrustVector {
    let hardware = match endorsed_by {
        EndorsedBy::Manufacturer => Hardware::Genuine,
        EndorsedBy::Operator => Hardware::NoClaim,
    };
    TrustVector { instance_identity: InstanceIdentity::Trustworthy, hardware, ..TrustVector::NONE }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rootbound_common::tpm::{HashAlgorithm, Name};

    use crate::appraisal::Verdict;
    use crate::appraisal::boot::Booted;
    use crate::appraisal::trust_vector::{Configuration, Executables};
    use crate::hold::HeldBy;
    use crate::node::{AdmittedBy, Labels};

    pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_700_000_000_500);
    pub(crate) const NODE: NodeId = NodeId::from_bytes([7; 32]);
    const MINUTE: Duration = Duration::from_secs(60);

    const BOOT: TrustVector = TrustVector {
        executables: Executables::ApprovedBoot,
        configuration: Configuration::Approved,
        ..TrustVector::NONE
    };

    fn posture(live: &mut LiveNode) -> &mut Posture {
        live.posture.as_mut().unwrap()
    }

    /// Of a node that is affirming, but for what `change` changes.
    pub(crate) fn result(change: impl FnOnce(&mut LiveNode)) -> AttestationResult {
        let mut live = live();
        change(&mut live);
        AttestationResult::of(NODE, &live, NOW)
    }

    /// A node that is affirming.
    pub(crate) fn live() -> LiveNode {
        LiveNode {
            revision: 1,
            epoch: 1,
            standing: Standing::Admitted { by: AdmittedBy::Approval },
            labels: Labels::default(),
            attestation_key: Name::of_public_area(HashAlgorithm::Sha256, b"AK"),
            endorsed_by: EndorsedBy::Manufacturer,
            posture: Some(Posture {
                verdict: Verdict::Affirming,
                evidence_at: NOW.minus(MINUTE),
                fresh_for: 3 * MINUTE,
                profile: Some("default@3".to_owned()),
                references: vec!["a@1".to_owned(), "b@2".to_owned()],
                deviations: Vec::new(),
                claims: BOOT,
                booted: Booted::default(),
                observed: None,
            }),
            credentials: Vec::new(),
            holds: Vec::new(),
            attested_after: None,
        }
    }

    pub(crate) fn drift(live: &mut LiveNode) {
        let deviation = DeviationReport {
            code: "pcr_mismatch".to_owned(),
            detail: "sha256 PCR 7 is off".to_owned(),
            bank: Some(HashAlgorithm::Sha256),
            pcr: None,
            observed: None,
            accepted: Vec::new(),
        };
        let posture = posture(live);
        posture.verdict = Verdict::Contraindicated;
        posture.deviations = vec![deviation];
        posture.claims.configuration = Configuration::Unsupportable;
    }

    #[test]
    fn an_affirming_result_ends_with_its_evidence() {
        let affirming = result(|_| {});
        let genuine = TrustVector {
            instance_identity: InstanceIdentity::Trustworthy,
            hardware: Hardware::Genuine,
            ..BOOT
        };
        assert_eq!((affirming.status(), *affirming.claims()), (Tier::Affirming, genuine));
        assert_eq!((affirming.issued_at(), affirming.not_after()), (NOW, NOW.plus(2 * MINUTE)));
        assert_eq!((affirming.node(), affirming.evidence_at()), (NODE, Some(NOW.minus(MINUTE))));
        assert_eq!(affirming.profile(), Some("default@3"));
        assert_eq!(affirming.references(), ["a@1", "b@2"]);
        let patient = result(|live| posture(live).fresh_for = 1000 * MINUTE);
        assert_eq!(patient.not_after(), NOW.plus(AttestationResult::LONGEST));
    }

    pub(crate) fn hold(live: &mut LiveNode, kind: HoldKind) {
        live.holds.push(Hold {
            id: "00112233445566778899aabbccddeeff".parse().unwrap(),
            kind,
            by: HeldBy::RelyingParty("scanner".parse().unwrap()),
            reason: "a secret reason".to_owned().try_into().unwrap(),
            since: NOW,
            expires_at: None,
        });
    }

    #[test]
    fn nothing_is_claimed_of_a_blocked_node_and_less_of_a_lowered_one() {
        for evidence in [true, false] {
            let blocked = result(|live| {
                hold(live, HoldKind::Block);
                live.posture = live.posture.take().filter(|_| evidence);
            });
            assert_eq!((blocked.status(), *blocked.claims()), (Tier::Contraindicated, TrustVector::NONE));
            assert_eq!(blocked.deviations()[0].code, "node_blocked");
            assert_eq!((blocked.evidence_at(), blocked.profile()), (None, None));
        }
        let lowered = result(|live| hold(live, HoldKind::Lower));
        assert_eq!(lowered.status(), Tier::Warning);
        assert_eq!(lowered.claims().executables, Executables::ApprovedBoot);
        assert_eq!(lowered.deviations()[0].code, "posture_warning");
        assert!(!format!("{lowered:?}").contains("secret reason"));
    }

    #[test]
    fn only_a_manufacturer_vouches_for_hardware() {
        let listed = result(|live| live.endorsed_by = EndorsedBy::Operator);
        assert_eq!(listed.claims().instance_identity, InstanceIdentity::Trustworthy);
        assert_eq!(listed.claims().hardware, Hardware::NoClaim);
    }

    #[test]
    fn a_drifted_node_is_contraindicated_with_its_deviations() {
        let drifted = result(drift);
        assert_eq!(drifted.status(), Tier::Contraindicated);
        assert_eq!(drifted.claims().configuration, Configuration::Unsupportable);
        assert_eq!(drifted.claims().executables, Executables::ApprovedBoot);
        assert_eq!(drifted.deviations()[0].code, "pcr_mismatch");
        assert_eq!(drifted.not_after(), NOW.plus(AttestationResult::OTHERWISE));
        let later = result(|live| {
            drift(live);
            posture(live).evidence_at = Timestamp::from_millis(0);
        });
        assert_eq!(later.status(), Tier::Contraindicated, "does not fade into `none`");
    }

    #[test]
    fn a_verdict_counts_even_where_no_claim_carries_it() {
        let row_of_an_older_version = result(|live| {
            drift(live);
            posture(live).claims = TrustVector::NONE;
        });
        assert_eq!(row_of_an_older_version.status(), Tier::Contraindicated);
    }

    #[test]
    fn nothing_is_claimed_of_stale_or_missing_evidence() {
        let old = NOW.minus(4 * MINUTE);
        let stale = result(|live| posture(live).evidence_at = old);
        let unknown = result(|live| live.posture = None);
        for (result, evidence_at) in [(stale, Some(old)), (unknown, None)] {
            assert_eq!((result.status(), *result.claims()), (Tier::None, TrustVector::NONE));
            assert_eq!(result.evidence_at(), evidence_at);
            assert_eq!(result.not_after(), NOW.plus(AttestationResult::OTHERWISE));
            assert!(result.profile().is_none() && result.references().is_empty());
        }
    }

    #[test]
    fn a_node_that_is_not_ours_is_contraindicated_whatever_it_showed() {
        for (standing, identity) in [
            (Standing::Retired, InstanceIdentity::Untrustworthy),
            (Standing::Pending, InstanceIdentity::Unrecognized),
        ] {
            let result = result(|live| live.standing = standing);
            let expected = TrustVector { instance_identity: identity, ..TrustVector::NONE };
            assert_eq!((result.status(), *result.claims()), (Tier::Contraindicated, expected));
            assert_eq!(result.evidence_at(), None);
        }
    }
}

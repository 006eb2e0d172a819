//! Decisions: who gets what, now. A refusal is a result.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::PostureStatus;

use crate::appraisal::{Appraisal, Verdict};
use crate::credential::request::BoundKey;
use crate::node::Standing;
use crate::policy::{CredentialKind, Denied, Permit};
use crate::reference::Profile;

/// The permission to issue one credential to one key, once. Only [`decide_issue`] makes it; issuing consumes it.
#[derive(Debug)]
pub struct Grant {
    node: NodeId,
    key: BoundKey,
    lifetime: Duration,
}

impl Grant {
    /// SHA-256 of the key's SubjectPublicKeyInfo, for the record.
    #[must_use]
    pub fn key_digest(&self) -> [u8; 32] {
        sha256(&[self.key.subject_public_key_info()])
    }

    /// The parts, for the one who issues.
    pub(crate) fn into_parts(self) -> (NodeId, BoundKey, Duration) {
        (self.node, self.key, self.lifetime)
    }
}

/// Credentials of one node that have not expired. It needs one, two while it renews, and one more for each boot state
/// that it passes through; each takes memory in the verifier for its life.
const MAX_HELD: usize = 16;

/// Why a node gets no credential. Each has a stable code and words for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denial {
    /// Nobody has said that the machine is ours.
    #[error("the node is not admitted: an operator has to approve it")]
    Pending,
    /// The machine is ours no longer.
    #[error("the node is retired")]
    Retired,
    /// What was observed is explained by no reference value.
    #[error("the node's posture is contraindicated: {first} ({count} deviations)")]
    PostureContraindicated {
        /// The first deviation, in words.
        first: String,
        /// How many there are.
        count: usize,
    },
    /// The key is tied to PCRs that the profile asked for before it was changed.
    #[error(
        "the profile ties keys to other PCRs since this challenge was given; the next challenge asks for them"
    )]
    CredentialPolicyChanged,
    /// The node holds many credentials that have not expired.
    #[error("the node holds {held} credentials that have not expired; it gets no more before one does")]
    TooManyCredentials {
        /// How many.
        held: usize,
    },
    /// The evidence was too old by the time of the decision, or made before it was demanded anew.
    #[error("the node's posture is stale")]
    PostureStale,
    /// Its standing was lowered.
    #[error("the node's standing was lowered by an operator or a relying party")]
    PostureWarning,
    /// It is held.
    #[error("the node is blocked by an operator or a relying party")]
    Blocked,
    /// The policies do not permit it.
    #[error("the policies do not permit it: {0}")]
    Policy(Denied),
    /// The permit is for something else.
    #[error("the permit is not for a credential of this node")]
    PermitForOther,
}

impl Denial {
    /// Stable, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Pending => "admission_pending",
            Self::Retired => "node_retired",
            Self::PostureContraindicated { .. } => "posture_contraindicated",
            Self::CredentialPolicyChanged => "credential_policy_changed",
            Self::TooManyCredentials { .. } => "too_many_credentials",
            Self::PostureStale => "posture_stale",
            Self::PostureWarning => "posture_warning",
            Self::Blocked => "node_blocked",
            Self::Policy(denied) => denied.judgement().code(),
            Self::PermitForOther => "permit_for_other",
        }
    }
}

/// Decides whether the node of an appraisal gets an X.509-SVID for a key.
///
/// Established when a grant returns: the node is admitted · nobody blocks it or lowers its standing, and its evidence was
/// made since it was last demanded anew (`status`, of the node with this appraisal) · its appraisal is affirming, by a
/// profile, or that observes for now and has credentials issued meanwhile · the evidence is fresh by that profile · the policies permit it, for this node · the key is tied to the PCRs
/// that this profile names · the node holds few others. That the key is bound to the node's TPM and boot state, its type
/// says.
///
/// Policies narrow what comes before them: none of them gives a credential to a node that is neither affirming nor so
/// observed.
pub fn decide_issue(
    appraisal: &Appraisal,
    standing: Standing,
    status: PostureStatus,
    held: usize,
    key: BoundKey,
    permit: Result<Permit, Denied>,
    now: Timestamp,
) -> Result<Grant, Denial> {
    match standing {
        Standing::Pending => return Err(Denial::Pending),
        Standing::Retired => return Err(Denial::Retired),
        Standing::Admitted { .. } => {}
    }
    match status {
        PostureStatus::Blocked => return Err(Denial::Blocked),
        // A node that deviates is at warning only where its profile observes.
        PostureStatus::Warning if appraisal.verdict() == Verdict::Affirming => {
            return Err(Denial::PostureWarning);
        }
        PostureStatus::Stale | PostureStatus::Unknown => return Err(Denial::PostureStale),
        // What it deviates in, the appraisal says.
        PostureStatus::Affirming | PostureStatus::Contraindicated | PostureStatus::Warning => {}
    }
    let profile = issuing(appraisal, status)?;
    if now.since(appraisal.evidence_at()) > profile.body().freshness() {
        return Err(Denial::PostureStale);
    }
    if !permit.map_err(Denial::Policy)?.is_to_issue(appraisal.node(), CredentialKind::X509Svid) {
        return Err(Denial::PermitForOther);
    }
    if key.policy() != profile.body().credential_policy {
        return Err(Denial::CredentialPolicyChanged);
    }
    if held >= MAX_HELD {
        return Err(Denial::TooManyCredentials { held });
    }
    let mut lifetime = profile.body().credential_lifetime;
    if let Some(observe) = appraisal.observed() {
        lifetime = lifetime.min(observe.until.since(now));
    }
    Ok(Grant { node: appraisal.node(), key, lifetime })
}

/// The profile by which an appraisal is affirming, or by whose word a credential is issued while it observes.
fn issuing(appraisal: &Appraisal, status: PostureStatus) -> Result<&Profile, Denial> {
    let issues = appraisal.observed().is_some_and(|observe| observe.issue);
    match (appraisal.verdict(), appraisal.profile()) {
        (Verdict::Affirming, Some(profile)) => Ok(profile),
        (Verdict::Contraindicated, Some(profile)) if issues && status == PostureStatus::Warning => {
            Ok(profile)
        }
        (Verdict::Affirming | Verdict::Contraindicated, _) => Err(Denial::PostureContraindicated {
            first: appraisal.deviations().first().map(ToString::to_string).unwrap_or_default(),
            count: appraisal.deviations().len(),
        }),
    }
}

//! A machine shows its TPM, proves that it holds it, and becomes a node.

use rootbound_common::blob::Blob;
use rootbound_common::crypto::sha256;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{
    ActivateRequest, ActivateResponse, Admission, EnrollRequest, EnrollResponse, JoinToken,
};

use super::{Verifier, decision, rng};
use crate::enrollment::{
    ActivationError, AttestationKey, AttestationKeyError, EndorsedKey, EndorsementError, EndorsementKeyError,
    MakeCredentialError, PendingActivation, UnendorsedKey, WaiverError,
};
use crate::node::Standing;
use crate::store::{
    CompletedEnrollment, DecisionKind, EnrollmentOutcome, InventoryEntry, PendingEnrollment, StoreError,
};

/// Why a machine is not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrollRefusal {
    /// The public area is not an EK's.
    #[error(transparent)]
    EndorsementKey(#[from] EndorsementKeyError),
    /// No trusted manufacturer vouches for the EK.
    #[error(transparent)]
    Endorsement(#[from] EndorsementError),
    /// The inventory lists another EK.
    #[error(transparent)]
    Waiver(#[from] WaiverError),
    /// The AK is not fit to sign evidence.
    #[error("attestation key: {0}")]
    AttestationKey(#[from] AttestationKeyError),
    /// No secret could be made for this EK.
    #[error("activation: {0}")]
    MakeCredential(#[from] MakeCredentialError),
    /// Longer than any token that this verifier made.
    #[error("the join token is not one of this verifier's")]
    JoinTokenForm,
    /// Too many enrolments wait for an answer.
    #[error("too many enrolments are waiting; try again later")]
    TooManyPending,
    /// The machine is ours no longer.
    #[error("the node is retired; an operator can approve it again")]
    Retired,
    /// One TPM under two ids: what was decided on the first would not hold for the second.
    #[error("the attestation key is enrolled for another node")]
    AttestationKeyInUse,
    /// There is no such enrolment, it was answered once already, or gave way to later ones of its EK.
    #[error(
        "no such enrolment is waiting: it was answered before, has expired, or gave way to later ones; enrol again"
    )]
    NoSuchEnrollment,
    /// Wrong or late.
    #[error("activation: {0}")]
    Activation(#[from] ActivationError),
    /// Unknown, expired, revoked, used, or another machine's.
    #[error("the join token is unknown, expired, revoked, used already, or another machine's")]
    JoinToken,
}

impl EnrollRefusal {
    /// Stable, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::EndorsementKey(error) => error.code(),
            Self::Endorsement(error) => error.code(),
            Self::Waiver(_) => "waiver_of_other_key",
            Self::AttestationKey(error) => error.code(),
            Self::MakeCredential(_) => "endorsement_key_unusable",
            Self::JoinTokenForm | Self::JoinToken => "join_token_refused",
            Self::TooManyPending => "too_many_enrollments",
            Self::Retired => "node_retired",
            Self::AttestationKeyInUse => "ak_in_use",
            Self::NoSuchEnrollment => "enrollment_unknown",
            Self::Activation(ActivationError::Expired { .. }) => "activation_expired",
            Self::Activation(ActivationError::WrongSecret) => "activation_secret_wrong",
        }
    }
}

/// Why an enrolment did not go on.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] EnrollRefusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Verifier {
    /// Takes an EK and an AK, and answers with what only a TPM with both can open.
    pub async fn enroll(&self, request: EnrollRequest) -> Result<EnrollResponse, EnrollError> {
        let mut claimed = None;
        let outcome = self.begin_enrollment(request, &mut claimed).await;
        if let Err(EnrollError::Refused(refusal)) = &outcome {
            self.record_refusal(DecisionKind::Enroll, claimed, refusal.code(), refusal.to_string()).await?;
        }
        outcome
    }

    /// `claimed` is whose EK was shown, for the record: nothing is proved of it yet.
    async fn begin_enrollment(
        &self,
        request: EnrollRequest,
        claimed: &mut Option<NodeId>,
    ) -> Result<EnrollResponse, EnrollError> {
        let now = self.now();
        let key = UnendorsedKey::parse(request.ek_public.as_bytes()).map_err(EnrollRefusal::from)?;
        let node = key.node_id();
        *claimed = Some(node);
        let join_token_digest = request.join_token.as_ref().map(join_token_digest).transpose()?;
        let attestation_key =
            AttestationKey::parse(request.ak_public.as_bytes()).map_err(EnrollRefusal::from)?;
        let endorsed_key = self.endorse(key, &request).await?;
        if let Some(known) = self.store.node(node).await?
            && known.standing == Standing::Retired
        {
            return Err(EnrollRefusal::Retired.into());
        }
        let deadline = now.plus(self.limits.activation);
        let (activation, credential) =
            PendingActivation::begin(endorsed_key, attestation_key, deadline, &mut rng())
                .map_err(EnrollRefusal::from)?;
        let mut id = [0; 32];
        rand_core::Rng::fill_bytes(&mut rng(), &mut id);
        let pending = PendingEnrollment { id, activation, join_token_digest };
        if !self.store.begin_enrollment(&pending, self.limits.pending_enrollments, now).await? {
            return Err(EnrollRefusal::TooManyPending.into());
        }
        Ok(EnrollResponse {
            enrollment: Blob::from_array(id),
            credential_blob: bounded(credential.credential_blob)?,
            encrypted_secret: bounded(credential.encrypted_secret)?,
            expires_in: self.limits.activation.as_secs(),
        })
    }

    /// Who vouches for the EK: its manufacturer's chain, or, where the inventory lists this very EK and waives the
    /// chain, the operator.
    async fn endorse(&self, key: UnendorsedKey, request: &EnrollRequest) -> Result<EndorsedKey, EnrollError> {
        let listed = self.store.inventory_entry(key.node_id()).await?;
        if let Some(waiver) = listed.as_ref().and_then(InventoryEntry::waiver) {
            return Ok(key.endorse_by_waiver(waiver).map_err(EnrollRefusal::from)?);
        }
        let certificates = request.ek_certificates.iter().map(Blob::as_bytes).collect::<Vec<_>>();
        let endorsed = key.endorse_by_chain(&certificates, &self.roots.load(), self.revocation, self.now());
        Ok(endorsed.map_err(EnrollRefusal::from)?)
    }

    /// Takes the secret that the TPM gave back, once, and records the node.
    pub async fn activate(&self, request: ActivateRequest) -> Result<ActivateResponse, EnrollError> {
        let mut known = None;
        let outcome = self.complete_enrollment(request, &mut known).await;
        if let Err(EnrollError::Refused(refusal)) = &outcome {
            self.record_refusal(DecisionKind::Activate, known, refusal.code(), refusal.to_string()).await?;
        }
        outcome
    }

    async fn complete_enrollment(
        &self,
        request: ActivateRequest,
        known: &mut Option<NodeId>,
    ) -> Result<ActivateResponse, EnrollError> {
        let now = self.now();
        let id: [u8; 32] =
            request.enrollment.as_bytes().try_into().map_err(|_| EnrollRefusal::NoSuchEnrollment)?;
        let pending = self.store.take_enrollment(&id).await?.ok_or(EnrollRefusal::NoSuchEnrollment)?;
        let node = pending.activation.node_id();
        *known = Some(node);
        let keys =
            pending.activation.complete(request.secret.as_bytes(), now).map_err(EnrollRefusal::from)?;
        let detail = format!("AK {} activated with its EK", keys.ak().name());
        let completed = CompletedEnrollment {
            keys,
            join_token_digest: pending.join_token_digest,
            now,
            decision: decision(now, Some(node), DecisionKind::Activate, true, "enrolled", detail),
        };
        let record = match self.store.complete_enrollment(completed).await? {
            EnrollmentOutcome::Retired => return Err(EnrollRefusal::Retired.into()),
            EnrollmentOutcome::AttestationKeyInUse => return Err(EnrollRefusal::AttestationKeyInUse.into()),
            EnrollmentOutcome::JoinTokenRefused => return Err(EnrollRefusal::JoinToken.into()),
            EnrollmentOutcome::Enrolled { node, superseded } => {
                tracing::info!(node = %node.id, superseded, "node enrolled");
                node
            }
        };
        self.refresh(node, record.revision).await?;
        let (admission, challenge) = match record.standing {
            Standing::Admitted { .. } => {
                let logs = self.logs_asked(node, &record.labels).await?;
                (Admission::Admitted, Some(self.mint(&record, None, logs)))
            }
            Standing::Pending | Standing::Retired => (Admission::Pending, None),
        };
        Ok(ActivateResponse { node, spiffe_id: self.trust_domain.node(node), admission, challenge })
    }

    pub(super) async fn record_refusal(
        &self,
        kind: DecisionKind,
        node: Option<NodeId>,
        code: &str,
        detail: String,
    ) -> Result<(), StoreError> {
        tracing::info!(?kind, node = ?node, code, "refused");
        self.store.record_decision(decision(self.now(), node, kind, false, code, detail)).await
    }
}

/// Tokens are short; what is longer is refused before it is hashed.
fn join_token_digest(token: &JoinToken) -> Result<[u8; 32], EnrollRefusal> {
    const LONGEST: usize = 128;
    if token.0.len() > LONGEST {
        return Err(EnrollRefusal::JoinTokenForm);
    }
    Ok(digest_of_token(token.0.as_bytes()))
}

/// What the store keeps of a join token: 256 random bits need neither salt nor a slow hash.
pub(super) fn digest_of_token(token: &[u8]) -> [u8; 32] {
    sha256(&[token])
}

/// What TPM2_MakeCredential gives for an EK of a supported size always fits.
fn bounded<const MAX: usize>(bytes: Vec<u8>) -> Result<Blob<MAX>, EnrollRefusal> {
    Blob::new(bytes).ok_or(EnrollRefusal::MakeCredential(MakeCredentialError::Encryption))
}

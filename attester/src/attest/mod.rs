//! Attestation: one attempt, from knowing who we are to having the next challenge.
//!
//! 1. the EK says which machine this is
//! 2. the verifier knows the AK, or learns it ([`crate::enroll`])
//! 3. a challenge: the one that came with the last answer, or one that is asked for
//! 4. the TPM answers it ([`evidence`]); the verifier says what the answer means
//! 5. a credential, where one came, is saved, delivered and tried; the next challenge is held
//!
//! In steady state that is one request. What fails is told once, and tried again by [`crate::renew`].

pub mod evidence;
mod journal;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use rootbound_common::blob::Blob;
use rootbound_common::clock::{Clock, Timestamp};
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{Challenge, ChallengeRequest, CredentialOutcome, PostureStatus};
use tokio::time::Instant;

use crate::client::{Client, ClientIdentity, RequestError};
use crate::deliver::Delivery;
use crate::enroll::{Endorsement, EnrollmentConfig, enroll};
use crate::keep::{Credential, Keep, KeepError, Outcome, SavedKey};
use crate::renew::{Rounds, Setback};
use crate::tpm::{AkBlob, Tpm};
use evidence::PreparedKey;
use journal::Journal;
use trouble::Action;
pub use trouble::{AttestError, chain};

/// How often one attempt may start over at once: another challenge, another enrolment. After that it waits.
const REMEDIES: u32 = 2;

/// The longest pause that the verifier can impose, so that a wrong number does not silence a machine for ever.
const LONGEST_PAUSE: Duration = Duration::from_secs(24 * 3600);

/// Everything that an attempt works with.
#[derive(Debug)]
pub struct Parts {
    /// The TPM.
    pub tpm: Tpm,
    /// The verifier.
    pub client: Client,
    /// State on disk.
    pub keep: Keep,
    /// Where workloads find the credential.
    pub delivery: Delivery,
    /// How to become known.
    pub enrollment: EnrollmentConfig,
}

/// A machine that attests: what it remembers from one attempt to the next.
pub struct Attester {
    parts: Parts,
    clock: Arc<dyn Clock>,
    endorsement: Option<Endorsement>,
    /// Known to the verifier, as far as we know.
    attestation_key: Option<AkBlob>,
    held: Option<HeldChallenge>,
    credential: Option<Credential>,
    /// Whether the credential has still to be written to disk, or to the folder that workloads read.
    unwritten: bool,
    prepared: Option<PreparedKey>,
    journal: Journal,
}

/// A challenge to be answered later.
struct HeldChallenge {
    challenge: Challenge,
    expires: Instant,
}

impl Attester {
    /// Nothing is asked of the TPM or the verifier yet: both may be away.
    #[must_use]
    pub fn new(parts: Parts, clock: Arc<dyn Clock>) -> Self {
        let journal = Journal::resume(&parts.keep);
        Self {
            parts,
            clock,
            endorsement: None,
            attestation_key: None,
            held: None,
            credential: None,
            unwritten: false,
            prepared: None,
            journal,
        }
    }

    /// The credential, where there is one: it may have expired.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// What came of the last attempt.
    #[must_use]
    pub fn last_outcome(&self) -> Option<&Outcome> {
        self.journal.last()
    }

    /// The last posture that the verifier stated, before this start perhaps.
    #[must_use]
    pub fn posture(&self) -> Option<PostureStatus> {
        self.journal.posture()
    }

    /// Attests once. Says how long to wait until the next time.
    pub async fn attest(&mut self) -> Result<Duration, AttestError> {
        let endorsement = self.endorsement().await?;
        let node = endorsement.node();
        let attestation_key = self.attestation_key(&endorsement).await?;
        self.write_credential();
        let held = self.held.take().filter(|held| Instant::now() < held.expires);
        let challenge = match held {
            Some(held) => held.challenge,
            None => {
                let asked = self.parts.client.challenge(&ChallengeRequest { node }).await?;
                if asked.attest_in > 0 {
                    return Ok(self.hold(asked));
                }
                asked
            }
        };
        self.answer(node, &attestation_key, challenge).await
    }

    /// Which machine this is: read once, since a TPM does not change while the process runs.
    async fn endorsement(&mut self) -> Result<Endorsement, AttestError> {
        if let Some(endorsement) = &self.endorsement {
            return Ok(endorsement.clone());
        }
        let endorsement = Endorsement::read(&self.parts.tpm, self.parts.enrollment.ek).await?;
        self.credential = self.parts.keep.credential(endorsement.node())?;
        self.unwritten = self.credential.is_some();
        self.endorsement = Some(endorsement.clone());
        Ok(endorsement)
    }

    /// The AK that the verifier knows, after an enrolment if need be.
    async fn attestation_key(&mut self, endorsement: &Endorsement) -> Result<AkBlob, AttestError> {
        if let Some(key) = &self.attestation_key {
            return Ok(key.clone());
        }
        let kept = self.parts.keep.identity(endorsement.node())?;
        let known = kept.filter(|identity| identity.enrolled.is_some());
        let key = match known.and_then(|identity| identity.attestation_key.to_attestation_key().ok()) {
            Some(key) => key,
            None => {
                let Parts { tpm, client, keep, enrollment, .. } = &self.parts;
                let clock = self.clock.as_ref();
                let enrolled = enroll(tpm, client, keep, clock, endorsement, enrollment).await?;
                if let Some(challenge) = enrolled.challenge {
                    self.hold(challenge);
                }
                enrolled.attestation_key
            }
        };
        self.attestation_key = Some(key.clone());
        Ok(key)
    }

    async fn answer(
        &mut self,
        node: NodeId,
        attestation_key: &AkBlob,
        challenge: Challenge,
    ) -> Result<Duration, AttestError> {
        let evidence = evidence::make(
            &self.parts.tpm,
            attestation_key,
            &challenge,
            self.credential.as_ref(),
            &mut self.prepared,
            self.clock.now(),
        )
        .await?;
        let response = self.parts.client.evidence(&evidence).await?;
        let now = self.clock.now();
        let pause = self.hold(response.next);
        self.journal.attested(response.posture, now, &self.parts.keep);
        match response.credential {
            Some(CredentialOutcome::Issued { certificate_chain, trust_bundle, not_after, renew_at }) => {
                if let Some(prepared) = self.prepared.take() {
                    let credential = Credential {
                        node,
                        key: SavedKey::of(&prepared.key).ok_or(AttestError::TooLong)?,
                        policy: prepared.policy,
                        pcr_digest: Blob::new(prepared.pcr_digest.as_bytes().to_vec())
                            .ok_or(AttestError::TooLong)?,
                        certificate_chain,
                        trust_bundle,
                        not_after,
                        renew_at,
                    };
                    self.take_credential(credential).await?;
                }
            }
            Some(CredentialOutcome::Refused { code, detail }) => {
                self.journal.credential_refused(&code, &detail);
            }
            None => {}
        }
        Ok(self.until_renewal(now).map_or(pause, |renewal| pause.min(renewal)))
    }

    /// A credential counts once its certificate is for the key that the TPM made.
    async fn take_credential(&mut self, credential: Credential) -> Result<(), AttestError> {
        let identity =
            ClientIdentity::new(self.parts.tpm.clone(), &credential).map_err(AttestError::Credential)?;
        tracing::info!(not_after = %credential.not_after, renew_at = %credential.renew_at, "credential issued");
        self.journal.issued();
        self.credential = Some(credential);
        self.unwritten = true;
        self.write_credential();
        try_credential(&self.parts.client, identity).await;
        Ok(())
    }

    /// Saves and delivers the credential, until both have worked once: a full disk is no reason not to attest.
    fn write_credential(&mut self) {
        let Some(credential) = self.credential.as_ref().filter(|_| self.unwritten) else { return };
        let saved = self.parts.keep.save_credential(credential);
        if let Err(error) = &saved {
            tracing::error!(error = chain(error), "the credential is not saved");
        }
        let delivered = self.parts.delivery.deliver(credential);
        if let Err(error) = &delivered {
            tracing::error!(error = chain(error), "the credential is not delivered");
        }
        self.unwritten = saved.is_err() || delivered.is_err();
    }

    /// Keeps the challenge for the next attempt. Says how long to wait until then.
    fn hold(&mut self, challenge: Challenge) -> Duration {
        let at_most = |seconds| Duration::from_secs(seconds).min(LONGEST_PAUSE);
        let (pause, lasts) = (at_most(challenge.attest_in), at_most(challenge.expires_in));
        self.held = Some(HeldChallenge { challenge, expires: Instant::now() + lasts });
        pause
    }

    /// How long until the credential is to be renewed; nothing where that is not ahead, so that a clock that is wrong
    /// does not make for attempts without a pause.
    fn until_renewal(&self, now: Timestamp) -> Option<Duration> {
        let renew_at = self.credential.as_ref()?.renew_at;
        (renew_at > now).then(|| renew_at.since(now))
    }

    /// Does what the failure asks for. Says whether to start over at once.
    fn remedy(&mut self, error: &AttestError) -> Result<bool, KeepError> {
        match error.action() {
            Action::Wait => return Ok(false),
            Action::NewChallenge => {}
            Action::Enroll => {
                // With the same AK: forget only that it is known.
                if let Some(node) = self.endorsement.as_ref().map(Endorsement::node)
                    && let Some(mut identity) = self.parts.keep.identity(node)?
                {
                    identity.enrolled = None;
                    self.parts.keep.save_identity(&identity)?;
                }
                self.attestation_key = None;
            }
            Action::EnrollAnew => {
                // Under the EK that there is now, with keys that it makes now.
                if self.attestation_key.take().is_some() {
                    self.parts.keep.set_identity_aside(&error.to_string())?;
                }
                self.endorsement = None;
                self.prepared = None;
            }
        }
        self.held = None;
        Ok(true)
    }
}

impl Rounds for Attester {
    async fn round(&mut self) -> Result<Duration, Setback> {
        let mut remedies = 0;
        loop {
            let error = match self.attest().await {
                Ok(pause) => return Ok(pause),
                Err(error) => error,
            };
            self.journal.failed(&error, self.clock.now(), &self.parts.keep);
            let remedied = self.remedy(&error).unwrap_or_else(|error| {
                tracing::error!(error = chain(&error), "the state cannot be changed");
                false
            });
            if !remedied || remedies == REMEDIES {
                return Err(Setback { retry_after: error.retry_after() });
            }
            remedies += 1;
        }
    }
}

/// Uses the credential once, as a workload would: whether it works is known before anybody depends on it.
async fn try_credential(client: &Client, identity: ClientIdentity) {
    match client.whoami(identity).await {
        Ok(whoami) => {
            tracing::info!(spiffe_id = %whoami.spiffe_id, posture = whoami.posture.status.as_str(), "the credential works")
        }
        Err(RequestError::Refused(refusal)) => {
            tracing::warn!(
                code = refusal.code.as_str(),
                detail = refusal.detail,
                "the credential is refused"
            );
        }
        Err(error) => tracing::warn!(error = chain(&error), "the credential could not be tried"),
    }
}

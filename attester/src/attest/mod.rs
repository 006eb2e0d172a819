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

use std::mem::{replace, take};
use std::sync::Arc;
use std::time::Duration;

use rootbound_common::blob::Blob;
use rootbound_common::clock::{Clock, Timestamp};
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{Challenge, ChallengeRequest, CredentialOutcome, PostureStatus};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::alarm::Wanted;
use crate::client::{Client, ClientIdentity, RequestError, TlsError};
use crate::collect::Logs;
use crate::deliver::Delivery;
use crate::enroll::{Endorsement, EnrollmentConfig, enroll};
use crate::keep::{Credential, Keep, KeepError, Outcome, SavedKey};
use crate::renew::{Rounds, Setback};
use crate::tpm::{AkBlob, Consequence, CredentialKeyBlob, Tpm, TpmError};
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
    /// What the firmware and the kernel wrote down.
    pub logs: Logs,
}

/// A machine that attests: what it remembers from one attempt to the next.
pub struct Attester {
    parts: Parts,
    clock: Arc<dyn Clock>,
    endorsement: Option<Endorsement>,
    known: Option<Known>,
    held: Option<HeldChallenge>,
    credential: Option<Credential>,
    /// Whether the credential has still to be written to disk, or to the folder that workloads read.
    unwritten: bool,
    told: Told,
    prepared: Option<PreparedKey>,
    /// Whether a credential is to be asked for although there is one.
    renew: bool,
    /// For whoever speaks to the verifier with the credential.
    identity: watch::Sender<Option<ClientIdentity>>,
    journal: Journal,
}

/// What the verifier knows this machine by, as far as we know.
#[derive(Clone)]
struct Known {
    node: NodeId,
    attestation_key: AkBlob,
    enrolled_at: Timestamp,
}

/// What was told of a credential that is still to be written.
#[derive(Default)]
struct Told {
    not_saved: bool,
    not_delivered: bool,
}

/// A challenge to be answered, now or later.
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
            known: None,
            held: None,
            credential: None,
            unwritten: false,
            told: Told::default(),
            prepared: None,
            renew: false,
            identity: watch::Sender::new(None),
            journal,
        }
    }

    /// The credential, where there is one: it may have expired.
    #[must_use]
    pub fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// The credential as TLS takes it, from now on.
    #[must_use]
    pub fn identity(&self) -> watch::Receiver<Option<ClientIdentity>> {
        self.identity.subscribe()
    }

    fn show_identity(&self) {
        let shown = self
            .credential
            .as_ref()
            .and_then(|credential| ClientIdentity::new(self.parts.tpm.clone(), credential).ok());
        self.identity.send_replace(shown);
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

    /// Lets go of the challenge that waits for its interval, so that the next attempt attests at once, with a fresh one.
    pub fn forget_challenge(&mut self) {
        self.held = None;
    }

    /// Attests once. Says how long to wait until the next time.
    pub async fn attest(&mut self) -> Result<Duration, AttestError> {
        let known = self.known().await?;
        self.write_credential();
        let challenge = match self.held.as_ref().filter(|held| Instant::now() < held.expires) {
            Some(held) => held.challenge.clone(),
            None => {
                let asked = self.parts.client.challenge(&ChallengeRequest { node: known.node }).await?;
                let pause = self.hold(asked.clone());
                if !pause.is_zero() {
                    return Ok(pause);
                }
                asked
            }
        };
        self.check_credential().await?;
        self.answer(&known, &challenge).await
    }

    /// What the verifier knows this machine by, after an enrolment if need be; and the credential from then.
    async fn known(&mut self) -> Result<Known, AttestError> {
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let endorsement = self.endorsement().await?;
        let node = endorsement.node();
        let known = match self.remembered(node)? {
            Some(known) => known,
            None => self.enroll(&endorsement).await?,
        };
        self.credential = self.remembered_credential(&known).await?;
        self.unwritten = self.credential.is_some();
        self.show_identity();
        self.known = Some(known.clone());
        Ok(known)
    }

    /// Which machine this is: read once, since a TPM does not change while the process runs.
    async fn endorsement(&mut self) -> Result<Endorsement, AttestError> {
        if let Some(endorsement) = &self.endorsement {
            return Ok(endorsement.clone());
        }
        let endorsement = Endorsement::read(&self.parts.tpm, self.parts.enrollment.ek).await?;
        self.endorsement = Some(endorsement.clone());
        Ok(endorsement)
    }

    fn remembered(&self, node: NodeId) -> Result<Option<Known>, KeepError> {
        let Some(identity) = self.parts.keep.identity(node)? else { return Ok(None) };
        let key = identity.attestation_key.to_attestation_key();
        Ok(identity.enrolled.zip(key.ok()).map(|(enrolled, attestation_key)| Known {
            node,
            attestation_key,
            enrolled_at: enrolled.at,
        }))
    }

    /// The credential of an earlier process, where it was issued under this enrolment and can be used: its certificate is
    /// for its key, and the TPM takes the key.
    async fn remembered_credential(&self, known: &Known) -> Result<Option<Credential>, AttestError> {
        let Parts { tpm, keep, .. } = &self.parts;
        let credential = keep.credential(known.node)?;
        let Some(credential) = credential.filter(|kept| kept.enrolled_at == known.enrolled_at) else {
            return Ok(None);
        };
        match unusable(tpm, &credential).await? {
            None => Ok(Some(credential)),
            Some(reason) => {
                keep.set_credential_aside(&reason)?;
                Ok(None)
            }
        }
    }

    /// Lets go of a credential that the TPM no longer takes: somebody has cleared it while we run.
    async fn check_credential(&mut self) -> Result<(), AttestError> {
        if let Some(credential) = &self.credential
            && let Some(reason) = unusable(&self.parts.tpm, credential).await?
        {
            self.parts.keep.set_credential_aside(&reason)?;
            (self.credential, self.prepared, self.unwritten) = (None, None, false);
            self.show_identity();
        }
        Ok(())
    }

    async fn enroll(&mut self, endorsement: &Endorsement) -> Result<Known, AttestError> {
        let Parts { tpm, client, keep, enrollment, .. } = &self.parts;
        let enrolled = enroll(tpm, client, keep, self.clock.as_ref(), endorsement, enrollment).await?;
        if let Some(challenge) = enrolled.challenge {
            self.hold(challenge);
        }
        Ok(Known {
            node: endorsement.node(),
            attestation_key: enrolled.attestation_key,
            enrolled_at: enrolled.at,
        })
    }

    async fn answer(&mut self, known: &Known, challenge: &Challenge) -> Result<Duration, AttestError> {
        let evidence = evidence::make(
            &self.parts.tpm,
            &known.attestation_key,
            challenge,
            self.credential.as_ref().filter(|_| !self.renew),
            &mut self.prepared,
            &mut self.parts.logs,
            self.clock.now(),
        )
        .await?;
        // From here on it may be spent, whatever comes back.
        self.held = None;
        let response = self.parts.client.evidence(&evidence).await?;
        let now = self.clock.now();
        // Whether it was issued or refused: it was asked for.
        self.renew = false;
        let pause = self.hold(response.next);
        self.journal.attested(response.posture, response.credential.as_ref(), now, &self.parts.keep);
        if let Some(CredentialOutcome::Issued { certificate_chain, trust_bundle, not_after, renew_at }) =
            response.credential
            && let Some(prepared) = self.prepared.take()
        {
            let credential = Credential {
                node: known.node,
                enrolled_at: known.enrolled_at,
                key: SavedKey::of(&prepared.key).ok_or(AttestError::TooLong)?,
                policy: prepared.policy,
                pcr_digest: Blob::new(prepared.pcr_digest.as_bytes().to_vec()).ok_or(AttestError::TooLong)?,
                certificate_chain,
                trust_bundle,
                not_after,
                renew_at,
            };
            self.take_credential(credential).await?;
        }
        Ok(self.until_renewal(now).map_or(pause, |renewal| pause.min(renewal)))
    }

    /// A credential counts once its certificate is for the key that the TPM made.
    async fn take_credential(&mut self, credential: Credential) -> Result<(), AttestError> {
        let identity =
            ClientIdentity::new(self.parts.tpm.clone(), &credential).map_err(AttestError::Credential)?;
        tracing::info!(not_after = %credential.not_after, renew_at = %credential.renew_at, "credential issued");
        self.credential = Some(credential);
        self.unwritten = true;
        self.write_credential();
        self.identity.send_replace(Some(identity.clone()));
        try_credential(&self.parts.client, identity).await;
        Ok(())
    }

    /// Saves and delivers the credential, until both have worked once: a full disk is no reason not to attest. What
    /// does not work is told once.
    fn write_credential(&mut self) {
        let Some(credential) = self.credential.as_ref().filter(|_| self.unwritten) else { return };
        let saved = self.parts.keep.save_credential(credential);
        match &saved {
            Err(error) if !replace(&mut self.told.not_saved, true) => {
                tracing::error!(error = chain(error), "the credential is not saved");
            }
            Ok(()) if take(&mut self.told.not_saved) => tracing::info!("the credential is saved"),
            Ok(()) | Err(_) => {}
        }
        let delivered = self.parts.delivery.deliver(credential);
        match &delivered {
            Err(error) if !replace(&mut self.told.not_delivered, true) => {
                tracing::error!(error = chain(error), "the credential is not delivered");
            }
            Ok(()) if take(&mut self.told.not_delivered) => tracing::info!("the credential is delivered"),
            Ok(()) | Err(_) => {}
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
                if let Some(known) = self.known.take()
                    && let Some(mut identity) = self.parts.keep.identity(known.node)?
                {
                    identity.enrolled = None;
                    self.parts.keep.save_identity(&identity)?;
                }
            }
            Action::EnrollAnew => {
                // Under the EK that there is now, with keys that it makes now.
                self.endorsement = None;
                self.prepared = None;
                if self.known.take().is_some() {
                    self.parts.keep.set_identity_aside(&error.to_string())?;
                }
            }
        }
        self.held = None;
        Ok(true)
    }
}

impl Rounds for Attester {
    fn hurry(&mut self, wanted: Wanted) {
        self.forget_challenge();
        self.renew |= wanted.renew;
    }

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

/// The key of a credential whose certificate is for it.
fn check_credential(tpm: &Tpm, credential: &Credential) -> Result<CredentialKeyBlob, TlsError> {
    ClientIdentity::new(tpm.clone(), credential)?;
    Ok(credential.key.to_credential_key()?)
}

/// Why a credential is of no use for good, where it is.
async fn unusable(tpm: &Tpm, credential: &Credential) -> Result<Option<String>, TpmError> {
    let key = match check_credential(tpm, credential) {
        Ok(key) => key,
        Err(error) => return Ok(Some(error.to_string())),
    };
    match tpm.accept(&key).await {
        Ok(()) => Ok(None),
        Err(error) if error.consequence() == Consequence::KeyLost => Ok(Some(error.to_string())),
        Err(error) => Err(error),
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

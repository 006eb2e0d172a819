//! A node shows evidence, is appraised, and gets a credential, or does not.

use std::sync::Arc;
use std::time::Duration;

use rootbound_common::blob::Blob;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{
    Challenge, ChallengeRequest, CredentialOutcome, EvidenceRequest, EvidenceResponse, LogsAsked,
};
use serde_json::{Map, Value};

use super::logs::{OfQuote, Read, Sent};
use super::policies::inputs_of;
use super::{Verifier, decision, rng, versions_of};
use crate::appraisal::logs::{BootFinding, Logs, RuntimeFinding};
use crate::appraisal::{Appraisal, Deviation, Verdict, appraise};
use crate::audit::{Actor, AuditRecord, Entity, Facts, Outcome, RecordKind};
use crate::challenge::{ChallengeError, FreshChallenge, Terms, UnspentChallenge, mint};
use crate::credential::issue::{IssueError, PreparedCertificate};
use crate::credential::request::{Demand, ParsedRequest, RequestError};
use crate::credential::serial::SerialNumber;
use crate::evidence::{Authenticated, EvidenceError, Unproven, authenticate};
use crate::hold::attested_after;
use crate::node::{Name, NodeRecord, Standing};
use crate::policy::{Attested, Bundle, CredentialKind, Denial, Grant, Question, SubjectFacts, decide_issue};
use crate::posture::{LiveCredential, LiveNode, Posture};
use crate::reference::{ProfileBody, ReferenceBook};
use crate::store::{
    CertificateRecord, DecisionKind, DecisionRecord, DecisionTrail, EvidenceRecord, ISSUED, Recorded,
    StoreError,
};

/// How often a node without a profile attests.
const WITHOUT_PROFILE: Duration = Duration::from_secs(60);

/// Why evidence is refused: it proves nothing. What violates policy is no refusal, but a posture.
#[derive(Debug, thiserror::Error)]
pub enum AttestRefusal {
    /// The challenge is not ours, or not in time.
    #[error(transparent)]
    Challenge(#[from] ChallengeError),
    /// The challenge was answered before.
    #[error("challenge was answered before: this is a replay")]
    ChallengeSpent,
    /// The caller's certificate is another node's.
    #[error("the client certificate is another node's")]
    OtherCaller,
    /// Not a node that we know.
    #[error("the node is not enrolled")]
    UnknownNode,
    /// Waiting for an operator.
    #[error("the node is not admitted: an operator has to approve it")]
    Pending,
    /// Gone for good.
    #[error("the node is retired")]
    Retired,
    /// The evidence does not verify.
    #[error(transparent)]
    Evidence(#[from] EvidenceError),
    /// Somebody changed the node, or the reference values, while this was under way.
    #[error("the node or the reference values changed meanwhile; try again with a new challenge")]
    NodeChanged,
}

impl AttestRefusal {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Challenge(ChallengeError::NotOurs | ChallengeError::Form(_)) => "challenge_invalid",
            Self::Challenge(ChallengeError::FromTheFuture { .. }) => "challenge_from_the_future",
            Self::Challenge(ChallengeError::Expired { .. }) => "challenge_expired",
            Self::ChallengeSpent => "challenge_spent",
            Self::OtherCaller => "caller_is_other_node",
            Self::UnknownNode => "unknown_node",
            Self::Pending => "admission_pending",
            Self::Retired => "node_retired",
            Self::Evidence(error) => error.code(),
            Self::NodeChanged => "node_changed",
        }
    }
}

/// Why evidence was not judged.
#[derive(Debug, thiserror::Error)]
pub enum AttestError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] AttestRefusal),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What became of a request for a credential, before it is on the record.
enum Answer<'a> {
    /// None was asked for.
    NotAsked,
    /// The request itself is bad.
    BadRequest(RequestError),
    /// The request is good, the node does not get it.
    Denied(Denial),
    /// The decision stands, but no certificate can be made of it: the CA has expired, say.
    Impossible(IssueError),
    /// It does: everything but the signature is there.
    Prepared(Box<PreparedCertificate<'a>>, CertificateRecord),
}

/// An answer, and what the policies were asked for it, where they were.
struct Answered<'a> {
    answer: Answer<'a>,
    asked: Option<Map<String, Value>>,
}

impl Verifier {
    /// Gives a node a challenge to be answered at once.
    pub async fn challenge(&self, request: &ChallengeRequest) -> Result<Challenge, AttestError> {
        let node = self.admitted(request.node).await?;
        let logs = self.logs_asked(node.id, &node.labels).await?;
        Ok(self.mint(&node, None, logs))
    }

    /// Judges evidence: the whole of the steady state, one request.
    ///
    /// `caller` is the node that the client certificate names, where there is one.
    pub async fn attest(
        &self,
        request: EvidenceRequest,
        caller: Option<NodeId>,
    ) -> Result<EvidenceResponse, AttestError> {
        let mut known = None;
        let outcome = self.judge(request, caller, &mut known).await;
        if let Err(AttestError::Refused(refusal)) = &outcome {
            self.record_refusal(DecisionKind::Attest, known, refusal.code(), refusal.to_string()).await?;
        }
        outcome
    }

    async fn judge(
        &self,
        request: EvidenceRequest,
        caller: Option<NodeId>,
        known: &mut Option<NodeId>,
    ) -> Result<EvidenceResponse, AttestError> {
        let now = self.now();
        let opened = UnspentChallenge::open(&self.challenge_key, request.challenge.as_bytes(), now);
        *known = opened.as_ref().map_or_else(ChallengeError::node, |challenge| Some(challenge.node()));
        let challenge = opened.map_err(AttestRefusal::from)?;
        if caller.is_some_and(|caller| caller != challenge.node()) {
            return Err(AttestRefusal::OtherCaller.into());
        }
        let challenge = self.spend(challenge).await?;
        let node = self.admitted(challenge.terms().node).await?;
        let book = self.book.load_full();

        let csr = request.certificate_request.as_ref().map(Blob::as_bytes);
        let unproven = Unproven {
            quote: request.quote.as_bytes(),
            signature: request.signature.as_bytes(),
            pcrs: request.pcrs,
            certificate_request: csr,
        };
        let (key, last) = (&node.attestation_key, node.last_seen.as_ref());
        let evidence = authenticate(challenge, unproven, node.id, key, last, now, self.limits.oldest_quote)
            .map_err(AttestRefusal::from)?;
        let quote = OfQuote {
            node: node.id,
            reset_count: evidence.last_seen().clock.reset_count,
            observed: evidence.observed(),
        };
        let rules = book.rules(&node.labels);
        let sent = Sent::Now { boot_log: request.boot_log, ima: request.ima };
        let read = match self.read_logs(&quote, &rules, sent).await {
            Ok(read) => read,
            Err(error) => {
                self.distrust_by_the_quote(&node, &evidence, &book);
                return Err(error.into());
            }
        };
        let appraisal = appraise(evidence.observed(), &read.logs, &node.labels, &book);
        let policies = self.bundle.load_full();
        let Answered { answer, asked } = self.answer(csr, &node, &evidence, &appraisal, &policies, now);
        let posture = Posture::of(&appraisal);
        let recorded = self.record(&node, &evidence, &read, &posture, (&answer, asked), now).await;
        if matches!(recorded, Err(AttestError::Store(_))) && posture.verdict == Verdict::Contraindicated {
            // Trust does not outlive evidence against it, whether or not that can be written down.
            self.fleet.distrust(node.id, node.attestation_key.name(), posture.clone());
        }
        let (revision, epoch) = recorded?;
        self.show(&node, (revision, epoch), posture.clone(), &answer, now).await?;
        let other_book = !Arc::ptr_eq(&book, &self.book.load());
        if other_book || !Arc::ptr_eq(&policies, &self.bundle.load()) {
            // What was decided stands on values or policies that an operator has just replaced: nothing is handed out on
            // them.
            if other_book {
                self.reappraise(node.id).await?;
            }
            if let Answer::Prepared(prepared, _) = &answer {
                self.withdraw(node.id, prepared.serial()).await?;
            }
            return Err(AttestRefusal::NodeChanged.into());
        }
        if let Answer::Prepared(prepared, _) = &answer
            && !self.fleet.node(node.id).is_some_and(|live| live.bears(prepared.epoch(), now))
        {
            // It says an epoch at which the node is not, or is no more: it would be out of date before it is used.
            self.withdraw(node.id, prepared.serial()).await?;
            return Err(AttestRefusal::NodeChanged.into());
        }
        Ok(EvidenceResponse {
            posture: node.report_with(&posture, now),
            credential: self.hand_out(node.id, answer).await?,
            next: self.mint(
                &node,
                self.next_interval(&node, &evidence, &appraisal, &read),
                read.asked(&rules),
            ),
        })
    }

    /// Where the store fails before the logs are read: what the quote alone speaks against ends trust all the same.
    fn distrust_by_the_quote(&self, node: &NodeRecord, evidence: &Authenticated, book: &ReferenceBook) {
        let appraisal = appraise(evidence.observed(), &Logs::none(), &node.labels, book);
        let of_logs = |deviation: &Deviation| {
            matches!(
                deviation,
                Deviation::Boot(BootFinding::Missing) | Deviation::Runtime(RuntimeFinding::Missing)
            )
        };
        if appraisal.deviations().iter().any(|deviation| !of_logs(deviation)) {
            // Without its logs nobody knows that all of it could be explained.
            let posture = Posture { observed: None, ..Posture::of(&appraisal) };
            self.fleet.distrust(node.id, node.attestation_key.name(), posture);
        }
    }

    /// Spends a challenge, before anything that came with it is looked at.
    async fn spend(&self, challenge: UnspentChallenge) -> Result<FreshChallenge, AttestError> {
        let receipt = self.store.spend_challenge(&challenge).await?;
        let fresh = receipt.and_then(|receipt| challenge.spent(receipt));
        Ok(fresh.ok_or(AttestRefusal::ChallengeSpent)?)
    }

    async fn admitted(&self, id: NodeId) -> Result<NodeRecord, AttestError> {
        let node = self.store.node(id).await?.ok_or(AttestRefusal::UnknownNode)?;
        match node.standing {
            Standing::Admitted { .. } => Ok(node),
            Standing::Pending => Err(AttestRefusal::Pending.into()),
            Standing::Retired => Err(AttestRefusal::Retired.into()),
        }
    }

    /// Decides on the request for a credential, and prepares all of it but the signature.
    fn answer(
        &self,
        csr: Option<&[u8]>,
        node: &NodeRecord,
        evidence: &Authenticated,
        appraisal: &Appraisal,
        policies: &Bundle,
        now: Timestamp,
    ) -> Answered<'_> {
        let unasked = |answer| Answered { answer, asked: None };
        let Some(csr) = csr else { return unasked(Answer::NotAsked) };
        let demand = Demand {
            attestation_key: node.attestation_key.verifying_key(),
            qualified_signer: evidence.qualified_signer(),
            nonce: evidence.nonce(),
            policy: evidence.credential_policy(),
            pcrs: evidence.observed().pcrs(),
        };
        let key = match ParsedRequest::parse(csr).and_then(|request| request.verify(&demand)) {
            Ok(key) => key,
            Err(error) => return unasked(Answer::BadRequest(error)),
        };
        let credentials = self.fleet.node(node.id).map(|live| live.credentials.clone()).unwrap_or_default();
        let held = credentials.iter().filter(|one| one.not_after >= now).count();
        let posture = Posture::of(appraisal);
        let status = node.status_with(&posture, now);
        let epoch = self.epoch_with(node, &posture);
        let with = LiveNode { epoch, ..node.live_with(posture, credentials) };
        let facts = SubjectFacts::Node(Attested::of(node.id, &with, now));
        let question = Question::issue_credential(node.id, CredentialKind::X509Svid);
        let asked = inputs_of(&question, &facts.record(), policies.id());
        let permit = policies.decide(&question, &facts).into_permit();
        let answer = match decide_issue(appraisal, node.standing, status, held, key, permit, now) {
            Ok(grant) => self.prepare(grant, epoch, now).unwrap_or_else(Answer::Impossible),
            Err(denial) => Answer::Denied(denial),
        };
        Answered { answer, asked: Some(asked) }
    }

    fn prepare(&self, grant: Grant, epoch: u64, now: Timestamp) -> Result<Answer<'_>, IssueError> {
        let key_digest = grant.key_digest();
        let prepared = self.authority.prepare(grant, SerialNumber::generate(&mut rng()), epoch, now)?;
        let record = CertificateRecord {
            serial: prepared.serial(),
            not_before: prepared.not_before(),
            not_after: prepared.not_after(),
            key_digest,
        };
        Ok(Answer::Prepared(Box::new(prepared), record))
    }

    /// Makes it durable: evidence, posture, decision, and the serial of the certificate, before that is signed. Returns
    /// revision and epoch of the node with it.
    async fn record(
        &self,
        node: &NodeRecord,
        evidence: &Authenticated,
        read: &Read,
        posture: &Posture,
        (answer, asked): (&Answer<'_>, Option<Map<String, Value>>),
        now: Timestamp,
    ) -> Result<(u64, u64), AttestError> {
        let (granted, code, detail) = match (answer, posture.verdict) {
            (Answer::NotAsked, Verdict::Affirming) => (true, "affirming", String::new()),
            (Answer::NotAsked, Verdict::Contraindicated) => {
                let first = posture.deviations.first();
                (false, "contraindicated", first.map(|first| first.detail.clone()).unwrap_or_default())
            }
            (Answer::BadRequest(error), _) => (false, error.code(), error.to_string()),
            (Answer::Denied(denial), _) => (false, denial.code(), denial.to_string()),
            (Answer::Impossible(error), _) => (false, ISSUING_FAILED, error.to_string()),
            (Answer::Prepared(_, record), _) => (true, ISSUED, format!("certificate {}", record.serial)),
        };
        let certificate = match answer {
            Answer::Prepared(_, record) => Some(record.clone()),
            Answer::NotAsked | Answer::BadRequest(_) | Answer::Denied(_) | Answer::Impossible(_) => None,
        };
        // A certificate names the epoch that is recorded with it, whatever happens to the node between the two.
        let epoch = match answer {
            Answer::Prepared(prepared, _) => prepared.epoch(),
            Answer::NotAsked | Answer::BadRequest(_) | Answer::Denied(_) | Answer::Impossible(_) => {
                self.epoch_with(node, posture)
            }
        };
        let facts = asked.map(|mut facts| {
            if let Some(certificate) = &certificate {
                let key = data_encoding::HEXLOWER.encode(&certificate.key_digest);
                facts.insert("serial".to_owned(), certificate.serial.to_string().into());
                facts.insert("not_after".to_owned(), certificate.not_after.as_millis().into());
                facts.insert("epoch".to_owned(), epoch.into());
                facts.insert("key_sha256".to_owned(), key.into());
            }
            Facts::or_digest(Value::Object(facts))
        });
        let trail = DecisionTrail {
            // It signed the quote, whatever is made of that.
            actor: Some(Actor::Node(node.id)),
            inputs: Some(sha256(&[&evidence.stored().quote, &evidence.stored().signature])),
            versions: versions_of(posture),
            facts,
        };
        let decision = decision(now, Some(node.id), DecisionKind::Attest, granted, code, detail);
        let record = EvidenceRecord {
            node: node.id,
            revision: node.revision,
            last_seen: *evidence.last_seen(),
            quote: evidence.stored().clone(),
            logs: read.change.clone(),
            posture: posture.clone(),
            epoch,
            certificate,
            decision: DecisionRecord { trail, ..decision },
            also: self.turned(node, posture).into_iter().collect(),
        };
        match self.store.record_evidence(record).await? {
            Recorded::Yes { revision } => Ok((revision, epoch)),
            Recorded::NodeChanged => Err(AttestRefusal::NodeChanged.into()),
        }
    }

    /// The epoch of a node with this posture: that which decisions see may be ahead of the store, and is not to fall.
    pub(super) fn epoch_with(&self, node: &NodeRecord, posture: &Posture) -> u64 {
        let live = self.fleet.node(node.id);
        let epoch = live.as_ref().map_or(0, |live| live.epoch).max(node.epoch);
        let before = live.as_ref().and_then(|live| live.posture.as_ref());
        if before.is_some_and(|before| before.stands_like(posture)) { epoch } else { epoch.saturating_add(1) }
    }

    /// The record of a verdict that is another than before.
    fn turned(&self, node: &NodeRecord, posture: &Posture) -> Option<AuditRecord> {
        let before =
            self.fleet.node(node.id).and_then(|node| node.posture.as_ref().map(|posture| posture.verdict));
        if before == Some(posture.verdict) {
            return None;
        }
        let code = match posture.verdict {
            Verdict::Affirming => "affirming",
            Verdict::Contraindicated => "contraindicated",
        };
        let first = posture.deviations.first().map_or("", |first| first.detail.as_str());
        let record = self
            .record_of(RecordKind::PostureChange, "appraise", Actor::Verifier, Outcome::Done, code)
            .about(Entity::node(node.id))
            .because(first);
        Some(versions_of(posture).iter().fold(record, |record, version| record.by(version)))
    }

    /// Makes what was recorded visible to the next decision.
    async fn show(
        &self,
        node: &NodeRecord,
        (revision, epoch): (u64, u64),
        posture: Posture,
        answer: &Answer<'_>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let credential = match answer {
            Answer::Prepared(_, record) => Some(LiveCredential {
                serial: record.serial,
                not_before: record.not_before,
                not_after: record.not_after,
            }),
            Answer::NotAsked | Answer::BadRequest(_) | Answer::Denied(_) | Answer::Impossible(_) => None,
        };
        let before = self.fleet.node(node.id).and_then(|node| node.posture.clone());
        if before.is_none_or(|before| before.verdict != posture.verdict) {
            let codes: Vec<_> = posture.deviations.iter().map(|deviation| deviation.code.as_str()).collect();
            tracing::info!(node = %node.id, verdict = ?posture.verdict, ?codes, "posture changed");
        }
        let key = node.attestation_key.name();
        if self.fleet.appraised(node.id, key, (revision, epoch), posture, credential, now) {
            return Ok(());
        }
        self.refresh(node.id, revision).await
    }

    /// Takes back a certificate that was recorded and does not leave: the node may have so many, and this is none.
    async fn withdraw(&self, node: NodeId, serial: SerialNumber) -> Result<(), StoreError> {
        let record = self
            .record_of(RecordKind::Issuance, "withdraw", Actor::Verifier, Outcome::Failed, "withdrawn")
            .about(Entity::node(node))
            .because(&format!("certificate {serial} never left"));
        self.store.withdraw_certificate(serial, record).await?;
        self.fleet.drop_credential(node, serial);
        Ok(())
    }

    /// Signs what was prepared and recorded, and lets it go.
    async fn hand_out(
        &self,
        node: NodeId,
        answer: Answer<'_>,
    ) -> Result<Option<CredentialOutcome>, StoreError> {
        let refused =
            |code: &str, detail: String| CredentialOutcome::Refused { code: code.to_owned(), detail };
        Ok(match answer {
            Answer::NotAsked => None,
            Answer::BadRequest(error) => Some(refused(error.code(), error.to_string())),
            Answer::Denied(denial) => Some(refused(denial.code(), denial.to_string())),
            Answer::Impossible(error) => Some(issuing_failed(&error)),
            Answer::Prepared(prepared, record) => Some(match prepared.issue() {
                Ok(issued) => CredentialOutcome::Issued {
                    renew_at: issued.renew_at(self.now(), &mut rng()),
                    not_after: issued.not_after,
                    certificate_chain: issued.chain_pem(),
                    trust_bundle: self.authority.trust_bundle_pem(),
                },
                Err(error) => {
                    // The decision on record says that it was issued: another one says that it was not.
                    let detail = format!("certificate {}: {error}", record.serial);
                    self.record_refusal(DecisionKind::Attest, Some(node), ISSUING_FAILED, detail).await?;
                    self.withdraw(node, record.serial).await?;
                    issuing_failed(&error)
                }
            }),
        })
    }

    /// After which time the node shows evidence again. At once, where the profile has come to ask for other PCRs than this
    /// challenge did: what that costs the node is the verifier's doing, and the next quote ends it.
    /// So too, where more of its logs is needed, and where the challenge is older than the last demand for evidence, or
    /// than what an operator asked for.
    fn next_interval(
        &self,
        node: &NodeRecord,
        evidence: &Authenticated,
        appraisal: &Appraisal,
        read: &Read,
    ) -> Option<Duration> {
        let demanded = attested_after(node.attested_after, &node.holds, self.now());
        if demanded.max(self.control.asked_at(node.id)) >= Some(appraisal.evidence_at()) {
            return None;
        }
        let Some(profile) = appraisal.profile() else { return Some(WITHOUT_PROFILE) };
        let asks_for_more = |deviation: &Deviation| matches!(deviation, Deviation::NotQuoted { .. });
        let other_policy = evidence.credential_policy() != profile.body().credential_policy;
        if read.ask_at_once || other_policy || appraisal.deviations().iter().any(asks_for_more) {
            return None;
        }
        Some(profile.body().interval)
    }

    /// Mints a challenge by the node's profile: to be answered at once, or after an interval.
    ///
    /// A node without a profile is asked for what the initial profile asks for, so that its evidence can be captured.
    pub(super) fn mint(&self, node: &NodeRecord, interval: Option<Duration>, logs: LogsAsked) -> Challenge {
        let now = self.now();
        let book = self.book.load();
        let (selection, credential_policy) = match book.profile(&node.labels) {
            Ok(profile) => (profile.body().pcrs.clone(), profile.body().credential_policy),
            Err(_) => {
                let body = ProfileBody::initial(Name::default_set());
                (body.pcrs, body.credential_policy)
            }
        };
        let lifetime = interval.map_or(Duration::ZERO, |interval| interval * 2) + self.limits.oldest_quote;
        let terms = Terms {
            node: node.id,
            selection: selection.clone(),
            credential_policy,
            issued_at: now,
            expires_at: now.plus(lifetime),
        };
        let minted = mint(&self.challenge_key, &terms, &mut rng());
        Challenge {
            // A token with four banks has under 200 bytes.
            token: Blob::new(minted.token).unwrap_or_else(Blob::empty),
            nonce: Blob::from_array(*minted.nonce.as_bytes()),
            selection,
            credential_policy,
            logs,
            attest_in: interval.map_or(0, |interval| interval.as_secs()),
            expires_in: lifetime.as_secs(),
        }
    }
}

const ISSUING_FAILED: &str = "issuing_failed";

/// The node did nothing wrong; an operator finds the reason in the log and in the decision.
fn issuing_failed(error: &IssueError) -> CredentialOutcome {
    tracing::error!(%error, "could not make a certificate");
    CredentialOutcome::Refused {
        code: ISSUING_FAILED.to_owned(),
        detail: "the verifier could not make the certificate; its log says why".to_owned(),
    }
}

//! Somebody asks whether something may be done, at the moment at which it is to be done.
//!
//! Deciding reads memory alone: the fleet, and the policy bundle that is active. What is decided is recorded before it is
//! answered, allowed or not; what cannot be recorded is not answered.

use std::sync::Arc;
use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{Challenge, ChallengeRequest};
use tokio::time::Instant;

use super::attest::AttestError;
use super::caller::{Caller, relying_party};
use super::policies::{NOT_ASKED, inputs_of};
use super::{Verifier, rng};
use crate::audit::{Actor, AuditRecord, Entity, Facts, Outcome, RecordId, RecordKind};
use crate::policy::{
    Attested, Bundle, Judgement, Obligation as Owed, Question, RecordedFacts, ServiceFacts, SubjectFacts,
    SubjectKind,
};
use crate::posture::LiveNode;
use crate::reference::Versioned;
use crate::store::StoreError;

/// Why there is no decision.
#[derive(Debug, thiserror::Error)]
pub enum DecideError {
    /// It could not be recorded, or the store could not be read for a challenge.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The token of a page is not of this search, of this caller and of this process.
    #[error("`page.token` is not one that this search gave")]
    PageToken,
}

/// When a batch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// When all questions are decided.
    TheEnd,
    /// With the first that is denied, or is no question.
    Denied,
    /// With the first that is permitted.
    Permitted,
}

/// What whoever asked has to do.
#[derive(Debug)]
pub enum Obligation {
    /// To have the subject's node show evidence, and to ask again.
    StepUp {
        /// How old its evidence may be.
        within: Duration,
        /// For the node itself: what to answer at once. Others have no use for it; the node hears of it by itself.
        challenge: Option<Box<Challenge>>,
    },
}

/// A decision that is on record, as far as its caller may know.
#[derive(Debug)]
pub struct Decided {
    id: RecordId,
    at: Timestamp,
    allowed: bool,
    code: &'static str,
    obligations: Vec<Obligation>,
    reason_for_admin: Option<String>,
    policy: Option<String>,
}

impl Decided {
    /// Names it in the audit trail.
    #[must_use]
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// When it was decided.
    #[must_use]
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Whether it may be done.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.allowed
    }

    /// Why; stable, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What the caller has to do.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        &self.obligations
    }

    /// Why, for whoever wanted to do it.
    #[must_use]
    pub fn reason_for_user(&self) -> &'static str {
        match self.code {
            UNKNOWN_SUBJECT => "Whoever wants to do this is not known, or not to you.",
            "evidence_too_old" => "This needs fresher evidence of what the machine runs; try again.",
            _ if self.allowed => "This may be done.",
            _ => "This may not be done.",
        }
    }

    /// Why, for an administrator; `None` where the caller may not know.
    #[must_use]
    pub fn reason_for_admin(&self) -> Option<&str> {
        self.reason_for_admin.as_deref()
    }

    /// `name@version` of the bundle that decided; `None` where the caller may not know.
    #[must_use]
    pub fn policy(&self) -> Option<&str> {
        self.policy.as_deref()
    }
}

#[cfg(test)]
impl Decided {
    /// One that nobody decided, with everything that there can be.
    pub(crate) fn for_tests(challenge: Option<Challenge>) -> Self {
        let within = Duration::from_secs(30);
        Self {
            id: RecordId::new(Timestamp::from_millis(0), &mut rng()),
            at: Timestamp::from_millis(0),
            allowed: false,
            code: "evidence_too_old",
            obligations: vec![Obligation::StepUp { within, challenge: challenge.map(Box::new) }],
            reason_for_admin: Some("evidence_too_old, by drop".to_owned()),
            policy: Some("databases@1".to_owned()),
        }
    }
}

/// Of a search: how much was found is beside it.
const SEARCHED: &str = "search_answered";

/// Of a subject that is not known, and of one about which the caller may not ask: it cannot tell which.
const UNKNOWN_SUBJECT: &str = "unknown_subject";

/// A decision that is not on record yet.
pub(super) struct Judged {
    id: RecordId,
    at: Timestamp,
    /// As far as the schema declares it.
    question: Question,
    /// What was attested of its subject.
    facts: RecordedFacts,
    /// The node that it is about, where it is one of ours.
    node: Option<NodeId>,
    /// What the policies say; `None`: the caller may not ask.
    outcome: Option<Judgement>,
    policy: Versioned,
}

impl Judged {
    /// Whether it may be done.
    pub(super) fn allowed(&self) -> bool {
        self.outcome.as_ref().is_some_and(Judgement::allowed)
    }

    fn code(&self) -> &'static str {
        self.outcome.as_ref().map_or(UNKNOWN_SUBJECT, Judgement::code)
    }

    /// For the trail: what was asked and attested is in it, so that the decision can be explained and rehearsed.
    fn record(&self, actor: Actor) -> AuditRecord {
        let Self { id, question, facts, policy, .. } = self;
        let outcome = if self.allowed() { Outcome::Granted } else { Outcome::Refused };
        let (subject, object) = (question.subject(), question.resource());
        let mut inputs = inputs_of(question, facts, policy);
        if self.outcome.is_none() {
            inputs.insert(NOT_ASKED.to_owned(), true.into());
        }
        let (inputs, digest) = Facts::with_digest(inputs.into());
        let action = &question.action().name;
        let detail = match &self.outcome {
            None => "it may not ask about the subject".to_owned(),
            Some(outcome) => {
                let policies: Vec<_> = outcome.determining().iter().map(ToString::to_string).collect();
                policies.join(", ")
            }
        };
        AuditRecord {
            object: Some(Entity::named(&object.kind, &object.id)),
            ..AuditRecord::new(*id, RecordKind::Decision, action, actor, outcome, self.code())
                .about(Entity::named(&subject.kind, &subject.id))
                .by(&policy.to_string())
                .of_inputs(digest)
                .because(&detail)
                .with(inputs)
        }
    }
}

impl Verifier {
    /// Puts a bundle in force: whatever is asked from now on is decided by it.
    pub(super) fn activate_policies(&self, bundle: Bundle) {
        tracing::info!(policy = %bundle.id(), "policies in force");
        self.bundle.store(Arc::new(bundle));
    }

    /// Decides one question.
    pub async fn evaluate(&self, caller: &Caller, question: Question) -> Result<Decided, DecideError> {
        self.evaluate_by(&self.bundle.load_full(), caller, question).await
    }

    /// The same, by a bundle that something else was read out of.
    pub(super) async fn evaluate_by(
        &self,
        bundle: &Bundle,
        caller: &Caller,
        question: Question,
    ) -> Result<Decided, DecideError> {
        let judged = self.decide(bundle, caller, question, &mut None);
        self.record_evaluations(caller, std::slice::from_ref(&judged)).await?;
        self.tell(caller, judged, &mut None).await
    }

    /// Decides questions in their order, as far as `until` says. What is no question stays what it is.
    pub async fn evaluate_all<E>(
        &self,
        caller: &Caller,
        questions: impl Iterator<Item = Result<Question, E>>,
        until: Until,
    ) -> Result<Vec<Result<Decided, E>>, DecideError> {
        let bundle = self.bundle.load_full();
        let (mut judged, mut outcomes, mut asked) = (Vec::new(), Vec::new(), None);
        let mut turn = Turn::begins();
        for question in questions {
            turn.pause_when_it_is_over().await;
            let allowed = match question {
                Ok(question) => {
                    let one = self.decide(&bundle, caller, question, &mut asked);
                    let allowed = one.allowed();
                    judged.push(one);
                    outcomes.push(Ok(()));
                    allowed
                }
                Err(error) => {
                    outcomes.push(Err(error));
                    false
                }
            };
            match until {
                Until::Denied if !allowed => break,
                Until::Permitted if allowed => break,
                Until::TheEnd | Until::Denied | Until::Permitted => {}
            }
        }
        self.record_evaluations(caller, &judged).await?;
        let (mut judged, mut challenge) = (judged.into_iter(), None);
        let mut answers = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            answers.push(match outcome {
                Err(error) => Err(error),
                Ok(()) => match judged.next() {
                    Some(one) => Ok(self.tell(caller, one, &mut challenge).await?),
                    None => break,
                },
            });
        }
        Ok(answers)
    }

    /// What the policies say, by how things stand in memory at this moment. `asked`: about whom the same caller was last
    /// found to be allowed to ask, or not, by the same bundle; a batch is often about one subject.
    pub(super) fn decide(
        &self,
        bundle: &Bundle,
        caller: &Caller,
        question: Question,
        asked: &mut Option<AskedAbout>,
    ) -> Judged {
        let now = self.now();
        let known = match question.subject_kind() {
            SubjectKind::Node(Some(id)) => self.fleet.node(id).map(|node| (id, node)),
            SubjectKind::Node(None) | SubjectKind::Service | SubjectKind::OnNode | SubjectKind::Other => None,
        };
        let node = known.as_ref().map(|(_, node)| node);
        let may_ask = match asked.as_ref().filter(|asked| asked.is(&question, node)) {
            Some(asked) => asked.may,
            None => {
                let may = may_ask(bundle, caller, &question, node.map(|node| &**node), now);
                *asked = Some(AskedAbout::new(&question, node, may));
                may
            }
        };
        let facts = match (question.subject_kind(), &known) {
            (_, Some((id, node))) => SubjectFacts::Node(Attested::of(*id, node, now)),
            (SubjectKind::Node(_) | SubjectKind::OnNode, None) => SubjectFacts::UnknownNode,
            (SubjectKind::Service | SubjectKind::Other, None) => SubjectFacts::Unattested,
        };
        let outcome = may_ask.then(|| bundle.decide(&question, &facts).judgement().clone());
        let facts = facts.record();
        let (id, policy) = (RecordId::new(now, &mut rng()), bundle.id().clone());
        let question = bundle.declared(&question);
        Judged { id, at: now, question, facts, node: known.map(|(id, _)| id), outcome, policy }
    }

    /// Records what was decided, all of it before any of it is answered.
    ///
    /// This is the one place at which decisions enter the audit trail.
    pub(super) async fn record_evaluations(
        &self,
        caller: &Caller,
        judged: &[Judged],
    ) -> Result<(), StoreError> {
        let actor = actor_of(caller);
        let records = judged.iter().map(|one| one.record(actor.clone())).collect();
        self.record_outcomes(records).await
    }

    /// Records that somebody looked for what would be allowed, and how much it found, before it hears of it.
    pub(super) async fn record_search(
        &self,
        caller: &Caller,
        bundle: &Bundle,
        question: &Question,
        found: usize,
    ) -> Result<(), StoreError> {
        let question = bundle.declared(question);
        let action = &question.action().name;
        let record = self.record_of(RecordKind::Search, action, actor_of(caller), Outcome::Done, SEARCHED);
        let subject = question.subject();
        let record = record
            .about(Entity::named(&subject.kind, &subject.id))
            .by(&bundle.id().to_string())
            .because(&format!("{found} found"))
            .with(Facts::or_digest(serde_json::json!({ "search": question })));
        self.record_outcome(record).await
    }

    /// What the caller hears of a decision that is on record.
    async fn tell(
        &self,
        caller: &Caller,
        judged: Judged,
        challenge: &mut Option<Challenge>,
    ) -> Result<Decided, DecideError> {
        let (allowed, code) = (judged.allowed(), judged.code());
        let mut obligations = Vec::new();
        for owed in judged.outcome.as_ref().map_or(&[][..], Judgement::obligations) {
            match owed {
                Owed::StepUp { within } => {
                    let challenge = self.step_up(caller, judged.node, challenge).await?;
                    let within = Duration::from_secs(*within);
                    obligations.push(Obligation::StepUp { within, challenge: challenge.map(Box::new) });
                }
            }
        }
        let may_know = match caller {
            Caller::Node(_) => false,
            Caller::RelyingParty(_) => true,
        };
        let reason_for_admin = judged.outcome.as_ref().filter(|_| may_know && code != UNKNOWN_SUBJECT);
        let reason_for_admin = reason_for_admin.map(|outcome| {
            let policies: Vec<_> = outcome.determining().iter().map(ToString::to_string).collect();
            match policies.is_empty() {
                true => code.to_owned(),
                false => format!("{code}, by {}", policies.join(", ")),
            }
        });
        let policy = may_know.then(|| judged.policy.to_string());
        Ok(Decided { id: judged.id, at: judged.at, allowed, code, obligations, reason_for_admin, policy })
    }

    /// Has a node show evidence: by a challenge in the answer where it is the node that asks, once for all that it asks; else
    /// it is told by itself.
    async fn step_up(
        &self,
        caller: &Caller,
        subject: Option<NodeId>,
        challenge: &mut Option<Challenge>,
    ) -> Result<Option<Challenge>, DecideError> {
        let Some(node) = subject else { return Ok(None) };
        match caller {
            Caller::Node(caller) if caller.id() == node => {
                if challenge.is_none() {
                    *challenge = match self.challenge(&ChallengeRequest { node }).await {
                        Ok(challenge) => Some(challenge),
                        Err(AttestError::Store(error)) => return Err(error.into()),
                        // It was retired since it was identified.
                        Err(AttestError::Refused(_)) => None,
                    };
                }
                Ok(challenge.clone())
            }
            Caller::Node(_) | Caller::RelyingParty(_) => {
                self.wish_attestation(node);
                Ok(None)
            }
        }
    }
}

/// A subject, and whether a caller may ask about it.
pub(super) struct AskedAbout {
    kind: String,
    id: String,
    /// How it stood: another one is another finding.
    node: Option<Arc<LiveNode>>,
    may: bool,
}

impl AskedAbout {
    fn new(question: &Question, node: Option<&Arc<LiveNode>>, may: bool) -> Self {
        let subject = question.subject();
        Self { kind: subject.kind.clone(), id: subject.id.clone(), node: node.cloned(), may }
    }

    fn is(&self, question: &Question, node: Option<&Arc<LiveNode>>) -> bool {
        let subject = question.subject();
        let same_node = match (&self.node, node) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now),
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        };
        same_node && self.kind == subject.kind && self.id == subject.id
    }
}

/// How long questions are decided before others have their turn: most take microseconds, the slowest some milliseconds.
const TURN: Duration = Duration::from_millis(2);

/// One of the turns in which many questions are decided.
pub(super) struct Turn(Instant);

impl Turn {
    pub(super) fn begins() -> Self {
        Self(Instant::now())
    }

    pub(super) async fn pause_when_it_is_over(&mut self) {
        if self.0.elapsed() >= TURN {
            tokio::task::yield_now().await;
            *self = Self::begins();
        }
    }
}

/// Whether a caller may ask about the subject of a question, and so hear why it is refused something.
///
/// Established when this says so, in this order: a relying party may read how the node stands, where the subject is one · the
/// policies permit the caller to `Ask`.
fn may_ask(
    bundle: &Bundle,
    caller: &Caller,
    question: &Question,
    subject: Option<&LiveNode>,
    now: Timestamp,
) -> bool {
    match caller {
        Caller::Node(node) => {
            let facts = SubjectFacts::Node(Attested::of(node.id(), node.node(), now));
            bundle.decide(&Question::ask(("node", node.id().to_string()), question), &facts).allowed()
        }
        Caller::RelyingParty(party) => {
            let may_read = match question.subject_kind() {
                SubjectKind::Node(_) => subject.is_some_and(|node| party.may_read(&node.labels)),
                SubjectKind::OnNode => false,
                SubjectKind::Service | SubjectKind::Other => true,
            };
            let facts = ServiceFacts { may_read, may_signal: party.may_signal_something() };
            may_read && bundle.service_may_ask(party.name().as_str(), facts, question)
        }
    }
}

/// Who asks, for the trail.
pub(super) fn actor_of(caller: &Caller) -> Actor {
    match caller {
        Caller::Node(node) => Actor::Node(node.id()),
        Caller::RelyingParty(party) => relying_party(party),
    }
}

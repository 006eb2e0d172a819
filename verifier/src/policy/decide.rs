//! One decision: a question and what is attested, by a bundle.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cedar_policy::{
    AuthorizationError, Context, Decision, EntityId, EntityTypeName, EntityUid, PolicyId, Request, Response,
    RestrictedExpression,
};
use rootbound_common::id::NodeId;
use serde::Serialize;

use super::bundle::{Bundle, PolicyName, Rule};
use super::facts::{FactSet, NodeStanding, RecordedFacts, Seen, Status, SubjectFacts};
use super::question::{CredentialKind, Question, SubjectKind};
use super::schema::{Misfit, new_record};
use super::slice::{Environment, Slice};
use crate::reference::Versioned;

/// Why, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// A policy permits it, and none forbids it.
    Permitted,
    /// None does.
    NoPolicyPermits,
    /// One forbids it.
    Forbidden,
    /// One permits it, to a node of another posture.
    Posture(Status),
    /// One permits it, on newer evidence.
    EvidenceTooOld,
    /// Nobody has said that the machine is ours.
    Pending,
    /// It is ours no longer.
    Retired,
    /// Said to be one of ours, and not known.
    UnknownSubject,
    /// No such action.
    UnknownAction,
    /// A type or a property is not as the schema says.
    DoesNotFit,
    /// A forbid could not be evaluated: nobody knows that it does not forbid.
    PolicyError,
}

impl Code {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Permitted => "permitted",
            Self::Forbidden => "forbidden_by_policy",
            // Every permit accepts who is affirming, so that this is never why.
            Self::Posture(Status::Affirming) | Self::NoPolicyPermits => "no_policy_permits",
            Self::Posture(Status::Warning) => "posture_warning",
            Self::Posture(Status::Stale) => "posture_stale",
            Self::Posture(Status::Unknown) => "posture_unknown",
            Self::Posture(Status::Contraindicated) => "posture_contraindicated",
            Self::Posture(Status::Blocked) => "posture_blocked",
            Self::Posture(Status::Unattested) => "posture_unattested",
            Self::EvidenceTooOld => "evidence_too_old",
            Self::Pending => "admission_pending",
            Self::Retired => "node_retired",
            Self::UnknownSubject => "unknown_subject",
            Self::UnknownAction => "unknown_action",
            Self::DoesNotFit => "request_does_not_fit_schema",
            Self::PolicyError => "policy_error",
        }
    }
}

impl Serialize for Code {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.code())
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// What the one who asks has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Obligation {
    /// Have the node quote again, and ask again within this time of the quote.
    StepUp {
        /// How old the evidence may be, in seconds.
        within: u64,
    },
}

/// A policy that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PolicyFailure {
    /// Which.
    pub policy: PolicyName,
    /// Cedar's words.
    pub detail: String,
}

/// What a bundle says to a question. As data it permits nothing: see [`Outcome`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judgement {
    allowed: bool,
    code: Code,
    determining: Vec<PolicyName>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    obligations: Vec<Obligation>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<PolicyFailure>,
    #[serde(skip_serializing_if = "Option::is_none")]
    misfit: Option<Box<Misfit>>,
}

impl Judgement {
    fn deny(code: Code) -> Self {
        Self {
            allowed: false,
            code,
            determining: Vec::new(),
            obligations: Vec::new(),
            errors: Vec::new(),
            misfit: None,
        }
    }

    /// Whether it is allowed.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.allowed
    }

    /// Why, stable, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code.code()
    }

    /// The policies that made it so: those that permit, those that forbid, or those that would permit to a node that
    /// stands otherwise. Sorted by name.
    #[must_use]
    pub fn determining(&self) -> &[PolicyName] {
        &self.determining
    }

    /// What the one who asks has to do.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        &self.obligations
    }

    /// How old evidence may be that would do, where only its age is missing.
    #[must_use]
    pub fn step_up(&self) -> Option<Duration> {
        self.obligations.iter().map(|Obligation::StepUp { within }| Duration::from_secs(*within)).next()
    }

    /// Policies that could not be evaluated.
    #[must_use]
    pub fn errors(&self) -> &[PolicyFailure] {
        &self.errors
    }

    /// What of the question does not fit the schema.
    #[must_use]
    pub fn misfit(&self) -> Option<&Misfit> {
        self.misfit.as_deref()
    }
}

/// What a bundle says to a question, on what is attested now. Only [`Bundle::decide`] makes it.
#[derive(Debug)]
pub struct Outcome {
    judgement: Judgement,
    question: Question,
    bundle: Arc<Versioned>,
}

impl Outcome {
    /// Whether it is allowed. To act on it, take [`Self::into_permit`].
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.judgement.allowed
    }

    /// Why, stable, for machines.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.judgement.code()
    }

    /// The policies that made it so.
    #[must_use]
    pub fn determining(&self) -> &[PolicyName] {
        self.judgement.determining()
    }

    /// What the one who asks has to do.
    #[must_use]
    pub fn obligations(&self) -> &[Obligation] {
        self.judgement.obligations()
    }

    /// How old evidence may be that would do, where only its age is missing.
    #[must_use]
    pub fn step_up(&self) -> Option<Duration> {
        self.judgement.step_up()
    }

    /// Policies that could not be evaluated.
    #[must_use]
    pub fn errors(&self) -> &[PolicyFailure] {
        self.judgement.errors()
    }

    /// What was asked.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// By which bundle.
    #[must_use]
    pub fn bundle(&self) -> &Versioned {
        &self.bundle
    }

    /// All of it, for the record.
    #[must_use]
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }

    /// The permission, once.
    pub fn into_permit(self) -> Result<Permit, Denied> {
        let Self { judgement, question, bundle } = self;
        if judgement.allowed {
            Ok(Permit { question, bundle, determining: judgement.determining })
        } else {
            Err(Denied { judgement: Box::new(judgement) })
        }
    }
}

/// The permission to do one thing, once. Only [`Outcome::into_permit`] makes it; whoever acts takes it by value.
#[derive(Debug)]
pub struct Permit {
    question: Question,
    bundle: Arc<Versioned>,
    determining: Vec<PolicyName>,
}

impl Permit {
    /// What is permitted.
    #[must_use]
    pub fn question(&self) -> &Question {
        &self.question
    }

    /// By which bundle.
    #[must_use]
    pub fn bundle(&self) -> &Versioned {
        &self.bundle
    }

    /// By which policies.
    #[must_use]
    pub fn determining(&self) -> &[PolicyName] {
        &self.determining
    }

    /// Whether it is for issuing this node a credential of this kind.
    #[must_use]
    pub fn is_to_issue(&self, node: NodeId, kind: CredentialKind) -> bool {
        self.question == Question::issue_credential(node, kind)
    }
}

/// It is not permitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", judgement.code)]
pub struct Denied {
    judgement: Box<Judgement>,
}

impl Denied {
    /// Why.
    #[must_use]
    pub fn judgement(&self) -> &Judgement {
        &self.judgement
    }
}

impl Bundle {
    /// Decides a question by what is attested now.
    #[must_use]
    pub fn decide(&self, question: &Question, facts: &SubjectFacts<'_>) -> Outcome {
        Outcome {
            judgement: self.judge(question, facts.seen()),
            question: question.clone(),
            bundle: Arc::clone(&self.id),
        }
    }

    /// What the bundle would say on facts that are only data: of a case, or of a decision on record.
    #[must_use]
    pub fn rehearse(&self, question: &Question, facts: &RecordedFacts) -> Judgement {
        self.judge(question, facts.seen())
    }

    fn judge(&self, question: &Question, facts: Seen<'_>) -> Judgement {
        let prepared = match self.prepare(question, facts, None) {
            Ok(prepared) => prepared,
            Err(denied) => return *denied,
        };
        let response =
            self.authorizer.is_authorized(&prepared.request, &prepared.slice.policies, &self.entities);
        conclude(&response, &prepared.slice.rules, facts)
    }

    /// Everything up to the evaluation. `reads`: what is handed over; the slice's own facts where `None`.
    pub(super) fn prepare(
        &self,
        question: &Question,
        facts: Seen<'_>,
        reads: Option<FactSet>,
    ) -> Result<Prepared<'_>, Box<Judgement>> {
        let deny = |code| Box::new(Judgement::deny(code));
        let misfit = |misfit: Misfit| {
            let mut judgement = Judgement::deny(Code::DoesNotFit);
            judgement.misfit = Some(Box::new(misfit));
            Box::new(judgement)
        };
        belongs(question.subject_kind(), facts).map_err(deny)?;
        let (subject, resource) = (question.subject(), question.resource());
        let action = self.schema.actions.get(&question.action().name);
        let action = action.ok_or_else(|| deny(Code::UnknownAction))?;
        let types = &self.schema.types;
        let unknown = |at: &str| misfit(Misfit::new(at, "a type of the schema"));
        let (principal_at, principal_type) =
            types.get(&subject.kind).ok_or_else(|| unknown("subject type"))?;
        let (resource_at, resource_type) =
            types.get(&resource.kind).ok_or_else(|| unknown("resource type"))?;
        let environment =
            Environment { principal: *principal_at, action: action.index, resource: *resource_at };
        let slice = self.environments.get(&environment).ok_or_else(|| {
            misfit(Misfit::new("subject and resource type", "types that the action applies to"))
        })?;
        let attested = new_record(facts.attested(reads.unwrap_or(slice.reads))).map_err(misfit)?;
        let request = action.request.request(question).map_err(misfit)?;
        let context = context(attested, request).map_err(misfit)?;
        let uid = |kind: &EntityTypeName, id: &str| {
            EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(id))
        };
        let request = Request::new(
            uid(principal_type, &subject.id),
            action.uid.clone(),
            uid(resource_type, &resource.id),
            context,
            None,
        );
        let request =
            request.map_err(|_| misfit(Misfit::new("request", "what the schema says of the action")))?;
        Ok(Prepared { request, slice })
    }
}

/// What follows from Cedar's answer: which permits count, and what failed.
pub(super) fn conclude(
    response: &Response,
    rules: &HashMap<PolicyId, Arc<Rule>>,
    facts: Seen<'_>,
) -> Judgement {
    let diagnostics = response.diagnostics();
    let mut determining: Vec<&Rule> =
        diagnostics.reason().filter_map(|id| rules.get(id)).map(Arc::as_ref).collect();
    let mut errors = Vec::new();
    let mut forbid_failed = false;
    for AuthorizationError::PolicyEvaluationError(error) in diagnostics.errors() {
        if let Some(rule) = rules.get(error.policy_id()) {
            forbid_failed |= rule.forbids;
            errors.push(PolicyFailure { policy: rule.name.clone(), detail: error.to_string() });
        } else {
            // Of a policy that is not ours nobody knows what it would have said.
            forbid_failed = true;
        }
    }
    let mut judgement = match response.decision() {
        Decision::Deny if determining.iter().any(|rule| rule.forbids) => Judgement::deny(Code::Forbidden),
        _ if forbid_failed => {
            determining.clear();
            Judgement::deny(Code::PolicyError)
        }
        Decision::Deny => Judgement::deny(Code::NoPolicyPermits),
        Decision::Allow => permitted(&mut determining, facts),
    };
    judgement.determining = determining.into_iter().map(|rule| rule.name.clone()).collect();
    judgement.determining.sort_unstable();
    errors.sort_unstable_by(|one, other| one.policy.cmp(&other.policy));
    judgement.errors = errors;
    judgement
}

/// A question as Cedar takes it.
pub(super) struct Prepared<'b> {
    pub(super) request: Request,
    pub(super) slice: &'b Slice,
}

/// Two records, made by two functions: whatever the caller says is below `request`.
fn context(attested: RestrictedExpression, request: Option<RestrictedExpression>) -> Result<Context, Misfit> {
    let pairs = [("attested", Some(attested)), ("request", request)];
    let pairs = pairs.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    // An extension value is made here: a text that is no IP address shows only now.
    Context::from_pairs(pairs)
        .map_err(|_| Misfit::new("request", "IP addresses, decimals, dates and durations that are some"))
}

/// Whether these are facts of this subject, and of one that may be decided on.
fn belongs(subject: SubjectKind, facts: Seen<'_>) -> Result<(), Code> {
    let node = match (subject, facts) {
        (SubjectKind::Node(Some(id)), Seen::Node(node)) if node.node == id => node,
        (SubjectKind::OnNode, Seen::Node(node)) => node,
        (SubjectKind::Service, Seen::Service(_) | Seen::Unattested)
        | (SubjectKind::Other, Seen::Unattested) => return Ok(()),
        (
            SubjectKind::Node(_) | SubjectKind::OnNode | SubjectKind::Service | SubjectKind::Other,
            Seen::Node(_) | Seen::Service(_) | Seen::Unattested | Seen::UnknownNode,
        ) => return Err(Code::UnknownSubject),
    };
    match node.standing {
        NodeStanding::Admitted => Ok(()),
        NodeStanding::Pending => Err(Code::Pending),
        NodeStanding::Retired => Err(Code::Retired),
    }
}

/// Of the permits that hold, those that count: for a subject that stands so, on evidence of this age.
fn permitted(determining: &mut Vec<&Rule>, facts: Seen<'_>) -> Judgement {
    let status = facts.status();
    let accepting = |rule: &&Rule| rule.accepts.contains(&status);
    if !determining.iter().any(accepting) {
        return Judgement::deny(Code::Posture(status));
    }
    determining.retain(accepting);
    let fresh = |rule: &&Rule| is_fresh(rule, facts);
    if determining.iter().any(fresh) {
        determining.retain(fresh);
        return Judgement { allowed: true, ..Judgement::deny(Code::Permitted) };
    }
    let mut judgement = Judgement::deny(Code::EvidenceTooOld);
    if let (Seen::Node(_), Some(within)) = (facts, determining.iter().filter_map(|rule| rule.fresh).max()) {
        judgement.obligations.push(Obligation::StepUp { within });
    }
    judgement
}

pub(super) fn is_fresh(rule: &Rule, facts: Seen<'_>) -> bool {
    match (rule.fresh, facts.evidence_age()) {
        (None, _) => true,
        (Some(limit), Some(age)) => age <= limit,
        (Some(_), None) => false,
    }
}

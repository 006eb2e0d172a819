//! A relying party says something against a node, or takes it back.
//!
//! A source may lift what it set itself, by a signal `clear`, and nothing that an operator or another source set. Lifting
//! gives nothing back by itself: the node has to show evidence that is younger.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::{SignalKind, SignalRequest, SignalResponse};

use super::caller::relying_party;
use super::{Verifier, decision, rng};
use crate::hold::{HeldBy, Hold, HoldId, HoldKind, HoldReason, NotAHoldId, NotAReason};
use crate::policy::{Question, ServiceFacts, SubjectFacts};
use crate::relying_party::IdentifiedRelyingParty;
use crate::store::holds::{HoldChange, Lift};
use crate::store::signals::{SignalOutcome, SignalRecord};
use crate::store::{DecisionKind, DecisionRecord, DecisionTrail, StoreError};

/// Why a signal takes no effect. Each has a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignalRefusal {
    /// A node, or nobody.
    #[error("signals are for relying parties")]
    NotARelyingParty,
    /// The id has not the form of one.
    #[error("the id of a signal is 1 to 64 graphic characters of ASCII")]
    Id,
    /// The reason is none.
    #[error(transparent)]
    Reason(#[from] NotAReason),
    /// The hold is named wrongly.
    #[error(transparent)]
    Hold(#[from] NotAHoldId),
    /// A member that the kind has no use for, or a time out of bounds.
    #[error(
        "expires_in is 1 to {} seconds and goes with block and lower, hold goes with clear",
        LONGEST.as_secs()
    )]
    Members,
    /// The operator did not allow it.
    #[error("this relying party may not send signals of this kind")]
    NotAllowed,
    /// The policies in force do not permit it.
    #[error("the policies in force do not permit this signal")]
    DeniedByPolicy,
    /// A node that is not there, or is none that this relying party may read: the answer is the same.
    #[error("there is no such node, or this relying party may not read it")]
    UnknownNode,
    /// Another signal came under this id.
    #[error("another signal of this relying party has this id")]
    OtherContent,
    /// Nothing to lift.
    #[error("this relying party has no such hold on the node")]
    NoSuchHold,
    /// Too much at once.
    #[error("this relying party has as many holds on the node as it may")]
    TooManyHolds,
}

impl SignalRefusal {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotARelyingParty => "not_a_relying_party",
            Self::Id => "signal_id",
            Self::Reason(_) => "signal_reason",
            Self::Hold(_) => "signal_hold",
            Self::Members => "signal_members",
            Self::NotAllowed => "signal_not_allowed",
            Self::DeniedByPolicy => "signal_denied_by_policy",
            Self::UnknownNode => "unknown_node",
            Self::OtherContent => "signal_id_reused",
            Self::NoSuchHold => "unknown_hold",
            Self::TooManyHolds => "too_many_holds",
        }
    }
}

/// Why a signal was not judged, or took no effect.
#[derive(Debug, thiserror::Error)]
pub enum SignalError {
    /// It is refused.
    #[error(transparent)]
    Refused(#[from] SignalRefusal),
    /// The store failed, or what it has is damaged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A hold of a relying party that ends by itself lasts no longer: who means more says it again, or an operator does.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);
/// Characters of an id.
const MAX_ID: usize = 64;

/// The record of a decision that a relying party caused.
fn said_by(source: &IdentifiedRelyingParty, record: DecisionRecord) -> DecisionRecord {
    let actor = relying_party(source);
    DecisionRecord { trail: DecisionTrail { actor: Some(actor), ..DecisionTrail::default() }, ..record }
}

impl Verifier {
    /// Takes a signal: what it says is in force when this returns, and on record. The same again gets the same answer.
    pub async fn signal(
        &self,
        source: &IdentifiedRelyingParty,
        request: SignalRequest,
    ) -> Result<SignalResponse, SignalError> {
        let node = request.node;
        let outcome = self.take_signal(source, request).await;
        if let Err(SignalError::Refused(refusal)) = &outcome {
            let readable = self.fleet.node(node).is_some_and(|live| source.may_read(&live.labels));
            let detail = format!("relying party {}: {refusal}", source.name());
            let node = readable.then_some(node);
            tracing::info!(source = %source.name(), ?node, code = refusal.code(), "signal refused");
            let record = decision(self.now(), node, DecisionKind::Signal, false, refusal.code(), detail);
            self.store.record_decision(said_by(source, record)).await?;
        }
        outcome
    }

    async fn take_signal(
        &self,
        source: &IdentifiedRelyingParty,
        request: SignalRequest,
    ) -> Result<SignalResponse, SignalError> {
        let (now, node) = (self.now(), request.node);
        let id_fits = (1..=MAX_ID).contains(&request.id.len())
            && request.id.bytes().all(|byte| byte.is_ascii_graphic());
        if !id_fits {
            return Err(SignalRefusal::Id.into());
        }
        if !source.may_signal(request.kind) {
            return Err(SignalRefusal::NotAllowed.into());
        }
        let reason = HoldReason::try_from(request.reason.clone()).map_err(SignalRefusal::from)?;
        let lifted: Option<HoldId> = match &request.hold {
            Some(hold) => Some(hold.parse().map_err(SignalRefusal::Hold)?),
            None => None,
        };
        let lasts = request.expires_in.map(Duration::from_secs);
        let by = HeldBy::RelyingParty(source.name().clone());
        let new_hold = |kind| Hold {
            id: HoldId::generate(&mut rng()),
            kind,
            by: by.clone(),
            reason: reason.clone(),
            since: now,
            expires_at: lasts.map(|lasts| now.plus(lasts)),
        };
        let in_bounds = lasts.is_none_or(|lasts| lasts >= Duration::from_secs(1) && lasts <= LONGEST);
        let change = match (request.kind, lifted, lasts) {
            (SignalKind::Block, None, _) if in_bounds => HoldChange::Set(new_hold(HoldKind::Block)),
            (SignalKind::Lower, None, _) if in_bounds => HoldChange::Set(new_hold(HoldKind::Lower)),
            (SignalKind::Reattest, None, None) => HoldChange::DemandEvidence(now),
            (SignalKind::Clear, hold, None) => HoldChange::Lift(Lift { hold, by, reason, at: now }),
            (SignalKind::Block | SignalKind::Lower | SignalKind::Reattest | SignalKind::Clear, _, _) => {
                return Err(SignalRefusal::Members.into());
            }
        };
        let readable = self.fleet.node(node).is_some_and(|live| source.may_read(&live.labels));
        if !readable {
            return Err(SignalRefusal::UnknownNode.into());
        }
        // What the configuration allows, the policies may narrow.
        let facts = SubjectFacts::Service(ServiceFacts { may_read: true, may_signal: true });
        let question = Question::signal(source.name().to_string(), node);
        if !self.bundle.load().decide(&question, &facts).allowed() {
            return Err(SignalRefusal::DeniedByPolicy.into());
        }
        self.record_signal(source, request, change, now).await
    }

    async fn record_signal(
        &self,
        source: &IdentifiedRelyingParty,
        request: SignalRequest,
        change: HoldChange,
        now: Timestamp,
    ) -> Result<SignalResponse, SignalError> {
        let (node, kind) = (request.node, request.kind);
        let hold = match &change {
            HoldChange::Set(hold) => Some(hold),
            HoldChange::Lift(_) | HoldChange::DemandEvidence(_) => None,
        };
        let answer = SignalResponse {
            id: request.id.clone(),
            node,
            kind,
            at: now,
            hold: hold.map(|hold| hold.id.to_string()),
            expires_at: hold.and_then(|hold| hold.expires_at),
        };
        let encoded = |error: serde_json::Error| StoreError::Database(Box::new(error));
        let signal = SignalRecord {
            source: source.name().clone(),
            digest: sha256(&[&serde_json::to_vec(&request).map_err(encoded)?]),
            at: now,
            answer: serde_json::to_string(&answer).map_err(encoded)?,
            id: request.id,
        };
        let detail = format!("relying party {}, signal {}: {}", source.name(), signal.id, request.reason);
        let record =
            said_by(source, decision(now, Some(node), DecisionKind::Signal, true, code_of(kind), detail));
        match self.store.record_signal(signal, node, change, record).await? {
            SignalOutcome::Recorded(changed) => {
                self.refresh(node, changed.revision).await?;
                tracing::info!(%node, source = %source.name(), kind = kind.as_str(), "signal taken");
                Ok(answer)
            }
            SignalOutcome::Repeated(before) => {
                // The attempt that recorded it may not have come as far as memory.
                self.refresh(node, 0).await?;
                Ok(serde_json::from_str(&before).map_err(encoded)?)
            }
            SignalOutcome::OtherContent => Err(SignalRefusal::OtherContent.into()),
            SignalOutcome::UnknownNode => Err(SignalRefusal::UnknownNode.into()),
            SignalOutcome::NoSuchHold => Err(SignalRefusal::NoSuchHold.into()),
            SignalOutcome::TooManyHolds => Err(SignalRefusal::TooManyHolds.into()),
        }
    }

    /// The holds that a node has and had, the latest first, for an operator.
    pub async fn holds_of(
        &self,
        node: NodeId,
        limit: u32,
    ) -> Result<Vec<crate::store::holds::HoldRecord>, StoreError> {
        self.store.holds(node, limit).await
    }
}

/// The code of the decision.
const fn code_of(kind: SignalKind) -> &'static str {
    match kind {
        SignalKind::Block => "signal_block",
        SignalKind::Reattest => "signal_reattest",
        SignalKind::Lower => "signal_lower",
        SignalKind::Clear => "signal_clear",
    }
}

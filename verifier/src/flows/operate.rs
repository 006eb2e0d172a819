//! What an operator changes, and what follows from it.

use std::sync::Arc;
use std::time::Duration;

use rand_core::Rng;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::JoinToken;
use rootbound_compute::values::Source;
use serde_json::{Map, Value};
use tokio::sync::MutexGuard;

use super::enroll::digest_of_token;
use super::logs::{OfQuote, Sent};
use super::policies::PolicyError;
use super::sets::{SetError, permitted};
use super::survey::SurveyError;
use super::tokens::revoke::RotateError;
use super::{Verifier, decision, rng, versions_of};
use crate::appraisal::runtime::{DigestSet, DigestSetError};
use crate::appraisal::{Verdict, appraise};
use crate::audit::{Actor, AuditRecord, Entity, Facts, Outcome, RecordKind};
use crate::evidence::frame::{FrameError, unpack};
use crate::evidence::{Observed, restore};
use crate::hold::NotAReason;
use crate::node::{Labels, Name, NodeRecord};
use crate::posture::{Posture, STORED_EVIDENCE_INVALID};
use crate::reference::{
    AcceptedPcrs, DigestSetVersion, Profile, ProfileBody, ProfileError, Provenance, ReferenceBook,
    ReferenceError, ReferenceSet, Versioned,
};
use crate::store::logs::LogChange;
use crate::store::{
    DecisionKind, DecisionRecord, DecisionTrail, InventoryEntry, JoinTokenRecord, NodeChange, Recorded,
    StoreError,
};

/// Who speaks over the administrative socket, and why.
#[derive(Debug, Clone)]
pub struct Operator {
    /// `uid 0`, as the kernel says.
    pub author: String,
    /// In their words; may be empty.
    pub reason: String,
}

impl Operator {
    /// As the audit trail has them.
    #[must_use]
    pub fn actor(&self) -> Actor {
        Actor::Operator(self.author.as_str().into())
    }
}

/// Why an operator's request is refused.
#[derive(Debug, thiserror::Error)]
pub enum OperateError {
    /// No such node.
    #[error("there is no node {0}")]
    UnknownNode(NodeId),
    /// The node is in that state already.
    #[error("nothing to do: node {0} is in that state already")]
    Already(NodeId),
    /// Too many labels.
    #[error("a node has at most {} labels", Labels::MAX)]
    TooManyLabels,
    /// Nothing to capture from.
    #[error("node {0} has shown no evidence since it enrolled: there is nothing to capture")]
    NoEvidence(NodeId),
    /// The stored quote does not verify any more.
    #[error("the stored evidence of node {node} no longer verifies: {why}")]
    StoredEvidence {
        /// The node.
        node: NodeId,
        /// Which check failed.
        why: String,
    },
    /// The values are no reference values.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The profile is refused.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The log did not come.
    #[error("node {node} has sent no {log} since it booted: does its profile ask for it (`collect`)?")]
    NoLog {
        /// The node.
        node: NodeId,
        /// Which log.
        log: &'static str,
    },
    /// The log is no evidence.
    #[error("the boot event log of node {node} is refused: {why}")]
    BootLog {
        /// The node.
        node: NodeId,
        /// Why.
        why: String,
    },
    /// The text is no digest set.
    #[error("digest set: {0}")]
    Digests(#[from] DigestSetError),
    /// What came does not decompress.
    #[error("digest set: {0}")]
    Frame(#[from] FrameError),
    /// No such set, inventory entry or token.
    #[error("there is no {what} `{name}`")]
    NoSuch {
        /// What is missing.
        what: &'static str,
        /// Its name, which has the form of one.
        name: String,
    },
    /// The token's life is out of bounds.
    #[error("a join token lives between 1 minute and 30 days")]
    JoinTokenLifetime,
    /// The node may not attest.
    #[error("node {0} is not admitted: it may not attest")]
    NotAdmitted(NodeId),
    /// Operators have too many holds on the node.
    #[error("operators have as many holds on node {0} as they may: release some")]
    TooManyHolds(NodeId),
    /// The reason cannot be kept with a hold.
    #[error(transparent)]
    HoldReason(#[from] NotAReason),
    /// Every token would be ended by a slip.
    #[error("say which tokens: by id, node, client or audience")]
    NoFilter,
    /// The keys of tokens stay as they are.
    #[error(transparent)]
    TokenKeys(#[from] RotateError),
    /// It was about policies or decisions.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// It was about sets.
    #[error(transparent)]
    Set(#[from] SetError),
    /// It was a question over the fleet.
    #[error(transparent)]
    Survey(#[from] SurveyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl OperateError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::UnknownNode(_) => "unknown_node",
            Self::Already(_) => "nothing_to_do",
            Self::TooManyLabels => "too_many_labels",
            Self::NoEvidence(_) => "no_evidence",
            Self::StoredEvidence { .. } => STORED_EVIDENCE_INVALID,
            Self::Reference(_) => "reference_refused",
            Self::Profile(_) => "profile_refused",
            Self::NoLog { .. } => "no_log",
            Self::BootLog { .. } => "boot_log_refused",
            Self::Digests(_) | Self::Frame(_) => "digest_set_refused",
            Self::NoSuch { .. } => "not_found",
            Self::JoinTokenLifetime => "join_token_lifetime",
            Self::NotAdmitted(_) => "not_admitted",
            Self::TooManyHolds(_) => "too_many_holds",
            Self::HoldReason(_) => "reason_refused",
            Self::NoFilter => "token_filter_missing",
            Self::TokenKeys(_) => "token_keys_refused",
            Self::Policy(error) => error.code(),
            Self::Set(error) => error.code(),
            Self::Survey(error) => error.code(),
            Self::Store(_) => "store_failed",
        }
    }
}

/// How many nodes were appraised again, and what that changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Reappraised {
    /// Nodes with evidence.
    pub nodes: u64,
    /// Of these, how many are affirming now and were not before.
    pub now_affirming: u64,
    /// Of these, how many are contraindicated now and were not before.
    pub now_contraindicated: u64,
}

impl Verifier {
    /// Admits a pending node, or takes a retired one back.
    pub async fn approve(&self, id: NodeId, operator: &Operator) -> Result<NodeRecord, OperateError> {
        let change = self.store.approve_node(id, self.operated(id, operator, "approved")).await?;
        self.changed(id, change).await
    }

    /// Retires a node: from now on it is refused everything.
    pub async fn retire(&self, id: NodeId, operator: &Operator) -> Result<NodeRecord, OperateError> {
        let change = self.store.retire_node(id, self.operated(id, operator, "retired")).await?;
        self.changed(id, change).await
    }

    /// Sets labels and takes others away; the node is appraised by the profile that fits it now.
    pub async fn label(
        &self,
        id: NodeId,
        changes: Vec<(Name, Option<Name>)>,
        operator: &Operator,
    ) -> Result<NodeRecord, OperateError> {
        let mut decision = self.operated(id, operator, "labelled");
        let named = changes.iter().map(|(key, value)| {
            (key.to_string(), value.as_ref().map_or(Value::Null, |value| value.to_string().into()))
        });
        decision.trail.facts = Some(Facts::or_digest(serde_json::json!({ "labels": Map::from_iter(named) })));
        let change = self.store.label_node(id, changes, decision).await?;
        let node = self.changed(id, change).await?;
        self.reappraise(id).await?;
        Ok(node)
    }

    pub(super) fn operated(&self, id: NodeId, operator: &Operator, code: &str) -> DecisionRecord {
        let detail = format!("{}: {}", operator.author, operator.reason);
        let record = decision(self.now(), Some(id), DecisionKind::Operate, true, code, detail);
        let trail = DecisionTrail { actor: Some(operator.actor()), ..DecisionTrail::default() };
        DecisionRecord { trail, ..record }
    }

    /// The record of something that an operator does to something else than a node's standing.
    pub(super) fn done(
        &self,
        operator: &Operator,
        kind: RecordKind,
        action: &str,
        subject: Entity,
    ) -> AuditRecord {
        let record = self.record_of(kind, action, operator.actor(), Outcome::Done, action);
        record.about(subject).because(&operator.reason)
    }

    async fn changed(&self, id: NodeId, change: NodeChange) -> Result<NodeRecord, OperateError> {
        match change {
            NodeChange::Changed(node) => {
                self.refresh(id, node.revision).await?;
                Ok(*node)
            }
            NodeChange::Already(node) => {
                // The attempt that changed it may not have come as far as this.
                self.refresh(id, node.revision).await?;
                Err(OperateError::Already(id))
            }
            NodeChange::Unknown => Err(OperateError::UnknownNode(id)),
            NodeChange::TooManyLabels => Err(OperateError::TooManyLabels),
        }
    }

    /// Makes a reference set of what a node showed last. Its quote is verified once more.
    pub async fn capture(
        &self,
        id: NodeId,
        name: Name,
        operator: &Operator,
    ) -> Result<(ReferenceSet, Reappraised), OperateError> {
        let node = self.store.node(id).await?.ok_or(OperateError::UnknownNode(id))?;
        let stored = self.stored_evidence(&node).await?.ok_or(OperateError::NoEvidence(id))?;
        let observed = stored.map_err(|why| OperateError::StoredEvidence { node: id, why })?;
        let shown_by = Source { node: Some(id.to_string()), ..Source::default() };
        let accepted = AcceptedPcrs::captured(observed.pcrs())?.from_source(&shown_by);
        self.put_reference_set(name, accepted, operator).await
    }

    /// Writes the next version of a reference set, and appraises every node again.
    pub async fn put_reference_set(
        &self,
        name: Name,
        accepted: AcceptedPcrs,
        operator: &Operator,
    ) -> Result<(ReferenceSet, Reappraised), OperateError> {
        permitted(&name)?;
        let change = self.changes.lock().await;
        let subject = Entity::named("reference_set", name.as_str());
        let record = self.done(operator, RecordKind::ReferenceChange, "put_reference_set", subject);
        let set = self.store.put_reference_set(name, accepted, self.provenance(operator), record).await?;
        tracing::info!(set = %set.id, author = %operator.author, "reference set written");
        Ok((set, self.references_changed(change).await?))
    }

    /// Withdraws a reference set, and appraises every node again.
    pub async fn remove_reference_set(
        &self,
        name: &Name,
        operator: &Operator,
    ) -> Result<Reappraised, OperateError> {
        let change = self.changes.lock().await;
        let subject = Entity::named("reference_set", name.as_str());
        let record = self.done(operator, RecordKind::ReferenceChange, "withdraw_reference_set", subject);
        let withdrawn = self.store.withdraw_reference_set(name, self.provenance(operator), record).await?;
        // Also where it was withdrawn before: that attempt may have failed half way.
        let appraised = self.references_changed(change).await?;
        if !withdrawn {
            return Err(OperateError::NoSuch { what: "reference set", name: name.to_string() });
        }
        tracing::info!(set = %name, author = %operator.author, "reference set withdrawn");
        Ok(appraised)
    }

    /// Writes the next version of a digest set from its text in a zstd frame, and appraises every node again.
    pub async fn put_digest_set(
        &self,
        name: Name,
        frame: &[u8],
        operator: &Operator,
    ) -> Result<(DigestSetVersion, Reappraised), OperateError> {
        let text = unpack(frame, DigestSet::MAX_BYTES)?;
        self.write_digest_set(name, text, operator).await
    }

    pub(super) async fn write_digest_set(
        &self,
        name: Name,
        text: Vec<u8>,
        operator: &Operator,
    ) -> Result<(DigestSetVersion, Reappraised), OperateError> {
        permitted(&name)?;
        let digests = Arc::new(DigestSet::parse(&text)?);
        let change = self.changes.lock().await;
        let subject = Entity::named("digest_set", name.as_str());
        let record = self.done(operator, RecordKind::ReferenceChange, "put_digest_set", subject);
        let set = self.store.put_digest_set(name, digests, text, self.provenance(operator), record).await?;
        tracing::info!(set = %set.id, author = %operator.author, "digest set written");
        Ok((set, self.references_changed(change).await?))
    }

    /// Withdraws a digest set, and appraises every node again.
    pub async fn remove_digest_set(
        &self,
        name: &Name,
        operator: &Operator,
    ) -> Result<Reappraised, OperateError> {
        let change = self.changes.lock().await;
        let subject = Entity::named("digest_set", name.as_str());
        let record = self.done(operator, RecordKind::ReferenceChange, "withdraw_digest_set", subject);
        let withdrawn = self.store.withdraw_digest_set(name, self.provenance(operator), record).await?;
        let appraised = self.references_changed(change).await?;
        if !withdrawn {
            return Err(OperateError::NoSuch { what: "digest set", name: name.to_string() });
        }
        tracing::info!(set = %name, author = %operator.author, "digest set withdrawn");
        Ok(appraised)
    }

    /// Writes the next version of a profile, and appraises every node again.
    pub async fn put_profile(
        &self,
        name: Name,
        body: ProfileBody,
        operator: &Operator,
    ) -> Result<(Profile, Reappraised), OperateError> {
        body.check()?;
        let change = self.changes.lock().await;
        self.book.load().check(&body)?;
        let subject = Entity::named("profile", name.as_str());
        let record = self.done(operator, RecordKind::ReferenceChange, "put_profile", subject);
        let provenance = self.provenance(operator);
        // What depends on the time of writing.
        Profile::new(Versioned { name: name.clone(), version: 1 }, body.clone(), provenance.clone())?;
        let profile = self.store.put_profile(name, body, provenance, record).await?;
        tracing::info!(profile = %profile.id(), author = %operator.author, "profile written");
        Ok((profile, self.references_changed(change).await?))
    }

    pub(super) fn provenance(&self, operator: &Operator) -> Provenance {
        Provenance {
            author: operator.author.clone(),
            reason: operator.reason.clone(),
            created_at: self.now(),
        }
    }

    /// Puts what was just written into force. One change at a time, else the older of two books could come last.
    pub(super) async fn references_changed(
        &self,
        _change: MutexGuard<'_, ()>,
    ) -> Result<Reappraised, OperateError> {
        let book = self.store.reference_book(&self.book.load_full()).await?;
        self.book.store(Arc::new(book));
        self.reappraise_all().await.map_err(OperateError::Store)
    }

    /// Appraises the last evidence of every node by the reference values of now. Repeating it changes nothing. What
    /// fails for one node is done for the others all the same.
    pub async fn reappraise_all(&self) -> Result<Reappraised, StoreError> {
        /// Nodes read at once: a page of about 2 MB.
        const PAGE: u32 = 500;
        let mut total = Reappraised::default();
        let (mut after, mut failed) = (None, None);
        loop {
            let page = self.store.nodes(after, PAGE).await?;
            let Some(last) = page.last() else { return failed.map_or(Ok(total), Err) };
            after = Some(last.id);
            for node in &page {
                let (before, now) = match self.reappraise(node.id).await {
                    Ok(Some(verdicts)) => verdicts,
                    Ok(None) => continue,
                    Err(error) => {
                        tracing::error!(node = %node.id, %error, "could not appraise a node again");
                        failed.get_or_insert(error);
                        continue;
                    }
                };
                total.nodes += 1;
                let turned = |verdict| now == verdict && before != Some(verdict);
                total.now_affirming += u64::from(turned(Verdict::Affirming));
                total.now_contraindicated += u64::from(turned(Verdict::Contraindicated));
            }
        }
    }

    /// Appraises the last evidence of a node again; returns the verdict before and now, where there is evidence.
    ///
    /// Where the node or the reference values change meanwhile, it starts over. Where later evidence speaks against the node
    /// and could not be recorded, nothing is made of the evidence before.
    pub(super) async fn reappraise(
        &self,
        id: NodeId,
    ) -> Result<Option<(Option<Verdict>, Verdict)>, StoreError> {
        loop {
            let book = self.book.load_full();
            let Some(node) = self.store.node(id).await? else { return Ok(None) };
            if self.fleet.is_distrusted(id) {
                return Ok(Some((Some(Verdict::Contraindicated), Verdict::Contraindicated)));
            }
            let before = self.fleet.node(id).and_then(|live| live.posture.clone());
            let (posture, logs) = match self.stored_evidence(&node).await? {
                None => return Ok(None),
                Some(Ok(observed)) => self.appraise_again(&node, &observed, &book).await?,
                Some(Err(why)) => {
                    tracing::error!(node = %id, why, "the stored evidence does not verify any more");
                    (Posture::without_foundation(before.as_ref()), None)
                }
            };
            let verdicts = (before.as_ref().map(|before| before.verdict), posture.verdict);
            let settled = (before.as_ref() == Some(&posture) && logs.is_none())
                || self.record_reappraisal(&node, posture, logs).await?;
            if settled && Arc::ptr_eq(&book, &self.book.load()) {
                return Ok(Some(verdicts));
            }
        }
    }

    /// Appraises what a node showed last, with the logs that are kept of it. What those come to by other rules than before is
    /// to be kept.
    async fn appraise_again(
        &self,
        node: &NodeRecord,
        observed: &Observed,
        book: &ReferenceBook,
    ) -> Result<(Posture, Option<LogChange>), StoreError> {
        let reset_count = node.last_seen.as_ref().map_or(0, |seen| seen.clock.reset_count);
        let quote = OfQuote { node: node.id, reset_count, observed };
        let read = self.read_logs(&quote, &book.rules(&node.labels), Sent::Again(None)).await?;
        let posture = Posture::of(&appraise(observed, &read.logs, &node.labels, book));
        Ok((posture, read.rejudged()))
    }

    /// Records and shows the outcome of a reappraisal; `false`: the node has changed since it was read.
    async fn record_reappraisal(
        &self,
        node: &NodeRecord,
        posture: Posture,
        logs: Option<LogChange>,
    ) -> Result<bool, StoreError> {
        let (id, now) = (node.id, self.now());
        let (granted, code) = match posture.verdict {
            Verdict::Affirming => (true, "affirming"),
            Verdict::Contraindicated if posture.is_without_foundation() => (false, STORED_EVIDENCE_INVALID),
            Verdict::Contraindicated => (false, "contraindicated"),
        };
        let detail = posture.deviations.first().map(|first| first.detail.clone()).unwrap_or_default();
        let record = DecisionRecord {
            trail: DecisionTrail { versions: versions_of(&posture), ..DecisionTrail::default() },
            ..decision(now, Some(id), DecisionKind::Reappraise, granted, code, detail)
        };
        let epoch = self.epoch_with(node, &posture);
        match self.store.record_reappraisal(id, node.revision, &posture, epoch, logs, record).await {
            Ok(Recorded::NodeChanged) => Ok(false),
            Ok(Recorded::Yes { revision }) => {
                let key = node.attestation_key.name();
                if !self.fleet.appraised(id, key, (revision, epoch), posture, None, now) {
                    self.refresh(id, revision).await?;
                }
                Ok(true)
            }
            Err(error) => {
                if posture.verdict == Verdict::Contraindicated {
                    // As in `attest`: trust does not outlive what speaks against it.
                    self.fleet.show_unrecorded(id, node.revision, posture);
                }
                Err(error)
            }
        }
    }

    /// What a node showed last, verified once more; or why it does not stand.
    pub(super) async fn stored_evidence(
        &self,
        node: &NodeRecord,
    ) -> Result<Option<Result<Observed, String>>, StoreError> {
        match self.store.last_quote(node.id).await {
            Ok(quote) => Ok(quote.map(|quote| {
                restore(quote, node.id, &node.attestation_key).map_err(|error| error.to_string())
            })),
            Err(StoreError::Inconsistent { why, .. }) => Ok(Some(Err(why))),
            Err(error @ (StoreError::Database(_) | StoreError::Overloaded)) => Err(error),
        }
    }

    /// Lists a machine as expected.
    pub async fn add_inventory(
        &self,
        node: NodeId,
        waive_endorsement: bool,
        labels: Labels,
        operator: &Operator,
    ) -> Result<InventoryEntry, OperateError> {
        let entry = InventoryEntry { node, waive_endorsement, labels, provenance: self.provenance(operator) };
        let facts = serde_json::json!({ "waive_endorsement": waive_endorsement, "labels": entry.labels });
        let record = self
            .done(operator, RecordKind::OperatorAction, "put_inventory", Entity::node(node))
            .with(Facts::or_digest(facts));
        self.store.put_inventory(&entry, record).await?;
        Ok(entry)
    }

    /// Takes a machine off the list.
    pub async fn remove_inventory(&self, node: NodeId, operator: &Operator) -> Result<(), OperateError> {
        let record = self.done(operator, RecordKind::OperatorAction, "remove_inventory", Entity::node(node));
        if self.store.remove_inventory(node, record).await? {
            Ok(())
        } else {
            Err(OperateError::NoSuch { what: "inventory entry", name: node.to_string() })
        }
    }

    /// Makes a join token. The token itself is returned this once, and not kept.
    pub async fn create_join_token(
        &self,
        node: Option<NodeId>,
        labels: Labels,
        lifetime: Duration,
        operator: &Operator,
    ) -> Result<(JoinToken, JoinTokenRecord), OperateError> {
        const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
        if !(Duration::from_secs(60)..=MONTH).contains(&lifetime) {
            return Err(OperateError::JoinTokenLifetime);
        }
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        rng().fill_bytes(&mut id);
        rng().fill_bytes(&mut secret);
        let token = format!("rbjt_{}", data_encoding::BASE64URL_NOPAD.encode(&secret));
        let record = JoinTokenRecord {
            id: data_encoding::HEXLOWER.encode(&id),
            node,
            labels,
            expires_at: self.now().plus(lifetime),
            provenance: self.provenance(operator),
            used: None,
            revoked: false,
        };
        let facts = serde_json::json!({
            "node": record.node, "labels": record.labels, "expires_at": record.expires_at,
        });
        let subject = Entity::named("join_token", &record.id);
        let trail = self
            .done(operator, RecordKind::OperatorAction, "create_join_token", subject)
            .with(Facts::or_digest(facts));
        self.store.create_join_token(&record, digest_of_token(token.as_bytes()), trail).await?;
        Ok((JoinToken(token), record))
    }

    /// Revokes a join token that was not used.
    pub async fn revoke_join_token(&self, id: &str, operator: &Operator) -> Result<(), OperateError> {
        let subject = Entity::named("join_token", id);
        let record = self.done(operator, RecordKind::OperatorAction, "revoke_join_token", subject);
        if self.store.revoke_join_token(id, record).await? {
            Ok(())
        } else {
            // Ids are hex; anything else is not repeated.
            let name = if id.bytes().all(|byte| byte.is_ascii_hexdigit()) { id } else { "?" };
            Err(OperateError::NoSuch { what: "unused join token", name: name.to_owned() })
        }
    }

    /// Forgets what has no use any more: spent challenges and enrolments that have expired, certificates and decisions
    /// that are older than `keep`, and refusals beyond the newest `most_refusals`.
    pub async fn forget(&self, keep: Duration, most_refusals: u32) -> Result<u64, StoreError> {
        self.forget_wishes();
        let now: Timestamp = self.now();
        let before = now.minus(keep);
        let mut forgotten = self.store.forget_spent_challenges(now).await?;
        forgotten += self.store.forget_enrollments(now).await?;
        forgotten += self.store.forget_certificates(before).await?;
        forgotten += self.store.forget_decisions(before, most_refusals).await?;
        forgotten += self.store.forget_holds(before).await?;
        forgotten += self.store.forget_signals(before).await?;
        forgotten += self.forget_tokens(now).await?;
        Ok(forgotten)
    }
}

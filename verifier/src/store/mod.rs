//! The store: history and registrations, never permissions. It speaks in verbs of the domain.
//!
//! One small trait per subject; a back end implements all of them ([`Store`]) and passes the contract suite
//! (`tests/store/contract`). What must happen together happens in one verb, which is one transaction. Rows are parsed
//! like packets: a combination of columns that no verb writes is [`StoreError::Inconsistent`], not a guess.

pub mod audit;
pub mod fleet;
pub mod holds;
pub mod logs;
mod policy;
pub mod sets;
pub mod signals;
mod sqlite;
pub mod tokens;
mod words;

use std::sync::Arc;

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use serde::{Deserialize, Serialize};

use self::logs::LogChange;
use crate::appraisal::runtime::DigestSet;
use crate::audit::{Actor, AuditRecord, Entity, Facts, Outcome, RecordId, RecordKind};
use crate::challenge::{SpendReceipt, UnspentChallenge};
use crate::credential::serial::SerialNumber;
use crate::enrollment::{ActivatedKeys, ChainWaiver, PendingActivation};
use crate::evidence::StoredQuote;
use crate::node::{AdmittedBy, Labels, LastSeen, Name, NodeRecord};
use crate::posture::{LiveNode, Posture};
use crate::reference::{
    AcceptedPcrs, DigestSetVersion, Profile, ProfileBody, Provenance, ReferenceBook, ReferenceSet, Versioned,
};

pub use audit::{AuditStore, RecordFilter, RecordPage};
pub use fleet::FleetStore;
pub use holds::HoldStore;
pub use logs::LogStore;
pub use policy::{Activated, Activation, PolicyBundleRecord, PolicyStore};
pub use sets::SetStore;
pub use signals::SignalStore;
pub use sqlite::{SqliteStore, StoreOpenError};
pub use tokens::TokenStore;

/// What the store could not do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, or not in time.
    #[error("database: {0}")]
    Database(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A row that no verb writes: another program changed it, or it is damaged.
    #[error("{what} of `{id}` is inconsistent: {why}")]
    Inconsistent {
        /// The kind of row.
        what: &'static str,
        /// Its key.
        id: String,
        /// The combination that cannot be.
        why: String,
    },
    /// More is to be written than the disk takes. Nothing was.
    #[error("too many writes wait for the disk")]
    Overloaded,
}

/// Everything that a back end does.
#[async_trait]
pub trait Store:
    ChallengeStore
    + EnrollmentStore
    + NodeStore
    + EvidenceStore
    + LogStore
    + FleetStore
    + ReferenceStore
    + SetStore
    + PolicyStore
    + InventoryStore
    + JoinTokenStore
    + DecisionStore
    + HoldStore
    + SignalStore
    + TokenStore
    + AuditStore
{
    /// Whether it can be written. Where the last write failed this tries one that changes nothing, so that whoever asks
    /// hears of it when there is room on the disk again.
    async fn can_write(&self) -> Result<(), StoreError>;
}

/// Challenges: what has to be remembered of them.
#[async_trait]
pub trait ChallengeStore: Send + Sync {
    /// Spends a challenge: a durable row that cannot be written twice. `None`: it was spent before.
    async fn spend_challenge(&self, challenge: &UnspentChallenge)
    -> Result<Option<SpendReceipt>, StoreError>;

    /// Forgets the spent challenges that are refused as expired anyway; returns how many.
    async fn forget_spent_challenges(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// An enrolment that waits for the TPM's answer.
#[derive(Debug)]
pub struct PendingEnrollment {
    /// Random; names it on the wire.
    pub id: [u8; 32],
    /// The keys, the digest of the secret and the deadline; kept as
    /// [`StoredActivation`](crate::enrollment::StoredActivation).
    pub activation: PendingActivation,
    /// SHA-256 of the join token that was shown, if one was.
    pub join_token_digest: Option<[u8; 32]>,
}

/// An enrolment whose answer was right.
#[derive(Debug)]
pub struct CompletedEnrollment {
    /// The EK and the AK, proved to live in one TPM.
    pub keys: ActivatedKeys,
    /// SHA-256 of the join token that was shown, if one was.
    pub join_token_digest: Option<[u8; 32]>,
    /// Now.
    pub now: Timestamp,
    /// The record of it; `node`, `outcome` and `code` are those for success.
    pub decision: DecisionRecord,
}

/// What became of a completed enrolment.
#[derive(Debug)]
pub enum EnrollmentOutcome {
    /// The node is recorded with this AK.
    Enrolled {
        /// As it is now.
        node: Box<NodeRecord>,
        /// Whether another AK was superseded.
        superseded: bool,
    },
    /// The node is retired: nothing was changed.
    Retired,
    /// The AK is another node's: nothing was changed.
    AttestationKeyInUse,
    /// The join token is unknown, expired, revoked, used, or bound to another EK: nothing was changed.
    JoinTokenRefused,
}

/// Enrolments of one EK that wait at most: a machine has one under way, and some that were cut short.
pub const WAITING_OF_ONE_KEY: u32 = 8;

/// Enrolments.
#[async_trait]
pub trait EnrollmentStore: Send + Sync {
    /// Remembers an enrolment until it is answered or expires. `false`: `limit` of them wait already (expired ones do
    /// not count), and nothing was written. Of one EK only [`WAITING_OF_ONE_KEY`] wait: the eldest gives way to a new one.
    /// It is not the new one that is refused, since whoever knows the EK could so keep its machine out.
    async fn begin_enrollment(
        &self,
        pending: &PendingEnrollment,
        limit: u32,
        now: Timestamp,
    ) -> Result<bool, StoreError>;

    /// Takes a pending enrolment away, whether it has expired or not: there is one attempt.
    async fn take_enrollment(&self, id: &[u8; 32]) -> Result<Option<PendingEnrollment>, StoreError>;

    /// Records the node, in one transaction: refuses a retired one, and an AK that is enrolled for another node,
    /// whatever the standing of that; keeps an admitted one admitted, and looks at no token of its; admits a new or
    /// pending one by its inventory entry or else its join token, which is redeemed (exactly one of two concurrent
    /// enrolments wins), and adds the labels of that to its own; else leaves it pending. Another AK than before
    /// supersedes it: the posture and the live credentials are gone, the clock stays. Counts the revision up.
    async fn complete_enrollment(
        &self,
        completed: CompletedEnrollment,
    ) -> Result<EnrollmentOutcome, StoreError>;

    /// Forgets pending enrolments that have expired; returns how many.
    async fn forget_enrollments(&self, now: Timestamp) -> Result<u64, StoreError>;
}

/// What became of a change to a node by an operator.
#[derive(Debug)]
pub enum NodeChange {
    /// Done: the node as it is now.
    Changed(Box<NodeRecord>),
    /// It is in that state already: nothing was changed.
    Already(Box<NodeRecord>),
    /// There is no such node.
    Unknown,
    /// Too many labels.
    TooManyLabels,
}

/// Nodes.
#[async_trait]
pub trait NodeStore: Send + Sync {
    /// A node.
    async fn node(&self, id: NodeId) -> Result<Option<NodeRecord>, StoreError>;

    /// Up to `limit` nodes with an id after `after`, in rising order.
    async fn nodes(&self, after: Option<NodeId>, limit: u32) -> Result<Vec<NodeRecord>, StoreError>;

    /// Every node as decisions see it, with the credentials that are valid at `now`.
    async fn live_nodes(&self, now: Timestamp) -> Result<Vec<(NodeId, LiveNode)>, StoreError>;

    /// A node as decisions see it.
    async fn live_node(&self, id: NodeId, now: Timestamp) -> Result<Option<LiveNode>, StoreError>;

    /// Admits a pending node, or takes a retired one back: its clock is then forgotten, since an operator vouches, and so
    /// is its evidence, which says nothing about the time since.
    async fn approve_node(&self, id: NodeId, decision: DecisionRecord) -> Result<NodeChange, StoreError>;

    /// Retires a node: it may neither attest nor enrol again, until it is approved anew.
    async fn retire_node(&self, id: NodeId, decision: DecisionRecord) -> Result<NodeChange, StoreError>;

    /// Sets labels (`Some`) and takes others away (`None`).
    async fn label_node(
        &self,
        id: NodeId,
        changes: Vec<(Name, Option<Name>)>,
        decision: DecisionRecord,
    ) -> Result<NodeChange, StoreError>;
}

/// A certificate that is about to be issued.
#[derive(Debug, Clone)]
pub struct CertificateRecord {
    /// Its serial number: written here before the certificate leaves.
    pub serial: SerialNumber,
    /// From when on it is valid.
    pub not_before: Timestamp,
    /// From when on it is not valid any more.
    pub not_after: Timestamp,
    /// SHA-256 of the SubjectPublicKeyInfo.
    pub key_digest: [u8; 32],
}

/// Evidence that was authenticated and appraised, with what follows from it.
#[derive(Debug, Clone)]
pub struct EvidenceRecord {
    /// Whose.
    pub node: NodeId,
    /// The revision of the node that it was judged on.
    pub revision: u64,
    /// The clock that the next quote is compared with.
    pub last_seen: LastSeen,
    /// The quote, to appraise again.
    pub quote: StoredQuote,
    /// What it changes about the node's logs; `None`: nothing.
    pub logs: Option<LogChange>,
    /// What it means.
    pub posture: Posture,
    /// The node's epoch with it; the store keeps its own where that is higher.
    pub epoch: u64,
    /// The certificate that is about to be issued, if one is.
    pub certificate: Option<CertificateRecord>,
    /// The record of the decision.
    pub decision: DecisionRecord,
    /// What else the audit trail says of it.
    pub also: Vec<AuditRecord>,
}

/// What became of a write on top of a revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Recorded {
    /// It is durable.
    Yes {
        /// The node's revision now.
        revision: u64,
    },
    /// The node changed since it was read: nothing was written.
    NodeChanged,
}

/// Evidence and what it led to.
#[async_trait]
pub trait EvidenceStore: Send + Sync {
    /// Records evidence, posture, certificate and decision in one transaction, if the node is still at that revision,
    /// and counts the revision up.
    async fn record_evidence(&self, record: EvidenceRecord) -> Result<Recorded, StoreError>;

    /// The last accepted quote by the AK that is enrolled now.
    async fn last_quote(&self, node: NodeId) -> Result<Option<StoredQuote>, StoreError>;

    /// Records the outcome of appraising the last quote again, and what that changes about its logs, if the node is still at that revision and has a quote, and
    /// counts the revision up: of two that were made at once, one is told to look again.
    async fn record_reappraisal(
        &self,
        node: NodeId,
        revision: u64,
        posture: &Posture,
        epoch: u64,
        logs: Option<LogChange>,
        decision: DecisionRecord,
    ) -> Result<Recorded, StoreError>;

    /// The certificates of a node, those under superseded AKs too, in the order of recording, the latest first.
    async fn certificates(&self, node: NodeId, limit: u32) -> Result<Vec<CertificateRecord>, StoreError>;

    /// Takes a certificate back that was recorded and never left: it counts no more, as those under superseded AKs.
    async fn withdraw_certificate(&self, serial: SerialNumber, record: AuditRecord)
    -> Result<(), StoreError>;

    /// Forgets certificates that expired before `before`; returns how many.
    async fn forget_certificates(&self, before: Timestamp) -> Result<u64, StoreError>;
}

/// A version of a digest set, without its digests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DigestSetRecord {
    /// Its name and version.
    pub id: Versioned,
    /// Names what it accepts.
    pub content: [u8; 32],
    /// How many digests it has.
    pub digests: u64,
    /// Whether it is withdrawn.
    pub withdrawn: bool,
    /// Who made it.
    pub provenance: Provenance,
}

/// Reference sets, digest sets and profiles. A version, once written, never changes; it can only be withdrawn.
#[async_trait]
pub trait ReferenceStore: Send + Sync {
    /// The current version of every profile and of every set that is not withdrawn.
    ///
    /// Digest sets are large: what one of `before` has is taken from there.
    async fn reference_book(&self, before: &ReferenceBook) -> Result<ReferenceBook, StoreError>;

    /// Writes the next version of a set; the record is told which.
    async fn put_reference_set(
        &self,
        name: Name,
        accepted: AcceptedPcrs,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<ReferenceSet, StoreError>;

    /// Every version of every set, withdrawn ones too (`true`), by name and rising version.
    async fn reference_sets(&self) -> Result<Vec<(ReferenceSet, bool)>, StoreError>;

    /// Withdraws every version of a set; `false`: there is none that is not withdrawn, and nothing is recorded.
    async fn withdraw_reference_set(
        &self,
        name: &Name,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<bool, StoreError>;

    /// Writes the next version of a digest set, with the text that `digests` was parsed from; the record is told which.
    async fn put_digest_set(
        &self,
        name: Name,
        digests: Arc<DigestSet>,
        text: Vec<u8>,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<DigestSetVersion, StoreError>;

    /// Every version of every digest set, by name and rising version.
    async fn digest_sets(&self) -> Result<Vec<DigestSetRecord>, StoreError>;

    /// The text of a digest set with this content.
    async fn digest_text(&self, content: &[u8; 32]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Withdraws every version of a digest set; `false`: there is none that is not withdrawn, and nothing is recorded.
    async fn withdraw_digest_set(
        &self,
        name: &Name,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<bool, StoreError>;

    /// Writes the next version of a profile, which the caller has checked; the record is told which.
    async fn put_profile(
        &self,
        name: Name,
        body: ProfileBody,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<Profile, StoreError>;

    /// Every version of every profile, by name and rising version.
    async fn profiles(&self) -> Result<Vec<Profile>, StoreError>;
}

/// A machine that is expected.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InventoryEntry {
    /// SHA-256 of the EK's SubjectPublicKeyInfo.
    pub node: NodeId,
    /// Whether the EK is accepted without a manufacturer's certificate.
    pub waive_endorsement: bool,
    /// The labels that the node gets when it enrols.
    pub labels: Labels,
    /// Who listed it.
    pub provenance: Provenance,
}

impl InventoryEntry {
    /// The operator's word for this EK, where the entry gives it.
    pub(crate) fn waiver(&self) -> Option<ChainWaiver> {
        self.waive_endorsement.then(|| ChainWaiver::of_inventory_entry(self.node))
    }
}

/// The inventory.
#[async_trait]
pub trait InventoryStore: Send + Sync {
    /// Lists a machine, or replaces its entry.
    async fn put_inventory(&self, entry: &InventoryEntry, record: AuditRecord) -> Result<(), StoreError>;

    /// The entry of a machine.
    async fn inventory_entry(&self, node: NodeId) -> Result<Option<InventoryEntry>, StoreError>;

    /// Every entry, by rising id.
    async fn inventory(&self) -> Result<Vec<InventoryEntry>, StoreError>;

    /// Takes an entry away; `false`: there was none, and nothing is recorded. An enrolled node stays enrolled.
    async fn remove_inventory(&self, node: NodeId, record: AuditRecord) -> Result<bool, StoreError>;
}

/// A join token, without the token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinTokenRecord {
    /// Public, to name it by.
    pub id: String,
    /// The only machine that may use it, if it is bound to one.
    pub node: Option<NodeId>,
    /// The labels that the node gets.
    pub labels: Labels,
    /// From when on it is refused.
    pub expires_at: Timestamp,
    /// Who created it.
    pub provenance: Provenance,
    /// Which node used it, and when.
    pub used: Option<(NodeId, Timestamp)>,
    /// Whether it was revoked.
    pub revoked: bool,
}

/// Join tokens.
#[async_trait]
pub trait JoinTokenStore: Send + Sync {
    /// Writes a new token, unused and not revoked whatever the record says; the store keeps only the digest (SHA-256)
    /// of what its bearer shows.
    async fn create_join_token(
        &self,
        token: &JoinTokenRecord,
        digest: [u8; 32],
        record: AuditRecord,
    ) -> Result<(), StoreError>;

    /// Every token, the latest first.
    async fn join_tokens(&self) -> Result<Vec<JoinTokenRecord>, StoreError>;

    /// Revokes a token; `false`: there is none that is unused, and nothing is recorded.
    async fn revoke_join_token(&self, id: &str, record: AuditRecord) -> Result<bool, StoreError>;
}

/// What a decision was about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionKind {
    /// A machine asked to enrol.
    Enroll,
    /// It answered.
    Activate,
    /// It showed evidence.
    Attest,
    /// Its last evidence was appraised again, under other reference values.
    Reappraise,
    /// An operator changed it.
    Operate,
    /// A relying party said something against it.
    Signal,
}

/// A decision, as it is kept: append-only. The audit trail has a record with the same id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DecisionRecord {
    /// That of its record in the audit trail.
    pub id: RecordId,
    /// When.
    pub at: Timestamp,
    /// The node, where one is known. Of an enrolment that was refused: whose EK was shown, by whomever.
    pub node: Option<NodeId>,
    /// What it was about.
    pub kind: DecisionKind,
    /// Whether what was asked for was granted.
    pub granted: bool,
    /// Stable code of the reason.
    pub code: String,
    /// The reason in words; nothing of a peer's in it is raw.
    pub detail: String,
    /// What only the audit trail keeps of it.
    #[serde(skip)]
    pub trail: DecisionTrail,
}

/// What only the audit trail keeps of a decision. Of one that was read back there is none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DecisionTrail {
    /// Who acted, where the kind of decision does not say.
    pub actor: Option<Actor>,
    /// SHA-256 of what it was judged on.
    pub inputs: Option<[u8; 32]>,
    /// What it was judged by.
    pub versions: Vec<String>,
    /// More.
    pub facts: Option<Facts>,
}

impl DecisionRecord {
    /// As the audit trail has it.
    #[must_use]
    pub fn to_audit(&self) -> AuditRecord {
        let Self { id, at, node, kind, granted, code, detail, trail } = self;
        // Somebody who is refused has not always proved to be the node.
        let asker = node.filter(|_| *granted).map_or(Actor::Stranger, Actor::Node);
        let asked = if *granted { Outcome::Granted } else { Outcome::Refused };
        let (of, action, actor, outcome) = match kind {
            DecisionKind::Enroll => (RecordKind::Refusal, "enroll", Actor::Stranger, asked),
            DecisionKind::Activate if *granted => (RecordKind::Admission, "activate", asker, asked),
            DecisionKind::Activate => (RecordKind::Refusal, "activate", asker, asked),
            DecisionKind::Attest if *granted => (RecordKind::Attestation, "attest", asker, asked),
            DecisionKind::Attest => (RecordKind::Refusal, "attest", asker, asked),
            DecisionKind::Reappraise => {
                (RecordKind::PostureChange, "reappraise", Actor::Verifier, Outcome::Done)
            }
            // Who said it is always stated beside it.
            DecisionKind::Signal => (RecordKind::Signal, "signal", Actor::Stranger, asked),
            DecisionKind::Operate => {
                (RecordKind::OperatorAction, code.as_str(), Actor::Operator("".into()), Outcome::Done)
            }
        };
        let of = if code == ISSUED { RecordKind::Issuance } else { of };
        let DecisionTrail { actor: known, inputs, versions, facts } = trail;
        let actor = known.clone().unwrap_or(actor);
        AuditRecord {
            at: *at,
            subject: node.map(Entity::node),
            inputs: *inputs,
            versions: versions.iter().map(|version| version.as_str().into()).collect(),
            facts: facts.clone(),
            ..AuditRecord::new(*id, of, action, actor, outcome, code).because(detail)
        }
    }
}

/// The code of a decision by which a certificate was issued.
pub const ISSUED: &str = "credential_issued";

/// Decisions.
#[async_trait]
pub trait DecisionStore: Send + Sync {
    /// Records a decision that changes nothing else: a refusal.
    async fn record_decision(&self, decision: DecisionRecord) -> Result<(), StoreError>;

    /// The latest decisions, of one node or of all, the latest first.
    async fn decisions(&self, node: Option<NodeId>, limit: u32) -> Result<Vec<DecisionRecord>, StoreError>;

    /// Forgets decisions before `before`, and of the refusals all but the `most_refusals` that were recorded last: anybody
    /// can cause a refusal. Returns how many were forgotten.
    async fn forget_decisions(&self, before: Timestamp, most_refusals: u32) -> Result<u64, StoreError>;
}

/// How a node was admitted, for rows.
impl AdmittedBy {
    /// The word in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Inventory => "inventory",
            Self::JoinToken => "join_token",
            Self::Approval => "approval",
        }
    }
}

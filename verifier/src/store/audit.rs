//! What the store does for the audit trail.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::audit::{
    AuditRecord, Checkpoint, Head, Outcome, PublicKey, RecordId, RecordKind, Segment, SequencedRecord,
};

/// Which records are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RecordFilter {
    /// Only of this node.
    pub node: Option<NodeId>,
    /// Only of these kinds; of all, where none is named.
    pub kinds: Vec<RecordKind>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
}

impl RecordFilter {
    /// Whether a record is wanted.
    #[must_use]
    pub fn wants(&self, record: &AuditRecord) -> bool {
        self.node.is_none_or(|node| record.concerns(node))
            && (self.kinds.is_empty() || self.kinds.contains(&record.kind))
            && self.outcome.is_none_or(|outcome| outcome == record.outcome)
    }
}

/// Records, the latest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecordPage {
    /// Those that were wanted.
    pub records: Vec<SequencedRecord>,
    /// Where to look on: only records with a smaller number were not looked at. `None`: all were.
    pub before: Option<u64>,
}

/// The audit trail. Records are written in the same transaction as what they are about; every verb that changes something
/// which has to be recorded takes the record. This trait has what is left.
#[async_trait]
pub trait AuditStore: Send + Sync {
    /// Records what changes nothing else.
    async fn append(&self, records: Vec<AuditRecord>) -> Result<(), StoreError>;

    /// How far the trail goes.
    async fn trail_head(&self) -> Result<Head, StoreError>;

    /// Segments in order, from the one that holds record `from` on, or the first that there is: `limit` at most, fewer
    /// where they are large, none where the trail ends before.
    async fn segments(&self, from: u64, limit: u32) -> Result<Vec<Segment>, StoreError>;

    /// A record, found by the time in its id.
    async fn record(&self, id: RecordId) -> Result<Option<SequencedRecord>, StoreError>;

    /// Up to `limit` records before number `before` (`None`: the end), the latest first. A call looks at so many at most,
    /// and says where to look on.
    async fn records(
        &self,
        filter: &RecordFilter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<RecordPage, StoreError>;

    /// Keeps a checkpoint, which must be of the trail: of its head now or of a record before.
    async fn put_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError>;

    /// Up to `limit` checkpoints behind the first `skip`, in the order of making.
    async fn checkpoints(&self, skip: u64, limit: u32) -> Result<Vec<Checkpoint>, StoreError>;

    /// The checkpoint that was made last.
    async fn last_checkpoint(&self) -> Result<Option<Checkpoint>, StoreError>;

    /// The last record of the segments whose records are all before `before`, from the first segment on. `None`: there is
    /// no such segment.
    async fn trail_before(&self, before: Timestamp) -> Result<Option<Head>, StoreError>;

    /// Takes the segments away that end at or before the anchor of the checkpoint made last; returns how many.
    async fn forget_segments(&self) -> Result<u64, StoreError>;

    /// Remembers a key that signs checkpoints from now on.
    async fn put_audit_key(&self, key: &PublicKey, now: Timestamp) -> Result<(), StoreError>;

    /// The keys that ever signed checkpoints.
    async fn audit_keys(&self) -> Result<Vec<PublicKey>, StoreError>;
}

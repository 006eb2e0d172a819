//! Holds, and what became of them.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use serde::{Deserialize, Serialize};

use super::{DecisionRecord, StoreError};
use crate::hold::{HeldBy, Hold, HoldId, HoldReason};
use crate::node::NodeRecord;

/// What changes about a node's holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HoldChange {
    /// One more. Of one source a node has [`HeldBy::most`] at most.
    Set(Hold),
    /// Some are lifted, as far as who lifts them may; evidence made until then counts no more.
    Lift(Lift),
    /// Evidence made then or before counts no more.
    DemandEvidence(Timestamp),
}

/// Who lifts which holds of a node. An operator may lift any, a relying party those that it set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lift {
    /// Which; `None`: all that may be lifted by this source.
    pub hold: Option<HoldId>,
    /// Who.
    pub by: HeldBy,
    /// Why.
    pub reason: HoldReason,
    /// When.
    pub at: Timestamp,
}

/// What became of it.
#[derive(Debug)]
pub enum HoldOutcome {
    /// Done: the node as it is now.
    Changed(Box<NodeRecord>),
    /// There is no such node: nothing was changed.
    UnknownNode,
    /// No hold that is to be lifted, and may be: nothing was changed.
    NoSuchHold,
    /// The source has too many holds on this node: nothing was changed.
    TooManyHolds,
}

/// How a hold ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HoldEnd {
    /// By its own time, which has come.
    Expired,
    /// Somebody lifted it.
    Lifted {
        /// Who.
        by: HeldBy,
        /// Why.
        reason: HoldReason,
        /// When.
        at: Timestamp,
    },
}

/// A hold with its end: history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HoldRecord {
    /// As it was set.
    pub hold: Hold,
    /// How it ended; `None` where it stands, or has expired since the node's holds were changed last.
    pub end: Option<HoldEnd>,
}

/// Holds.
#[async_trait]
pub trait HoldStore: Send + Sync {
    /// Changes a node's holds, counts its revision and epoch up, and records the decision; all of it or nothing. Holds that
    /// have expired by the time of the decision end on the way, as a demand for evidence since then.
    async fn change_holds(
        &self,
        node: NodeId,
        change: HoldChange,
        decision: DecisionRecord,
    ) -> Result<HoldOutcome, StoreError>;

    /// The holds that a node has and had, the latest first.
    async fn holds(&self, node: NodeId, limit: u32) -> Result<Vec<HoldRecord>, StoreError>;

    /// Forgets holds that ended before `before`; returns how many.
    async fn forget_holds(&self, before: Timestamp) -> Result<u64, StoreError>;
}

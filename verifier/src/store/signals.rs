//! Signals: what relying parties said against nodes, each once.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;

use super::holds::HoldChange;
use super::{DecisionRecord, StoreError};
use crate::node::{Name, NodeRecord};

/// A signal that is about to take effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignalRecord {
    /// The relying party.
    pub source: Name,
    /// Names the signal among those of its source.
    pub id: String,
    /// SHA-256 of all that it says.
    pub digest: [u8; 32],
    /// When it came.
    pub at: Timestamp,
    /// What is answered, now and whenever it comes again.
    pub answer: String,
}

/// What became of it.
#[derive(Debug)]
pub enum SignalOutcome {
    /// It has taken effect: the node as it is now.
    Recorded(Box<NodeRecord>),
    /// It came before, with this answer: nothing was changed.
    Repeated(String),
    /// Another came before under its id: nothing was changed.
    OtherContent,
    /// There is no such node: nothing was changed.
    UnknownNode,
    /// No hold of this source that could be lifted: nothing was changed.
    NoSuchHold,
    /// The source has too many holds on this node: nothing was changed.
    TooManyHolds,
}

/// Signals.
#[async_trait]
pub trait SignalStore: Send + Sync {
    /// Records a signal and what it changes about the holds of a node, with the decision, in one transaction; once by source
    /// and id.
    async fn record_signal(
        &self,
        signal: SignalRecord,
        node: NodeId,
        change: HoldChange,
        decision: DecisionRecord,
    ) -> Result<SignalOutcome, StoreError>;

    /// Forgets signals that came before `before`; returns how many.
    async fn forget_signals(&self, before: Timestamp) -> Result<u64, StoreError>;
}

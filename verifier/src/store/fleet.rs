//! The stored evidence of the whole fleet, page by page: for who asks what other reference values would make of it.

use async_trait::async_trait;
use rootbound_common::id::NodeId;

use super::StoreError;
use super::logs::LogRecord;
use crate::enrollment::AttestationKey;
use crate::evidence::StoredQuote;
use crate::node::Labels;

/// What there is of a node to appraise again.
#[derive(Debug)]
pub struct KeptEvidence {
    /// Whose.
    pub node: NodeId,
    /// The node's revision.
    pub revision: u64,
    /// What operators say of it.
    pub labels: Labels,
    /// The AK that is enrolled now.
    pub attestation_key: AttestationKey,
    /// The boot that its last quote is of; `None` where there never was one.
    pub reset_count: Option<u32>,
    /// The last accepted quote by that AK; an error where the row is one that no verb writes.
    pub quote: Result<Option<StoredQuote>, String>,
    /// Its logs; those of a row that no verb writes are as good as none.
    pub logs: Option<LogRecord>,
    /// The frames of its IMA list; `None`: they are long, and are read one by one ([`LogStore::ima_frame`]).
    ///
    /// [`LogStore::ima_frame`]: super::logs::LogStore::ima_frame
    pub frames: Option<KeptFrames>,
}

impl KeptEvidence {
    /// Bytes of frames of one node, up to which they come with it.
    pub const FRAMES: usize = 1 << 20;
    /// Bytes of the frames of a page.
    pub const FRAMES_TOGETHER: usize = 16 << 20;
}

/// The frames of an IMA list, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeptFrames {
    /// Those that a quote covers.
    pub covered: Vec<Vec<u8>>,
    /// Those that none covers yet.
    pub pending: Vec<Vec<u8>>,
}

/// The evidence of the fleet.
#[async_trait]
pub trait FleetStore: Send + Sync {
    /// Up to `limit` nodes with an id after `after`, in rising order, those without evidence too; all of one commit.
    async fn kept_evidence(&self, after: Option<NodeId>, limit: u32)
    -> Result<Vec<KeptEvidence>, StoreError>;
}

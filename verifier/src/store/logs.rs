//! The logs of the boot that a node's last accepted evidence is of.

use async_trait::async_trait;
use rootbound_common::id::NodeId;

use super::StoreError;
use crate::appraisal::runtime::RuntimeFindings;
use crate::evidence::ima::Progress;

/// What there is of the logs of one boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The boot.
    pub reset_count: u32,
    /// The boot event log.
    pub boot_log: BootLogRecord,
    /// The IMA list; `None` where it was never asked for.
    pub ima: Option<ImaRecord>,
}

/// What there is of a boot event log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BootLogRecord {
    /// It was not asked for, or did not come.
    NotSent,
    /// The machine says that its kernel exposes none.
    Absent,
    /// A zstd frame, as it came: worth nothing until it is authenticated, each time.
    Present(Vec<u8>),
    /// The same, and it did not come to the last quote: another may.
    Refused(Vec<u8>),
}

/// How far the IMA list of a boot has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImaRecord {
    /// How far it is verified.
    pub progress: Progress,
    /// What came of the entries that are; `None` before there are any.
    pub findings: Option<RuntimeFindings>,
    /// Entries after these that have come, and that no quote covers yet: of a list that comes in several messages, or that was
    /// read after its quote.
    pub pending: Pending,
    /// Whether the next list is to come from the beginning: the last did not go on where it should.
    pub resend: bool,
    /// Whether it was asked for at once for that reason, and has not come to a quote since.
    pub retried: bool,
}

/// Entries that have come, and that no quote covers yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pending {
    /// How many.
    pub entries: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What becomes of the frames that are kept of an IMA list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameChange {
    /// They stay as they are.
    Keep,
    /// Only those stay that a quote covers.
    DropPending,
    /// One more, that no quote covers yet.
    AppendPending(Vec<u8>),
    /// All that there are are covered now.
    Cover(NewFrames),
    /// They are replaced: the list begins anew.
    Replace(NewFrames),
}

/// Frames that are added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewFrames {
    /// That a quote covers.
    pub covered: Option<Vec<u8>>,
    /// That none covers yet.
    pub pending: Option<Vec<u8>>,
}

/// What evidence changes about the logs of its node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogChange {
    /// As they are from now on.
    pub record: LogRecord,
    /// The frames. Those of another boot are gone in any case.
    pub frames: FrameChange,
}

/// Logs.
#[async_trait]
pub trait LogStore: Send + Sync {
    /// What there is of the logs of a node.
    async fn logs(&self, node: NodeId) -> Result<Option<LogRecord>, StoreError>;

    /// The next frame of a node's IMA list after the number `after`, with its own number: one at a time, since a list can be
    /// large.
    async fn ima_frame(
        &self,
        node: NodeId,
        pending: bool,
        after: Option<i64>,
    ) -> Result<Option<(i64, Vec<u8>)>, StoreError>;
}

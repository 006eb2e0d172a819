//! The logs of the boot that a node's last accepted evidence is of.

use async_trait::async_trait;
use rootbound_common::crypto::Digest;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::SqliteStore;
use super::columns::{Columns, to_json};
use crate::appraisal::runtime::RuntimeFindings;
use crate::evidence::ima::{Position, Progress};
use crate::store::StoreError;
use crate::store::logs::{BootLogRecord, FrameChange, ImaRecord, LogChange, LogRecord, LogStore, Pending};

#[async_trait]
impl LogStore for SqliteStore {
    async fn logs(&self, node: NodeId) -> Result<Option<LogRecord>, StoreError> {
        let mut reader = self.reader().await?;
        let row = sqlx::query(
            "SELECT node, reset_count, boot_log_state, boot_log, ima FROM node_log WHERE node = ?1",
        )
        .bind(node.as_bytes().as_slice())
        .fetch_optional(&mut *reader)
        .await?;
        row.as_ref().map(parse).transpose()
    }

    async fn ima_frame(
        &self,
        node: NodeId,
        pending: bool,
        after: Option<i64>,
    ) -> Result<Option<(i64, Vec<u8>)>, StoreError> {
        let mut reader = self.reader().await?;
        let row = sqlx::query(
            "SELECT number, frame FROM ima_frame WHERE node = ?1 AND pending = ?2 AND number > ?3 \
             ORDER BY number LIMIT 1",
        )
        .bind(node.as_bytes().as_slice())
        .bind(pending)
        .bind(after.unwrap_or(i64::MIN))
        .fetch_optional(&mut *reader)
        .await?;
        Ok(row
            .map(|row| Ok::<_, sqlx::Error>((row.try_get("number")?, row.try_get("frame")?)))
            .transpose()?)
    }
}

/// Writes what evidence changed, inside its transaction, after the row of the evidence.
pub(super) async fn save(
    connection: &mut SqliteConnection,
    node: NodeId,
    change: &LogChange,
) -> Result<(), StoreError> {
    let LogChange { record, frames } = change;
    let (state, boot_log) = match &record.boot_log {
        BootLogRecord::NotSent => ("not_sent", None),
        BootLogRecord::Absent => ("absent", None),
        BootLogRecord::Present(frame) => ("present", Some(frame.as_slice())),
        BootLogRecord::Refused(frame) => ("refused", Some(frame.as_slice())),
    };
    let ima = record.ima.as_ref().map(|ima| to_json(&Row::from(ima))).transpose()?;
    // Frames of another boot go with the row of that boot.
    sqlx::query("DELETE FROM node_log WHERE node = ?1 AND reset_count <> ?2")
        .bind(node.as_bytes().as_slice())
        .bind(i64::from(record.reset_count))
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "INSERT INTO node_log (node, reset_count, boot_log_state, boot_log, ima) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (node) DO UPDATE SET boot_log_state = excluded.boot_log_state, \
         boot_log = excluded.boot_log, ima = excluded.ima",
    )
    .bind(node.as_bytes().as_slice())
    .bind(i64::from(record.reset_count))
    .bind(state)
    .bind(boot_log)
    .bind(ima)
    .execute(&mut *connection)
    .await?;
    save_frames(connection, node, frames).await
}

async fn save_frames(
    connection: &mut SqliteConnection,
    node: NodeId,
    change: &FrameChange,
) -> Result<(), StoreError> {
    let before = match change {
        FrameChange::Keep | FrameChange::AppendPending(_) => None,
        FrameChange::DropPending => Some("DELETE FROM ima_frame WHERE node = ?1 AND pending = 1"),
        FrameChange::Cover(_) => Some("UPDATE ima_frame SET pending = 0 WHERE node = ?1 AND pending = 1"),
        FrameChange::Replace(_) => Some("DELETE FROM ima_frame WHERE node = ?1"),
    };
    if let Some(sql) = before {
        sqlx::query(sql).bind(node.as_bytes().as_slice()).execute(&mut *connection).await?;
    }
    let (covered, pending) = match change {
        FrameChange::Keep | FrameChange::DropPending => (None, None),
        FrameChange::AppendPending(frame) => (None, Some(frame)),
        FrameChange::Cover(frames) | FrameChange::Replace(frames) => {
            (frames.covered.as_ref(), frames.pending.as_ref())
        }
    };
    for (frame, pending) in [(covered, false), (pending, true)] {
        let Some(frame) = frame else { continue };
        sqlx::query("INSERT INTO ima_frame (node, pending, frame) VALUES (?1, ?2, ?3)")
            .bind(node.as_bytes().as_slice())
            .bind(pending)
            .bind(frame.as_slice())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

pub(super) fn parse(row: &SqliteRow) -> Result<LogRecord, StoreError> {
    let columns = Columns::named_by_bytes(row, "logs", "node");
    let frame: Option<Vec<u8>> = columns.plain("boot_log")?;
    let boot_log = match (columns.plain::<&str>("boot_log_state")?, frame) {
        ("not_sent", None) => BootLogRecord::NotSent,
        ("absent", None) => BootLogRecord::Absent,
        ("present", Some(frame)) => BootLogRecord::Present(frame),
        ("refused", Some(frame)) => BootLogRecord::Refused(frame),
        _ => return Err(columns.inconsistent("a boot log and a state that do not belong together")),
    };
    let ima = columns.optional_json::<Row>("ima")?.map(|row| row.restore());
    Ok(LogRecord {
        reset_count: columns.number("reset_count")?,
        boot_log,
        ima: ima.transpose().map_err(|why| columns.inconsistent(why))?,
    })
}

/// [`ImaRecord`] as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    bank: HashAlgorithm,
    prefix: Place,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<Place>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    findings: Option<RuntimeFindings>,
    pending: Pending,
    resend: bool,
    retried: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    entries: u64,
    bytes: u64,
    value: String,
}

impl From<&Position> for Place {
    fn from(position: &Position) -> Self {
        Self { entries: position.entries, bytes: position.bytes, value: position.value.to_string() }
    }
}

impl Place {
    fn restore(&self, bank: HashAlgorithm) -> Result<Position, String> {
        let value = Digest::from_hex(bank, &self.value).ok_or("a value of another length than its bank's")?;
        Ok(Position { entries: self.entries, bytes: self.bytes, value })
    }
}

impl From<&ImaRecord> for Row {
    fn from(record: &ImaRecord) -> Self {
        let progress = &record.progress;
        Self {
            bank: progress.prefix().value.algorithm(),
            prefix: progress.prefix().into(),
            claim: progress.claim().map(Place::from),
            findings: record.findings.clone(),
            pending: record.pending,
            resend: record.resend,
            retried: record.retried,
        }
    }
}

impl Row {
    fn restore(self) -> Result<ImaRecord, String> {
        let claim = self.claim.map(|claim| claim.restore(self.bank)).transpose()?;
        let progress = Progress::restore(self.prefix.restore(self.bank)?, claim);
        Ok(ImaRecord {
            progress: progress.map_err(|error| error.to_string())?,
            findings: self.findings,
            pending: self.pending,
            resend: self.resend,
            retried: self.retried,
        })
    }
}

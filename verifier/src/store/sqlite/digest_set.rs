//! Digest sets: versions, and what they accept, once for each content.

use std::sync::Arc;

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use super::SqliteStore;
use super::columns::{Columns, to_integer};
use super::reference::{next_version, versioned, withdrawn};
use super::writer::Recorded;
use crate::appraisal::runtime::DigestSet;
use crate::audit::AuditRecord;
use crate::evidence::frame::{pack, unpack};
use crate::node::Name;
use crate::reference::{DigestSetVersion, Provenance, Versioned};
use crate::store::{DigestSetRecord, StoreError};

impl SqliteStore {
    pub(super) async fn write_digest_set(
        &self,
        name: Name,
        digests: Arc<DigestSet>,
        text: Vec<u8>,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<DigestSetVersion, StoreError> {
        let frame = pack(&text).map_err(|error| StoreError::Database(Box::new(error)))?;
        drop(text);
        let count = to_integer(u64::try_from(digests.len()).unwrap_or(u64::MAX))?;
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let newest = "SELECT max(version) AS newest FROM digest_set WHERE name = ?1";
                let version = next_version(connection, newest, "digest set", &name).await?;
                keep(connection, digests.id(), frame).await?;
                sqlx::query(
                    "INSERT INTO digest_set (name, version, content, digests, author, reason, created_at) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                )
                .bind(name.as_str())
                .bind(i64::from(version))
                .bind(digests.id().as_slice())
                .bind(count)
                .bind(provenance.author.as_str())
                .bind(provenance.reason.as_str())
                .bind(provenance.created_at.as_millis())
                .execute(connection)
                .await?;
                let id = Versioned { name, version };
                let record = record.by(&id.to_string()).of_inputs(*digests.id());
                Ok(Recorded(DigestSetVersion { id, digests, provenance }, vec![record]))
            })
        })
        .await
    }
}

/// Keeps a content, where it is not kept yet.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    content: &[u8; 32],
    frame: Vec<u8>,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO digest_content (hash, frame) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
        .bind(content.as_slice())
        .bind(frame)
        .execute(connection)
        .await?;
    Ok(())
}

/// The text of a content.
pub(super) async fn text(
    connection: &mut SqliteConnection,
    content: &[u8; 32],
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = sqlx::query("SELECT frame FROM digest_content WHERE hash = ?1")
        .bind(content.as_slice())
        .fetch_optional(connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let frame: Vec<u8> = row.try_get("frame")?;
    let text =
        unpack(&frame, DigestSet::MAX_BYTES).map_err(|error| inconsistent(content, error.to_string()))?;
    Ok(Some(text))
}

/// What a version accepts, read and compiled. What was changed on disk does not have the content that it is named by.
pub(super) async fn compile(
    connection: &mut SqliteConnection,
    record: &DigestSetRecord,
) -> Result<Arc<DigestSet>, StoreError> {
    compiled(connection, &record.content).await
}

/// A content, read and compiled.
pub(super) async fn compiled(
    connection: &mut SqliteConnection,
    content: &[u8; 32],
) -> Result<Arc<DigestSet>, StoreError> {
    let text = text(connection, content).await?;
    let text = text.ok_or_else(|| inconsistent(content, "it is not there".to_owned()))?;
    let digests = DigestSet::parse(&text).map_err(|error| inconsistent(content, error.to_string()))?;
    if digests.id() == content {
        Ok(Arc::new(digests))
    } else {
        Err(inconsistent(content, "it accepts something else than what it is named by".to_owned()))
    }
}

fn inconsistent(content: &[u8; 32], why: String) -> StoreError {
    StoreError::Inconsistent { what: "digest content", id: data_encoding::HEXLOWER.encode(content), why }
}

pub(super) fn parse(row: &SqliteRow) -> Result<DigestSetRecord, StoreError> {
    let columns = Columns::named_by_version(row, "digest set");
    Ok(DigestSetRecord {
        id: versioned(&columns)?,
        content: columns.bytes("content")?,
        digests: columns.number("digests")?,
        withdrawn: withdrawn(&columns)?,
        provenance: columns.provenance()?,
    })
}

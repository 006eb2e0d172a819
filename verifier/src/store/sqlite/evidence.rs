//! Evidence and what it led to.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::columns::{Columns, to_integer, to_json};
use super::writer::Recorded as Trailed;
use super::{SqliteStore, decision, logs};
use crate::audit::AuditRecord;
use crate::credential::serial::SerialNumber;
use crate::evidence::StoredQuote;
use crate::posture::Posture;
use crate::store::logs::LogChange;
use crate::store::{CertificateRecord, DecisionRecord, EvidenceRecord, EvidenceStore, Recorded, StoreError};

#[async_trait]
impl EvidenceStore for SqliteStore {
    async fn record_evidence(&self, record: EvidenceRecord) -> Result<Recorded, StoreError> {
        let (pcrs, posture) = (to_json(&record.quote.pcrs)?, to_json(&record.posture)?);
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let Some(revision) = count_up(connection, &record).await? else {
                    return Ok(Trailed(Recorded::NodeChanged, Vec::new()));
                };
                save_quote(connection, record.node, &record.quote, pcrs, posture).await?;
                if let Some(change) = &record.logs {
                    logs::save(connection, record.node, change).await?;
                }
                if let Some(certificate) = &record.certificate {
                    insert_certificate(connection, record.node, certificate).await?;
                }
                let mut records = vec![decision::insert(connection, &record.decision).await?];
                records.extend(record.also);
                Ok(Trailed(Recorded::Yes { revision }, records))
            })
        })
        .await
    }

    async fn last_quote(&self, node: NodeId) -> Result<Option<StoredQuote>, StoreError> {
        let mut reader = self.reader().await?;
        let row =
            sqlx::query("SELECT node, quote, signature, pcrs, evidence_at FROM evidence WHERE node = ?1")
                .bind(node.as_bytes().as_slice())
                .fetch_optional(&mut *reader)
                .await?;
        row.as_ref().map(parse_quote).transpose()
    }

    async fn record_reappraisal(
        &self,
        node: NodeId,
        revision: u64,
        posture: &Posture,
        epoch: u64,
        logs: Option<LogChange>,
        decision: DecisionRecord,
    ) -> Result<Recorded, StoreError> {
        let posture = to_json(posture)?;
        // A revision that no column holds is no node's.
        let next = revision.saturating_add(1);
        let (Ok(at), Ok(to)) = (i64::try_from(revision), i64::try_from(next)) else {
            return Ok(Recorded::NodeChanged);
        };
        let epoch = to_integer(epoch)?;
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let update = sqlx::query(
                    "UPDATE evidence SET posture = ?3 WHERE node = ?1 \
                     AND EXISTS (SELECT 1 FROM node WHERE id = ?1 AND revision = ?2)",
                )
                .bind(node.as_bytes().as_slice())
                .bind(at)
                .bind(posture)
                .execute(&mut *connection)
                .await?;
                if update.rows_affected() == 0 {
                    return Ok(Trailed(Recorded::NodeChanged, Vec::new()));
                }
                sqlx::query("UPDATE node SET revision = ?2, epoch = max(epoch, ?3) WHERE id = ?1")
                    .bind(node.as_bytes().as_slice())
                    .bind(to)
                    .bind(epoch)
                    .execute(&mut *connection)
                    .await?;
                if let Some(change) = &logs {
                    logs::save(connection, node, change).await?;
                }
                let record = decision::insert(connection, &decision).await?;
                Ok(Trailed(Recorded::Yes { revision: next }, vec![record]))
            })
        })
        .await
    }

    async fn certificates(&self, node: NodeId, limit: u32) -> Result<Vec<CertificateRecord>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT serial, not_before, not_after, key_digest FROM certificate WHERE node = ?1 \
             ORDER BY recorded DESC LIMIT ?2",
        )
        .bind(node.as_bytes().as_slice())
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse_certificate).collect()
    }

    async fn withdraw_certificate(
        &self,
        serial: SerialNumber,
        record: AuditRecord,
    ) -> Result<(), StoreError> {
        self.write_recorded(move |connection| {
            Box::pin(async move {
                sqlx::query("UPDATE certificate SET superseded = 1 WHERE serial = ?1")
                    .bind(serial.as_bytes().as_slice())
                    .execute(connection)
                    .await?;
                Ok(Trailed((), vec![record]))
            })
        })
        .await
    }

    async fn forget_certificates(&self, before: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM certificate WHERE recorded IN \
                   (SELECT recorded FROM certificate WHERE not_after < ?1 LIMIT ?2)";
        self.forget(sql, before).await
    }
}

/// Counts the revision up and writes the clock, if the node is still at the revision of the record.
async fn count_up(
    connection: &mut SqliteConnection,
    record: &EvidenceRecord,
) -> Result<Option<u64>, StoreError> {
    let next = record.revision.saturating_add(1);
    let (Ok(at), Ok(to)) = (i64::try_from(record.revision), i64::try_from(next)) else { return Ok(None) };
    let seen = &record.last_seen;
    let update = sqlx::query(
        "UPDATE node SET revision = ?3, clock = ?4, reset_count = ?5, restart_count = ?6, clock_safe = ?7, \
         firmware_version = ?8, made_at = ?9, epoch = max(epoch, ?10) WHERE id = ?1 AND revision = ?2",
    )
    .bind(record.node.as_bytes().as_slice())
    .bind(at)
    .bind(to)
    .bind(seen.clock.clock.cast_signed())
    .bind(i64::from(seen.clock.reset_count))
    .bind(i64::from(seen.clock.restart_count))
    .bind(seen.clock.safe)
    .bind(seen.firmware_version.cast_signed())
    .bind(seen.made_at.as_millis())
    .bind(to_integer(record.epoch)?)
    .execute(connection)
    .await?;
    Ok((update.rows_affected() == 1).then_some(next))
}

async fn save_quote(
    connection: &mut SqliteConnection,
    node: NodeId,
    quote: &StoredQuote,
    pcrs: String,
    posture: String,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO evidence (node, quote, signature, pcrs, evidence_at, posture) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6) \
         ON CONFLICT (node) DO UPDATE SET quote = excluded.quote, signature = excluded.signature, \
         pcrs = excluded.pcrs, evidence_at = excluded.evidence_at, posture = excluded.posture",
    )
    .bind(node.as_bytes().as_slice())
    .bind(quote.quote.as_slice())
    .bind(quote.signature.as_slice())
    .bind(pcrs)
    .bind(quote.evidence_at.as_millis())
    .bind(posture)
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_certificate(
    connection: &mut SqliteConnection,
    node: NodeId,
    certificate: &CertificateRecord,
) -> Result<(), StoreError> {
    sqlx::query(
        "INSERT INTO certificate (serial, node, not_before, not_after, key_digest, superseded) \
         VALUES (?1, ?2, ?3, ?4, ?5, 0)",
    )
    .bind(certificate.serial.as_bytes().as_slice())
    .bind(node.as_bytes().as_slice())
    .bind(certificate.not_before.as_millis())
    .bind(certificate.not_after.as_millis())
    .bind(certificate.key_digest.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

pub(super) fn parse_quote(row: &SqliteRow) -> Result<StoredQuote, StoreError> {
    let columns = Columns::named_by_bytes(row, "evidence", "node");
    Ok(StoredQuote {
        quote: columns.plain("quote")?,
        signature: columns.plain("signature")?,
        pcrs: columns.json("pcrs")?,
        evidence_at: columns.time("evidence_at")?,
    })
}

fn parse_certificate(row: &SqliteRow) -> Result<CertificateRecord, StoreError> {
    let columns = Columns::named_by_bytes(row, "certificate", "serial");
    Ok(CertificateRecord {
        serial: SerialNumber::from_slice(columns.plain("serial")?)
            .map_err(|error| columns.inconsistent(error))?,
        not_before: columns.time("not_before")?,
        not_after: columns.time("not_after")?,
        key_digest: columns.bytes("key_digest")?,
    })
}

//! Decisions.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::columns::Columns;
use super::writer::Recorded;
use crate::audit::AuditRecord;
use crate::store::{DecisionRecord, DecisionStore, DecisionTrail, StoreError, words};

#[async_trait]
impl DecisionStore for SqliteStore {
    async fn record_decision(&self, decision: DecisionRecord) -> Result<(), StoreError> {
        self.write_recorded(move |connection| {
            Box::pin(async move { Ok(Recorded((), vec![insert(connection, &decision).await?])) })
        })
        .await
    }

    async fn decisions(&self, node: Option<NodeId>, limit: u32) -> Result<Vec<DecisionRecord>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = match &node {
            Some(node) => {
                sqlx::query(
                    "SELECT id, at, node, kind, granted, code, detail FROM decision WHERE node = ?1 \
                     ORDER BY at DESC, recorded DESC LIMIT ?2",
                )
                .bind(node.as_bytes().as_slice())
                .bind(i64::from(limit))
                .fetch_all(&mut *reader)
                .await?
            }
            None => {
                sqlx::query(
                    "SELECT id, at, node, kind, granted, code, detail FROM decision \
                     ORDER BY at DESC, recorded DESC LIMIT ?1",
                )
                .bind(i64::from(limit))
                .fetch_all(&mut *reader)
                .await?
            }
        };
        rows.iter().map(parse).collect()
    }

    async fn forget_decisions(&self, before: Timestamp, most_refusals: u32) -> Result<u64, StoreError> {
        let sql = "DELETE FROM decision WHERE recorded IN \
                   (SELECT recorded FROM decision WHERE at < ?1 LIMIT ?2)";
        let old = self.forget(sql, before).await?;
        Ok(old + self.forget_refusals_but(most_refusals).await?)
    }
}

impl SqliteStore {
    async fn forget_refusals_but(&self, most: u32) -> Result<u64, StoreError> {
        let mut reader = self.reader().await?;
        let newest_due: Option<i64> = sqlx::query_scalar(
            "SELECT recorded FROM decision WHERE granted = 0 ORDER BY recorded DESC LIMIT 1 OFFSET ?1",
        )
        .bind(i64::from(most))
        .fetch_optional(&mut *reader)
        .await?;
        drop(reader);
        let Some(newest_due) = newest_due else { return Ok(0) };
        let sql = "DELETE FROM decision WHERE recorded IN \
                   (SELECT recorded FROM decision WHERE granted = 0 AND recorded <= ?1 LIMIT ?2)";
        self.forget_up_to(sql, newest_due).await
    }
}

/// Records a decision in the transaction of what it decides; returns what the audit trail is to say of it.
pub(super) async fn insert(
    connection: &mut SqliteConnection,
    decision: &DecisionRecord,
) -> Result<AuditRecord, StoreError> {
    sqlx::query(
        "INSERT INTO decision (id, at, node, kind, granted, code, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(decision.id.to_string())
    .bind(decision.at.as_millis())
    .bind(decision.node.as_ref().map(|node| node.as_bytes().as_slice()))
    .bind(words::of_kind(decision.kind))
    .bind(decision.granted)
    .bind(decision.code.as_str())
    .bind(decision.detail.as_str())
    .execute(connection)
    .await?;
    Ok(decision.to_audit())
}

fn parse(row: &SqliteRow) -> Result<DecisionRecord, StoreError> {
    let columns = Columns::named_by_text(row, "decision", "id");
    Ok(DecisionRecord {
        id: columns.plain::<&str>("id")?.parse().map_err(|error| columns.inconsistent(error))?,
        at: columns.time("at")?,
        node: columns.optional_node("node")?,
        kind: words::to_kind(columns.plain("kind")?).map_err(|why| columns.inconsistent(why))?,
        granted: columns.flag("granted")?,
        code: columns.plain("code")?,
        detail: columns.plain("detail")?,
        trail: DecisionTrail::default(),
    })
}

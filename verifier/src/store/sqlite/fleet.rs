//! The stored evidence of the whole fleet, page by page.

use async_trait::async_trait;
use rootbound_common::id::NodeId;
use sqlx::sqlite::SqliteRow;

use super::columns::Columns;
use super::{SqliteStore, evidence, logs};
use crate::enrollment::AttestationKey;
use crate::store::StoreError;
use crate::store::fleet::{FleetStore, KeptEvidence};

#[async_trait]
impl FleetStore for SqliteStore {
    async fn kept_evidence(
        &self,
        after: Option<NodeId>,
        limit: u32,
    ) -> Result<Vec<KeptEvidence>, StoreError> {
        let mut reader = self.reader().await?;
        // No id is before the empty one.
        let after = after.map_or_else(Vec::new, |id| id.as_bytes().to_vec());
        let rows = sqlx::query(
            "SELECT n.id AS node, n.revision, n.labels, n.ak_public, n.reset_count AS seen_reset_count, \
             e.node AS quoted, e.quote, e.signature, e.pcrs, e.evidence_at, \
             l.node AS logged, l.reset_count, l.boot_log_state, l.boot_log, l.ima \
             FROM node AS n LEFT JOIN evidence AS e ON e.node = n.id \
             LEFT JOIN node_log AS l ON l.node = n.id \
             WHERE n.id > ?1 ORDER BY n.id LIMIT ?2",
        )
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse).collect()
    }
}

fn parse(row: &SqliteRow) -> Result<KeptEvidence, StoreError> {
    let columns = Columns::named_by_bytes(row, "node", "node");
    let is_there = |column| Ok::<_, StoreError>(columns.plain::<Option<&[u8]>>(column)?.is_some());
    let quote = match is_there("quoted")?.then(|| evidence::parse_quote(row)).transpose() {
        Ok(quote) => Ok(quote),
        Err(StoreError::Inconsistent { why, .. }) => Err(why),
        Err(error @ (StoreError::Database(_) | StoreError::Overloaded)) => return Err(error),
    };
    let logs = match is_there("logged")?.then(|| logs::parse(row)).transpose() {
        Ok(logs) => logs,
        Err(StoreError::Inconsistent { .. }) => None,
        Err(error @ (StoreError::Database(_) | StoreError::Overloaded)) => return Err(error),
    };
    let reset_count = columns.plain::<Option<i64>>("seen_reset_count")?;
    Ok(KeptEvidence {
        node: columns.node("node")?,
        revision: columns.number("revision")?,
        labels: columns.json("labels")?,
        attestation_key: AttestationKey::parse(columns.plain("ak_public")?)
            .map_err(|error| columns.inconsistent(error))?,
        reset_count: reset_count.is_some().then(|| columns.number("seen_reset_count")).transpose()?,
        quote,
        logs,
    })
}

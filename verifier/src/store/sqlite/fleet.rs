//! The stored evidence of the whole fleet, page by page.

use async_trait::async_trait;
use rootbound_common::id::NodeId;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::columns::Columns;
use super::{SqliteStore, evidence, logs};
use crate::enrollment::AttestationKey;
use crate::store::StoreError;
use crate::store::fleet::{FleetStore, KeptEvidence, KeptFrames};

#[async_trait]
impl FleetStore for SqliteStore {
    async fn kept_evidence(
        &self,
        after: Option<NodeId>,
        limit: u32,
    ) -> Result<Vec<KeptEvidence>, StoreError> {
        let mut snapshot = self.snapshot().await?;
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
        .bind(&after)
        .bind(i64::from(limit))
        .fetch_all(&mut *snapshot)
        .await?;
        let mut page: Vec<_> = rows.iter().map(parse).collect::<Result<_, _>>()?;
        if let Some(last) = page.last().map(|kept| kept.node) {
            frames(&mut snapshot, &after, last, &mut page).await?;
        }
        Ok(page)
    }
}

/// Reads the frames of the nodes of a page, which are those after `after` up to `last`, as far as they are short.
async fn frames(
    connection: &mut SqliteConnection,
    after: &[u8],
    last: NodeId,
    page: &mut [KeptEvidence],
) -> Result<(), StoreError> {
    let lengths = sqlx::query(
        "SELECT node, sum(length(frame)) AS bytes FROM ima_frame WHERE node > ?1 AND node <= ?2 GROUP BY node",
    )
    .bind(after)
    .bind(last.as_bytes().as_slice())
    .fetch_all(&mut *connection)
    .await?;
    let mut together = 0usize;
    for row in &lengths {
        let columns = Columns::named_by_bytes(row, "IMA list", "node");
        let (node, bytes): (_, usize) = (columns.node("node")?, columns.number("bytes")?);
        let fits =
            bytes <= KeptEvidence::FRAMES && together.saturating_add(bytes) <= KeptEvidence::FRAMES_TOGETHER;
        if fits {
            together += bytes;
        } else if let Some(kept) = page.iter_mut().find(|kept| kept.node == node) {
            kept.frames = None;
        }
    }
    let all = "SELECT node, pending, frame FROM ima_frame WHERE node > ?1 AND node <= ?2 \
               ORDER BY node, pending, number";
    let runs = page.chunk_by_mut(|one, other| one.frames.is_some() == other.frames.is_some());
    let mut before = after.to_vec();
    for run in runs {
        let Some(end) = run.last().map(|kept| kept.node) else { continue };
        let from = std::mem::replace(&mut before, end.as_bytes().to_vec());
        if run.iter().all(|kept| kept.frames.is_none()) {
            continue;
        }
        let rows = sqlx::query(all).bind(from).bind(end.as_bytes().as_slice());
        for row in rows.fetch_all(&mut *connection).await? {
            let columns = Columns::named_by_bytes(&row, "IMA list", "node");
            let (node, frame) = (columns.node("node")?, columns.plain("frame")?);
            let kept = run.iter_mut().find(|kept| kept.node == node);
            let Some(frames) = kept.and_then(|kept| kept.frames.as_mut()) else { continue };
            if columns.flag("pending")? { frames.pending.push(frame) } else { frames.covered.push(frame) }
        }
    }
    Ok(())
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
        frames: Some(KeptFrames::default()),
    })
}

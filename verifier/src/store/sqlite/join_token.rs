//! Join tokens.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::columns::{Columns, to_json};
use super::writer::Recorded;
use crate::audit::AuditRecord;
use crate::node::Labels;
use crate::store::{JoinTokenRecord, JoinTokenStore, StoreError};

#[async_trait]
impl JoinTokenStore for SqliteStore {
    async fn create_join_token(
        &self,
        token: &JoinTokenRecord,
        digest: [u8; 32],
        record: AuditRecord,
    ) -> Result<(), StoreError> {
        let labels = to_json(&token.labels)?;
        let token = token.clone();
        self.write_recorded(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO join_token \
                     (id, digest, node, labels, expires_at, author, reason, created_at, revoked) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, 0)",
                )
                .bind(token.id.as_str())
                .bind(digest.as_slice())
                .bind(token.node.as_ref().map(|node| node.as_bytes().as_slice()))
                .bind(labels)
                .bind(token.expires_at.as_millis())
                .bind(token.provenance.author.as_str())
                .bind(token.provenance.reason.as_str())
                .bind(token.provenance.created_at.as_millis())
                .execute(connection)
                .await?;
                Ok(Recorded((), vec![record]))
            })
        })
        .await
    }

    async fn join_tokens(&self) -> Result<Vec<JoinTokenRecord>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT id, node, labels, expires_at, author, reason, created_at, used_by, used_at, revoked \
             FROM join_token ORDER BY created_at DESC, recorded DESC",
        )
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse).collect()
    }

    async fn revoke_join_token(&self, id: &str, record: AuditRecord) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let update =
                    sqlx::query("UPDATE join_token SET revoked = 1 WHERE id = ?1 AND used_by IS NULL")
                        .bind(id)
                        .execute(connection)
                        .await?;
                Ok(Recorded::if_changed(update.rows_affected(), record))
            })
        })
        .await
    }
}

/// Redeems the token with this digest for a node: its labels, or nothing where it is unknown, expired, revoked, used,
/// or bound to another node. Of two that redeem one token, one gets nothing.
pub(super) async fn redeem(
    connection: &mut SqliteConnection,
    digest: [u8; 32],
    node: NodeId,
    now: Timestamp,
) -> Result<Option<Labels>, StoreError> {
    let rows = sqlx::query(
        "UPDATE join_token SET used_by = ?2, used_at = ?3 WHERE digest = ?1 AND used_by IS NULL \
         AND revoked = 0 AND expires_at > ?3 AND (node IS NULL OR node = ?2) RETURNING id, labels",
    )
    .bind(digest.as_slice())
    .bind(node.as_bytes().as_slice())
    .bind(now.as_millis())
    .fetch_all(connection)
    .await?;
    rows.first().map(|row| Columns::named_by_text(row, "join token", "id").json("labels")).transpose()
}

fn parse(row: &SqliteRow) -> Result<JoinTokenRecord, StoreError> {
    let columns = Columns::named_by_text(row, "join token", "id");
    let used_at = columns.plain::<Option<i64>>("used_at")?.map(Timestamp::from_millis);
    let used = match (columns.optional_node("used_by")?, used_at) {
        (Some(node), Some(at)) => Some((node, at)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(columns.inconsistent("of used_by and used_at only one is there"));
        }
    };
    let revoked = columns.flag("revoked")?;
    if revoked && used.is_some() {
        return Err(columns.inconsistent("both used and revoked"));
    }
    Ok(JoinTokenRecord {
        id: columns.plain("id")?,
        node: columns.optional_node("node")?,
        labels: columns.json("labels")?,
        expires_at: columns.time("expires_at")?,
        provenance: columns.provenance()?,
        used,
        revoked,
    })
}

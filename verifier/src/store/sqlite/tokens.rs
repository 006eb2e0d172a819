//! Tokens.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use sqlx::Row as _;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::columns::{Columns, to_integer};
use super::writer::Recorded;
use crate::audit::AuditRecord;
use crate::store::StoreError;
use crate::store::tokens::{TokenFilter, TokenId, TokenRecord, TokenStore};

/// Those that [`TokenFilter`] means: ?1 now, ?2 id, ?3 node, ?4 client, ?5 audience. A list of audiences has a space
/// between two, and none within one.
macro_rules! meant {
    () => {
        "expires_at > ?1 AND (?2 IS NULL OR id = ?2) AND (?3 IS NULL OR node = ?3) \
         AND (?4 IS NULL OR client = ?4) AND (?5 IS NULL OR instr(' ' || audience || ' ', ' ' || ?5 || ' ') > 0)"
    };
}

#[async_trait]
impl TokenStore for SqliteStore {
    async fn record_token(&self, token: TokenRecord, record: AuditRecord) -> Result<(), StoreError> {
        let epoch = to_integer(token.epoch)?;
        self.write_recorded(move |connection| {
            Box::pin(async move {
                sqlx::query(
                    "INSERT INTO token (id, node, client, audience, permits, binding, epoch, issued_at, expires_at, once) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
                )
                .bind(token.id.as_str())
                .bind(token.node.as_bytes().as_slice())
                .bind(token.client.as_str())
                .bind(token.audience.as_str())
                .bind(token.permits.as_str())
                .bind(token.binding.as_str())
                .bind(epoch)
                .bind(token.issued_at.as_millis())
                .bind(token.expires_at.as_millis())
                .bind(token.once)
                .execute(connection)
                .await?;
                Ok(Recorded((), vec![record]))
            })
        })
        .await
    }

    async fn spend_token(
        &self,
        id: &TokenId,
        now: Timestamp,
        record: AuditRecord,
    ) -> Result<bool, StoreError> {
        let id = id.clone();
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let spent = sqlx::query(
                    "UPDATE token SET spent_at = ?2 WHERE id = ?1 AND once = 1 AND spent_at IS NULL \
                     AND revoked_at IS NULL AND expires_at > ?2",
                )
                .bind(id.as_str())
                .bind(now.as_millis())
                .execute(connection)
                .await?;
                Ok(Recorded::if_changed(spent.rows_affected(), record))
            })
        })
        .await
    }

    async fn revoke_tokens(
        &self,
        filter: &TokenFilter,
        now: Timestamp,
        record: AuditRecord,
    ) -> Result<Vec<(TokenId, Timestamp)>, StoreError> {
        let filter = filter.clone();
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let rows = sqlx::query(concat!(
                    "UPDATE token SET revoked_at = ?1 WHERE revoked_at IS NULL AND ",
                    meant!(),
                    " RETURNING id, expires_at"
                ))
                .bind(now.as_millis())
                .bind(filter.id.as_ref().map(TokenId::as_str))
                .bind(filter.node.as_ref().map(|node| node.as_bytes().as_slice()))
                .bind(filter.client.as_deref())
                .bind(filter.audience.as_deref())
                .fetch_all(connection)
                .await?;
                let revoked: Vec<_> = rows.iter().map(name_and_end).collect::<Result<_, _>>()?;
                let records = (!revoked.is_empty()).then_some(record).into_iter().collect();
                Ok(Recorded(revoked, records))
            })
        })
        .await
    }

    async fn tokens(
        &self,
        filter: &TokenFilter,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TokenRecord>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(concat!(
            "SELECT id, node, client, audience, permits, binding, epoch, issued_at, expires_at, once, spent_at, \
             revoked_at FROM token WHERE ",
            meant!(),
            " ORDER BY recorded DESC LIMIT ?6"
        ))
        .bind(now.as_millis())
        .bind(filter.id.as_ref().map(TokenId::as_str))
        .bind(filter.node.as_ref().map(|node| node.as_bytes().as_slice()))
        .bind(filter.client.as_deref())
        .bind(filter.audience.as_deref())
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse).collect()
    }

    async fn revoked_tokens(&self, now: Timestamp) -> Result<Vec<(TokenId, Timestamp)>, StoreError> {
        let mut reader = self.reader().await?;
        let rows =
            sqlx::query("SELECT id, expires_at FROM token WHERE revoked_at IS NOT NULL AND expires_at > ?1")
                .bind(now.as_millis())
                .fetch_all(&mut *reader)
                .await?;
        rows.iter().map(name_and_end).collect()
    }

    async fn forget_tokens(&self, before: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM token WHERE recorded IN \
                   (SELECT recorded FROM token WHERE expires_at < ?1 LIMIT ?2)";
        self.forget(sql, before).await
    }
}

fn name_and_end(row: &SqliteRow) -> Result<(TokenId, Timestamp), StoreError> {
    let columns = Columns::named_by_text(row, "token", "id");
    let id: String = columns.plain("id")?;
    Ok((id.parse().map_err(|error| columns.inconsistent(error))?, columns.time("expires_at")?))
}

fn parse(row: &SqliteRow) -> Result<TokenRecord, StoreError> {
    let columns = Columns::named_by_text(row, "token", "id");
    let (id, expires_at) = name_and_end(row)?;
    let time = |column: &str| {
        let at: Option<i64> = row.try_get(column)?;
        Ok::<_, StoreError>(at.map(Timestamp::from_millis))
    };
    Ok(TokenRecord {
        id,
        node: columns.node("node")?,
        client: columns.plain("client")?,
        audience: columns.plain("audience")?,
        permits: columns.plain("permits")?,
        binding: columns.plain("binding")?,
        epoch: columns.number("epoch")?,
        issued_at: columns.time("issued_at")?,
        expires_at,
        once: columns.flag("once")?,
        spent_at: time("spent_at")?,
        revoked_at: time("revoked_at")?,
    })
}

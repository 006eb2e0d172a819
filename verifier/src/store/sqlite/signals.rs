//! Signals.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use sqlx::SqliteConnection;

use super::columns::Columns;
use super::writer::Recorded;
use super::{SqliteStore, decision, holds};
use crate::store::holds::{HoldChange, HoldOutcome};
use crate::store::signals::{SignalOutcome, SignalRecord, SignalStore};
use crate::store::{DecisionRecord, StoreError};

#[async_trait]
impl SignalStore for SqliteStore {
    async fn record_signal(
        &self,
        signal: SignalRecord,
        node: NodeId,
        change: HoldChange,
        decision: DecisionRecord,
    ) -> Result<SignalOutcome, StoreError> {
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let outcome = take(connection, &signal, node, change).await?;
                let mut records = Vec::new();
                if let SignalOutcome::Recorded(_) = &outcome {
                    records.push(decision::insert(connection, &decision).await?);
                }
                Ok(Recorded(outcome, records))
            })
        })
        .await
    }

    async fn forget_signals(&self, before: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM signal WHERE recorded IN \
                   (SELECT recorded FROM signal WHERE at < ?1 LIMIT ?2)";
        self.forget(sql, before).await
    }
}

/// All of it but the record.
async fn take(
    connection: &mut SqliteConnection,
    signal: &SignalRecord,
    node: NodeId,
    change: HoldChange,
) -> Result<SignalOutcome, StoreError> {
    let before = sqlx::query("SELECT id, digest, answer FROM signal WHERE source = ?1 AND id = ?2")
        .bind(signal.source.as_str())
        .bind(signal.id.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    if let Some(row) = before {
        let columns = Columns::named_by_text(&row, "signal", "id");
        return Ok(if columns.bytes::<32>("digest")? == signal.digest {
            SignalOutcome::Repeated(columns.plain("answer")?)
        } else {
            SignalOutcome::OtherContent
        });
    }
    let changed = match holds::apply(connection, node, change, signal.at).await? {
        HoldOutcome::Changed(node) => node,
        HoldOutcome::UnknownNode => return Ok(SignalOutcome::UnknownNode),
        HoldOutcome::NoSuchHold => return Ok(SignalOutcome::NoSuchHold),
        HoldOutcome::TooManyHolds => return Ok(SignalOutcome::TooManyHolds),
    };
    sqlx::query("INSERT INTO signal (source, id, digest, at, answer) VALUES (?1, ?2, ?3, ?4, ?5)")
        .bind(signal.source.as_str())
        .bind(signal.id.as_str())
        .bind(signal.digest.as_slice())
        .bind(signal.at.as_millis())
        .bind(signal.answer.as_str())
        .execute(connection)
        .await?;
    Ok(SignalOutcome::Recorded(changed))
}

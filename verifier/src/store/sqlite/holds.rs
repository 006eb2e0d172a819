//! Holds: those that stand are a column of their node, and every one is a row of history.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::columns::Columns;
use super::writer::Recorded;
use super::{SqliteStore, decision, node};
use crate::hold::{HeldBy, Hold, HoldKind, HoldReason, attested_after};
use crate::node::NodeRecord;
use crate::store::holds::{HoldChange, HoldEnd, HoldOutcome, HoldRecord, HoldStore, Lift};
use crate::store::{DecisionRecord, StoreError, words};

#[async_trait]
impl HoldStore for SqliteStore {
    async fn change_holds(
        &self,
        node: NodeId,
        change: HoldChange,
        decision: DecisionRecord,
    ) -> Result<HoldOutcome, StoreError> {
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let outcome = apply(connection, node, change, decision.at).await?;
                let mut records = Vec::new();
                if let HoldOutcome::Changed(_) = &outcome {
                    records.push(decision::insert(connection, &decision).await?);
                }
                Ok(Recorded(outcome, records))
            })
        })
        .await
    }

    async fn holds(&self, node: NodeId, limit: u32) -> Result<Vec<HoldRecord>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT id, kind, source, author, reason, since, expires_at, ended, lifted_source, lifted_author, \
             lifted_reason, ended_at FROM hold WHERE node = ?1 ORDER BY recorded DESC LIMIT ?2",
        )
        .bind(node.as_bytes().as_slice())
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        rows.iter().map(parse).collect()
    }

    async fn forget_holds(&self, before: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM hold WHERE recorded IN \
                   (SELECT recorded FROM hold WHERE ended_at < ?1 LIMIT ?2)";
        self.forget(sql, before).await
    }
}

/// Changes a node's holds in the transaction of who asks for it.
pub(super) async fn apply(
    connection: &mut SqliteConnection,
    id: NodeId,
    change: HoldChange,
    now: Timestamp,
) -> Result<HoldOutcome, StoreError> {
    let Some(mut node) = node::find(connection, id).await? else { return Ok(HoldOutcome::UnknownNode) };
    expire(connection, &mut node, now).await?;
    match change {
        HoldChange::Set(hold) => {
            let of_source = node.holds.iter().filter(|other| other.by.is_same_source(&hold.by)).count();
            if of_source >= hold.by.most() {
                return Ok(HoldOutcome::TooManyHolds);
            }
            insert(connection, id, &hold).await?;
            node.holds.push(hold);
        }
        HoldChange::Lift(lift) => {
            let due = |hold: &Hold| lift.hold.is_none_or(|id| hold.id == id) && may_lift(&lift.by, hold);
            let (lifted, stay): (Vec<_>, Vec<_>) = node.holds.into_iter().partition(due);
            node.holds = stay;
            if lifted.is_empty() {
                return Ok(HoldOutcome::NoSuchHold);
            }
            for hold in lifted {
                record_lift(connection, &hold, &lift).await?;
            }
            node.attested_after = node.attested_after.max(Some(lift.at));
        }
        HoldChange::DemandEvidence(at) => node.attested_after = node.attested_after.max(Some(at)),
    }
    node.revision = node.revision.saturating_add(1);
    node.epoch = node.epoch.saturating_add(1);
    node::save(connection, &node).await?;
    Ok(HoldOutcome::Changed(Box::new(node)))
}

fn may_lift(by: &HeldBy, hold: &Hold) -> bool {
    match by {
        HeldBy::Operator(_) => true,
        HeldBy::RelyingParty(_) => by.is_same_source(&hold.by),
    }
}

/// Ends what has expired; that evidence is demanded since then stays.
async fn expire(
    connection: &mut SqliteConnection,
    node: &mut NodeRecord,
    now: Timestamp,
) -> Result<(), StoreError> {
    node.attested_after = attested_after(node.attested_after, &node.holds, now);
    for hold in node.holds.extract_if(.., |hold| !hold.is_in_force(now)) {
        sqlx::query("UPDATE hold SET ended = 'expired', ended_at = expires_at WHERE id = ?1")
            .bind(hold.id.to_string())
            .execute(&mut *connection)
            .await?;
    }
    Ok(())
}

async fn insert(connection: &mut SqliteConnection, node: NodeId, hold: &Hold) -> Result<(), StoreError> {
    let (source, author) = words::of_held_by(&hold.by);
    sqlx::query(
        "INSERT INTO hold (id, node, kind, source, author, reason, since, expires_at) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(hold.id.to_string())
    .bind(node.as_bytes().as_slice())
    .bind(hold.kind.as_str())
    .bind(source)
    .bind(author)
    .bind(hold.reason.as_str())
    .bind(hold.since.as_millis())
    .bind(hold.expires_at.map(Timestamp::as_millis))
    .execute(connection)
    .await?;
    Ok(())
}

async fn record_lift(connection: &mut SqliteConnection, hold: &Hold, lift: &Lift) -> Result<(), StoreError> {
    let (source, author) = words::of_held_by(&lift.by);
    sqlx::query(
        "UPDATE hold SET ended = 'lifted', lifted_source = ?2, lifted_author = ?3, lifted_reason = ?4, \
         ended_at = ?5 WHERE id = ?1",
    )
    .bind(hold.id.to_string())
    .bind(source)
    .bind(author)
    .bind(lift.reason.as_str())
    .bind(lift.at.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

fn parse(row: &SqliteRow) -> Result<HoldRecord, StoreError> {
    let columns = Columns::named_by_text(row, "hold", "id");
    let wrong = |why: String| columns.inconsistent(why);
    let reason = |text: String| HoldReason::try_from(text).map_err(|error| columns.inconsistent(error));
    let id: String = columns.plain("id")?;
    let kind: &str = columns.plain("kind")?;
    let kind = [HoldKind::Block, HoldKind::Lower].into_iter().find(|known| known.as_str() == kind);
    let time =
        |column| Ok::<_, StoreError>(columns.plain::<Option<i64>>(column)?.map(Timestamp::from_millis));
    let hold = Hold {
        id: id.parse().map_err(|error| columns.inconsistent(error))?,
        kind: kind.ok_or_else(|| columns.inconsistent("kind"))?,
        by: words::to_held_by(columns.plain("source")?, columns.plain("author")?).map_err(wrong)?,
        reason: reason(columns.plain("reason")?)?,
        since: columns.time("since")?,
        expires_at: time("expires_at")?,
    };
    let by: (Option<&str>, Option<&str>) = (columns.plain("lifted_source")?, columns.plain("lifted_author")?);
    let end = match (columns.plain::<Option<&str>>("ended")?, by, time("ended_at")?) {
        (None, (None, None), None) => None,
        (Some("expired"), (None, None), Some(_)) => Some(HoldEnd::Expired),
        (Some("lifted"), (Some(source), Some(author)), Some(at)) => Some(HoldEnd::Lifted {
            by: words::to_held_by(source, author).map_err(wrong)?,
            reason: reason(columns.plain("lifted_reason")?)?,
            at,
        }),
        _ => return Err(columns.inconsistent("only a part of its end is there")),
    };
    Ok(HoldRecord { hold, end })
}

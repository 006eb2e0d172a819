//! The audit trail: segments, checkpoints and the keys that sign these.
//!
//! A segment is read as it is: whether it is what was written, [`crate::audit::verify`] says, and where it is not.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::SqliteStore;
use super::columns::{Columns, to_integer};
use crate::audit::{AuditRecord, Checkpoint, Hash, Head, PublicKey, RecordId, Segment, SequencedRecord};
use crate::evidence::frame::{pack_short, unpack};
use crate::store::{AuditStore, RecordFilter, RecordPage, StoreError};

/// Bytes of lines that one answer has at most, but for one segment.
const PAGE: usize = 4 * Segment::BYTES;

/// Segments and records that one search looks at: some tens of milliseconds.
const SEARCHED: (u32, u32) = (2000, 20_000);

/// Segments that are read at once.
const CHUNK: i64 = 32;

/// A record is on disk within so many milliseconds of its making: a request is given up after less.
const WRITTEN_WITHIN: i64 = 10 * 60 * 1000;

macro_rules! columns {
    ($rest:literal) => {
        concat!(
            "SELECT first, count, first_at, last_at, previous, links, hash, body FROM audit_segment ",
            $rest
        )
    };
}

#[async_trait]
impl AuditStore for SqliteStore {
    async fn append(&self, records: Vec<AuditRecord>) -> Result<(), StoreError> {
        self.writer.append(records.into_iter().map(AuditRecord::encode).collect()).await
    }

    async fn trail_head(&self) -> Result<Head, StoreError> {
        head(&mut *self.snapshot().await?).await
    }

    async fn segments(&self, from: u64, limit: u32) -> Result<Vec<Segment>, StoreError> {
        let mut reader = self.snapshot().await?;
        // A number that no column holds is past the end.
        let Ok(from) = i64::try_from(from) else { return Ok(Vec::new()) };
        let first: Option<i64> = sqlx::query_scalar("SELECT max(first) FROM audit_segment WHERE first <= ?1")
            .bind(from)
            .fetch_one(&mut *reader)
            .await?;
        let (mut next, mut length) = (first.unwrap_or(0), 0);
        let (mut segments, limit) = (Vec::new(), usize::try_from(limit).unwrap_or(usize::MAX));
        loop {
            let rows = sqlx::query(columns!("WHERE first >= ?1 ORDER BY first LIMIT ?2"))
                .bind(next)
                .bind(CHUNK)
                .fetch_all(&mut *reader)
                .await?;
            for row in &rows {
                let segment = parse_segment(row)?;
                let last = to_integer(segment.head().sequence)?;
                length += segment.body.len();
                if segments.len() == limit || (length > PAGE && !segments.is_empty()) {
                    return Ok(segments);
                }
                // A damaged one may say that it ends before it begins.
                next = last.max(to_integer(segment.first)?).saturating_add(1);
                if last >= from {
                    segments.push(segment);
                }
            }
            if rows.is_empty() {
                return Ok(segments);
            }
        }
    }

    async fn record(&self, id: RecordId) -> Result<Option<SequencedRecord>, StoreError> {
        let at = id.at().as_millis();
        let mut reader = self.reader().await?;
        let mut after = (at, 0);
        loop {
            let rows = sqlx::query(columns!(
                "WHERE (last_at, first) > (?1, ?2) AND last_at <= ?3 AND first_at <= ?4 \
                 ORDER BY last_at, first LIMIT ?5"
            ))
            .bind(after.0)
            .bind(after.1)
            .bind(at.saturating_add(WRITTEN_WITHIN))
            .bind(at)
            .bind(CHUNK)
            .fetch_all(&mut *reader)
            .await?;
            for row in &rows {
                let segment = parse_segment(row)?;
                // What is no record any more is not the one that is asked for.
                if let Some(found) = segment.records().flatten().find(|found| found.record.id == id) {
                    return Ok(Some(found));
                }
                after = (segment.times.1.as_millis(), to_integer(segment.first)?);
            }
            if rows.is_empty() {
                return Ok(None);
            }
        }
    }

    async fn records(
        &self,
        filter: &RecordFilter,
        before: Option<u64>,
        limit: u32,
    ) -> Result<RecordPage, StoreError> {
        let mut next = before.and_then(|before| i64::try_from(before).ok()).unwrap_or(i64::MAX);
        let before = before.unwrap_or(u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let mut reader = self.snapshot().await?;
        let mut page = RecordPage { records: Vec::new(), before: None };
        let (mut segments, mut records) = SEARCHED;
        loop {
            let rows = sqlx::query(columns!("WHERE first < ?1 ORDER BY first DESC LIMIT ?2"))
                .bind(next)
                .bind(CHUNK)
                .fetch_all(&mut *reader)
                .await?;
            for row in &rows {
                let segment = parse_segment(row)?;
                next = to_integer(segment.first)?;
                for record in segment.records().rev().flatten().filter(|record| record.sequence < before) {
                    if page.records.len() == limit {
                        page.before = Some(record.sequence.saturating_add(1));
                        return Ok(page);
                    }
                    records = records.saturating_sub(1);
                    if filter.wants(&record.record) {
                        page.records.push(record);
                    }
                }
                segments = segments.saturating_sub(1);
                if segments == 0 || records == 0 {
                    page.before = (segment.first > 1).then_some(segment.first);
                    return Ok(page);
                }
            }
            if rows.is_empty() {
                return Ok(page);
            }
        }
    }

    async fn put_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StoreError> {
        self.write(move |connection| {
            Box::pin(async move { insert_checkpoint(connection, &checkpoint).await })
        })
        .await
    }

    async fn checkpoints(&self, skip: u64, limit: u32) -> Result<Vec<Checkpoint>, StoreError> {
        let Ok(skip) = i64::try_from(skip) else { return Ok(Vec::new()) };
        let mut reader = self.reader().await?;
        let rows = sqlx::query(
            "SELECT number, anchor, anchor_hash, head, head_hash, at, key, signature FROM audit_checkpoint \
             WHERE number > ?1 ORDER BY number LIMIT ?2",
        )
        .bind(skip)
        .bind(i64::from(limit))
        .fetch_all(&mut *reader)
        .await?;
        // Numbers begin with 1 and have no gap: none is ever deleted.
        let numbered = |(number, row): (i64, &SqliteRow)| {
            let columns = Columns::named_by_number(row, "audit checkpoint", "number");
            match columns.plain::<i64>("number")? {
                found if found == number => parse_checkpoint(row),
                _ => Err(columns.inconsistent("one before it is missing")),
            }
        };
        (skip.saturating_add(1)..).zip(&rows).map(numbered).collect()
    }

    async fn last_checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        last_checkpoint(&mut *self.reader().await?).await
    }

    async fn trail_before(&self, before: Timestamp) -> Result<Option<Head>, StoreError> {
        let mut reader = self.reader().await?;
        // The first that stays; all before it go. By number, not by time: the clock may have gone back. The plus keeps SQLite
        // from an index, by which it would look at all that stay (Query Optimizer, 3).
        let row = sqlx::query(
            "SELECT first, count, hash FROM audit_segment WHERE first < coalesce( \
             (SELECT first FROM audit_segment WHERE +last_at >= ?1 ORDER BY first LIMIT 1), \
             9223372036854775807) ORDER BY first DESC LIMIT 1",
        )
        .bind(before.as_millis())
        .fetch_optional(&mut *reader)
        .await?;
        row.as_ref().map(parse_head).transpose()
    }

    async fn forget_segments(&self) -> Result<u64, StoreError> {
        let Some(last) = self.last_checkpoint().await? else { return Ok(0) };
        let sql = "DELETE FROM audit_segment WHERE first IN (SELECT first FROM audit_segment \
                   WHERE first <= ?1 AND first + count - 1 <= ?1 ORDER BY first LIMIT ?2)";
        self.forget_up_to(sql, to_integer(last.anchor.sequence)?).await
    }

    async fn put_audit_key(&self, key: &PublicKey, now: Timestamp) -> Result<(), StoreError> {
        let pem = key.to_pem();
        self.write(move |connection| {
            Box::pin(async move {
                sqlx::query("INSERT INTO audit_key (public, since) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
                    .bind(pem)
                    .bind(now.as_millis())
                    .execute(connection)
                    .await?;
                Ok(())
            })
        })
        .await
    }

    async fn audit_keys(&self) -> Result<Vec<PublicKey>, StoreError> {
        let mut reader = self.reader().await?;
        let rows = sqlx::query("SELECT number, public FROM audit_key ORDER BY number")
            .fetch_all(&mut *reader)
            .await?;
        let key = |row| {
            let columns = Columns::named_by_number(row, "audit key", "number");
            columns.plain::<&str>("public")?.parse().map_err(|error| columns.inconsistent(error))
        };
        rows.iter().map(key).collect()
    }
}

/// How far the trail goes, by the segment that says so.
pub(super) async fn head(connection: &mut SqliteConnection) -> Result<Head, StoreError> {
    let row = sqlx::query("SELECT first, count, hash FROM audit_segment ORDER BY first DESC LIMIT 1")
        .fetch_optional(&mut *connection)
        .await?;
    match row {
        Some(row) => parse_head(&row),
        // Every record was archived, or there was never one.
        None => Ok(last_checkpoint(connection).await?.map_or_else(Head::default, |last| last.anchor)),
    }
}

/// How far the trail goes.
///
/// Established when this returns: the last segment is what its hashes say · the last checkpoint is of this trail.
pub(super) async fn checked_head(connection: &mut SqliteConnection) -> Result<Head, StoreError> {
    let head = head(connection).await?;
    let last = segment_of(connection, head.sequence).await?;
    let segments: i64 =
        sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM audit_segment)").fetch_one(&mut *connection).await?;
    if last.is_none() && segments != 0 {
        return Err(inconsistent(head.sequence, "the last segment does not have as many records as it says"));
    }
    if let Some(segment) = last {
        let mut hash = segment.previous;
        for (line, link) in segment.lines().zip(&segment.links) {
            hash = hash.then(line);
            if hash != *link {
                return Err(inconsistent(segment.first, "a record of it was changed"));
            }
        }
        if segment.lines().count() != segment.links.len() || hash != segment.hash {
            return Err(inconsistent(segment.first, "it does not come to its hash"));
        }
    }
    if let Some(last) = last_checkpoint(connection).await? {
        check_on_trail(connection, &last, head).await?;
    }
    Ok(head)
}

/// That a checkpoint is of the trail that goes to `head`.
async fn check_on_trail(
    connection: &mut SqliteConnection,
    checkpoint: &Checkpoint,
    head: Head,
) -> Result<(), StoreError> {
    let Checkpoint { anchor, head: covered, .. } = checkpoint;
    let off = |why| Err(inconsistent(covered.sequence, why));
    if covered.sequence > head.sequence {
        return off("the trail ends before its last checkpoint");
    }
    if covered.sequence < anchor.sequence || (covered.sequence == anchor.sequence && covered != anchor) {
        return off("it begins where it has ended");
    }
    match segment_of(connection, covered.sequence).await? {
        Some(segment) if hash_at(&segment, covered.sequence) == Some(covered.hash) => Ok(()),
        None if covered == anchor && *covered == head => Ok(()),
        Some(_) | None => off("the trail is not the one that its checkpoint is of"),
    }
}

async fn insert_checkpoint(
    connection: &mut SqliteConnection,
    checkpoint: &Checkpoint,
) -> Result<(), StoreError> {
    let head = head(connection).await?;
    check_on_trail(connection, checkpoint, head).await?;
    let before = last_checkpoint(connection).await?.map_or_else(Head::default, |last| last.anchor);
    let anchor = checkpoint.anchor;
    if anchor != before {
        let segment = segment_of(connection, anchor.sequence).await?;
        let ends = segment.is_some_and(|segment| segment.head() == anchor);
        if anchor.sequence < before.sequence || !ends {
            return Err(inconsistent(anchor.sequence, "its anchor is not the end of a segment"));
        }
    }
    sqlx::query(
        "INSERT INTO audit_checkpoint (anchor, anchor_hash, head, head_hash, at, key, signature) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )
    .bind(to_integer(anchor.sequence)?)
    .bind(anchor.hash.as_bytes().as_slice())
    .bind(to_integer(checkpoint.head.sequence)?)
    .bind(checkpoint.head.hash.as_bytes().as_slice())
    .bind(checkpoint.at.as_millis())
    .bind(checkpoint.key.as_bytes().as_slice())
    .bind(checkpoint.signature.as_slice())
    .execute(connection)
    .await?;
    Ok(())
}

/// Puts a segment at the end of the trail, in the transaction of what it is about. `false`: the trail does not end there,
/// and nothing was written.
pub(super) async fn insert(connection: &mut SqliteConnection, segment: &Segment) -> Result<bool, StoreError> {
    let frame = pack_short(&segment.body).map_err(|error| StoreError::Database(Box::new(error)))?;
    let links: Vec<u8> = segment.links.iter().flat_map(|link| *link.as_bytes()).collect();
    let insert = sqlx::query(
        "INSERT INTO audit_segment (first, count, first_at, last_at, previous, links, hash, body) \
         SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8 WHERE coalesce( \
         (SELECT first + count FROM audit_segment ORDER BY first DESC LIMIT 1), ?1) = ?1",
    )
    .bind(to_integer(segment.first)?)
    .bind(to_integer(u64::try_from(segment.links.len()).unwrap_or(u64::MAX))?)
    .bind(segment.times.0.as_millis())
    .bind(segment.times.1.as_millis())
    .bind(segment.previous.as_bytes().as_slice())
    .bind(links)
    .bind(segment.hash.as_bytes().as_slice())
    .bind(frame)
    .execute(connection)
    .await?;
    Ok(insert.rows_affected() == 1)
}

/// The segment that holds a record.
pub(super) async fn segment_of(
    connection: &mut SqliteConnection,
    sequence: u64,
) -> Result<Option<Segment>, StoreError> {
    let row = sqlx::query(columns!("WHERE first <= ?1 ORDER BY first DESC LIMIT 1"))
        .bind(to_integer(sequence)?)
        .fetch_optional(connection)
        .await?;
    let segment = row.as_ref().map(parse_segment).transpose()?;
    Ok(segment.filter(|segment| segment.head().sequence >= sequence))
}

fn hash_at(segment: &Segment, sequence: u64) -> Option<Hash> {
    let index = usize::try_from(sequence.checked_sub(segment.first)?).ok()?;
    segment.links.get(index).copied()
}

async fn last_checkpoint(connection: &mut SqliteConnection) -> Result<Option<Checkpoint>, StoreError> {
    let row = sqlx::query(
        "SELECT number, anchor, anchor_hash, head, head_hash, at, key, signature FROM audit_checkpoint \
         ORDER BY number DESC LIMIT 1",
    )
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(parse_checkpoint).transpose()
}

fn inconsistent(sequence: u64, why: &str) -> StoreError {
    StoreError::Inconsistent { what: "audit trail", id: sequence.to_string(), why: why.to_owned() }
}

fn parse_head(row: &SqliteRow) -> Result<Head, StoreError> {
    let columns = Columns::named_by_number(row, "audit segment", "first");
    let (first, count): (u64, u64) = (columns.number("first")?, columns.number("count")?);
    let last = first.checked_add(count).and_then(|end| end.checked_sub(1));
    let sequence = last.ok_or_else(|| columns.inconsistent("it has no last record"))?;
    Ok(Head { sequence, hash: Hash::from_bytes(columns.bytes("hash")?) })
}

/// A body that does not decompress is shown as none: its records are missing, which is for verification to say.
fn parse_segment(row: &SqliteRow) -> Result<Segment, StoreError> {
    let columns = Columns::named_by_number(row, "audit segment", "first");
    let links: Vec<u8> = columns.plain("links")?;
    let (links, _) = links.as_chunks();
    let body: Vec<u8> = columns.plain("body")?;
    Ok(Segment {
        first: columns.number("first")?,
        previous: Hash::from_bytes(columns.bytes("previous")?),
        links: links.iter().map(|link| Hash::from_bytes(*link)).collect(),
        hash: Hash::from_bytes(columns.bytes("hash")?),
        times: (columns.time("first_at")?, columns.time("last_at")?),
        body: unpack(&body, Segment::BYTES).unwrap_or_default(),
    })
}

fn parse_checkpoint(row: &SqliteRow) -> Result<Checkpoint, StoreError> {
    let columns = Columns::named_by_number(row, "audit checkpoint", "number");
    let head = |sequence, hash| {
        Ok::<_, StoreError>(Head {
            sequence: columns.number(sequence)?,
            hash: Hash::from_bytes(columns.bytes(hash)?),
        })
    };
    Ok(Checkpoint {
        anchor: head("anchor", "anchor_hash")?,
        head: head("head", "head_hash")?,
        at: columns.time("at")?,
        key: Hash::from_bytes(columns.bytes("key")?),
        signature: columns.bytes("signature")?,
    })
}

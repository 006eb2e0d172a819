//! Digest sets: versions, and what they accept, once for each content.
//!
//! The text of a content is kept in [`chunks`](super::chunks). How a new text is laid out is found before the transaction
//! that writes it: a chunk, once written, neither changes nor goes.

use std::cmp::Reverse;
use std::sync::Arc;

use sqlx::sqlite::SqliteRow;
use sqlx::{SqliteConnection, SqlitePool};

use super::SqliteStore;
use super::chunks::{self, Assembly, Chunk, Layout, Search, Sketch};
use super::columns::{Columns, to_integer};
use super::reference::{next_version, versioned, withdrawn};
use super::writer::Recorded;
use crate::appraisal::runtime::DigestSet;
use crate::audit::AuditRecord;
use crate::evidence::frame::FrameError;
use crate::node::Name;
use crate::reference::{DigestSetVersion, Provenance, Versioned};
use crate::store::{DigestSetRecord, StoreError};

/// Chunks that are read at once: some 3 MB.
const TOGETHER: i64 = 64;

impl SqliteStore {
    pub(super) async fn write_digest_set(
        &self,
        name: Name,
        digests: Arc<DigestSet>,
        text: Vec<u8>,
        provenance: Provenance,
        record: AuditRecord,
    ) -> Result<DigestSetVersion, StoreError> {
        let layouts = self.lay_out(vec![(*digests.id(), text)]).await?;
        let count = to_integer(u64::try_from(digests.len()).unwrap_or(u64::MAX))?;
        self.write_recorded(move |connection| {
            Box::pin(async move {
                let newest = "SELECT max(version) AS newest FROM digest_set WHERE name = ?1";
                let version = next_version(connection, newest, "digest set", &name).await?;
                for layout in layouts {
                    keep(connection, digests.id(), layout).await?;
                }
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

    /// Lays out the texts of contents that are written together; `None`: it is kept already. A long text takes a second of
    /// work, beside everything else.
    pub(super) async fn lay_out(
        &self,
        texts: Vec<([u8; 32], Vec<u8>)>,
    ) -> Result<Vec<Option<Layout>>, StoreError> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let (readers, runtime) = (self.readers.clone(), tokio::runtime::Handle::current());
        let work = move || {
            runtime.block_on(async {
                let (mut layouts, mut new) = (Vec::new(), Vec::new());
                for (content, text) in texts {
                    let layout = lay_out(&readers, &content, text, &new).await?;
                    new.extend(layout.iter().flat_map(|layout| layout.new.iter().cloned()));
                    layouts.push(layout);
                }
                Ok(layouts)
            })
        };
        tokio::task::spawn_blocking(work).await.map_err(|error| StoreError::Database(Box::new(error)))?
    }
}

/// Finds what a text shares with chunks that are kept, and with those that are about to be.
async fn lay_out(
    readers: &SqlitePool,
    content: &[u8; 32],
    text: Vec<u8>,
    new: &[Chunk],
) -> Result<Option<Layout>, StoreError> {
    let mut reader = readers.acquire().await?;
    if is_kept(&mut reader, content).await? {
        return Ok(None);
    }
    let mut search = Search::new(text).map_err(unpacked)?;
    let mut likely = Vec::new();
    for row in sqlx::query("SELECT number, sketch FROM digest_chunk").fetch_all(&mut *reader).await? {
        let columns = Columns::named_by_number(&row, "digest chunk", "number");
        if let Some(likeness) = search.likeness(&Sketch::kept(columns.plain("sketch")?)) {
            likely.push((Reverse(likeness), Candidate::Kept(columns.plain("number")?)));
        }
    }
    for (index, chunk) in new.iter().enumerate() {
        if let Some(likeness) = search.likeness(&chunk.sketch) {
            likely.push((Reverse(likeness), Candidate::New(index)));
        }
    }
    // What has most of it first, so that it is in as few chunks as may be.
    likely.sort_unstable();
    for (_, candidate) in likely {
        if search.is_done() {
            break;
        }
        let (hash, frame) = match candidate {
            Candidate::New(index) => match new.get(index) {
                Some(chunk) => (chunk.hash, chunk.frame.clone()),
                None => continue,
            },
            Candidate::Kept(number) => {
                let row = sqlx::query("SELECT number, hash, frame FROM digest_chunk WHERE number = ?1")
                    .bind(number)
                    .fetch_one(&mut *reader)
                    .await?;
                let columns = Columns::named_by_number(&row, "digest chunk", "number");
                (columns.bytes("hash")?, columns.plain("frame")?)
            }
        };
        match chunks::open(&hash, &frame) {
            Ok(bytes) => search.take(hash, &bytes),
            // Whoever reads a set that it is of is told; nothing new is built on it.
            Err(why) => tracing::error!(
                chunk = data_encoding::HEXLOWER.encode(&hash),
                why,
                "a digest chunk is damaged"
            ),
        }
    }
    search.finish().map(Some).map_err(unpacked)
}

/// A chunk that may have pieces of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Candidate {
    /// By its number.
    Kept(i64),
    /// By its place among those that are about to be kept.
    New(usize),
}

/// Compressing into memory does not fail.
fn unpacked(error: FrameError) -> StoreError {
    StoreError::Database(Box::new(error))
}

async fn is_kept(connection: &mut SqliteConnection, content: &[u8; 32]) -> Result<bool, StoreError> {
    let row = sqlx::query("SELECT 1 FROM digest_content WHERE hash = ?1")
        .bind(content.as_slice())
        .fetch_optional(connection)
        .await?;
    Ok(row.is_some())
}

/// Keeps a content, where it is not kept yet.
pub(super) async fn keep(
    connection: &mut SqliteConnection,
    content: &[u8; 32],
    layout: Option<Layout>,
) -> Result<(), StoreError> {
    let Some(layout) = layout else { return Ok(()) };
    if is_kept(connection, content).await? {
        return Ok(());
    }
    for chunk in layout.new {
        sqlx::query(
            "INSERT INTO digest_chunk (hash, sketch, frame) VALUES (?1, ?2, ?3) ON CONFLICT DO NOTHING",
        )
        .bind(chunk.hash.as_slice())
        .bind(chunk.sketch.as_bytes())
        .bind(chunk.frame)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query("INSERT INTO digest_content (hash, bytes, digest, runs) VALUES (?1, ?2, ?3, ?4)")
        .bind(content.as_slice())
        .bind(to_integer(u64::try_from(layout.bytes).unwrap_or(u64::MAX))?)
        .bind(layout.digest.as_slice())
        .bind(layout.runs)
        .execute(&mut *connection)
        .await?;
    for (position, hash) in (0i64..).zip(layout.parts) {
        let part = sqlx::query(
            "INSERT INTO digest_part (content, position, chunk) SELECT ?1, ?2, number FROM digest_chunk WHERE hash = ?3",
        )
        .bind(content.as_slice())
        .bind(position)
        .bind(hash.as_slice())
        .execute(&mut *connection)
        .await?;
        if part.rows_affected() != 1 {
            return Err(damaged_chunk(&hash, "it is not there".to_owned()));
        }
    }
    Ok(())
}

/// The text of a content.
pub(super) async fn text(
    connection: &mut SqliteConnection,
    content: &[u8; 32],
) -> Result<Option<Vec<u8>>, StoreError> {
    let row = sqlx::query("SELECT hash, bytes, digest, runs FROM digest_content WHERE hash = ?1")
        .bind(content.as_slice())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(None) };
    let columns = Columns::named_by_bytes(&row, "digest content", "hash");
    let digest = columns.bytes("digest")?;
    let assembly = Assembly::new(columns.number("bytes")?, columns.plain("runs")?);
    let mut assembly = assembly.map_err(|why| inconsistent(content, why))?;
    let mut expected = 0i64;
    loop {
        let rows = sqlx::query(
            "SELECT p.position, c.hash, c.frame FROM digest_part AS p LEFT JOIN digest_chunk AS c \
             ON c.number = p.chunk WHERE p.content = ?1 AND p.position >= ?2 ORDER BY p.position LIMIT ?3",
        )
        .bind(content.as_slice())
        .bind(expected)
        .bind(TOGETHER)
        .fetch_all(&mut *connection)
        .await?;
        for row in &rows {
            let columns = Columns::named_by_bytes(row, "digest chunk", "hash");
            let hash =
                columns.optional_bytes("hash")?.filter(|_| columns.plain("position").ok() == Some(expected));
            let hash =
                hash.ok_or_else(|| inconsistent(content, format!("its part {expected} is missing")))?;
            let bytes =
                chunks::open(&hash, columns.plain("frame")?).map_err(|why| damaged_chunk(&hash, why))?;
            assembly.put(hash, &bytes).map_err(|why| inconsistent(content, why))?;
            expected += 1;
        }
        if rows.is_empty() {
            break;
        }
    }
    assembly.finish(&digest).map(Some).map_err(|why| inconsistent(content, why))
}

/// What a version accepts, read and compiled. What was changed on disk does not have the content that it is named by.
pub(super) async fn compile(
    connection: &mut SqliteConnection,
    record: &DigestSetRecord,
) -> Result<Arc<DigestSet>, StoreError> {
    Ok(compiled(connection, &record.content).await?.0)
}

/// A content, read and compiled, with its text.
pub(super) async fn compiled(
    connection: &mut SqliteConnection,
    content: &[u8; 32],
) -> Result<(Arc<DigestSet>, Vec<u8>), StoreError> {
    let text = text(connection, content).await?;
    let text = text.ok_or_else(|| inconsistent(content, "it is not there".to_owned()))?;
    let digests = DigestSet::parse(&text).map_err(|error| inconsistent(content, error.to_string()))?;
    if digests.id() == content {
        Ok((Arc::new(digests), text))
    } else {
        Err(inconsistent(content, "it accepts something else than what it is named by".to_owned()))
    }
}

fn inconsistent(content: &[u8; 32], why: String) -> StoreError {
    StoreError::Inconsistent { what: "digest content", id: data_encoding::HEXLOWER.encode(content), why }
}

fn damaged_chunk(hash: &[u8; 32], why: String) -> StoreError {
    StoreError::Inconsistent { what: "digest chunk", id: data_encoding::HEXLOWER.encode(hash), why }
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

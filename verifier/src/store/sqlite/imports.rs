//! How old a document may be: not older than the last one with the same sets from the same signer and verifier.

use rootbound_common::clock::Timestamp;
use sqlx::SqliteConnection;

use super::columns::Columns;
use crate::node::Name;
use crate::reference::SetKind;
use crate::store::StoreError;
use crate::store::sets::DocumentFrom;

/// When the document was made that had this set last, where that was after this one; to the second, since some forms of
/// documents have no more.
pub(super) async fn newer(
    connection: &mut SqliteConnection,
    from: &DocumentFrom,
    kind: SetKind,
    name: &Name,
) -> Result<Option<Timestamp>, StoreError> {
    let row = sqlx::query(
        "SELECT name, made_at FROM imported_set WHERE signer = ?1 AND origin = ?2 AND kind = ?3 AND name = ?4",
    )
    .bind(from.signer.as_str())
    .bind(from.origin.as_str())
    .bind(kind.as_str())
    .bind(name.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let last = Columns::named_by_text(&row, "imported set", "name").time("made_at")?;
    let old = from.made_at.is_none_or(|made_at| made_at.as_seconds() < last.as_seconds());
    Ok(old.then_some(last))
}

/// Remembers when the document was made that had this set; what is remembered is never set back.
pub(super) async fn remember(
    connection: &mut SqliteConnection,
    from: &DocumentFrom,
    kind: SetKind,
    name: &Name,
) -> Result<(), StoreError> {
    let Some(made_at) = from.made_at else { return Ok(()) };
    sqlx::query(
        "INSERT INTO imported_set (signer, origin, kind, name, made_at) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT DO UPDATE SET made_at = max(made_at, excluded.made_at)",
    )
    .bind(from.signer.as_str())
    .bind(from.origin.as_str())
    .bind(kind.as_str())
    .bind(name.as_str())
    .bind(made_at.as_millis())
    .execute(connection)
    .await?;
    Ok(())
}

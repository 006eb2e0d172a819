//! Rows are parsed like packets: what no verb writes is a named inconsistency, never a guess.

use std::fmt::Display;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{Decode, Row as _, Sqlite, Type};

use crate::reference::Provenance;
use crate::store::StoreError;

/// The columns of one row, with what names the row when one of them is wrong.
pub(super) struct Columns<'r> {
    row: &'r SqliteRow,
    what: &'static str,
    id: String,
}

impl<'r> Columns<'r> {
    /// A row that is named by the bytes in `key`.
    pub(super) fn named_by_bytes(row: &'r SqliteRow, what: &'static str, key: &str) -> Self {
        let id = row.try_get::<&[u8], _>(key).map(|bytes| data_encoding::HEXLOWER.encode(bytes));
        Self { row, what, id: id.unwrap_or_default() }
    }

    /// A row that is named by the text in `key`.
    pub(super) fn named_by_text(row: &'r SqliteRow, what: &'static str, key: &str) -> Self {
        Self { row, what, id: row.try_get(key).unwrap_or_default() }
    }

    /// A row that is named by the number in `key`.
    pub(super) fn named_by_number(row: &'r SqliteRow, what: &'static str, key: &str) -> Self {
        let id = row.try_get::<i64, _>(key).map(|number| number.to_string());
        Self { row, what, id: id.unwrap_or_default() }
    }

    /// A row that is one version of a name.
    pub(super) fn named_by_version(row: &'r SqliteRow, what: &'static str) -> Self {
        let name: String = row.try_get("name").unwrap_or_default();
        let version: i64 = row.try_get("version").unwrap_or_default();
        Self { row, what, id: format!("{name}@{version}") }
    }

    /// The error that says why this row cannot be.
    pub(super) fn inconsistent(&self, why: impl Display) -> StoreError {
        StoreError::Inconsistent { what: self.what, id: self.id.clone(), why: why.to_string() }
    }

    fn wrong(&self, column: &str, why: impl Display) -> StoreError {
        self.inconsistent(format_args!("{column}: {why}"))
    }

    /// A column of a type that SQLite knows, or `Option` of one.
    pub(super) fn plain<T: Decode<'r, Sqlite> + Type<Sqlite>>(&self, column: &str) -> Result<T, StoreError> {
        self.row.try_get(column).map_err(|error| self.wrong(column, error))
    }

    /// Exactly `N` bytes.
    pub(super) fn bytes<const N: usize>(&self, column: &str) -> Result<[u8; N], StoreError> {
        let bytes: &[u8] = self.plain(column)?;
        self.sized(column, bytes)
    }

    /// Exactly `N` bytes, or NULL.
    pub(super) fn optional_bytes<const N: usize>(&self, column: &str) -> Result<Option<[u8; N]>, StoreError> {
        let bytes: Option<&[u8]> = self.plain(column)?;
        bytes.map(|bytes| self.sized(column, bytes)).transpose()
    }

    fn sized<const N: usize>(&self, column: &str, bytes: &[u8]) -> Result<[u8; N], StoreError> {
        bytes.try_into().map_err(|_| self.wrong(column, format_args!("{} bytes, not {N}", bytes.len())))
    }

    /// 0 or 1.
    pub(super) fn flag(&self, column: &str) -> Result<bool, StoreError> {
        match self.plain::<i64>(column)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(column, format_args!("{other}, neither 0 nor 1"))),
        }
    }

    /// A number that fits the type.
    pub(super) fn number<T: TryFrom<i64>>(&self, column: &str) -> Result<T, StoreError> {
        let number: i64 = self.plain(column)?;
        T::try_from(number).map_err(|_| self.wrong(column, format_args!("{number} is out of range")))
    }

    /// Milliseconds.
    pub(super) fn time(&self, column: &str) -> Result<Timestamp, StoreError> {
        self.plain(column).map(Timestamp::from_millis)
    }

    /// A node's id.
    pub(super) fn node(&self, column: &str) -> Result<NodeId, StoreError> {
        self.bytes(column).map(NodeId::from_bytes)
    }

    /// A node's id, or NULL.
    pub(super) fn optional_node(&self, column: &str) -> Result<Option<NodeId>, StoreError> {
        Ok(self.optional_bytes(column)?.map(NodeId::from_bytes))
    }

    /// JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, column: &str) -> Result<T, StoreError> {
        serde_json::from_str(self.plain(column)?).map_err(|error| self.wrong(column, error))
    }

    /// JSON, or NULL.
    pub(super) fn optional_json<T: DeserializeOwned>(&self, column: &str) -> Result<Option<T>, StoreError> {
        let text: Option<&str> = self.plain(column)?;
        text.map(serde_json::from_str).transpose().map_err(|error| self.wrong(column, error))
    }

    /// The three columns of a provenance.
    pub(super) fn provenance(&self) -> Result<Provenance, StoreError> {
        Ok(Provenance {
            author: self.plain("author")?,
            reason: self.plain("reason")?,
            created_at: self.time("created_at")?,
        })
    }
}

/// A value as JSON, for a column.
pub(super) fn to_json(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Database(Box::new(error)))
}

/// A count or revision, for a column.
pub(super) fn to_integer(number: u64) -> Result<i64, StoreError> {
    i64::try_from(number).map_err(|error| StoreError::Database(Box::new(error)))
}

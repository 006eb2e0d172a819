//! The SQLite back end: one file, for one verifier. One file here per subject, mirroring the traits.
//!
//! What is acknowledged is on disk: the log is flushed at every commit ([`writer`] says how that is paid for). Writes
//! go through one connection, in turn; reads go through a few others and see the last commit.

mod audit;
mod challenge;
mod chunks;
mod columns;
mod decision;
mod digest_set;
mod enrollment;
mod evidence;
mod fleet;
mod holds;
mod imports;
mod inventory;
mod join_token;
mod logs;
mod node;
mod open;
mod policy;
mod reference;
mod sets;
mod signals;
mod tokens;
mod writer;

use std::fmt;

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqliteConnection, SqlitePool, Transaction};

use self::writer::{Recorded, Work, Writer};
use super::{Store, StoreError};

pub use self::open::StoreOpenError;

/// The store in one SQLite file. Opened by [`Self::open`].
pub struct SqliteStore {
    writer: Writer,
    readers: SqlitePool,
}

#[async_trait]
impl Store for SqliteStore {
    async fn can_write(&self) -> Result<(), StoreError> {
        if !self.writer.is_failing() {
            return Ok(());
        }
        // The number that is there, which SQLite writes all the same: a page of the log.
        const UNCHANGED: &str = "PRAGMA user_version = 0";
        self.write(|connection| {
            Box::pin(async { Ok(sqlx::query(UNCHANGED).execute(connection).await.map(drop)?) })
        })
        .await
    }
}

impl SqliteStore {
    /// Does what was asked for so far, brings the log into the file, and closes it. Whoever asks later gets an error.
    /// Nothing that was acknowledged is lost without it.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    /// For a read of one statement.
    async fn reader(&self) -> Result<PoolConnection<Sqlite>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// For a read of several statements, which all see the same commit.
    async fn snapshot(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        Ok(self.readers.begin().await?)
    }

    async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, T> + Send + 'static,
    {
        self.writer
            .write(|connection| {
                let work = work(connection);
                Box::pin(async move { Ok(Recorded(work.await?, Vec::new())) })
            })
            .await
    }

    /// As [`Self::write`], for what the audit trail has to say something of: in the same transaction.
    async fn write_recorded<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, Recorded<T>> + Send + 'static,
    {
        self.writer.write(work).await
    }

    /// Deletes what is due by `sql`, which deletes at most [`SLICE`] rows (its second parameter), until nothing is:
    /// other writes get between the slices, and a slice that was done stays done.
    async fn forget(&self, sql: &'static str, due: Timestamp) -> Result<u64, StoreError> {
        self.forget_up_to(sql, due.as_millis()).await
    }

    /// As [`Self::forget`], where rows are due by something else than a time.
    async fn forget_up_to(&self, sql: &'static str, due: i64) -> Result<u64, StoreError> {
        let mut forgotten = 0;
        loop {
            let slice = self
                .write(move |connection| {
                    Box::pin(async move {
                        let query = sqlx::query(sql).bind(due).bind(i64::from(SLICE));
                        Ok(query.execute(connection).await?.rows_affected())
                    })
                })
                .await?;
            forgotten += slice;
            if slice < u64::from(SLICE) {
                return Ok(forgotten);
            }
        }
    }
}

/// Rows that one transaction forgets: some milliseconds of work.
const SLICE: u32 = 1000;

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").finish_non_exhaustive()
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(Box::new(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn pragma(connection: &mut SqliteConnection, name: &'static str) -> String {
        sqlx::query_scalar(name).fetch_one(connection).await.unwrap()
    }

    /// `synchronous` 2 is FULL: in WAL mode, only from there on is the log flushed at each commit.
    #[tokio::test]
    async fn every_commit_is_flushed_and_readers_only_read() {
        const PRAGMAS: &str = "SELECT (SELECT journal_mode FROM pragma_journal_mode) || ' ' \
            || (SELECT synchronous FROM pragma_synchronous) || ' ' \
            || (SELECT foreign_keys FROM pragma_foreign_keys) || ' ' \
            || (SELECT query_only FROM pragma_query_only)";
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("verifier.db")).await.unwrap();
        let writer = store.write(|connection| Box::pin(async move { Ok(pragma(connection, PRAGMAS).await) }));
        assert_eq!(writer.await.unwrap(), "wal 2 1 0");
        let mut reader = store.reader().await.unwrap();
        assert_eq!(pragma(&mut reader, PRAGMAS).await, "wal 2 1 1");
        assert!(sqlx::query("DELETE FROM decision").execute(&mut *reader).await.is_err());
    }
}

//! The SQLite back end: it passes the contract; what it does with files and rows that are not ours.

mod damage;
mod digest_texts;
mod files;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rootbound_verifier::store::{SqliteStore, Store};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions as _, SqliteConnection};
use tempfile::TempDir;

use crate::contract::{BackEnd, suite};

suite!(Sqlite);

/// A database in a folder of its own.
struct Sqlite {
    folder: TempDir,
    store: Arc<SqliteStore>,
}

impl Sqlite {
    async fn open(folder: TempDir) -> Self {
        let store = Arc::new(SqliteStore::open(&file(folder.path())).await.unwrap());
        Self { folder, store }
    }

    /// Runs statements on the file behind the store's back, where no check of the schema holds.
    async fn corrupt(&self, sql: &str) {
        let mut connection = raw(&file(self.folder.path())).await;
        let sql = sqlx::AssertSqlSafe(sql.to_owned());
        sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    }
}

impl BackEnd for Sqlite {
    async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap()).await
    }

    fn store(&self) -> Arc<dyn Store> {
        self.store.clone()
    }

    /// The files as they are at this moment, in another folder: what the page cache holds survives a kill. The log is
    /// copied last, since it only grows: the suite writes less than what SQLite brings into the database by itself.
    async fn after_a_kill(&self) -> Self {
        let copy = tempfile::tempdir().unwrap();
        for name in ["verifier.db", "verifier.db-wal"] {
            fs::copy(self.folder.path().join(name), copy.path().join(name)).unwrap();
        }
        Self::open(copy).await
    }
}

fn file(folder: &Path) -> PathBuf {
    folder.join("verifier.db")
}

/// A connection without the store, which writes what it likes.
async fn raw(path: &Path) -> SqliteConnection {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(false)
        .pragma("ignore_check_constraints", "ON")
        .connect()
        .await
        .unwrap()
}

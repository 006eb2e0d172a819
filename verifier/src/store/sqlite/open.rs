//! Opening the file: is it ours to open, and is its schema ours?

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migration, MigrationType};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _, SqlSafeStr as _, SqliteConnection};

use super::writer::Writer;
use super::{SqliteStore, audit};

/// Every migration, by rising version. One that was released is never edited: a database knows its checksum.
const MIGRATIONS: [(i64, &str, &str); 1] =
    [(1, "first", include_str!("../../../migrations/sqlite/0001_first.sql"))];

/// `Rtbd`: what `file` and other programs know our databases by (SQLite file format, 1.3.18).
const APPLICATION_ID: i64 = 0x5274_6264;

/// Readers: as many as there is something to gain from on a small machine.
const READERS: u32 = 4;

/// Another process (a backup, `sqlite3`) may hold the lock for as long.
const BUSY: Duration = Duration::from_secs(5);

/// A migration of a large database, by another process that opens it, may take as long.
const OPENING: Duration = Duration::from_secs(60);

/// How often we look whether the other is done.
const OPENING_POLL: Duration = Duration::from_millis(20);

/// Statements that a connection keeps prepared; there are fewer in this crate.
const STATEMENTS: usize = 96;

/// The log is cut back to this after a checkpoint: 64 MiB.
const LOG_SIZE: &str = "67108864";

/// Why a database is not opened.
#[derive(Debug, thiserror::Error)]
pub enum StoreOpenError {
    /// Its folder can neither be found nor made.
    #[error("folder `{path}` of the database: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file can neither be found nor made.
    #[error("database file `{path}`: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error(
        "database file `{path}` has mode {mode:03o}: it holds secrets, so that only its owner may have access; \
         chmod 600 it"
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Another process is opening a database of that folder and does not get done.
    #[error(
        "folder `{path}` of the database has been locked for {} s by another process that opens a database there; \
         look for a second `rootbound-verifier`",
        OPENING.as_secs()
    )]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// Something else's file.
    #[error(
        "`{path}` is not a database of the verifier (application id {found:#010x}); it was left as it is"
    )]
    OtherApplication {
        /// The file.
        path: PathBuf,
        /// The id in its header.
        found: i64,
    },
    /// A later release has written it.
    #[error(
        "database `{path}` is of a newer release: its schema is version {found}, this release knows {known}; \
         upgrade, or go back to a backup"
    )]
    NewerSchema {
        /// The file.
        path: PathBuf,
        /// The version of the database.
        found: i64,
        /// The newest that we know.
        known: i64,
    },
    /// The schema could not be brought up to date.
    #[error("schema of the database: {0}")]
    Schema(#[from] MigrateError),
    /// The end of the audit trail is not what was written.
    #[error(
        "the audit trail in `{path}` {why}: the file was changed by something else; keep it, and go back to a backup"
    )]
    Trail {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        why: String,
    },
    /// SQLite does not open it.
    #[error("database: {0}")]
    Database(#[from] sqlx::Error),
}

impl SqliteStore {
    /// Opens the database, or makes it, and brings its schema up to date.
    ///
    /// Established when this returns, in this order: the folder exists (one that is made here is its owner's alone) ·
    /// nobody but its owner has access to the file · it is a database of ours, or an empty one · its schema is of no
    /// newer release · every migration is applied, and those that were applied before are the ones that we know · the last
    /// segment of the audit trail and the last checkpoint are what was written.
    pub async fn open(path: &Path) -> Result<Self, StoreOpenError> {
        // Absolute, since SQLite gives a meaning of its own to `:memory:` and `file:…`.
        let path = std::path::absolute(path)
            .map_err(|source| StoreOpenError::File { path: path.to_owned(), source })?;
        let _opening = opening(&path).await?;
        make_file(&path)?;
        let options = options(&path);
        let mut connection = options.connect().await?;
        // Before anything is written, even the journal mode.
        check_owner(&mut connection, &path).await?;
        sqlx::query("PRAGMA journal_mode = WAL").execute(&mut connection).await?;
        migrate(&mut connection, &path).await?;
        let head = audit::checked_head(&mut connection).await;
        let head = head.map_err(|why| StoreOpenError::Trail { path: path.clone(), why: why.to_string() })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_lazy_with(options.pragma("query_only", "ON"));
        Ok(Self { writer: Writer::start(connection, head), readers })
    }
}

/// Of those that open a database, one at a time: SQLite does not wait for a lock when it enters WAL mode, it fails.
///
/// The lock is on the folder and goes with the returned handle. A handle of the file itself would not do: closing one
/// drops the locks that SQLite has on that file in this process (fcntl, POSIX.1-2017).
async fn opening(path: &Path) -> Result<File, StoreOpenError> {
    let folder = path.parent().unwrap_or(path);
    let error = |source| StoreOpenError::Folder { path: folder.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(error)?;
    let lock = File::open(folder).map_err(error)?;
    let waiting = async {
        loop {
            match lock.try_lock() {
                Ok(()) => return Ok(()),
                Err(TryLockError::WouldBlock) => tokio::time::sleep(OPENING_POLL).await,
                Err(TryLockError::Error(source)) => return Err(error(source)),
            }
        }
    };
    match tokio::time::timeout(OPENING, waiting).await {
        Ok(taken) => taken.map(|()| lock),
        Err(_) => Err(StoreOpenError::Locked { path: folder.to_owned() }),
    }
}

/// The file, empty where there is none. One that exists is not opened here, see [`opening`].
fn make_file(path: &Path) -> Result<(), StoreOpenError> {
    let error = |source| StoreOpenError::File { path: path.to_owned(), source };
    let folder = path.parent().unwrap_or(path);
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        // SQLite flushes the folder for its log, not for a file that exists already.
        Ok(_) => File::open(folder)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| StoreOpenError::Folder { path: folder.to_owned(), source })?,
        Err(exists) if exists.kind() == io::ErrorKind::AlreadyExists => {}
        Err(source) => return Err(error(source)),
    }
    let metadata = std::fs::metadata(path).map_err(error)?;
    if metadata.is_dir() {
        return Err(error(io::ErrorKind::IsADirectory.into()));
    }
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(StoreOpenError::Exposed { path: path.to_owned(), mode });
    }
    Ok(())
}

fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        // An acknowledged write survives a power cut: in WAL mode only FULL flushes the log at each commit.
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(BUSY)
        .statement_cache_capacity(STATEMENTS)
        .pragma("journal_size_limit", LOG_SIZE)
        .pragma("trusted_schema", "OFF")
        .thread_name(|id| format!("sqlite-{id}"))
        .disable_statement_logging()
}

async fn check_owner(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreOpenError> {
    let found: i64 = sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut *connection).await?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(connection).await?;
    if found == APPLICATION_ID || (found == 0 && tables == 0) {
        Ok(())
    } else {
        Err(StoreOpenError::OtherApplication { path: path.to_owned(), found })
    }
}

/// One transaction: of two processes that open a new file at once, the second finds it migrated.
async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), StoreOpenError> {
    const TABLE: &str = "_sqlx_migrations";
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    check_owner(&mut transaction, path).await?;
    transaction.ensure_migrations_table(TABLE).await?;
    let applied = transaction.list_applied_migrations(TABLE).await?;
    let known = MIGRATIONS.map(|(version, ..)| version).into_iter().max().unwrap_or_default();
    let found = applied.iter().map(|migration| migration.version).max().unwrap_or_default();
    if found > known {
        return Err(StoreOpenError::NewerSchema { path: path.to_owned(), found, known });
    }
    // A pragma takes no parameter; the number is APPLICATION_ID.
    sqlx::query("PRAGMA application_id = 0x52746264").execute(&mut *transaction).await?;
    for (version, name, sql) in MIGRATIONS {
        let migration =
            Migration::new(version, name.into(), MigrationType::Simple, sql.into_sql_str(), false);
        match applied.iter().find(|applied| applied.version == version) {
            Some(applied) if applied.checksum == migration.checksum => {}
            Some(_) => return Err(MigrateError::VersionMismatch(version).into()),
            None => drop(transaction.apply(TABLE, &migration).await?),
        }
    }
    transaction.commit().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_rise_by_one() {
        for (expected, (version, name, sql)) in (1..).zip(MIGRATIONS) {
            assert_eq!(version, expected, "{name}");
            assert!(!sql.is_empty());
        }
    }
}

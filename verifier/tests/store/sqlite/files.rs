//! Files: ours, new, foreign, of a later release, open to others.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rootbound_verifier::audit::verify::Walk;
use rootbound_verifier::store::{
    AuditStore as _, DecisionKind, DecisionStore as _, SqliteStore, StoreError, StoreOpenError,
};

use super::{BackEnd as _, Sqlite, file, raw};
use crate::fixtures::{at_once, codes, decision, record};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

async fn refusal(path: &Path) -> StoreOpenError {
    SqliteStore::open(path).await.unwrap_err()
}

async fn execute(path: &Path, sql: &'static str) {
    sqlx::raw_sql(sql).execute(&mut raw(path).await).await.unwrap();
}

async fn number(path: &Path, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(&mut raw(path).await).await.unwrap()
}

#[tokio::test]
async fn new_database_and_its_folder_are_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/er/verifier.db");
    let store = SqliteStore::open(&path).await.unwrap();
    store.record_decision(decision(None, DecisionKind::Operate, "first")).await.unwrap();
    for name in ["verifier.db", "verifier.db-wal", "verifier.db-shm"] {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
    assert_eq!(mode(&folder.path().join("deep/er")), 0o700);
    assert_eq!(mode(&folder.path().join("deep")), 0o700);
}

#[tokio::test]
async fn database_is_flushed_at_each_commit_and_known_by_its_application_id() {
    let sqlite = Sqlite::new().await;
    let path = file(sqlite.folder.path());
    assert_eq!(number(&path, "PRAGMA application_id").await, i64::from(u32::from_be_bytes(*b"Rtbd")));
    let journal: String =
        sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut raw(&path).await).await.unwrap();
    assert_eq!(journal, "wal");
}

#[tokio::test]
async fn closed_database_is_one_file_and_opens_again() {
    let sqlite = Sqlite::new().await;
    let path = file(sqlite.folder.path());
    sqlite.store.record_decision(decision(None, DecisionKind::Operate, "first")).await.unwrap();
    sqlite.store.close().await;
    let names: Vec<_> =
        fs::read_dir(sqlite.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["verifier.db"]);
    let closed = sqlite.store.record_decision(decision(None, DecisionKind::Operate, "late")).await;
    assert!(matches!(closed, Err(StoreError::Database(_))), "{closed:?}");
    assert!(sqlite.store.decisions(None, 1).await.is_err());
    sqlite.store.close().await;
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(codes(&again, None).await, ["first"]);
}

#[tokio::test]
async fn what_waits_is_still_done_when_the_store_is_closed() {
    let sqlite = Sqlite::new().await;
    let path = file(sqlite.folder.path());
    let written = at_once(33, |index| {
        let store = std::sync::Arc::clone(&sqlite.store);
        async move {
            if index == 32 {
                store.close().await;
                return false;
            }
            store.record_decision(decision(None, DecisionKind::Operate, "one")).await.is_ok()
        }
    })
    .await;
    let acknowledged = written.into_iter().filter(|done| *done).count();
    let again = SqliteStore::open(&path).await.unwrap();
    assert_eq!(codes(&again, None).await.len(), acknowledged);
}

#[tokio::test]
async fn new_database_that_is_opened_by_many_at_once_is_migrated_once() {
    let folder = tempfile::tempdir().unwrap();
    let stores = at_once(16, |_| {
        let path = file(folder.path());
        async move { SqliteStore::open(&path).await.unwrap() }
    })
    .await;
    for store in &stores {
        store.record_decision(decision(None, DecisionKind::Operate, "one")).await.unwrap();
    }
    assert_eq!(codes(&stores[0], None).await.len(), 16);
}

/// Each finds that the trail goes on behind where it left it.
#[tokio::test]
async fn records_that_two_append_in_turns_form_one_chain() {
    let sqlite = Sqlite::new().await;
    let other = SqliteStore::open(&file(sqlite.folder.path())).await.unwrap();
    for number in 0..6 {
        let store = if number % 2 == 0 { &*sqlite.store } else { &other };
        store.append(vec![record("one"), record("two")]).await.unwrap();
    }
    let mut walk = Walk::new(&[], None);
    for segment in other.segments(1, 100).await.unwrap() {
        walk.segment(&segment);
    }
    let verification = walk.end();
    assert!(verification.is_whole(), "{:?}", verification.damages);
    assert_eq!(verification.records, 12);
}

#[tokio::test(start_paused = true)]
async fn folder_that_another_opens_a_database_in_is_waited_for_and_then_refused() {
    let folder = tempfile::tempdir().unwrap();
    let other = fs::File::open(folder.path()).unwrap();
    other.lock().unwrap();
    let refusal = refusal(&file(folder.path())).await;
    assert!(matches!(refusal, StoreOpenError::Locked { .. }), "{refusal}");
    assert!(!file(folder.path()).exists());
    drop(other);
    tokio::time::resume();
    SqliteStore::open(&file(folder.path())).await.unwrap();
}

#[tokio::test]
async fn file_names_that_mean_something_to_sqlite_are_only_names() {
    let folder = tempfile::tempdir().unwrap();
    for name in [":memory:", "file:other.db?mode=memory", "a b%20#c.db"] {
        let path = folder.path().join(name);
        let store = SqliteStore::open(&path).await.unwrap();
        store.record_decision(decision(None, DecisionKind::Operate, "one")).await.unwrap();
        store.close().await;
        assert!(fs::metadata(&path).unwrap().len() > 0, "{name}");
    }
}

#[tokio::test]
async fn file_that_others_may_touch_is_refused() {
    for exposed in [0o640, 0o604, 0o660, 0o610] {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        SqliteStore::open(&path).await.unwrap().close().await;
        fs::set_permissions(&path, fs::Permissions::from_mode(exposed)).unwrap();
        let refusal = refusal(&path).await;
        assert!(matches!(refusal, StoreOpenError::Exposed { mode, .. } if mode == exposed), "{refusal}");
        assert!(refusal.to_string().contains("chmod 600"), "{refusal}");
    }
}

/// A database of some other program, in the mode that SQLite has by default.
async fn foreign(path: &Path, sql: &'static str) -> Vec<u8> {
    fs::write(path, []).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    execute(path, sql).await;
    fs::read(path).unwrap()
}

#[tokio::test]
async fn another_programs_database_is_refused_and_left_as_it_is() {
    for (sql, id) in [
        ("CREATE TABLE contacts (name TEXT)", 0),
        ("PRAGMA application_id = 252006675; CREATE TABLE contacts (name TEXT)", 252_006_675),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = file(folder.path());
        let before = foreign(&path, sql).await;
        let refusal = refusal(&path).await;
        assert!(
            matches!(refusal, StoreOpenError::OtherApplication { found, .. } if found == id),
            "{refusal}"
        );
        assert!(fs::read(&path).unwrap() == before, "it was changed");
    }
}

#[tokio::test]
async fn file_that_is_no_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let path = file(folder.path());
    let text = "not a database, by far: ".repeat(100);
    fs::write(&path, &text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let refusal = refusal(&path).await;
    assert!(matches!(refusal, StoreOpenError::Database(_)), "{refusal}");
    assert!(refusal.to_string().contains("not a database"), "{refusal}");
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn schema_of_a_newer_release_is_refused_with_both_versions() {
    let sqlite = Sqlite::new().await;
    let path = file(sqlite.folder.path());
    sqlite.store.close().await;
    execute(
        &path,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
         VALUES (900, 'later', TRUE, x'00', 0)",
    )
    .await;
    let refusal = refusal(&path).await;
    assert!(matches!(refusal, StoreOpenError::NewerSchema { found: 900, known: 1, .. }), "{refusal}");
    assert!(refusal.to_string().contains("newer release"), "{refusal}");
}

#[tokio::test]
async fn schema_that_was_made_by_another_migration_is_refused() {
    let sqlite = Sqlite::new().await;
    let path = file(sqlite.folder.path());
    sqlite.store.close().await;
    execute(&path, "UPDATE _sqlx_migrations SET checksum = x'00'").await;
    let refusal = refusal(&path).await;
    assert!(matches!(refusal, StoreOpenError::Schema(_)), "{refusal}");
}

#[tokio::test]
async fn paths_that_cannot_be_are_refused_for_their_reason() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let refused = refusal(&folder.path().join("file/verifier.db")).await;
    assert!(matches!(refused, StoreOpenError::Folder { .. }), "{refused}");
    fs::create_dir(folder.path().join("verifier.db")).unwrap();
    let refused = refusal(&file(folder.path())).await;
    assert!(matches!(refused, StoreOpenError::File { .. }), "{refused}");
}

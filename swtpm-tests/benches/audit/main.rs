//! How many records the audit trail takes in a second, and how long whoever waits for one waits, beside a loop of bare
//! commits by SQLite to the same disk.
//!
//! `scripts/bench audit` runs this and prints the table.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rootbound_common::clock::{Clock as _, SystemClock};
use rootbound_common::id::NodeId;
use rootbound_common::random;
use rootbound_swtpm_tests::measured::Row;
use rootbound_verifier::audit::verify::Walk;
use rootbound_verifier::audit::{Actor, AuditRecord, Entity, Facts, Outcome, RecordId, RecordKind};
use rootbound_verifier::store::{AuditStore as _, SqliteStore};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::task::JoinSet;

/// As many as wait at once on a busy verifier of two cores.
const CALLERS: usize = 64;
const TARGET: f64 = 20_000.0;

#[tokio::main]
async fn main() {
    // Without `--bench` everything runs for a moment, to see that it does.
    let measuring = std::env::args().any(|argument| argument == "--bench");
    let lasts = Duration::from_millis(if measuring { 4000 } else { 50 });
    let folder = tempfile::tempdir().expect("a folder");
    let commits = bare_commits(folder.path(), lasts).await;
    let commit = percentile(&commits, 50);
    let name = "audit trail, one record each";
    for (name, callers, records) in [
        (format!("{name}, {CALLERS} callers"), CALLERS, 1),
        (format!("{name}, 1 caller"), 1, 1),
        (format!("audit trail, 50 records each, {CALLERS} callers"), CALLERS, 50),
    ] {
        let (waits, taken) = appended(callers, records, lasts).await;
        let per_second = rate(waits.len() * records, taken);
        let p50 = percentile(&waits, 50);
        let row = Row::rate(name, per_second, p50, percentile(&waits, 99));
        let ratio = p50.as_secs_f64() / commit.as_secs_f64();
        let row = row.against("a bare commit of SQLite", commit, ratio);
        let row = if callers == 1 { row } else { row.rate_at_least(per_second, TARGET) };
        if measuring {
            row.publish();
        }
    }
}

/// How long each commit of one row takes, of the length that a segment of so many callers has.
async fn bare_commits(folder: &Path, lasts: Duration) -> Vec<Duration> {
    let mut connection = SqliteConnectOptions::new()
        .filename(folder.join("bare.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .connect()
        .await
        .expect("a database");
    let table = "CREATE TABLE bare (id INTEGER PRIMARY KEY, body BLOB NOT NULL) STRICT";
    sqlx::query(table).execute(&mut connection).await.expect("a table");
    let body = vec![7; CALLERS * 100];
    let (begun, mut commits) = (Instant::now(), Vec::new());
    while begun.elapsed() < lasts {
        let start = Instant::now();
        let insert = sqlx::query("INSERT INTO bare (body) VALUES (?1)").bind(&body);
        insert.execute(&mut connection).await.expect("a commit");
        commits.push(start.elapsed());
    }
    connection.close().await.expect("an end");
    commits
}

/// How long each append waits, and how long all of them take.
async fn appended(callers: usize, records: usize, lasts: Duration) -> (Vec<Duration>, Duration) {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Arc::new(SqliteStore::open(&folder.path().join("verifier.db")).await.expect("a store"));
    let begun = Instant::now();
    let tasks: JoinSet<Vec<Duration>> = (0..callers)
        .map(|_| {
            let store = Arc::clone(&store);
            async move {
                let mut waits = Vec::new();
                while begun.elapsed() < lasts {
                    let records = (0..records).map(|_| record()).collect();
                    let start = Instant::now();
                    store.append(records).await.expect("an append");
                    waits.push(start.elapsed());
                }
                waits
            }
        })
        .collect();
    let waits = tasks.join_all().await.concat();
    let taken = begun.elapsed();
    whole(&store, waits.len() * records).await;
    store.close().await;
    (waits, taken)
}

/// Fast and wrong would be worth nothing.
async fn whole(store: &SqliteStore, records: usize) {
    let (mut walk, mut from) = (Walk::new(&[], None), 1);
    loop {
        let page = store.segments(from, 1000).await.expect("segments");
        let Some(last) = page.last() else { break };
        from = last.head().sequence + 1;
        page.iter().for_each(|segment| walk.segment(segment));
    }
    let verification = walk.end();
    assert!(verification.is_whole(), "{:?}", verification.damages);
    assert_eq!(usize::try_from(verification.records).ok(), Some(records));
}

/// As long as that of a decision usually is.
fn record() -> AuditRecord {
    let id = RecordId::new(SystemClock.now(), &mut random::system());
    let node = NodeId::from_bytes([7; 32]);
    let actor = Actor::RelyingParty("gateway".into());
    let facts = serde_json::json!({ "policies": ["permit-read"], "posture": "affirming", "age_s": 12 });
    AuditRecord::new(id, RecordKind::Decision, "read", actor, Outcome::Granted, "permitted")
        .about(Entity::node(node))
        .by("site@7")
        .of_inputs([9; 32])
        .with(Facts::or_digest(facts))
}

fn percentile(times: &[Duration], percent: usize) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

#[expect(clippy::cast_precision_loss, reason = "no bench appends 2^52 records")]
fn rate(records: usize, taken: Duration) -> f64 {
    records as f64 / taken.as_secs_f64()
}

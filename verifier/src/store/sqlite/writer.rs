//! The one connection that writes, and group commit.
//!
//! A commit waits for the disk, and the disk does not care how much it is given. So what was asked for while one commit
//! was under way is done in the next one, together: each member inside a savepoint of its own, so that one that fails
//! takes back only itself, and each caller is answered after the commit, never before.
//!
//! What the members have to record goes into the audit trail in the same transaction, as one segment behind the head of the
//! chain. The head in memory is that of the last commit; after one that failed it is read from the disk again. Where to record is
//! all that a group does, the one statement that writes the segment is the transaction.

use std::fmt;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::audit;
use crate::audit::{AuditRecord, Encoded, Head};
use crate::store::StoreError;

/// What a write returns, and what the audit trail says of it.
pub(super) struct Recorded<T>(pub(super) T, pub(super) Vec<AuditRecord>);

impl Recorded<bool> {
    /// Of a statement that changes rows or does not; what changes nothing is not recorded.
    pub(super) fn if_changed(rows: u64, record: AuditRecord) -> Self {
        let changed = rows > 0;
        Self(changed, changed.then_some(record).into_iter().collect())
    }
}

/// What one write does on the connection, inside a transaction that is open already.
pub(super) type Work<'c, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'c>>;

/// Members of one commit: enough that the disk no longer limits, few enough that the first does not wait long.
const GROUP: usize = 128;

/// Records of decisions that one commit takes besides: some 20 ms of work, for which evidence may have to wait.
const GROUP_RECORDS: usize = 4096;

/// Writes that wait; who comes later is told to come again.
const QUEUE: usize = 1024;

/// Places that decisions leave to everything else: attestation, signals and operators go on while services ask too much.
const NOT_FOR_DECISIONS: usize = QUEUE / 2;

/// The way to the writing connection. Ends when it is dropped or [closed](Self::close); what waits then is still done.
pub(super) struct Writer {
    jobs: mpsc::Sender<Request>,
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
    /// Whether the last commit failed.
    failing: Arc<AtomicBool>,
}

impl Writer {
    /// Starts a task that owns the connection. `head` is how far the audit trail goes in its database.
    pub(super) fn start(connection: SqliteConnection, head: Head) -> Self {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let stop = CancellationToken::new();
        let failing = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(run(connection, head, queue, stop.clone(), Arc::clone(&failing)));
        Self { jobs, stop, task: Mutex::new(Some(task)), failing }
    }

    /// Whether the last commit failed, or there is nobody to make one.
    pub(super) fn is_failing(&self) -> bool {
        self.jobs.is_closed() || self.failing.load(Ordering::Relaxed)
    }

    /// Does `work` in a transaction, and returns once it is on disk, with what it has to record. Where it returns an error,
    /// nothing was written. A caller that goes away does not stop it.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, Recorded<T>> + Send + 'static,
    {
        let (caller, answer) = oneshot::channel();
        let member = Member { work: Some(work), outcome: None, caller };
        self.ask(Request::Work(Box::new(member)))?;
        answer.await.map_err(|_| closed())?
    }

    /// Records what changes nothing else, and returns once it is on disk. [`NOT_FOR_DECISIONS`] places are not for it.
    pub(super) async fn append(&self, records: Vec<Encoded>) -> Result<(), StoreError> {
        if self.jobs.capacity() <= NOT_FOR_DECISIONS {
            return Err(if self.jobs.is_closed() { closed() } else { StoreError::Overloaded });
        }
        let (caller, answer) = oneshot::channel();
        self.ask(Request::Append(records, caller))?;
        answer.await.map_err(|_| closed())?
    }

    /// A caller does not wait for a place: what it was asked for would only get older.
    fn ask(&self, request: Request) -> Result<(), StoreError> {
        self.jobs.try_send(request).map_err(|error| match error {
            TrySendError::Full(_) => StoreError::Overloaded,
            TrySendError::Closed(_) => closed(),
        })
    }

    /// Does what waits, then closes the connection. Later writes fail.
    pub(super) async fn close(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::error!(%error, "the store's writer did not end well");
        }
    }
}

async fn run(
    mut connection: SqliteConnection,
    head: Head,
    mut queue: mpsc::Receiver<Request>,
    stop: CancellationToken,
    failing: Arc<AtomicBool>,
) {
    let mut group = Vec::with_capacity(GROUP);
    let mut head = Some(head);
    loop {
        tokio::select! {
            () = stop.cancelled(), if !queue.is_closed() => queue.close(),
            first = queue.recv() => {
                let Some(first) = first else { break };
                // Whoever can ask at this moment does: one commit for many costs little more than one for one.
                tokio::task::yield_now().await;
                gather(first, &mut queue, &mut group);
                let committed = commit_together(&mut connection, head.take(), &mut group).await;
                failing.store(committed.is_err(), Ordering::Relaxed);
                let failure = match committed {
                    Ok(now) => {
                        head = Some(now);
                        None
                    }
                    Err(error) => Some(GroupFailed(Arc::new(error))),
                };
                for member in group.drain(..) {
                    member.answer(failure.clone());
                }
            }
        }
    }
    // The last connection to close brings the log into the database file and removes it.
    if let Err(error) = connection.close().await {
        tracing::error!(%error, "the store's database did not close well; its log is read when it is opened next");
    }
}

/// What one commit takes of what waits.
fn gather(first: Request, queue: &mut mpsc::Receiver<Request>, group: &mut Vec<Request>) {
    let mut records = first.records();
    group.push(first);
    while group.len() < GROUP
        && records < GROUP_RECORDS
        && let Ok(next) = queue.try_recv()
    {
        records = records.saturating_add(next.records());
        group.push(next);
    }
}

async fn commit_together(
    connection: &mut SqliteConnection,
    head: Option<Head>,
    group: &mut [Request],
) -> Result<Head, StoreError> {
    let outcome = transact(connection, head, group).await;
    if outcome.is_err() {
        // Fails where SQLite rolled back by itself (disk full, input/output error): then there is nothing left to do.
        drop(execute(connection, "ROLLBACK").await);
    }
    outcome
}

/// Returns how far the trail goes now.
async fn transact(
    connection: &mut SqliteConnection,
    head: Option<Head>,
    group: &mut [Request],
) -> Result<Head, StoreError> {
    if let Some(head) = head
        && let Some(records) = few_records_alone(group)
        && let [segment] = head.extend(records).as_slice()
        && audit::insert(connection, segment).await?
    {
        // One statement is a transaction of its own.
        return Ok(segment.head());
    }
    transact_in_steps(connection, head, group).await
}

/// What a group has to record, where that is all it does and a segment has room for it.
fn few_records_alone(group: &[Request]) -> Option<Vec<&Encoded>> {
    /// More than one statement costs little beside.
    const FEW: usize = 2 * GROUP;
    let mut all = Vec::new();
    for member in group {
        match member {
            Request::Append(records, _) => all.extend(records),
            Request::Work(_) => return None,
        }
        if all.len() > FEW {
            return None;
        }
    }
    Some(all)
}

/// Each step ends what the member before it did, and opens the next; one that was taken back leaves its savepoint open.
async fn transact_in_steps(
    connection: &mut SqliteConnection,
    head: Option<Head>,
    group: &mut [Request],
) -> Result<Head, StoreError> {
    let mut records = Vec::new();
    let (mut step, mut last) = ("BEGIN IMMEDIATE; SAVEPOINT member", "BEGIN IMMEDIATE");
    for member in group {
        match member {
            Request::Append(appended, _) => records.append(appended),
            Request::Work(member) => {
                execute(connection, step).await?;
                (step, last) = if let Some(recorded) = member.run(connection).await {
                    records.extend(recorded);
                    ("RELEASE member; SAVEPOINT member", "RELEASE member")
                } else {
                    ("ROLLBACK TO member", "ROLLBACK TO member; RELEASE member")
                };
            }
        }
    }
    execute(connection, last).await?;
    let mut head = match head {
        Some(head) => head,
        None => audit::head(connection).await?,
    };
    if !put(connection, &mut head, &records).await? {
        // Somebody else has written to the file since: the trail goes on from there.
        head = audit::head(connection).await?;
        if !put(connection, &mut head, &records).await? {
            return Err(StoreError::Database(
                "the audit trail does not end where its last segment ends".into(),
            ));
        }
    }
    execute(connection, "COMMIT").await?;
    Ok(head)
}

/// Puts records behind a head, which moves; `false`: the trail does not end there.
async fn put(
    connection: &mut SqliteConnection,
    head: &mut Head,
    records: &[Encoded],
) -> Result<bool, StoreError> {
    for segment in head.extend(records) {
        if !audit::insert(connection, &segment).await? {
            return Ok(false);
        }
        *head = segment.head();
    }
    Ok(true)
}

async fn execute(connection: &mut SqliteConnection, sql: &'static str) -> Result<(), sqlx::Error> {
    sqlx::query(sql).execute(connection).await.map(drop)
}

/// A member of a group.
enum Request {
    Work(Box<dyn Job>),
    /// Only records: nothing of it can fail by itself, so that it needs no savepoint.
    Append(Vec<Encoded>, oneshot::Sender<Result<(), StoreError>>),
}

impl Request {
    /// Records that it is known to bring; those of [`Self::Work`] are few.
    fn records(&self) -> usize {
        match self {
            Self::Work(_) => 1,
            Self::Append(records, _) => records.len(),
        }
    }

    /// Tells the caller, once it is known whether the group was committed.
    fn answer(self, failure: Option<GroupFailed>) {
        match self {
            Self::Work(job) => job.answer(failure),
            // A caller that has gone away is not told.
            Self::Append(_, caller) => {
                drop(caller.send(failure.map_or(Ok(()), |failure| Err(failure.into()))))
            }
        }
    }
}

/// A write whose result type is forgotten.
#[async_trait]
trait Job: Send {
    /// Does the work; what it has to record, where what it wrote is to stay.
    async fn run(&mut self, connection: &mut SqliteConnection) -> Option<Vec<Encoded>>;

    /// Tells the caller, once it is known whether the group was committed.
    fn answer(self: Box<Self>, failure: Option<GroupFailed>);
}

struct Member<T, F> {
    work: Option<F>,
    outcome: Option<Result<T, StoreError>>,
    caller: oneshot::Sender<Result<T, StoreError>>,
}

#[async_trait]
impl<T, F> Job for Member<T, F>
where
    T: Send,
    F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, Recorded<T>> + Send,
{
    async fn run(&mut self, connection: &mut SqliteConnection) -> Option<Vec<Encoded>> {
        let work = self.work.take()?;
        match work(connection).await {
            Ok(Recorded(value, records)) => {
                self.outcome = Some(Ok(value));
                Some(records.into_iter().map(AuditRecord::encode).collect())
            }
            Err(error) => {
                self.outcome = Some(Err(error));
                None
            }
        }
    }

    fn answer(self: Box<Self>, failure: Option<GroupFailed>) {
        let outcome = match (self.outcome, failure) {
            // Its own reason says more than that of the group.
            (Some(Err(error)), _) => Err(error),
            (Some(Ok(_)) | None, Some(failure)) => Err(failure.into()),
            (Some(outcome), None) => outcome,
            (None, None) => Err(closed()),
        };
        // A caller that has gone away is not told.
        drop(self.caller.send(outcome));
    }
}

/// A commit that failed for all of its members.
#[derive(Debug, Clone)]
struct GroupFailed(Arc<StoreError>);

impl fmt::Display for GroupFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the transaction failed: {}", self.0)
    }
}

impl std::error::Error for GroupFailed {}

impl From<GroupFailed> for StoreError {
    fn from(failure: GroupFailed) -> Self {
        Self::Database(Box::new(failure))
    }
}

fn closed() -> StoreError {
    StoreError::Database("the store is closed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::verify::Walk;
    use crate::audit::{Actor, Outcome, RecordId, RecordKind};
    use rootbound_common::clock::Timestamp;
    use sqlx::ConnectOptions as _;
    use sqlx::sqlite::SqliteConnectOptions;
    use tempfile::TempDir;

    async fn writer() -> (TempDir, Writer) {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new().filename(folder.path().join("db")).create_if_missing(true);
        let mut connection = options.connect().await.unwrap();
        let schema = include_str!("../../../migrations/sqlite/0001_first.sql");
        sqlx::raw_sql(schema).execute(&mut connection).await.unwrap();
        execute(&mut connection, "CREATE TABLE word (word TEXT PRIMARY KEY) STRICT").await.unwrap();
        (folder, Writer::start(connection, Head::default()))
    }

    async fn words(writer: &Writer) -> Vec<String> {
        let all = writer.write(|connection| {
            Box::pin(async move {
                let words =
                    sqlx::query_scalar("SELECT word FROM word ORDER BY word").fetch_all(connection).await?;
                Ok(Recorded(words, Vec::new()))
            })
        });
        all.await.unwrap()
    }

    /// Runs each statement as a member of one group, in turn; a member that is named in `failing` then returns an error.
    async fn in_one_group(writer: &Writer, statements: &[&'static str], failing: &[usize]) -> Vec<bool> {
        let (busy, is_busy) = oneshot::channel();
        let (go, may_go) = oneshot::channel::<()>();
        let first = writer.write(move |_| {
            Box::pin(async move {
                busy.send(()).unwrap();
                may_go.await.unwrap();
                Ok(Recorded((), Vec::new()))
            })
        });
        let rest = async {
            is_busy.await.unwrap();
            let mut answers = Vec::new();
            for (index, statement) in statements.iter().enumerate() {
                let (caller, answer) = oneshot::channel();
                let (statement, fails) = (*statement, failing.contains(&index));
                let member = member(caller, move |connection| {
                    Box::pin(async move {
                        execute(connection, statement).await?;
                        if fails {
                            Err(StoreError::Database("own reason".into()))
                        } else {
                            Ok(Recorded((), Vec::new()))
                        }
                    })
                });
                writer.ask(member).unwrap();
                answers.push(answer);
            }
            go.send(()).unwrap();
            let mut done = Vec::new();
            for answer in answers {
                done.push(answer.await.unwrap().is_ok());
            }
            done
        };
        tokio::join!(first, rest).1
    }

    fn member<F>(caller: oneshot::Sender<Result<(), StoreError>>, work: F) -> Request
    where
        F: for<'c> FnOnce(&'c mut SqliteConnection) -> Work<'c, Recorded<()>> + Send + 'static,
    {
        Request::Work(Box::new(Member { work: Some(work), outcome: None, caller }))
    }

    const INSERTS: [&str; 4] = [
        "INSERT INTO word VALUES ('a')",
        "INSERT INTO word VALUES ('b')",
        "INSERT INTO word VALUES ('c')",
        "INSERT INTO word VALUES ('d')",
    ];

    #[tokio::test]
    async fn member_that_fails_takes_back_only_itself() {
        for (failing, kept) in [
            (&[][..], &["a", "b", "c", "d"][..]),
            (&[0], &["b", "c", "d"]),
            (&[1, 2], &["a", "d"]),
            (&[3], &["a", "b", "c"]),
            (&[0, 1, 2, 3], &[]),
        ] {
            let (_folder, writer) = writer().await;
            let done = in_one_group(&writer, &INSERTS, failing).await;
            let expected: Vec<_> = (0..4).map(|index| !failing.contains(&index)).collect();
            assert_eq!(done, expected);
            assert_eq!(words(&writer).await, kept);
        }
    }

    #[tokio::test]
    async fn member_whose_statement_fails_takes_back_only_itself() {
        let (_folder, writer) = writer().await;
        let statements = [INSERTS[0], "INSERT INTO word VALUES ('b'), ('a')", INSERTS[2]];
        assert_eq!(in_one_group(&writer, &statements, &[]).await, [true, false, true]);
        assert_eq!(words(&writer).await, ["a", "c"]);
    }

    /// What SQLite does by itself when the disk is full.
    #[tokio::test]
    async fn group_whose_transaction_is_gone_is_acknowledged_to_nobody() {
        for gone in 0..3 {
            let (_folder, writer) = writer().await;
            let mut statements = [INSERTS[0], INSERTS[1], INSERTS[2]];
            statements[gone] = "ROLLBACK";
            assert_eq!(in_one_group(&writer, &statements, &[gone]).await, [false; 3]);
            assert!(words(&writer).await.is_empty());
            assert_eq!(in_one_group(&writer, &INSERTS, &[]).await, [true; 4]);
            assert_eq!(words(&writer).await.len(), 4);
        }
    }

    #[tokio::test]
    async fn of_a_group_on_a_full_disk_what_is_acknowledged_is_there() {
        let (_folder, writer) = writer().await;
        let large = "INSERT INTO word VALUES ('b' || hex(zeroblob(1000000)))";
        assert_eq!(in_one_group(&writer, &["PRAGMA max_page_count = 20"], &[]).await, [true]);
        let done = in_one_group(&writer, &[INSERTS[0], large, INSERTS[2]], &[]).await;
        assert!(!done[1]);
        assert_eq!(writer.is_failing(), !done[0], "a member's own failure is not the disk's");
        let words = words(&writer).await;
        assert_eq!([words.contains(&"a".to_owned()), words.contains(&"c".to_owned())], [done[0], done[2]]);
        assert_eq!(in_one_group(&writer, &["PRAGMA max_page_count = 2000", large], &[]).await, [true, true]);
        assert!(!writer.is_failing(), "there is room again");
        writer.close().await;
        assert!(writer.is_failing(), "there is nobody to write");
    }

    #[tokio::test]
    async fn write_of_a_caller_that_went_away_is_done_all_the_same() {
        let (_folder, writer) = writer().await;
        let write = writer.write(|connection| {
            Box::pin(async move {
                tokio::task::yield_now().await;
                execute(connection, INSERTS[0]).await?;
                Ok(Recorded((), Vec::new()))
            })
        });
        let mut write = Box::pin(write);
        assert!(
            std::future::poll_fn(|context| std::task::Poll::Ready(write.as_mut().poll(context).is_pending()))
                .await
        );
        drop(write);
        assert_eq!(words(&writer).await, ["a"]);
    }

    fn record(code: &str) -> AuditRecord {
        let (id, actor) = (RecordId::of(Timestamp::from_millis(1), [0; 10]), Actor::Verifier);
        AuditRecord::new(id, RecordKind::Start, "start", actor, Outcome::Done, code)
    }

    /// The codes of the trail, each with its number, and that it is one chain.
    async fn trail(writer: &Writer) -> Vec<String> {
        let segments = writer.write(|connection| {
            Box::pin(async move {
                let last = audit::head(&mut *connection).await?;
                let mut segments = Vec::new();
                let mut next = 1;
                while next <= last.sequence {
                    let segment = audit::segment_of(&mut *connection, next).await?.unwrap();
                    next = segment.head().sequence + 1;
                    segments.push(segment);
                }
                Ok(Recorded(segments, Vec::new()))
            })
        });
        let (mut walk, mut codes) = (Walk::new(&[], None), Vec::new());
        for segment in segments.await.unwrap() {
            walk.segment(&segment);
            codes.extend(segment.records().map(|record| {
                let record = record.unwrap();
                format!("{}{}", record.sequence, record.record.code)
            }));
        }
        let verification = walk.end();
        assert!(verification.is_whole(), "{:?}", verification.damages);
        codes
    }

    /// Inserts a word, with a record of it; then fails or does not.
    async fn insert(writer: &Writer, statement: &'static str, fails: bool) -> Result<(), StoreError> {
        writer
            .write(move |connection| {
                Box::pin(async move {
                    execute(connection, statement).await?;
                    let recorded = Recorded((), vec![record("insert")]);
                    if fails { Err(StoreError::Database("own reason".into())) } else { Ok(recorded) }
                })
            })
            .await
    }

    #[tokio::test]
    async fn what_a_member_records_is_in_the_trail_where_the_member_stays() {
        let (_folder, writer) = writer().await;
        let (a, b, c, d) = tokio::join!(
            insert(&writer, INSERTS[0], false),
            writer.append(vec![record("append").encode()]),
            insert(&writer, INSERTS[1], true),
            insert(&writer, INSERTS[2], false),
        );
        assert!(a.is_ok() && b.is_ok() && c.is_err() && d.is_ok());
        assert_eq!(words(&writer).await, ["a", "c"]);
        assert_eq!(trail(&writer).await.len(), 3);
    }

    #[tokio::test]
    async fn after_a_commit_that_failed_the_trail_goes_on_from_the_disk() {
        let (_folder, writer) = writer().await;
        writer.append(vec![record("a").encode()]).await.unwrap();
        // What SQLite does by itself when the disk is full: the records of this group are nowhere.
        insert(&writer, "ROLLBACK", false).await.unwrap_err();
        assert!(writer.is_failing());
        writer.append(vec![record("b").encode()]).await.unwrap();
        assert!(!writer.is_failing());
        assert_eq!(trail(&writer).await, ["1a", "2b"]);
    }

    #[tokio::test]
    async fn where_the_trail_has_no_room_nothing_is_written_and_it_goes_on_once_there_is() {
        let (_folder, writer) = writer().await;
        assert_eq!(in_one_group(&writer, &["PRAGMA max_page_count = 1"], &[]).await, [true]);
        // SQLite keeps what there is; a segment of its own page does not fit any more.
        let large: Vec<_> = (0..2000u16)
            .map(|index| record("large").because(&format!("{:x?}", index.to_be_bytes().repeat(200))).encode())
            .collect();
        let (appended, inserted) =
            tokio::join!(writer.append(large.clone()), insert(&writer, INSERTS[0], false));
        assert!(appended.is_err() && inserted.is_err(), "one transaction");
        assert!(words(&writer).await.is_empty());
        assert_eq!(in_one_group(&writer, &["PRAGMA max_page_count = 20000"], &[]).await, [true]);
        writer.append(large).await.unwrap();
        insert(&writer, INSERTS[0], false).await.unwrap();
        assert_eq!(trail(&writer).await.len(), 2001);
    }

    #[tokio::test]
    async fn who_comes_when_too_many_wait_is_told_so() {
        let (_folder, writer) = writer().await;
        let (busy, is_busy) = oneshot::channel();
        let (go, may_go) = oneshot::channel::<()>();
        let first = writer.write(move |_| {
            Box::pin(async move {
                busy.send(()).unwrap();
                may_go.await.unwrap();
                Ok(Recorded((), Vec::new()))
            })
        });
        let rest = async {
            is_busy.await.unwrap();
            let mut waiting = Vec::new();
            let mut wait = |places| {
                for _ in 0..places {
                    let (caller, answer) = oneshot::channel();
                    writer.ask(Request::Append(vec![record("waits").encode()], caller)).unwrap();
                    waiting.push(answer);
                }
            };
            // Decisions are told before anybody else is.
            wait(QUEUE - NOT_FOR_DECISIONS);
            let refused = writer.append(vec![record("late").encode()]).await;
            assert!(matches!(refused, Err(StoreError::Overloaded)), "{refused:?}");
            wait(NOT_FOR_DECISIONS);
            let refused = insert(&writer, INSERTS[0], false).await;
            assert!(matches!(refused, Err(StoreError::Overloaded)), "{refused:?}");
            go.send(()).unwrap();
            for answer in waiting {
                answer.await.unwrap().unwrap();
            }
        };
        tokio::join!(first, rest).0.unwrap();
        assert_eq!(trail(&writer).await.len(), QUEUE);
    }

    /// One commit takes what waits up to so many records, and the rest comes in the next.
    #[tokio::test]
    async fn commit_of_many_records_leaves_the_rest_to_the_next() {
        let (jobs, mut queue) = mpsc::channel(QUEUE);
        let many = |count: usize| {
            Request::Append((0..count).map(|_| record("one").encode()).collect(), oneshot::channel().0)
        };
        for count in [GROUP_RECORDS - 1, 1, 1, GROUP_RECORDS, 1] {
            assert!(jobs.send(many(count)).await.is_ok());
        }
        let mut sizes = Vec::new();
        while let Ok(first) = queue.try_recv() {
            let mut group = Vec::new();
            gather(first, &mut queue, &mut group);
            sizes.push(group.iter().map(Request::records).sum::<usize>());
        }
        assert_eq!(sizes, [GROUP_RECORDS, GROUP_RECORDS + 1, 1]);
    }
}

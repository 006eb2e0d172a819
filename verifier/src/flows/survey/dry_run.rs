//! Which nodes would stand otherwise if other reference values were in force: from stored evidence, changing nothing.
//!
//! A dry run is a job, one at a time, that is asked after until it is done; then its answer is read page by page, until the
//! next one begins. It has threads of its own, as many as there are cores, behind those of attestation, and holds two pages
//! of the fleet at a time: one that is judged, and one that comes in.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::DeviationReport;
use rootbound_compute::values::BootValues;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use super::SurveyError;
use super::foresee::{Foreseen, Shared};
use super::together::together;
use crate::appraisal::Verdict;
use crate::appraisal::runtime::DigestSet;
use crate::audit::{Facts, Outcome, RecordId, RecordKind};
use crate::evidence::frame::unpack;
use crate::flows::Verifier;
use crate::flows::operate::Operator;
use crate::node::Name;
use crate::reference::{BootSet, ReferenceBook, ReferenceChange};
use crate::store::StoreError;
use crate::store::fleet::KeptEvidence;

/// Nodes that are read at once: some 2 MB with logs of the usual length, and never more than 20 MB.
const PAGE: u32 = 100;
/// How far its threads stand back: where attestation wants every core, they have some tenth of each (sched(7)).
const NICE: i32 = 10;
/// One that nobody asks after ends by itself.
const ABANDONED: Duration = Duration::from_secs(60);
/// Nodes that would change, of which the deviations are kept; of the others it is kept that they would.
const DETAILED: usize = 10_000;
/// Nodes that would change that are kept at all: some 50 MB.
const LISTED: usize = 1_000_000;
/// Deviations of one node that are kept.
pub(super) const DEVIATIONS: usize = 8;

/// A change that is proposed, as it comes.
#[derive(Debug)]
pub enum Proposal {
    /// A change.
    Change(ReferenceChange),
    /// The next version of a boot set.
    BootValues(Name, BootValues),
    /// The next version of a digest set, by its text in a zstd frame.
    DigestText(Name, Vec<u8>),
}

/// How far a dry run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRunProgress {
    /// Which; the name of its record in the audit trail, too.
    pub id: RecordId,
    /// Nodes that it has looked at.
    pub done: u64,
    /// Nodes in the fleet as it began.
    pub total: u64,
    /// Whether its answer is there.
    pub finished: bool,
}

/// What would become of the fleet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRunSummary {
    /// Which dry run.
    pub id: RecordId,
    /// What is supposed, in words.
    pub changes: Vec<String>,
    /// Whether the reference values in force changed meanwhile: it says what would have been.
    pub outdated: bool,
    /// Nodes that were looked at.
    pub nodes: u64,
    /// Affirming now, and would be contraindicated.
    pub to_contraindicated: u64,
    /// Contraindicated now, and would be affirming.
    pub to_affirming: u64,
    /// Affirming before and after.
    pub still_affirming: u64,
    /// Contraindicated before and after.
    pub still_contraindicated: u64,
    /// No evidence is stored: it cannot be told.
    pub without_evidence: u64,
    /// They showed new evidence while theirs was read: it cannot be told.
    pub moved: u64,
    /// By which deviations nodes would become contraindicated: on how many nodes, the most frequent first.
    pub arising: Vec<CodeCount>,
    /// Which deviations nodes have now that would become affirming.
    pub resolved: Vec<CodeCount>,
}

/// A deviation, and how many nodes have it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeCount {
    /// Its code.
    pub code: String,
    /// Nodes.
    pub nodes: u64,
}

/// A node that would stand otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangedNode {
    /// Which.
    pub node: NodeId,
    /// How it is judged now.
    pub now: Verdict,
    /// How it would be.
    pub would_be: Verdict,
    /// The deviations that would arise, or that it has now and would have no more; the first of them.
    pub deviations: Vec<DeviationReport>,
    /// How many more there are.
    pub more: u64,
}

/// A page of the nodes that would change, with the counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DryRunPage {
    /// The counts.
    #[serde(flatten)]
    pub summary: DryRunSummary,
    /// By rising id.
    pub changed: Vec<ChangedNode>,
    /// Where there are more: the `after` that continues.
    pub next: Option<NodeId>,
}

/// The dry run that is under way, or was the last.
#[derive(Debug, Default)]
pub(crate) struct DryRuns {
    current: Mutex<Option<Arc<Run>>>,
}

/// A dry run.
#[derive(Debug)]
pub(super) struct Run {
    id: RecordId,
    since: Timestamp,
    total: u64,
    done: AtomicU64,
    /// When somebody asked after it last.
    asked_at: AtomicI64,
    stop: AtomicBool,
    end: OnceLock<Result<Arc<Foresight>, Ended>>,
}

#[derive(Debug, Clone)]
enum Ended {
    GivenUp,
    Failed(String),
}

/// A run that is under way. However it goes away, the run has ended then.
#[derive(Debug)]
struct Running(Arc<Run>);

impl Drop for Running {
    fn drop(&mut self) {
        // Nothing where it has ended well.
        let _ = self.0.end.set(Err(Ended::Failed("it did not come to its end".to_owned())));
    }
}

impl Run {
    fn progress(&self) -> DryRunProgress {
        let done = self.done.load(Ordering::Relaxed);
        DryRunProgress { id: self.id, done, total: self.total, finished: self.end.get().is_some() }
    }

    /// Whether nobody waits for it any more.
    fn is_abandoned(&self, now: Timestamp) -> bool {
        let asked_at = Timestamp::from_millis(self.asked_at.load(Ordering::Relaxed));
        self.stop.load(Ordering::Relaxed) || now.since(asked_at) > ABANDONED
    }

    fn outcome(&self) -> Result<Arc<Foresight>, SurveyError> {
        match self.end.get() {
            None => {
                let DryRunProgress { done, total, .. } = self.progress();
                Err(SurveyError::Unfinished { done, total })
            }
            Some(Ok(foresight)) => Ok(Arc::clone(foresight)),
            Some(Err(Ended::GivenUp)) => Err(SurveyError::GivenUp),
            Some(Err(Ended::Failed(why))) => Err(SurveyError::Failed(why.clone())),
        }
    }
}

impl DryRuns {
    fn begin(&self, id: RecordId, now: Timestamp, total: u64) -> Result<Running, SurveyError> {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = current.as_ref().filter(|run| run.end.get().is_none()) {
            let DryRunProgress { done, total, .. } = run.progress();
            return Err(SurveyError::Busy { since: run.since, done, total });
        }
        let run = Arc::new(Run {
            id,
            since: now,
            total,
            done: AtomicU64::new(0),
            asked_at: AtomicI64::new(now.as_millis()),
            stop: AtomicBool::new(false),
            end: OnceLock::new(),
        });
        *current = Some(Arc::clone(&run));
        Ok(Running(run))
    }

    fn find(&self, id: RecordId, now: Timestamp) -> Result<Arc<Run>, SurveyError> {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let run = current.as_ref().filter(|run| run.id == id).ok_or(SurveyError::NoSuchRun)?;
        run.asked_at.store(now.as_millis(), Ordering::Relaxed);
        Ok(Arc::clone(run))
    }

    /// Has the one that is under way end soon.
    pub(crate) fn stop(&self) {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(run) = current.as_ref() {
            run.stop.store(true, Ordering::Relaxed);
        }
    }
}

impl Verifier {
    /// Begins to look at what changes of reference values, all of them together, would make of the fleet. The trail says that
    /// it was asked; else nothing is written. One at a time.
    pub async fn dry_run(
        self: &Arc<Self>,
        proposals: Vec<Proposal>,
        operator: &Operator,
    ) -> Result<DryRunProgress, SurveyError> {
        let record =
            self.record_of(RecordKind::OperatorAction, "dry_run", operator.actor(), Outcome::Done, "dry_run");
        let total = u64::try_from(self.fleet.len()).unwrap_or(u64::MAX);
        let running = self.dry_runs.begin(record.id, self.now(), total)?;
        let changes = tokio::task::spawn_blocking(|| read(proposals)).await;
        let changes = changes.map_err(|error| SurveyError::Failed(error.to_string()))??;
        let words: Vec<_> = changes.iter().map(ToString::to_string).collect();
        let now = self.book.load_full();
        let would = now.with(changes, &self.provenance(operator))?;
        let facts = Facts::or_digest(serde_json::json!({ "changes": words }));
        self.store.append(vec![record.because(&operator.reason).with(facts)]).await?;
        tracing::info!(id = %running.0.id, changes = ?words, author = %operator.author, "dry run");
        let progress = running.0.progress();
        let (verifier, runtime) = (Arc::clone(self), Handle::current());
        let work = move || {
            // Linux has it for each thread, and its children. One that is not let stand back takes turns.
            let _ = rustix::process::nice(NICE);
            let end = match verifier.foresee_fleet(&runtime, &running.0, words, &now, &would) {
                Ok(Some(foresight)) => Ok(Arc::new(foresight)),
                Ok(None) => Err(Ended::GivenUp),
                Err(error) => {
                    tracing::error!(%error, "a dry run failed");
                    Err(Ended::Failed("the store failed; the verifier's log says how".to_owned()))
                }
            };
            // It has not ended before.
            let _ = running.0.end.set(end);
        };
        let thread = std::thread::Builder::new().name("dry-run".to_owned()).spawn(work);
        thread.map_err(|error| SurveyError::Failed(error.to_string()))?;
        Ok(progress)
    }

    /// How far a dry run is. Whoever asks keeps it alive.
    pub fn dry_run_progress(&self, id: RecordId) -> Result<DryRunProgress, SurveyError> {
        let run = self.dry_runs.find(id, self.now())?;
        if run.end.get().is_some() {
            run.outcome()?;
        }
        Ok(run.progress())
    }

    /// A page of what a dry run found: up to `limit` nodes with an id after `after`.
    pub fn dry_run_page(
        &self,
        id: RecordId,
        after: Option<NodeId>,
        limit: usize,
    ) -> Result<DryRunPage, SurveyError> {
        let foresight = self.dry_runs.find(id, self.now())?.outcome()?;
        Ok(foresight.page(id, after, limit))
    }

    /// Looks at every node; `None`: it was given up.
    fn foresee_fleet(
        &self,
        runtime: &Handle,
        run: &Run,
        changes: Vec<String>,
        now: &Arc<ReferenceBook>,
        would: &ReferenceBook,
    ) -> Result<Option<Foresight>, StoreError> {
        let mut foresight = Foresight { changes, ..Foresight::default() };
        let shared = Shared::default();
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        let foresee = |kept: KeptEvidence| {
            if run.is_abandoned(self.now()) {
                return Ok(None);
            }
            let node = kept.node;
            let foreseen = runtime.block_on(self.foresee(kept, now, would, &shared))?;
            run.done.fetch_add(1, Ordering::Relaxed);
            Ok::<_, StoreError>(Some((node, foreseen)))
        };
        let read = |after| runtime.block_on(self.store.kept_evidence(after, PAGE));
        let mut page = read(None)?;
        while let Some(last) = page.last().map(|kept| kept.node) {
            let (foreseen, next) = together(workers, page, foresee, || read(Some(last)));
            for foreseen in foreseen {
                let Some((node, foreseen)) = foreseen? else { return Ok(None) };
                foresight.count(node, foreseen);
            }
            page = next?;
        }
        foresight.outdated = !Arc::ptr_eq(now, &self.book.load());
        Ok(Some(foresight))
    }
}

/// Takes proposals as changes; texts of digest sets are parsed, which takes its time.
fn read(proposals: Vec<Proposal>) -> Result<Vec<ReferenceChange>, SurveyError> {
    let read = |proposal| match proposal {
        Proposal::Change(change) => Ok(change),
        Proposal::BootValues(name, values) => match BootSet::new(values) {
            Ok(set) => Ok(ReferenceChange::Boot(name, set)),
            Err(error) => Err(SurveyError::Boot { name, error }),
        },
        Proposal::DigestText(name, frame) => {
            let text = unpack(&frame, DigestSet::MAX_BYTES)
                .map_err(|error| SurveyError::Frame { name: name.clone(), error })?;
            let digests = DigestSet::parse(&text)
                .map_err(|error| SurveyError::Digests { name: name.clone(), error })?;
            Ok(ReferenceChange::Digests(name, Arc::new(digests)))
        }
    };
    proposals.into_iter().map(read).collect()
}

/// What was found.
#[derive(Debug, Default)]
struct Foresight {
    changes: Vec<String>,
    outdated: bool,
    nodes: u64,
    still_affirming: u64,
    still_contraindicated: u64,
    to_affirming: u64,
    to_contraindicated: u64,
    without_evidence: u64,
    moved: u64,
    arising: BTreeMap<String, u64>,
    resolved: BTreeMap<String, u64>,
    /// By rising id.
    changed: Vec<Changed>,
}

#[derive(Debug)]
struct Changed {
    node: NodeId,
    would_be: Verdict,
    deviations: Arc<[DeviationReport]>,
    more: u64,
}

impl Foresight {
    fn count(&mut self, node: NodeId, foreseen: Foreseen) {
        self.nodes += 1;
        let (now, then) = match foreseen {
            Foreseen::WithoutEvidence => return self.without_evidence += 1,
            Foreseen::Moved => return self.moved += 1,
            Foreseen::Alike(verdict) => return self.stays(verdict),
            Foreseen::Judged { now, then } => (now, then),
        };
        if now.verdict == then.verdict {
            return self.stays(then.verdict);
        }
        let (count, codes, shown) = match then.verdict {
            Verdict::Affirming => (&mut self.to_affirming, &mut self.resolved, &now),
            Verdict::Contraindicated => (&mut self.to_contraindicated, &mut self.arising, &then),
        };
        *count += 1;
        for code in &shown.codes {
            *codes.entry(code.clone()).or_default() += 1;
        }
        if self.changed.len() < LISTED {
            let kept = self.changed.len() < DETAILED;
            let all = shown.more.saturating_add(u64::try_from(shown.deviations.len()).unwrap_or(u64::MAX));
            self.changed.push(Changed {
                node,
                would_be: then.verdict,
                deviations: if kept { Arc::clone(&shown.deviations) } else { Arc::default() },
                more: if kept { shown.more } else { all },
            });
        }
    }

    fn stays(&mut self, verdict: Verdict) {
        match verdict {
            Verdict::Affirming => self.still_affirming += 1,
            Verdict::Contraindicated => self.still_contraindicated += 1,
        }
    }

    fn page(&self, id: RecordId, after: Option<NodeId>, limit: usize) -> DryRunPage {
        let from = after.map_or(0, |after| self.changed.partition_point(|changed| changed.node <= after));
        let rest = self.changed.get(from..).unwrap_or_default();
        let page = rest.get(..limit.min(rest.len())).unwrap_or_default();
        let changed: Vec<_> = page
            .iter()
            .map(|changed| ChangedNode {
                node: changed.node,
                now: match changed.would_be {
                    Verdict::Affirming => Verdict::Contraindicated,
                    Verdict::Contraindicated => Verdict::Affirming,
                },
                would_be: changed.would_be,
                deviations: changed.deviations.to_vec(),
                more: changed.more,
            })
            .collect();
        let next = page.last().filter(|_| page.len() < rest.len()).map(|last| last.node);
        DryRunPage { summary: self.summary(id), changed, next }
    }

    fn summary(&self, id: RecordId) -> DryRunSummary {
        DryRunSummary {
            id,
            changes: self.changes.clone(),
            outdated: self.outdated,
            nodes: self.nodes,
            to_contraindicated: self.to_contraindicated,
            to_affirming: self.to_affirming,
            still_affirming: self.still_affirming,
            still_contraindicated: self.still_contraindicated,
            without_evidence: self.without_evidence,
            moved: self.moved,
            arising: counts(&self.arising),
            resolved: counts(&self.resolved),
        }
    }
}

fn counts(codes: &BTreeMap<String, u64>) -> Vec<CodeCount> {
    let count = |(code, nodes): (&String, &u64)| CodeCount { code: code.clone(), nodes: *nodes };
    let mut counts: Vec<_> = codes.iter().map(count).collect();
    counts.sort_by(|a, b| b.nodes.cmp(&a.nodes).then_with(|| a.code.cmp(&b.code)));
    counts
}

#[cfg(test)]
mod tests {
    use super::super::foresee::Judged;
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn id(number: u8) -> RecordId {
        RecordId::of(NOW, [number; 10])
    }

    fn node(number: u8) -> NodeId {
        NodeId::from_bytes([number; 32])
    }

    fn judged(codes: &[&str]) -> Judged {
        let reports = codes.iter().map(|code| DeviationReport {
            code: (*code).to_owned(),
            detail: "in words".to_owned(),
            bank: None,
            pcr: None,
            observed: None,
            accepted: Vec::new(),
        });
        let verdict = if codes.is_empty() { Verdict::Affirming } else { Verdict::Contraindicated };
        Judged::of(verdict, reports)
    }

    #[test]
    fn one_run_is_under_way_at_a_time_and_a_second_is_told() {
        let runs = DryRuns::default();
        let first = runs.begin(id(1), NOW, 7).unwrap();
        let busy = runs.begin(id(2), NOW, 7).unwrap_err();
        assert!(matches!(busy, SurveyError::Busy { since: NOW, done: 0, total: 7 }), "{busy}");
        assert_eq!(busy.code(), "dry_run_busy");
        let unfinished = runs.find(id(1), NOW).unwrap().outcome().unwrap_err();
        assert_eq!(unfinished.code(), "dry_run_unfinished");
        drop(first);
        let failed = runs.find(id(1), NOW).unwrap().outcome().unwrap_err();
        assert_eq!(failed.code(), "dry_run_failed", "whatever it ended of");
        let second = runs.begin(id(2), NOW, 7).unwrap();
        assert!(matches!(runs.find(id(1), NOW), Err(SurveyError::NoSuchRun)), "another came after it");
        second.0.end.set(Err(Ended::GivenUp)).unwrap();
        drop(second);
        let given_up = runs.find(id(2), NOW).unwrap().outcome().unwrap_err();
        assert!(matches!(given_up, SurveyError::GivenUp) && given_up.code() == "dry_run_given_up");
    }

    #[test]
    fn run_that_nobody_asks_after_is_given_up_and_so_is_one_that_is_stopped() {
        let runs = DryRuns::default();
        let running = runs.begin(id(1), NOW, 7).unwrap();
        assert!(!running.0.is_abandoned(NOW.plus(ABANDONED)));
        assert!(running.0.is_abandoned(NOW.plus(ABANDONED * 2)));
        runs.find(id(1), NOW.plus(ABANDONED)).unwrap();
        assert!(!running.0.is_abandoned(NOW.plus(ABANDONED * 2)), "somebody asked");
        runs.stop();
        assert!(running.0.is_abandoned(NOW));
    }

    #[test]
    fn changes_are_counted_by_direction_and_code_and_come_in_pages() {
        let mut foresight = Foresight::default();
        let judged_as = |now: &[&str], then: &[&str]| Foreseen::Judged {
            now: Arc::new(judged(now)),
            then: Arc::new(judged(then)),
        };
        for (number, foreseen) in [
            (1, judged_as(&[], &["pcr_mismatch", "pcr_mismatch"])),
            (2, judged_as(&["boot_initrd"], &[])),
            (3, Foreseen::WithoutEvidence),
            (4, judged_as(&["boot_initrd"], &["pcr_mismatch"])),
            (5, Foreseen::Alike(Verdict::Affirming)),
            (6, judged_as(&[], &["pcr_mismatch", "runtime_denied"])),
            (7, Foreseen::Moved),
        ] {
            foresight.count(node(number), foreseen);
        }
        let all = foresight.page(id(1), None, 10);
        let summary = &all.summary;
        assert_eq!((summary.nodes, summary.to_contraindicated, summary.to_affirming), (7, 2, 1));
        assert_eq!((summary.still_affirming, summary.still_contraindicated), (1, 1));
        assert_eq!((summary.without_evidence, summary.moved), (1, 1));
        let count = |code: &str, nodes| CodeCount { code: code.to_owned(), nodes };
        assert_eq!(summary.arising, [count("pcr_mismatch", 2), count("runtime_denied", 1)]);
        assert_eq!(summary.resolved, [count("boot_initrd", 1)]);
        let nodes = |page: &DryRunPage| page.changed.iter().map(|changed| changed.node).collect::<Vec<_>>();
        assert_eq!((nodes(&all), all.next), (vec![node(1), node(2), node(6)], None));
        assert_eq!(all.changed[1].deviations[0].code, "boot_initrd", "what it would have no more");
        let first = foresight.page(id(1), None, 2);
        assert_eq!((nodes(&first), first.next), (vec![node(1), node(2)], Some(node(2))));
        let rest = foresight.page(id(1), first.next, 2);
        assert_eq!((nodes(&rest), rest.next), (vec![node(6)], None));
    }

    #[test]
    fn text_that_is_no_digest_set_is_named() {
        let name = || "files".parse::<Name>().unwrap();
        let damaged = read(vec![Proposal::DigestText(name(), b"no frame".to_vec())]).unwrap_err();
        assert!(matches!(damaged, SurveyError::Frame { .. }) && damaged.to_string().contains("`files`"));
        let frame = crate::evidence::frame::pack(b"nonsense\n").unwrap();
        let none = read(vec![Proposal::DigestText(name(), frame)]).unwrap_err();
        assert!(matches!(none, SurveyError::Digests { .. }), "{none}");
        assert_eq!(none.code(), "digest_set_refused");
        let empty = BootValues::new(rootbound_common::tpm::HashAlgorithm::Sha256, Vec::new());
        let none = read(vec![Proposal::BootValues(name(), empty)]).unwrap_err();
        assert!(matches!(none, SurveyError::Boot { .. }), "{none}");
        assert_eq!(none.code(), "boot_set_refused");
    }
}

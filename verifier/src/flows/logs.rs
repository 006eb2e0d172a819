//! The logs that come with a quote: kept, replayed against what the TPM signed, judged.
//!
//! The boot event log comes once per boot and is replayed against each quote. The IMA list grows: only what is new comes,
//! and goes on from what is verified of this boot. A list that is longer than one message comes in several; what no quote
//! covers yet is kept aside, and counts for nothing.

use std::borrow::Cow;

use rootbound_common::crypto::Digest;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSet, PcrValues};
use rootbound_common::wire::v1::{BootLogPart, ImaPart, KnownLogs, LogsAsked};

use super::Verifier;
use crate::appraisal::boot::BootRules;
use crate::appraisal::logs::{BootEvidence, Logs, RuntimeEvidence};
use crate::appraisal::runtime::{CompiledRules, Judge, RuntimeAppraisal};
use crate::evidence::Observed;
use crate::evidence::boot_log::{BootHistory, BootLogError, ParsedBootLog, authenticate};
use crate::evidence::frame::{FrameError, pack, unpack};
use crate::evidence::ima::{self, ImaError, ListParser, Position, Progress, Walk, Walked};
use crate::node::Labels;
use crate::reference::{LogKind, ProfileBody, RuleBook};
use crate::store::StoreError;
use crate::store::fleet::KeptFrames;
use crate::store::logs::{BootLogRecord, FrameChange, ImaRecord, LogChange, LogRecord, NewFrames, Pending};

/// Which quote the logs belong to.
pub(super) struct OfQuote<'a> {
    pub(super) node: NodeId,
    /// Names the boot.
    pub(super) reset_count: u32,
    pub(super) observed: &'a Observed,
}

/// The logs, what to keep, and whether the node is asked for more at once.
pub(super) struct Read {
    pub(super) logs: Logs,
    /// `None`: the profile asks for no log.
    pub(super) change: Option<LogChange>,
    pub(super) ask_at_once: bool,
    /// As it was kept before.
    was: Option<LogRecord>,
}

impl Read {
    /// What is to be kept of judging again: where the list came to its quote. What did not come is asked for with the next
    /// evidence.
    pub(super) fn rejudged(self) -> Option<LogChange> {
        let Self { logs, change, was, .. } = self;
        change.filter(|change| {
            matches!(logs.runtime, RuntimeEvidence::Judged(_)) && Some(&change.record) != was.as_ref()
        })
    }

    /// What the next challenge asks for.
    pub(super) fn asked(&self, rules: &RuleBook<'_>) -> LogsAsked {
        let kept = self.change.as_ref().map(|change| &change.record);
        rules
            .profile
            .filter(|body| body.asks_for_logs())
            .map_or_else(LogsAsked::default, |body| asked(body, kept))
    }
}

/// What there is to read besides what is kept.
pub(super) enum Sent {
    /// What came with the quote.
    Now {
        /// The boot event log.
        boot_log: Option<BootLogPart>,
        /// A part of the IMA list.
        ima: Option<ImaPart>,
    },
    /// Nothing: the quote is the last one, and everything that came with it is kept. Its frames, where they were read already.
    Again(Option<KeptFrames>),
}

impl Verifier {
    /// Reads what came with a quote, together with what is kept of this boot.
    pub(super) async fn read_logs(
        &self,
        quote: &OfQuote<'_>,
        rules: &RuleBook<'_>,
        sent: Sent,
    ) -> Result<Read, StoreError> {
        let asks = rules.profile.is_some_and(ProfileBody::asks_for_logs);
        let kept = if asks { self.kept_logs(quote.node).await? } else { None };
        self.read_kept_logs(quote, rules, kept, sent).await
    }

    /// The same, where what is kept was read already.
    pub(super) async fn read_kept_logs(
        &self,
        quote: &OfQuote<'_>,
        rules: &RuleBook<'_>,
        kept: Option<LogRecord>,
        sent: Sent,
    ) -> Result<Read, StoreError> {
        let Some(profile) = rules.profile.filter(|body| body.asks_for_logs()) else {
            return Ok(Read { logs: Logs::none(), change: None, ask_at_once: false, was: None });
        };
        let kept = kept.filter(|kept| kept.reset_count == quote.reset_count);
        let (first, was) = (kept.is_none(), kept.clone());
        let mut record = kept.unwrap_or(LogRecord {
            reset_count: quote.reset_count,
            boot_log: BootLogRecord::NotSent,
            ima: None,
        });
        let (boot_log, ima, kept_frames) = match sent {
            Sent::Now { boot_log, ima } => (boot_log, Some(ima), None),
            Sent::Again(frames) => (None, None, frames),
        };
        let was_refused = matches!(record.boot_log, BootLogRecord::Refused(_));
        match boot_log {
            Some(BootLogPart::Absent) => record.boot_log = BootLogRecord::Absent,
            Some(BootLogPart::Present { zstd }) => {
                record.boot_log = BootLogRecord::Present(zstd.into_bytes());
            }
            None => {}
        }
        let boot = match &profile.boot {
            Some(rules) => read_boot(&mut record.boot_log, quote.observed, profile.log_bank(), rules),
            None => BootEvidence::NotSent,
        };
        // Asked once more than need be, never for ever.
        let mut ask_at_once = profile.asks_for(LogKind::BootLog)
            && match record.boot_log {
                BootLogRecord::NotSent => first,
                BootLogRecord::Refused(_) => !was_refused,
                BootLogRecord::Absent | BootLogRecord::Present(_) => false,
            };
        let (mut runtime, mut frames) = (RuntimeEvidence::NotSent, FrameChange::Keep);
        if let Some(compiled) = rules.runtime {
            let bank = profile.log_bank();
            let quoted = PcrIndex::new(ima::PCR).and_then(|pcr| quote.observed.pcrs().get(bank, pcr));
            if let Some(quoted) = quoted {
                let earlier = record.ima.take();
                let retried = earlier.as_ref().is_some_and(|earlier| earlier.retried);
                let list = List {
                    verifier: self,
                    node: quote.node,
                    quoted: *quoted,
                    pcrs: quote.observed.pcrs(),
                    rules: compiled,
                    bank,
                    frames: kept_frames,
                };
                let read = match ima {
                    Some(sent) => list.read(earlier, sent).await?,
                    None => list.read_again(earlier).await?,
                };
                ask_at_once |= match &read.evidence {
                    RuntimeEvidence::Incomplete { .. } => true,
                    RuntimeEvidence::Judged(_) | RuntimeEvidence::Absent => false,
                    RuntimeEvidence::NotSent
                    | RuntimeEvidence::Damaged(_)
                    | RuntimeEvidence::OutOfStep { .. }
                    | RuntimeEvidence::EmptyPart
                    | RuntimeEvidence::Refused(_) => !retried,
                };
                record.ima = Some(read.record);
                (runtime, frames) = (read.evidence, read.frames);
            }
        }
        let logs = Logs { boot, runtime };
        Ok(Read { logs, change: Some(LogChange { record, frames }), ask_at_once, was })
    }

    /// What a challenge for a node with these labels asks for, where its profile asks for logs.
    pub(super) async fn logs_asked(&self, node: NodeId, labels: &Labels) -> Result<LogsAsked, StoreError> {
        let book = self.book.load_full();
        let Some(profile) = book.rules(labels).profile.filter(|body| body.asks_for_logs()) else {
            return Ok(LogsAsked::default());
        };
        Ok(asked(profile, self.kept_logs(node).await?.as_ref()))
    }

    /// What is kept of the logs of a node. A row that no verb writes is as good as none: they come again.
    async fn kept_logs(&self, node: NodeId) -> Result<Option<LogRecord>, StoreError> {
        match self.store.logs(node).await {
            Err(error @ StoreError::Inconsistent { .. }) => {
                tracing::error!(%node, %error, "the logs in the store do not stand; they are asked for again");
                Ok(None)
            }
            other => other,
        }
    }
}

/// What a challenge asks for by this profile, where this is kept.
fn asked(profile: &ProfileBody, kept: Option<&LogRecord>) -> LogsAsked {
    let known = kept.map(|kept| KnownLogs {
        reset_count: kept.reset_count,
        boot_log: matches!(kept.boot_log, BootLogRecord::Present(_)),
        ima_entries: kept
            .ima
            .as_ref()
            .filter(|ima| ima.goes_on(profile.log_bank()))
            .map_or(0, ImaRecord::next),
    });
    LogsAsked { boot_log: profile.asks_for(LogKind::BootLog), ima: profile.asks_for(LogKind::Ima), known }
}

impl ImaRecord {
    /// Whether the next list goes on from it, in this bank.
    fn goes_on(&self, bank: HashAlgorithm) -> bool {
        !self.resend && self.progress.prefix().value.algorithm() == bank
    }

    /// Nothing of a list is verified yet.
    fn start(bank: HashAlgorithm) -> Self {
        Self {
            progress: Progress::start(bank),
            findings: None,
            pending: Pending::default(),
            resend: false,
            retried: false,
        }
    }

    /// The number of the entry that comes next.
    fn next(&self) -> u64 {
        self.progress.prefix().entries.saturating_add(self.pending.entries)
    }
}

/// Authenticates what is kept of a boot log against a quote, and notes where it is refused.
fn read_boot(
    kept: &mut BootLogRecord,
    observed: &Observed,
    bank: HashAlgorithm,
    rules: &BootRules,
) -> BootEvidence {
    let frame = match std::mem::replace(kept, BootLogRecord::NotSent) {
        BootLogRecord::NotSent => return BootEvidence::NotSent,
        BootLogRecord::Absent => {
            *kept = BootLogRecord::Absent;
            return BootEvidence::Absent;
        }
        BootLogRecord::Present(frame) | BootLogRecord::Refused(frame) => frame,
    };
    let refused = match unpack(&frame, BootLogPart::MAX) {
        Err(error) => BootEvidence::Damaged(error),
        Ok(log) => match authenticate_what_it_has(&log, observed, bank, rules.explained) {
            Ok(history) => {
                *kept = BootLogRecord::Present(frame);
                return BootEvidence::Authentic(history);
            }
            Err(error) => BootEvidence::Refused(error),
        },
    };
    *kept = BootLogRecord::Refused(frame);
    refused
}

/// A PCR of which the log is silent is none that it explains, and deviates by itself: that hides no other deviation.
fn authenticate_what_it_has(
    log: &[u8],
    observed: &Observed,
    bank: HashAlgorithm,
    explained: PcrSet,
) -> Result<BootHistory, BootLogError> {
    let parsed = ParsedBootLog::parse(log)?;
    let replayed = parsed.replay(bank);
    let needed: PcrSet = explained.iter().filter(|pcr| replayed.contains_key(pcr)).collect();
    authenticate(parsed, observed, bank, if needed.is_empty() { explained } else { needed })
}

/// The IMA list of a quote.
struct List<'a> {
    verifier: &'a Verifier,
    node: NodeId,
    /// PCR 10.
    quoted: Digest,
    pcrs: &'a PcrValues,
    rules: &'a CompiledRules,
    bank: HashAlgorithm,
    /// What is kept of it, where that was read already.
    frames: Option<KeptFrames>,
}

/// What came of a list.
struct ReadList {
    evidence: RuntimeEvidence,
    record: ImaRecord,
    frames: FrameChange,
}

/// Where a walk begins, and what it goes through before what came now.
#[derive(Clone, Copy)]
enum From {
    /// The first entry of the boot; nothing is kept, or what is kept comes again.
    Anew,
    /// The first entry, through everything that is kept.
    Beginning,
    /// What is verified, through what is pending.
    Verified,
}

impl List<'_> {
    async fn read(&self, earlier: Option<ImaRecord>, sent: Option<ImaPart>) -> Result<ReadList, StoreError> {
        let earlier = self.of_this_bank(earlier);
        let is_new = earlier.is_none();
        let record = earlier.unwrap_or_else(|| ImaRecord::start(self.bank));
        let (from, frame, more) = match sent {
            Some(ImaPart::Absent) => {
                return Ok(ReadList { evidence: RuntimeEvidence::Absent, record, frames: FrameChange::Keep });
            }
            None if is_new => return Ok(failed(RuntimeEvidence::NotSent, record)),
            // Nothing is new, if the quote agrees.
            None => (record.next(), Vec::new(), false),
            Some(ImaPart::Present { from, zstd, more }) => (from, zstd.into_bytes(), more),
        };
        let bytes = match unpack_part(&frame) {
            Ok(bytes) => bytes,
            Err(error) => return Ok(failed(RuntimeEvidence::Damaged(error), record)),
        };
        let expected = record.next();
        if from != expected && from != 0 {
            return Ok(failed(RuntimeEvidence::OutOfStep { from, expected }, record));
        }
        // From here on, frames that are kept of another boot or bank are never read: what is new begins with entry 0.
        let anew = from == 0;
        if more {
            return Ok(self.keep_pending(record, &bytes, anew));
        }
        if !anew {
            return self.walk_to_the_quote(record.clone(), self.start_of(&record), &bytes).await;
        }
        let whole = self.walk_to_the_quote(record.clone(), From::Anew, &bytes).await?;
        if matches!(whole.evidence, RuntimeEvidence::Refused(ImaError::NotReached { .. })) && !is_new {
            // What came may be the rest of a list of which the kernel has dropped the front.
            let rest = self.walk_to_the_quote(record, From::Verified, &bytes).await?;
            let goes_on = |appraisal: &RuntimeAppraisal| appraisal.walked().newly_covered() > 0;
            if matches!(&rest.evidence, RuntimeEvidence::Judged(appraisal) if goes_on(appraisal)) {
                return Ok(rest);
            }
        }
        Ok(whole)
    }

    /// Judges what is kept once more, by the rules of now, to the quote that it came with.
    async fn read_again(&self, earlier: Option<ImaRecord>) -> Result<ReadList, StoreError> {
        let Some(record) = self.of_this_bank(earlier) else {
            let record = ImaRecord::start(self.bank);
            return Ok(ReadList { evidence: RuntimeEvidence::NotSent, record, frames: FrameChange::Keep });
        };
        if record.pending.entries > 0 && record.progress.claim().is_none() {
            let evidence = RuntimeEvidence::Incomplete { entries: record.next() };
            return Ok(ReadList { evidence, record, frames: FrameChange::Keep });
        }
        // This quote cannot cover what was read after it.
        let mut unclaimed = record.clone();
        unclaimed.progress = match Progress::restore(*record.progress.prefix(), None) {
            Ok(progress) => progress,
            Err(error) => return Ok(failed(RuntimeEvidence::Refused(error), record)),
        };
        let start = self.start_of(&record);
        Ok(match self.walk(&unclaimed, start, &[], true).await? {
            Ok((appraisal, ..)) => {
                let findings = Some(appraisal.findings().clone());
                let evidence = RuntimeEvidence::Judged(Box::new(appraisal));
                ReadList { evidence, record: ImaRecord { findings, ..record }, frames: FrameChange::Keep }
            }
            Err(error) => {
                ReadList { evidence: RuntimeEvidence::Refused(error), record, frames: FrameChange::Keep }
            }
        })
    }

    /// The frame after that of a number, and its own.
    async fn frame(
        &self,
        pending: bool,
        after: Option<i64>,
    ) -> Result<Option<(i64, Cow<'_, [u8]>)>, StoreError> {
        let Some(frames) = &self.frames else {
            let frame = self.verifier.store.ima_frame(self.node, pending, after).await?;
            return Ok(frame.map(|(number, frame)| (number, Cow::Owned(frame))));
        };
        let frames = if pending { &frames.pending } else { &frames.covered };
        let next = after.map_or(0, |after| after.saturating_add(1));
        let frame = usize::try_from(next).ok().and_then(|next| frames.get(next));
        Ok(frame.map(|frame| (next, Cow::Borrowed(frame.as_slice()))))
    }

    /// What is kept counts in the bank that it was verified in; after a change of the profile the list comes again.
    fn of_this_bank(&self, kept: Option<ImaRecord>) -> Option<ImaRecord> {
        kept.filter(|kept| kept.progress.prefix().value.algorithm() == self.bank)
    }

    /// From where on entries have to be judged: all of them, where the findings are not of the rules of now.
    fn start_of(&self, record: &ImaRecord) -> From {
        let findings = record.findings.as_ref();
        let continues = findings.is_some_and(|findings| Judge::continues(self.rules, findings));
        if continues { From::Verified } else { From::Beginning }
    }

    /// A part of a list of which more is to come.
    fn keep_pending(&self, record: ImaRecord, bytes: &[u8], anew: bool) -> ReadList {
        let (progress, pending) = if anew {
            (Progress::start(self.bank), Pending::default())
        } else {
            (record.progress, record.pending)
        };
        let first = progress.prefix().entries.saturating_add(pending.entries);
        let mut parser = ListParser::new(first, HashAlgorithm::Sha1);
        let parsed = parser.push(bytes, |_| Ok::<_, ImaError>(())).and_then(|()| parser.finish());
        let end = match parsed {
            Ok(end) => end,
            Err(error) => return failed(RuntimeEvidence::Refused(error), record),
        };
        if end == first {
            return failed(RuntimeEvidence::EmptyPart, record);
        }
        let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let pending = Pending {
            entries: end.saturating_sub(progress.prefix().entries),
            bytes: pending.bytes.saturating_add(length),
        };
        if progress.prefix().bytes.saturating_add(pending.bytes) > ima::MAX_BYTES {
            return failed(RuntimeEvidence::Refused(ImaError::TooManyBytes), record);
        }
        let frame = match pack(bytes) {
            Ok(frame) => frame,
            Err(error) => return failed(RuntimeEvidence::Damaged(error), record),
        };
        let findings = if anew { None } else { record.findings };
        let frames = if anew {
            FrameChange::Replace(NewFrames { covered: None, pending: Some(frame) })
        } else {
            FrameChange::AppendPending(frame)
        };
        let entries = progress.prefix().entries.saturating_add(pending.entries);
        let record = ImaRecord { progress, findings, pending, resend: false, retried: record.retried };
        ReadList { evidence: RuntimeEvidence::Incomplete { entries }, record, frames }
    }

    /// Walks from where it is said to through what is kept and what came, and judges by the way.
    async fn walk_to_the_quote(
        &self,
        record: ImaRecord,
        from: From,
        bytes: &[u8],
    ) -> Result<ReadList, StoreError> {
        match self.walk(&record, from, bytes, false).await? {
            Ok((appraisal, walked, covered)) => {
                let tail = bytes.get(covered.len()..).unwrap_or_default();
                let new = NewFrames { covered: packed(covered), pending: packed(tail) };
                let frames = match from {
                    From::Anew => FrameChange::Replace(new),
                    From::Beginning | From::Verified if record.pending.entries == 0 && bytes.is_empty() => {
                        FrameChange::Keep
                    }
                    From::Beginning | From::Verified => FrameChange::Cover(new),
                };
                let record = ImaRecord {
                    progress: *walked.progress(),
                    findings: Some(appraisal.findings().clone()),
                    pending: Pending {
                        entries: walked.lag(),
                        bytes: u64::try_from(tail.len()).unwrap_or(u64::MAX),
                    },
                    resend: false,
                    retried: false,
                };
                Ok(ReadList { evidence: RuntimeEvidence::Judged(Box::new(appraisal)), record, frames })
            }
            Err(error) => Ok(failed(RuntimeEvidence::Refused(error), record)),
        }
    }

    /// The bytes that are returned are those of `bytes` that the quote covers. A new quote covers all that was pending before
    /// it; the same one `again` does not.
    async fn walk<'b>(
        &self,
        record: &ImaRecord,
        from: From,
        bytes: &'b [u8],
        again: bool,
    ) -> Result<Result<(RuntimeAppraisal, Walked, &'b [u8]), ImaError>, StoreError> {
        let beginning = || {
            let claim = record.progress.claim().copied();
            Progress::restore(Position::start(self.bank), claim)
        };
        let (progress, findings) = match from {
            From::Anew => (Ok(Progress::start(self.bank)), None),
            From::Beginning => (beginning(), None),
            From::Verified => (Ok(record.progress), record.findings.clone()),
        };
        let progress = match progress {
            Ok(progress) => progress,
            Err(error) => return Ok(Err(error)),
        };
        let mode = self.rules.rules().bank_mode();
        let mut walk = match Walk::begin(Some(progress), self.quoted, mode) {
            Ok(walk) => walk,
            Err(error) => return Ok(Err(error)),
        };
        let mut judge = Judge::new(self.rules, &self.verifier.signatures, self.pcrs, findings);
        let kept: &[bool] = match from {
            From::Anew => &[],
            From::Beginning => &[false, true],
            From::Verified => &[true],
        };
        let mut before = progress.prefix().bytes;
        for pending in kept {
            let mut after = None;
            while let Some((number, frame)) = self.frame(*pending, after).await? {
                after = Some(number);
                let Ok(frame) = unpack(&frame, ImaPart::MAX) else {
                    return Ok(Err(ImaError::Stored { rule: "every kept part of a list decompresses" }));
                };
                before = before.saturating_add(u64::try_from(frame.len()).unwrap_or(u64::MAX));
                if let Err(error) = walk.push_together(&frame, &mut |entries| judge.judge_together(entries)) {
                    return Ok(Err(error));
                }
                // A long list takes as long as many requests: others get their turn.
                tokio::task::yield_now().await;
            }
        }
        let walked = walk
            .push_together(bytes, &mut |entries| judge.judge_together(entries))
            .and_then(|()| walk.finish());
        let walked = match walked {
            Ok(walked) => walked,
            Err(error) => return Ok(Err(error)),
        };
        if again {
            return Ok(judge
                .finish(&walked)
                .map_or(Err(UNEQUAL), |appraisal| Ok((appraisal, walked, bytes))));
        }
        let covered = walked.progress().prefix().bytes.checked_sub(before);
        let covered = covered.and_then(|covered| bytes.get(..usize::try_from(covered).ok()?));
        let Some(covered) = covered else {
            // What was kept aside is older than the quote, so that the quote covers it.
            let claimed = record.next();
            return Ok(Err(ImaError::TailNotCovered { claimed, covered: walked.covered() }));
        };
        Ok(judge.finish(&walked).map_or(Err(UNEQUAL), |appraisal| Ok((appraisal, walked, covered))))
    }
}

const UNEQUAL: ImaError = ImaError::Stored { rule: "findings are of as many entries as were verified" };

/// A list that is no use. What was verified stays verified; the list is to come from its beginning.
fn failed(evidence: RuntimeEvidence, record: ImaRecord) -> ReadList {
    // A claim of the list that is given up is nobody's any more.
    let progress = Progress::restore(*record.progress.prefix(), None).unwrap_or(record.progress);
    let record = ImaRecord { progress, pending: Pending::default(), resend: true, retried: true, ..record };
    ReadList { evidence, record, frames: FrameChange::DropPending }
}

fn unpack_part(frame: &[u8]) -> Result<Vec<u8>, FrameError> {
    if frame.is_empty() { Ok(Vec::new()) } else { unpack(frame, ImaPart::MAX) }
}

/// Nothing is no frame. Compressing into memory does not fail; if it did, the list would be asked for again.
fn packed(bytes: &[u8]) -> Option<Vec<u8>> {
    if bytes.is_empty() { None } else { pack(bytes).ok() }
}

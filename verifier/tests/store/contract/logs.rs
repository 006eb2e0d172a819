//! The logs of the boot that a node's last accepted evidence is of.

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::HashAlgorithm;
use rootbound_verifier::evidence::ima::{Position, Progress};
use rootbound_verifier::store::logs::{
    BootLogRecord, FrameChange, ImaRecord, LogChange, LogRecord, NewFrames, Pending,
};
use rootbound_verifier::store::{DecisionKind, EvidenceRecord, Recorded, Store};

use super::BackEnd;
use crate::fixtures::{Machine, decision, evidence, posture};

const BANK: HashAlgorithm = HashAlgorithm::Sha256;

fn value(text: &str) -> Digest {
    hash(BANK, &[text.as_bytes()])
}

fn ima(entries: u64, pending: u64) -> ImaRecord {
    let at = |entries: u64| Position { entries, bytes: entries * 100, value: value(&entries.to_string()) };
    ImaRecord {
        progress: Progress::restore(at(entries), Some(at(entries + 1))).unwrap(),
        findings: None,
        pending: Pending { entries: pending, bytes: pending * 100 },
        resend: pending == 0,
        retried: pending > 0,
    }
}

fn record(reset_count: u32, boot_log: BootLogRecord) -> LogRecord {
    LogRecord { reset_count, boot_log, ima: Some(ima(5, 2)) }
}

/// Records evidence of a node with this change, on top of whatever revision it has.
async fn change(store: &dyn Store, machine: &Machine, record: LogRecord, frames: FrameChange) {
    let revision = machine.node(store).await.revision;
    let logs = Some(LogChange { record, frames });
    let recorded = store.record_evidence(EvidenceRecord { logs, ..evidence(machine.id(), revision) }).await;
    assert_eq!(recorded.unwrap(), Recorded::Yes { revision: revision + 1 });
}

async fn frames(store: &dyn Store, machine: &Machine, pending: bool) -> Vec<Vec<u8>> {
    let (mut found, mut after) = (Vec::new(), None);
    while let Some((number, frame)) = store.ima_frame(machine.id(), pending, after).await.unwrap() {
        (after, _) = (Some(number), found.push(frame));
    }
    found
}

pub(crate) async fn logs_come_back_as_they_were(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    assert_eq!(store.logs(machine.id()).await.unwrap(), None);
    for (reset_count, boot_log) in [
        (0, BootLogRecord::NotSent),
        (0, BootLogRecord::Absent),
        (u32::MAX, BootLogRecord::Present(vec![1, 2, 3])),
        (0, BootLogRecord::Refused(vec![4])),
    ] {
        for ima in [None, Some(ima(5, 2)), Some(ima(7, 0))] {
            let record = LogRecord { ima, ..record(reset_count, boot_log.clone()) };
            change(&*store, &machine, record.clone(), FrameChange::Keep).await;
            assert_eq!(store.logs(machine.id()).await.unwrap(), Some(record));
        }
    }
    let before = store.logs(machine.id()).await.unwrap();
    let revision = machine.node(&*store).await.revision;
    store.record_evidence(evidence(machine.id(), revision)).await.unwrap();
    assert_eq!(store.logs(machine.id()).await.unwrap(), before, "evidence that is silent changes nothing");
}

pub(crate) async fn frames_are_kept_in_order_until_a_quote_covers_them(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    let now = || record(7, BootLogRecord::NotSent);
    let new = |covered: &[u8], pending: &[u8]| NewFrames {
        covered: (!covered.is_empty()).then(|| covered.to_vec()),
        pending: (!pending.is_empty()).then(|| pending.to_vec()),
    };
    let none = Vec::<Vec<u8>>::new;
    for (frames_change, covered, pending) in [
        (FrameChange::Replace(new(&[1], &[])), vec![vec![1]], none()),
        (FrameChange::AppendPending(vec![2]), vec![vec![1]], vec![vec![2]]),
        (FrameChange::AppendPending(vec![3]), vec![vec![1]], vec![vec![2], vec![3]]),
        (FrameChange::Keep, vec![vec![1]], vec![vec![2], vec![3]]),
        (FrameChange::Cover(new(&[4], &[5])), vec![vec![1], vec![2], vec![3], vec![4]], vec![vec![5]]),
        (FrameChange::DropPending, vec![vec![1], vec![2], vec![3], vec![4]], none()),
        (FrameChange::Replace(new(&[], &[6])), none(), vec![vec![6]]),
    ] {
        change(&*store, &machine, now(), frames_change.clone()).await;
        assert_eq!(frames(&*store, &machine, false).await, covered, "{frames_change:?}");
        assert_eq!(frames(&*store, &machine, true).await, pending, "{frames_change:?}");
    }
}

pub(crate) async fn logs_of_another_boot_or_attestation_key_are_gone(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (machine, other) = (Machine::new(1), Machine::new(2));
    for (machine, ak) in [(&machine, 101), (&other, 102)] {
        machine.enrolled(&*store, ak).await;
        let first = FrameChange::Replace(NewFrames { covered: Some(vec![1]), pending: None });
        change(&*store, machine, record(7, BootLogRecord::Present(vec![9])), first).await;
    }
    change(&*store, &machine, record(8, BootLogRecord::NotSent), FrameChange::Keep).await;
    assert!(frames(&*store, &machine, false).await.is_empty(), "of the boot before");
    let again = FrameChange::Replace(NewFrames { covered: Some(vec![2]), pending: None });
    change(&*store, &machine, record(8, BootLogRecord::NotSent), again).await;
    machine.enrolled(&*store, 103).await;
    assert_eq!(store.logs(machine.id()).await.unwrap(), None, "of another AK");
    assert!(frames(&*store, &machine, false).await.is_empty());
    assert_eq!(frames(&*store, &other, false).await, [vec![1]], "another node's stay");
}

pub(crate) async fn evidence_on_a_stale_revision_leaves_the_logs(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    let first = record(7, BootLogRecord::Absent);
    change(&*store, &machine, first.clone(), FrameChange::Keep).await;
    let frames_change = FrameChange::AppendPending(vec![2]);
    let logs = Some(LogChange { record: record(8, BootLogRecord::NotSent), frames: frames_change });
    let late = EvidenceRecord { logs: logs.clone(), ..evidence(machine.id(), 1) };
    assert_eq!(store.record_evidence(late).await.unwrap(), Recorded::NodeChanged);
    let decided = || decision(Some(machine.id()), DecisionKind::Reappraise, "affirming");
    let verdict = posture(rootbound_verifier::appraisal::Verdict::Affirming);
    let late = store.record_reappraisal(machine.id(), 1, &verdict, 1, logs.clone(), decided()).await;
    assert_eq!(late.unwrap(), Recorded::NodeChanged);
    assert_eq!(store.logs(machine.id()).await.unwrap(), Some(first));
    let revision = machine.node(&*store).await.revision;
    let done = store.record_reappraisal(machine.id(), revision, &verdict, 1, logs.clone(), decided()).await;
    assert_eq!(done.unwrap(), Recorded::Yes { revision: revision + 1 });
    assert_eq!(store.logs(machine.id()).await.unwrap(), logs.map(|change| change.record));
    assert_eq!(frames(&*store, &machine, true).await, [vec![2]]);
}

//! The stored evidence of the whole fleet, page by page.

use rootbound_verifier::store::fleet::{KeptEvidence, KeptFrames};
use rootbound_verifier::store::logs::{BootLogRecord, FrameChange, LogChange, LogRecord, NewFrames};
use rootbound_verifier::store::{EvidenceRecord, Recorded};

use super::BackEnd;
use crate::fixtures::{Machine, assert_same, evidence, last_seen};

pub(crate) async fn kept_evidence_comes_in_pages_with_nodes_that_have_none(back_end: &impl BackEnd) {
    let store = back_end.store();
    assert!(store.kept_evidence(None, 10).await.unwrap().is_empty());
    let machines: Vec<_> = (1..=5).map(Machine::new).collect();
    for (ak, machine) in (101..).zip(&machines) {
        machine.enrolled(&*store, ak).await;
    }
    let logs = LogRecord { reset_count: 5, boot_log: BootLogRecord::Present(vec![1, 2, 3]), ima: None };
    for machine in &machines[..3] {
        let revision = machine.node(&*store).await.revision;
        let change = LogChange { record: logs.clone(), frames: FrameChange::Keep };
        // The last of the three has no log.
        let change = (machine.id() != machines[2].id()).then_some(change);
        let record = EvidenceRecord { logs: change, ..evidence(machine.id(), revision) };
        assert!(matches!(store.record_evidence(record).await.unwrap(), Recorded::Yes { .. }));
    }
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let page = store.kept_evidence(after, 2).await.unwrap();
        assert!(page.len() <= 2);
        let Some(last) = page.last() else { break };
        after = Some(last.node);
        found.extend(page);
    }
    let mut ids: Vec<_> = machines.iter().map(Machine::id).collect();
    ids.sort();
    assert_eq!(found.iter().map(|kept| kept.node).collect::<Vec<_>>(), ids);
    for machine in &machines {
        let kept = found.iter().find(|kept| kept.node == machine.id()).unwrap();
        let node = machine.node(&*store).await;
        assert_eq!((kept.revision, &kept.labels), (node.revision, &node.labels));
        assert_eq!(kept.attestation_key.name(), node.attestation_key.name());
        let quote = store.last_quote(machine.id()).await.unwrap();
        assert_eq!(quote.is_some(), kept.reset_count == Some(last_seen().clock.reset_count));
        assert_same(kept.quote.as_ref().unwrap(), &quote);
        assert_eq!(kept.logs, store.logs(machine.id()).await.unwrap());
    }
    assert_eq!(found.iter().filter(|kept| kept.logs.is_some()).count(), 2);
}

pub(crate) async fn short_lists_come_with_the_page_and_long_ones_do_not(back_end: &impl BackEnd) {
    let store = back_end.store();
    let mut machines: Vec<_> = (1..=20).map(Machine::new).collect();
    for (ak, machine) in (101..).zip(&machines) {
        machine.enrolled(&*store, ak).await;
    }
    machines.sort_by_key(Machine::id);
    let logs = LogRecord { reset_count: 5, boot_log: BootLogRecord::Absent, ima: None };
    let most = vec![7; KeptEvidence::FRAMES];
    for (index, machine) in machines.iter().enumerate() {
        let (covered, pending) = match index {
            0 => (None, None),
            1 => (Some(vec![1, 2]), Some(vec![3])),
            2 => (Some(most.clone()), Some(vec![3])),
            _ => (Some(most.clone()), None),
        };
        for frames in
            [FrameChange::Replace(NewFrames { covered, pending }), FrameChange::AppendPending(vec![4])]
        {
            if index != 1 && matches!(frames, FrameChange::AppendPending(_)) {
                continue;
            }
            let revision = machine.node(&*store).await.revision;
            let record = EvidenceRecord {
                logs: Some(LogChange { record: logs.clone(), frames }),
                ..evidence(machine.id(), revision)
            };
            assert!(matches!(store.record_evidence(record).await.unwrap(), Recorded::Yes { .. }));
        }
    }
    let page = store.kept_evidence(None, 100).await.unwrap();
    let frames: Vec<_> = page.iter().map(|kept| kept.frames.as_ref()).collect();
    assert_eq!(frames[0], Some(&KeptFrames::default()), "there are none");
    let short = KeptFrames { covered: vec![vec![1, 2]], pending: vec![vec![3], vec![4]] };
    assert_eq!(frames[1], Some(&short));
    assert_eq!(frames[2], None, "a byte too long");
    let whole = KeptFrames { covered: vec![most], pending: Vec::new() };
    let together = KeptEvidence::FRAMES_TOGETHER / KeptEvidence::FRAMES;
    // Those five bytes take the place of one more.
    for (index, frames) in frames.iter().enumerate().skip(3) {
        let fits = index < 3 + together - 1;
        assert_eq!(*frames, fits.then_some(&whole), "{index}");
    }
    let rest = store.kept_evidence(Some(machines[2].id()), 100).await.unwrap();
    assert_eq!(rest.iter().filter(|kept| kept.frames.is_some()).count(), together);
}

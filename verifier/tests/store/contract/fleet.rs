//! The stored evidence of the whole fleet, page by page.

use rootbound_verifier::store::logs::{BootLogRecord, FrameChange, LogChange, LogRecord};
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

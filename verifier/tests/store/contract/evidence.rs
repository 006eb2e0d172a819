//! Evidence and what it led to.

use rootbound_common::tpm::ClockState;
use rootbound_verifier::appraisal::Verdict;
use rootbound_verifier::node::LastSeen;
use rootbound_verifier::node::NodeRecord;
use rootbound_verifier::store::{DecisionKind, EvidenceRecord, Recorded, Store, StoreError};

use super::BackEnd;
use crate::fixtures::{
    Machine, NOW, assert_same, at_once, certificate, codes, decision, evidence, fresh, last_seen, later,
    posture, record,
};

pub(crate) async fn evidence_is_recorded_whole_and_counts_the_revision_up(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    assert_eq!(store.last_quote(machine.id()).await.unwrap(), None);
    for (revision, verdict) in [(1, Verdict::Contraindicated), (2, Verdict::Affirming)] {
        let record = EvidenceRecord {
            certificate: (verdict == Verdict::Affirming).then(|| certificate(later(600))),
            posture: posture(verdict),
            ..evidence(machine.id(), revision)
        };
        let recorded = store.record_evidence(record.clone()).await.unwrap();
        assert_eq!(recorded, Recorded::Yes { revision: revision + 1 });
        let node = machine.node(&*store).await;
        assert_eq!((node.revision, node.last_seen), (revision + 1, Some(record.last_seen)));
        assert_eq!(store.last_quote(machine.id()).await.unwrap(), Some(record.quote));
        let live = store.live_node(machine.id(), NOW).await.unwrap().unwrap();
        assert_eq!((live.posture, live.revision), (Some(record.posture), revision + 1));
        let issued = store.certificates(machine.id(), 10).await.unwrap();
        assert_same(&issued.into_iter().next(), &record.certificate);
        assert_eq!(store.decisions(Some(machine.id()), 1).await.unwrap(), [record.decision]);
    }
}

pub(crate) async fn every_clock_comes_back_as_it_was(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    let most = ClockState { clock: u64::MAX, reset_count: u32::MAX, restart_count: u32::MAX, safe: false };
    let least = ClockState { clock: 0, reset_count: 0, restart_count: 0, safe: true };
    let seen = [
        LastSeen { clock: most, firmware_version: u64::MAX, ..last_seen() },
        LastSeen { clock: least, firmware_version: 0, ..last_seen() },
    ];
    for (revision, last_seen) in (1..).zip(seen) {
        let record = EvidenceRecord { last_seen, ..evidence(machine.id(), revision) };
        store.record_evidence(record).await.unwrap();
        assert_eq!(machine.node(&*store).await.last_seen, Some(last_seen));
    }
}

async fn assert_nothing_is_written(store: &dyn Store, machine: &Machine, record: EvidenceRecord) {
    let before = (
        machine.node(store).await,
        store.last_quote(machine.id()).await.unwrap(),
        store.live_node(machine.id(), NOW).await.unwrap(),
        store.certificates(machine.id(), 10).await.unwrap(),
        store.decisions(None, 10).await.unwrap(),
    );
    let recorded = store.record_evidence(record).await;
    assert!(matches!(recorded, Ok(Recorded::NodeChanged) | Err(StoreError::Database(_))), "{recorded:?}");
    let after = (
        machine.node(store).await,
        store.last_quote(machine.id()).await.unwrap(),
        store.live_node(machine.id(), NOW).await.unwrap(),
        store.certificates(machine.id(), 10).await.unwrap(),
        store.decisions(None, 10).await.unwrap(),
    );
    assert_same(&after, &before);
}

pub(crate) async fn evidence_on_a_stale_revision_writes_nothing(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    machine.attested(&*store, later(600)).await;
    for revision in [0, 1, 3, u64::MAX] {
        let record = EvidenceRecord {
            certificate: Some(certificate(later(600))),
            posture: posture(Verdict::Contraindicated),
            ..evidence(machine.id(), revision)
        };
        assert_eq!(store.record_evidence(record.clone()).await.unwrap(), Recorded::NodeChanged);
        assert_nothing_is_written(&*store, &machine, record).await;
    }
    let nobody = evidence(Machine::new(2).id(), 1);
    assert_eq!(store.record_evidence(nobody).await.unwrap(), Recorded::NodeChanged);
    assert_eq!(store.last_quote(Machine::new(2).id()).await.unwrap(), None);
}

pub(crate) async fn of_many_pieces_of_evidence_on_one_revision_one_is_recorded(back_end: &impl BackEnd) {
    let machine = Machine::new(1);
    machine.enrolled(&*back_end.store(), 101).await;
    let recorded = at_once(16, |_| {
        let (store, id) = (back_end.store(), machine.id());
        let record = EvidenceRecord { certificate: Some(certificate(later(600))), ..evidence(id, 1) };
        async move { store.record_evidence(record).await.unwrap() }
    })
    .await;
    let store = back_end.store();
    assert_eq!(recorded.iter().filter(|one| **one == Recorded::Yes { revision: 2 }).count(), 1);
    assert_eq!(recorded.iter().filter(|one| **one == Recorded::NodeChanged).count(), 15);
    assert_eq!(store.certificates(machine.id(), 100).await.unwrap().len(), 1);
    assert_eq!(codes(&*store, Some(machine.id())).await, ["attested", "enrolled"]);
}

pub(crate) async fn serial_number_that_was_used_writes_nothing(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (first, second) = (Machine::new(1), Machine::new(2));
    first.enrolled(&*store, 101).await;
    second.enrolled(&*store, 102).await;
    let used = first.attested(&*store, later(600)).await;
    let mut repeated = certificate(later(900));
    repeated.serial = used;
    let record = EvidenceRecord { certificate: Some(repeated), ..evidence(second.id(), 1) };
    assert_nothing_is_written(&*store, &second, record).await;
    second.attested(&*store, later(600)).await;
}

pub(crate) async fn reappraisal_changes_the_posture_and_the_revision(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    machine.attested(&*store, later(600)).await;
    let (node, quote) = (machine.node(&*store).await, store.last_quote(machine.id()).await.unwrap());
    let worse = posture(Verdict::Contraindicated);
    let decided = decision(Some(machine.id()), DecisionKind::Reappraise, "reappraised");
    let recorded = store.record_reappraisal(machine.id(), 2, &worse, 1, None, decided).await.unwrap();
    assert_eq!(recorded, Recorded::Yes { revision: 3 });
    let expected = NodeRecord { revision: 3, ..node };
    assert_same(&machine.node(&*store).await, &expected);
    assert_eq!(store.last_quote(machine.id()).await.unwrap(), quote);
    let live = store.live_node(machine.id(), NOW).await.unwrap().unwrap();
    assert_eq!((live.posture, live.revision, live.credentials.len()), (Some(worse.clone()), 3, 1));
    assert_eq!(codes(&*store, None).await, ["reappraised", "attested", "enrolled"]);
    // Whatever was judged on the revision before has to look again.
    let decided = decision(Some(machine.id()), DecisionKind::Reappraise, "reappraised");
    let late = store.record_reappraisal(machine.id(), 2, &worse, 1, None, decided).await.unwrap();
    assert_eq!(late, Recorded::NodeChanged);
}

pub(crate) async fn reappraisal_on_a_stale_revision_or_without_evidence_writes_nothing(
    back_end: &impl BackEnd,
) {
    let store = back_end.store();
    let (shown, never) = (Machine::new(1), Machine::new(2));
    shown.enrolled(&*store, 101).await;
    never.enrolled(&*store, 102).await;
    shown.attested(&*store, later(600)).await;
    let before = store.live_nodes(NOW).await.unwrap();
    for (id, revision) in
        [(shown.id(), 1), (shown.id(), 3), (shown.id(), u64::MAX), (never.id(), 1), (Machine::new(3).id(), 1)]
    {
        let decided = decision(Some(id), DecisionKind::Reappraise, "reappraised");
        let worse = posture(Verdict::Contraindicated);
        let recorded = store.record_reappraisal(id, revision, &worse, 1, None, decided).await.unwrap();
        assert_eq!(recorded, Recorded::NodeChanged, "{revision}");
    }
    assert_same(&store.live_nodes(NOW).await.unwrap(), &before);
    assert_eq!(codes(&*store, None).await, ["attested", "enrolled", "enrolled"]);
}

pub(crate) async fn certificate_that_is_withdrawn_is_listed_and_does_not_count(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    let kept = machine.attested(&*store, later(600)).await;
    let withdrawn = machine.attested(&*store, later(600)).await;
    for _ in 0..2 {
        let taken_back = record("withdrawn");
        let id = taken_back.id;
        store.withdraw_certificate(withdrawn, taken_back).await.unwrap();
        assert!(store.record(id).await.unwrap().is_some(), "and the trail says so");
        let live = store.live_node(machine.id(), NOW).await.unwrap().unwrap();
        let serials: Vec<_> = live.credentials.iter().map(|credential| credential.serial).collect();
        assert_eq!((live.revision, serials), (3, vec![kept]));
    }
    assert_eq!(store.certificates(machine.id(), 10).await.unwrap().len(), 2);
}

pub(crate) async fn certificates_are_listed_until_they_are_forgotten(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (machine, other) = (Machine::new(1), Machine::new(2));
    machine.enrolled(&*store, 101).await;
    other.enrolled(&*store, 102).await;
    let mut expected = Vec::new();
    for life in [300, 900, 600] {
        expected.insert(0, machine.attested(&*store, later(life)).await);
    }
    other.attested(&*store, later(300)).await;
    let serials = async |limit| {
        let listed = store.certificates(machine.id(), limit).await.unwrap();
        listed.into_iter().map(|record| record.serial).collect::<Vec<_>>()
    };
    assert_eq!(serials(10).await, expected);
    assert_eq!(serials(2).await, expected[..2]);
    assert_eq!(store.forget_certificates(later(300)).await.unwrap(), 0);
    assert_eq!(store.forget_certificates(later(301)).await.unwrap(), 2);
    assert_eq!(serials(10).await, expected[..2]);
    assert!(store.certificates(other.id(), 10).await.unwrap().is_empty());
    assert_eq!(machine.node(&*store).await.revision, 4);
    assert!(
        store.certificates(rootbound_common::id::NodeId::from_bytes(fresh()), 10).await.unwrap().is_empty()
    );
}

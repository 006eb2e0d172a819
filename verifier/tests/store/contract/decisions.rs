//! Decisions.

use rootbound_verifier::store::{DecisionKind, DecisionRecord};

use super::BackEnd;
use crate::fixtures::{Machine, codes, decision, later};

/// More refusals than any test records.
const MANY: u32 = 1_000_000;

pub(crate) async fn decisions_come_the_latest_first(back_end: &impl BackEnd) {
    let store = back_end.store();
    assert!(store.decisions(None, 10).await.unwrap().is_empty());
    let (one, other) = (Machine::new(1).id(), Machine::new(2).id());
    // The time counts; within one millisecond, the order of recording.
    for (code, node, at) in [
        ("a", Some(one), 1),
        ("b", None, 2),
        ("c", Some(other), 2),
        ("late", Some(one), 0),
        ("d", Some(one), 3),
    ] {
        let decision = DecisionRecord { at: later(at), ..decision(node, DecisionKind::Attest, code) };
        store.record_decision(decision).await.unwrap();
    }
    assert_eq!(codes(&*store, None).await, ["d", "c", "b", "a", "late"]);
    assert_eq!(codes(&*store, Some(one)).await, ["d", "a", "late"]);
    assert_eq!(codes(&*store, Some(other)).await, ["c"]);
    assert_eq!(store.decisions(None, 2).await.unwrap().len(), 2);
    assert_eq!(store.decisions(Some(one), 0).await.unwrap(), []);
}

pub(crate) async fn decision_is_recorded_as_it_is(back_end: &impl BackEnd) {
    let store = back_end.store();
    let node = Some(Machine::new(1).id());
    for (kind, granted, node) in [
        (DecisionKind::Enroll, false, None),
        (DecisionKind::Activate, true, node),
        (DecisionKind::Attest, false, node),
        (DecisionKind::Reappraise, true, node),
        (DecisionKind::Operate, true, node),
    ] {
        let record = DecisionRecord { granted, ..decision(node, kind, "some_code") };
        store.record_decision(record.clone()).await.unwrap();
        assert_eq!(store.decisions(None, 1).await.unwrap(), [record]);
    }
}

pub(crate) async fn decision_is_recorded_once(back_end: &impl BackEnd) {
    let store = back_end.store();
    let record = decision(None, DecisionKind::Enroll, "refused");
    store.record_decision(record.clone()).await.unwrap();
    assert!(store.record_decision(record.clone()).await.is_err());
    assert_eq!(store.decisions(None, 10).await.unwrap(), [record]);
}

pub(crate) async fn decisions_are_forgotten_by_age(back_end: &impl BackEnd) {
    let store = back_end.store();
    for age in 0..5 {
        let code = format!("at{age}");
        let record = DecisionRecord { at: later(age), ..decision(None, DecisionKind::Attest, &code) };
        store.record_decision(record).await.unwrap();
    }
    assert_eq!(store.forget_decisions(later(0), MANY).await.unwrap(), 0);
    assert_eq!(store.forget_decisions(later(3), MANY).await.unwrap(), 3);
    assert_eq!(codes(&*store, None).await, ["at4", "at3"]);
}

/// More than are forgotten at once, so that slices are seen.
pub(crate) async fn flood_of_refusals_pushes_out_older_refusals_and_nothing_else(back_end: &impl BackEnd) {
    let store = back_end.store();
    let record = |granted, code: &str| {
        let (store, decision) = (store.clone(), decision(None, DecisionKind::Enroll, code));
        async move { store.record_decision(DecisionRecord { granted, ..decision }).await.unwrap() }
    };
    record(true, "granted").await;
    for wave in [1000, 1000, 98] {
        let flood: tokio::task::JoinSet<()> = (0..wave).map(|_| record(false, "refused")).collect();
        flood.join_all().await;
    }
    record(false, "refused later").await;
    record(false, "refused last").await;
    record(true, "granted again").await;
    assert_eq!(store.forget_decisions(later(0), 2100).await.unwrap(), 0);
    assert_eq!(store.forget_decisions(later(0), 2).await.unwrap(), 2098);
    let kept = ["granted again", "refused last", "refused later", "granted"];
    assert_eq!(codes(&*store, None).await, kept);
    assert_eq!(store.forget_decisions(later(0), 2).await.unwrap(), 0);
}

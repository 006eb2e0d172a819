//! The audit trail.

use std::sync::Arc;

use rootbound_common::random;
use rootbound_verifier::audit::verify::{Verification, Walk};
use rootbound_verifier::audit::{
    Actor, AuditKey, AuditRecord, Checkpoint, Entity, Head, Outcome, RecordId, RecordKind, Segment,
};
use rootbound_verifier::reference::ProfileBody;
use rootbound_verifier::store::{DecisionKind, DecisionRecord, RecordFilter, Store};

use super::BackEnd;
use crate::fixtures::{
    Machine, NOW, accepted, decision, fresh, inventory_entry, labels, later, name, provenance, record,
};

async fn whole(store: &dyn Store) -> Vec<Segment> {
    let (mut all, mut from) = (Vec::new(), 1);
    loop {
        let page = store.segments(from, 7).await.unwrap();
        let Some(last) = page.last() else { return all };
        from = last.head().sequence + 1;
        all.extend(page);
    }
}

async fn verified(store: &dyn Store, key: &AuditKey) -> Verification {
    let keys = [key.public().clone()];
    let mut walk = Walk::new(&keys, None);
    for checkpoint in store.checkpoints(0, 1000).await.unwrap() {
        walk.checkpoint(&checkpoint);
    }
    for segment in whole(store).await {
        walk.segment(&segment);
    }
    walk.end()
}

/// The codes of all records, the first first.
async fn trail(store: &dyn Store) -> Vec<String> {
    let records = whole(store).await.into_iter().flat_map(|segment| {
        segment.records().map(|record| record.unwrap().record.code.to_string()).collect::<Vec<_>>()
    });
    records.collect()
}

fn key() -> AuditKey {
    AuditKey::generate(&mut random::system())
}

pub(crate) async fn records_form_one_chain(back_end: &impl BackEnd) {
    let store = back_end.store();
    assert_eq!(store.trail_head().await.unwrap(), Head::default());
    assert!(store.segments(1, 10).await.unwrap().is_empty());
    store.append(vec![record("a"), record("b")]).await.unwrap();
    store.append(Vec::new()).await.unwrap();
    store.append(vec![record("c")]).await.unwrap();
    assert_eq!(trail(&*store).await, ["a", "b", "c"]);
    let verification = verified(&*store, &key()).await;
    assert!(verification.is_whole(), "{:?}", verification.damages);
    assert_eq!(verification.head, store.trail_head().await.unwrap());
    assert_eq!(store.segments(2, 10).await.unwrap()[0].first, 1, "the segment that holds it");
    assert_eq!(store.segments(3, 10).await.unwrap()[0].first, 3);
    assert_eq!(store.segments(1, 1).await.unwrap().len(), 1);
    assert!(store.segments(4, 10).await.unwrap().is_empty());
    assert!(store.segments(u64::MAX, 10).await.unwrap().is_empty());
}

pub(crate) async fn records_of_many_at_once_form_one_chain(back_end: &impl BackEnd) {
    let store = back_end.store();
    let appends: tokio::task::JoinSet<()> = (0..200)
        .map(|index: u32| {
            let store = Arc::clone(&store);
            async move {
                let records = (0..index % 4).map(|_| record("one")).collect();
                store.append(records).await.unwrap();
                store.record_decision(decision(None, DecisionKind::Enroll, "two")).await.unwrap();
            }
        })
        .collect();
    appends.join_all().await;
    let verification = verified(&*store, &key()).await;
    assert!(verification.is_whole(), "{:?}", verification.damages);
    assert_eq!(verification.records, 300 + 200);
}

pub(crate) async fn large_append_is_whole(back_end: &impl BackEnd) {
    let store = back_end.store();
    let records: Vec<_> = (0..5000).map(|_| record("one").because(&"x".repeat(800))).collect();
    store.append(records).await.unwrap();
    let verification = verified(&*store, &key()).await;
    assert!(verification.is_whole() && verification.records == 5000, "{:?}", verification.damages);
    let page = store.segments(1, 1000).await.unwrap();
    let bytes: usize = page.iter().map(|segment| segment.body.len()).sum();
    assert!(bytes <= 4 * Segment::BYTES && page.len() > 1, "{bytes} bytes in {} segments", page.len());
}

pub(crate) async fn every_decision_is_a_record_of_the_same_id(back_end: &impl BackEnd) {
    let store = back_end.store();
    let node = Machine::new(1).id();
    for (kind, granted, of, outcome, actor) in [
        (DecisionKind::Enroll, false, RecordKind::Refusal, Outcome::Refused, Actor::Stranger),
        (DecisionKind::Activate, true, RecordKind::Admission, Outcome::Granted, Actor::Node(node)),
        (DecisionKind::Activate, false, RecordKind::Refusal, Outcome::Refused, Actor::Stranger),
        (DecisionKind::Attest, true, RecordKind::Attestation, Outcome::Granted, Actor::Node(node)),
        (DecisionKind::Attest, false, RecordKind::Refusal, Outcome::Refused, Actor::Stranger),
        (DecisionKind::Reappraise, true, RecordKind::PostureChange, Outcome::Done, Actor::Verifier),
        (DecisionKind::Operate, true, RecordKind::OperatorAction, Outcome::Done, Actor::Operator("".into())),
    ] {
        let decided = DecisionRecord { granted, ..decision(Some(node), kind, "some_code") };
        store.record_decision(decided.clone()).await.unwrap();
        let found = store.record(decided.id).await.unwrap().unwrap().record;
        assert_eq!((found.kind, found.outcome, &found.actor), (of, outcome, &actor), "{kind:?} {granted}");
        assert_eq!((found.at, found.code.as_str()), (NOW, "some_code"));
        assert_eq!(found.subject, Some(Entity::node(node)));
    }
}

/// What fails or changes nothing leaves no record.
pub(crate) async fn what_an_administrator_does_is_recorded_with_it(back_end: &impl BackEnd) {
    let store = back_end.store();
    let node = Machine::new(1).id();
    store.put_reference_set(name("a"), accepted(1), provenance(""), record("set")).await.unwrap();
    store.put_reference_set(name("a"), accepted(2), provenance(""), record("set again")).await.unwrap();
    assert!(store.withdraw_reference_set(&name("a"), provenance(""), record("withdrawn")).await.unwrap());
    assert!(!store.withdraw_reference_set(&name("a"), provenance(""), record("twice")).await.unwrap());
    let profile = ProfileBody::initial(name("default"));
    store.put_profile(name("p"), profile.clone(), provenance(""), record("profile")).await.unwrap();
    let nothing = ProfileBody { references: Vec::new(), ..profile };
    store.put_profile(name("p"), nothing, provenance(""), record("bad profile")).await.unwrap_err();
    store.put_inventory(&inventory_entry(node, labels(&[])), record("listed")).await.unwrap();
    assert!(store.remove_inventory(node, record("unlisted")).await.unwrap());
    assert!(!store.remove_inventory(node, record("not listed")).await.unwrap());
    assert!(!store.revoke_join_token("none", record("no token")).await.unwrap());
    assert_eq!(trail(&*store).await, ["set", "set again", "withdrawn", "profile", "listed", "unlisted"]);
    let segments = whole(&*store).await;
    let versions: Vec<_> = segments
        .iter()
        .flat_map(|segment| segment.records().map(|record| record.unwrap().record.versions))
        .map(|versions| versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
        .collect();
    assert_eq!(versions, ["a@1", "a@2", "", "p@1", "", ""]);
}

pub(crate) async fn record_is_found_by_its_id(back_end: &impl BackEnd) {
    let store = back_end.store();
    let at = |seconds, code: &str| AuditRecord {
        id: RecordId::of(later(seconds), fresh()),
        at: later(seconds),
        ..record(code)
    };
    // One that waited long is written behind younger ones, and the clock goes back.
    let groups =
        [vec![at(1, "a"), at(9, "b")], vec![at(3, "c")], vec![at(2, "d"), at(2, "e")], vec![at(1, "f")]];
    for group in &groups {
        store.append(group.clone()).await.unwrap();
    }
    for expected in groups.iter().flatten() {
        assert_eq!(store.record(expected.id).await.unwrap().unwrap().record, *expected);
    }
    for none in [RecordId::of(later(2), fresh()), RecordId::of(later(100), fresh())] {
        assert_eq!(store.record(none).await.unwrap(), None);
    }
}

pub(crate) async fn records_come_the_latest_first_as_they_are_wanted(back_end: &impl BackEnd) {
    let store = back_end.store();
    let node = Machine::new(1).id();
    store.append(vec![record("a"), record("b").about(Entity::node(node))]).await.unwrap();
    let refused = AuditRecord { outcome: Outcome::Refused, kind: RecordKind::Decision, ..record("c") };
    store.append(vec![refused.about(Entity::node(node)), record("d")]).await.unwrap();
    let found = async |filter: RecordFilter, before, limit| {
        let page = store.records(&filter, before, limit).await.unwrap();
        let codes = page.records.iter().map(|record| record.record.code.to_string()).collect::<Vec<_>>();
        (codes.join(""), page.before)
    };
    let all = RecordFilter::default;
    assert_eq!(found(all(), None, 10).await, ("dcba".to_owned(), None));
    assert_eq!(found(all(), None, 3).await, ("dcb".to_owned(), Some(2)));
    assert_eq!(found(all(), Some(2), 3).await, ("a".to_owned(), None));
    assert_eq!(found(RecordFilter { node: Some(node), ..all() }, None, 10).await.0, "cb");
    assert_eq!(found(RecordFilter { kinds: vec![RecordKind::Decision], ..all() }, None, 10).await.0, "c");
    assert_eq!(found(RecordFilter { outcome: Some(Outcome::Done), ..all() }, None, 10).await.0, "dba");
}

pub(crate) async fn search_is_bounded_and_goes_on(back_end: &impl BackEnd) {
    let store = back_end.store();
    store.append(vec![record("first")]).await.unwrap();
    for _ in 0..6 {
        store.append(vec![record("many"); 4000]).await.unwrap();
    }
    let filter = RecordFilter { outcome: Some(Outcome::Failed), ..RecordFilter::default() };
    let page = store.records(&filter, None, 10).await.unwrap();
    let before = page.before.unwrap();
    assert!(page.records.is_empty() && before > 1 && before < 24_001, "{before}");
    assert_eq!(store.records(&filter, Some(before), 10).await.unwrap().before, None);
}

pub(crate) async fn checkpoints_are_of_the_trail_and_come_in_order(back_end: &impl BackEnd) {
    let store = back_end.store();
    let key = key();
    store.append(vec![record("a"), record("b")]).await.unwrap();
    let head = store.trail_head().await.unwrap();
    let first = key.sign(Head::default(), head, NOW);
    store.put_checkpoint(first.clone()).await.unwrap();
    store.append(vec![record("c")]).await.unwrap();
    let inner = Head { sequence: 1, hash: whole(&*store).await[0].links[0] };
    let second = key.sign(Head::default(), inner, NOW);
    store.put_checkpoint(second.clone()).await.unwrap();
    let refused: [Checkpoint; 4] = [
        key.sign(Head::default(), Head { sequence: 9, ..head }, NOW),
        key.sign(Head::default(), Head { sequence: 1, ..head }, NOW),
        key.sign(inner, head, NOW),
        key.sign(Head { sequence: 9, ..head }, head, NOW),
    ];
    for checkpoint in refused {
        store.put_checkpoint(checkpoint.clone()).await.unwrap_err();
    }
    assert_eq!(store.last_checkpoint().await.unwrap(), Some(second.clone()));
    assert_eq!(store.checkpoints(0, 10).await.unwrap(), [first.clone(), second.clone()]);
    assert_eq!(store.checkpoints(0, 1).await.unwrap(), [first]);
    assert_eq!(store.checkpoints(1, 10).await.unwrap(), [second]);
    let verification = verified(&*store, &key).await;
    assert!(verification.is_whole() && verification.checkpoints == 2, "{:?}", verification.damages);
    assert_eq!(verification.after_last_checkpoint, 1);
    let public = key.public();
    for _ in 0..2 {
        store.put_audit_key(public, NOW).await.unwrap();
    }
    assert_eq!(store.audit_keys().await.unwrap(), std::slice::from_ref(public));
}

pub(crate) async fn archived_segments_go_and_the_rest_verifies(back_end: &impl BackEnd) {
    let store = back_end.store();
    let key = key();
    let at = |seconds| AuditRecord {
        id: RecordId::of(later(seconds), fresh()),
        at: later(seconds),
        ..record("a")
    };
    for seconds in 0..5 {
        store.append(vec![at(seconds), at(seconds)]).await.unwrap();
    }
    assert_eq!(store.trail_before(later(0)).await.unwrap(), None);
    let end = store.trail_before(later(3)).await.unwrap().unwrap();
    assert_eq!(end.sequence, 6);
    assert_eq!(store.forget_segments().await.unwrap(), 0, "nothing was signed off");
    let head = store.trail_head().await.unwrap();
    store.put_checkpoint(key.sign(end, head, NOW)).await.unwrap();
    assert_eq!(store.forget_segments().await.unwrap(), 3);
    assert_eq!(whole(&*store).await[0].first, 7);
    let verification = verified(&*store, &key).await;
    assert!(verification.is_whole() && verification.first == 7, "{:?}", verification.damages);
    store.put_checkpoint(key.sign(Head::default(), head, NOW)).await.unwrap_err();
    // All of it, and then on.
    let everything = store.trail_before(later(100)).await.unwrap().unwrap();
    assert_eq!(everything, head);
    store.put_checkpoint(key.sign(head, head, NOW)).await.unwrap();
    assert_eq!(store.forget_segments().await.unwrap(), 2);
    assert!(verified(&*store, &key).await.is_whole());
    let back_end = back_end.after_a_kill().await;
    let store = back_end.store();
    assert_eq!(store.trail_head().await.unwrap(), head);
    store.append(vec![at(9)]).await.unwrap();
    let verification = verified(&*store, &key).await;
    assert!(verification.is_whole() && verification.head.sequence == 11, "{:?}", verification.damages);
}

pub(crate) async fn trail_survives_a_kill_under_load(back_end: &impl BackEnd) {
    let store = back_end.store();
    let mut appends = tokio::task::JoinSet::new();
    let acknowledged = Arc::new(std::sync::atomic::AtomicU64::new(0));
    for _ in 0..8 {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        appends.spawn(async move {
            for _ in 0..50 {
                store.append(vec![record("one"), record("two")]).await.unwrap();
                acknowledged.fetch_add(2, std::sync::atomic::Ordering::SeqCst);
            }
        });
    }
    let mut killed = Vec::new();
    while appends.join_next().await.is_some() {
        let before = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
        killed.push((before, back_end.after_a_kill().await));
    }
    for (before, back_end) in killed {
        let verification = verified(&*back_end.store(), &key()).await;
        assert!(verification.is_whole(), "{:?}", verification.damages);
        assert!(verification.records >= before, "{} of {before}", verification.records);
    }
}

//! Holds and signals.

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::random;
use rootbound_verifier::audit::{RecordId, RecordKind};
use rootbound_verifier::hold::{HeldBy, Hold, HoldId, HoldKind};
use rootbound_verifier::node::NodeRecord;
use rootbound_verifier::store::holds::{HoldChange, HoldEnd, HoldOutcome, Lift};
use rootbound_verifier::store::signals::{SignalOutcome, SignalRecord};
use rootbound_verifier::store::{DecisionKind, DecisionRecord, RecordFilter, Recorded, Store};

use super::BackEnd;
use crate::fixtures::{Machine, NOW, at_once, codes, decision, evidence, fresh, later};

fn operator() -> HeldBy {
    HeldBy::Operator("uid 0".to_owned())
}

fn scanner(name: &str) -> HeldBy {
    HeldBy::RelyingParty(name.parse().unwrap())
}

fn hold(by: HeldBy, expires_at: Option<Timestamp>) -> Hold {
    Hold {
        id: HoldId::generate(&mut random::system()),
        kind: HoldKind::Block,
        by,
        reason: "malware".to_owned().try_into().unwrap(),
        since: NOW,
        expires_at,
    }
}

fn lift(by: HeldBy, hold: Option<HoldId>) -> HoldChange {
    HoldChange::Lift(Lift { hold, by, reason: "cleaned".to_owned().try_into().unwrap(), at: later(5) })
}

fn decided(node: NodeId, at: Timestamp) -> DecisionRecord {
    let id = RecordId::of(at, fresh());
    DecisionRecord { id, at, ..decision(Some(node), DecisionKind::Operate, "held") }
}

/// What changes something is on record in the trail, and nothing else.
async fn change(store: &dyn Store, node: NodeId, change: HoldChange) -> HoldOutcome {
    let decision = decided(node, later(5));
    let id = decision.id;
    let outcome = store.change_holds(node, change, decision).await.unwrap();
    let recorded = store.record(id).await.unwrap().is_some();
    assert_eq!(recorded, matches!(outcome, HoldOutcome::Changed(_)), "{outcome:?}");
    outcome
}

async fn changed(store: &dyn Store, node: NodeId, wanted: HoldChange) -> NodeRecord {
    match change(store, node, wanted).await {
        HoldOutcome::Changed(node) => *node,
        other => panic!("not changed: {other:?}"),
    }
}

pub(crate) async fn hold_stands_until_it_is_lifted_and_its_history_stays(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let before = machine.enrolled(&*store, 1).await;
    assert_eq!((before.epoch, before.attested_after), (1, None));
    let first = hold(operator(), None);
    let held = changed(&*store, machine.id(), HoldChange::Set(first.clone())).await;
    assert_eq!((held.revision, held.epoch), (before.revision + 1, 2));
    assert_eq!((&held.holds, held.attested_after), (&vec![first.clone()], None));
    let live = store.live_node(machine.id(), NOW).await.unwrap().unwrap();
    assert_eq!((live.epoch, live.holds), (2, vec![first.clone()]));
    assert_eq!(store.holds(machine.id(), 10).await.unwrap()[0].end, None);

    let released = changed(&*store, machine.id(), lift(operator(), Some(first.id))).await;
    assert_eq!((released.epoch, &released.holds), (3, &vec![]));
    assert_eq!(released.attested_after, Some(later(5)));
    let history = store.holds(machine.id(), 10).await.unwrap();
    assert_eq!(history[0].hold, first);
    let Some(HoldEnd::Lifted { by, reason, at }) = &history[0].end else { panic!("{history:?}") };
    assert_eq!((by, reason.as_str(), *at), (&operator(), "cleaned", later(5)));
    assert!(matches!(change(&*store, machine.id(), lift(operator(), None)).await, HoldOutcome::NoSuchHold));
    assert_eq!(machine.node(&*store).await.revision, released.revision, "nothing was changed");
    assert_eq!(codes(&*store, Some(machine.id())).await.iter().filter(|code| *code == "held").count(), 2);
    let stranger = Machine::new(2).id();
    let unknown = change(&*store, stranger, HoldChange::Set(hold(operator(), None))).await;
    assert!(matches!(unknown, HoldOutcome::UnknownNode));

    assert_eq!(store.forget_holds(later(5)).await.unwrap(), 0);
    assert_eq!(store.forget_holds(later(6)).await.unwrap(), 1);
    assert!(store.holds(machine.id(), 10).await.unwrap().is_empty());
}

pub(crate) async fn source_lifts_its_own_holds_and_an_operator_any(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 1).await;
    let (own, other, ours) = (hold(scanner("a"), None), hold(scanner("b"), None), hold(operator(), None));
    for hold in [&own, &other, &ours] {
        changed(&*store, machine.id(), HoldChange::Set(hold.clone())).await;
    }
    for foreign in [other.id, ours.id] {
        let refused = change(&*store, machine.id(), lift(scanner("a"), Some(foreign))).await;
        assert!(matches!(refused, HoldOutcome::NoSuchHold));
    }
    let left = changed(&*store, machine.id(), lift(scanner("a"), None)).await;
    assert_eq!(left.holds, [other, ours]);
    let left = changed(&*store, machine.id(), lift(HeldBy::Operator("uid 7".to_owned()), None)).await;
    assert!(left.holds.is_empty());
}

pub(crate) async fn holds_of_one_source_are_bounded(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 1).await;
    for by in [scanner("a"), operator()] {
        for _ in 0..by.most() {
            changed(&*store, machine.id(), HoldChange::Set(hold(by.clone(), None))).await;
        }
        let one_more = change(&*store, machine.id(), HoldChange::Set(hold(by, None))).await;
        assert!(matches!(one_more, HoldOutcome::TooManyHolds));
    }
    assert_eq!(machine.node(&*store).await.holds.len(), 24);
}

pub(crate) async fn hold_that_has_expired_ends_as_a_demand_for_evidence(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 1).await;
    let short = hold(scanner("a"), Some(later(3)));
    changed(&*store, machine.id(), HoldChange::Set(short.clone())).await;
    // Of the same time as the decision: it is past the end.
    let after = changed(&*store, machine.id(), HoldChange::DemandEvidence(later(1))).await;
    assert_eq!((after.holds.len(), after.attested_after), (0, Some(later(3))));
    assert_eq!(store.holds(machine.id(), 1).await.unwrap()[0].end, Some(HoldEnd::Expired));
}

pub(crate) async fn hold_outlives_evidence_enrolment_and_a_kill(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 1).await;
    let first = hold(operator(), None);
    let held = changed(&*store, machine.id(), HoldChange::Set(first.clone())).await;
    let recorded = store.record_evidence(evidence(machine.id(), held.revision - 1)).await.unwrap();
    assert_eq!(recorded, Recorded::NodeChanged, "what was judged before it is not recorded after it");
    let later_epoch =
        rootbound_verifier::store::EvidenceRecord { epoch: 9, ..evidence(machine.id(), held.revision) };
    assert!(matches!(store.record_evidence(later_epoch).await.unwrap(), Recorded::Yes { .. }));
    assert_eq!(machine.node(&*store).await.epoch, 9);
    assert_eq!(machine.enrolled(&*store, 2).await.epoch, 10, "another AK");
    assert_eq!(machine.enrolled(&*store, 2).await.epoch, 10, "the same once more");
    let killed = back_end.after_a_kill().await;
    assert_eq!(machine.node(&*killed.store()).await.holds, [first]);
}

fn signal(id: &str, content: u8) -> SignalRecord {
    SignalRecord {
        source: "scanner".parse().unwrap(),
        id: id.to_owned(),
        digest: [content; 32],
        at: NOW,
        answer: format!("answer {content}"),
    }
}

pub(crate) async fn signal_takes_effect_once(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 1).await;
    let id = machine.id();
    let decided = || decision(Some(id), DecisionKind::Signal, "signal_block");
    let set = || HoldChange::Set(hold(scanner("scanner"), None));
    let unknown = store.record_signal(signal("1", 1), Machine::new(2).id(), set(), decided()).await.unwrap();
    assert!(matches!(unknown, SignalOutcome::UnknownNode), "and it may come again");
    let first = store.record_signal(signal("1", 1), id, set(), decided()).await.unwrap();
    let SignalOutcome::Recorded(node) = first else { panic!("{first:?}") };
    assert_eq!(node.holds.len(), 1);
    let again = store.record_signal(signal("1", 1), id, set(), decided()).await.unwrap();
    assert!(matches!(again, SignalOutcome::Repeated(answer) if answer == "answer 1"));
    let other = store.record_signal(signal("1", 2), id, set(), decided()).await.unwrap();
    assert!(matches!(other, SignalOutcome::OtherContent));
    let elsewhere = SignalRecord { source: "gateway".parse().unwrap(), ..signal("1", 2) };
    let elsewhere = store.record_signal(elsewhere, id, set(), decided()).await.unwrap();
    assert!(matches!(elsewhere, SignalOutcome::Recorded(_)), "ids are those of their source");
    let nothing = store.record_signal(signal("2", 1), id, lift(scanner("nobody"), None), decided()).await;
    assert!(matches!(nothing.unwrap(), SignalOutcome::NoSuchHold));
    assert_eq!(codes(&*store, Some(id)).await.iter().filter(|code| *code == "signal_block").count(), 2);
    let signals = RecordFilter { kinds: vec![RecordKind::Signal], ..RecordFilter::default() };
    assert_eq!(store.records(&signals, None, 100).await.unwrap().records.len(), 2, "in the trail, too");
    assert_eq!(store.forget_signals(NOW).await.unwrap(), 0);
    assert_eq!(store.forget_signals(later(1)).await.unwrap(), 2);
    let forgotten = store.record_signal(signal("1", 2), id, set(), decided()).await.unwrap();
    assert!(matches!(forgotten, SignalOutcome::Recorded(_)));
}

pub(crate) async fn of_many_equal_signals_at_once_one_takes_effect(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 1).await;
    let id = machine.id();
    let outcomes = at_once(8, |_| {
        let store = std::sync::Arc::clone(&store);
        async move {
            let change = HoldChange::Set(hold(scanner("scanner"), None));
            let decided = decision(Some(id), DecisionKind::Signal, "signal_block");
            store.record_signal(signal("1", 1), id, change, decided).await.unwrap()
        }
    })
    .await;
    let recorded = outcomes.iter().filter(|outcome| matches!(outcome, SignalOutcome::Recorded(_))).count();
    let repeated = outcomes.iter().filter(|outcome| matches!(outcome, SignalOutcome::Repeated(_))).count();
    assert_eq!((recorded, repeated), (1, 7));
    assert_eq!(machine.node(&*store).await.holds.len(), 1);
}

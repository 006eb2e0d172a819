//! A machine that is a node already enrols again.

use rootbound_verifier::enrollment::Endorsement;
use rootbound_verifier::node::{AdmittedBy, Standing};
use rootbound_verifier::store::{DecisionKind, EnrollmentOutcome, NodeChange};

use super::BackEnd;
use crate::fixtures::vendor::endorsed_by_a_vendor;
use crate::fixtures::{
    Machine, NOW, assert_same, attestation_key, codes, decision, enrolled, inventory_entry, join_token,
    labels, last_seen, later, record,
};

pub(crate) async fn same_key_keeps_everything(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    let serial = machine.attested(&*store, later(600)).await;
    let before = machine.node(&*store).await;
    let (quote, live) = (store.last_quote(machine.id()).await, store.live_node(machine.id(), NOW).await);

    let outcome = machine.enroll(&*store, 101, None).await;
    assert!(matches!(outcome, EnrollmentOutcome::Enrolled { superseded: false, .. }), "{outcome:?}");
    let node = enrolled(outcome);
    assert_eq!(node.revision, before.revision + 1);
    assert_eq!((node.last_seen, node.enrolled_at), (Some(last_seen()), before.enrolled_at));
    assert_same(&machine.node(&*store).await, &node);
    assert_eq!(store.last_quote(machine.id()).await.unwrap(), quote.unwrap());
    let live = live.unwrap().unwrap();
    let now = store.live_node(machine.id(), NOW).await.unwrap().unwrap();
    assert_eq!((now.posture, &now.credentials), (live.posture, &live.credentials));
    assert_eq!(now.credentials[0].serial, serial);
}

pub(crate) async fn another_key_supersedes_at_once_and_keeps_the_clock(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let other = Machine::new(2);
    for (machine, ak) in [(&machine, 101), (&other, 102)] {
        machine.enrolled(&*store, ak).await;
        machine.attested(&*store, later(600)).await;
    }
    let before = machine.node(&*store).await;

    let outcome = machine.enroll(&*store, 103, None).await;
    assert!(matches!(outcome, EnrollmentOutcome::Enrolled { superseded: true, .. }), "{outcome:?}");
    let node = enrolled(outcome);
    assert_eq!((&node.attestation_key, node.revision), (&attestation_key(103), before.revision + 1));
    assert_eq!(node.last_seen, Some(last_seen()));
    assert_same(&machine.node(&*store).await, &node);
    assert_eq!(store.last_quote(machine.id()).await.unwrap(), None);
    let live = store.live_node(machine.id(), NOW).await.unwrap().unwrap();
    assert_eq!((live.attestation_key, live.revision), (attestation_key(103).name(), node.revision));
    assert_eq!((live.posture, live.credentials), (None, Vec::new()));
    assert_eq!(codes(&*store, Some(machine.id())).await, ["enrolled", "attested", "enrolled"]);

    // What was issued stays on record, and the other machine keeps what it has.
    assert_eq!(store.certificates(machine.id(), 10).await.unwrap().len(), 1);
    let live = store.live_node(other.id(), NOW).await.unwrap().unwrap();
    assert!(live.posture.is_some());
    assert_eq!(live.credentials.len(), 1);
}

pub(crate) async fn return_to_an_old_key_revives_nothing(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    machine.attested(&*store, later(600)).await;
    machine.enrolled(&*store, 102).await;
    machine.enrolled(&*store, 101).await;
    let live = store.live_node(machine.id(), NOW).await.unwrap().unwrap();
    assert_eq!((live.posture, live.credentials), (None, Vec::new()));
    let second = machine.attested(&*store, later(600)).await;
    let live = store.live_node(machine.id(), NOW).await.unwrap().unwrap();
    assert_eq!(live.credentials.iter().map(|live| live.serial).collect::<Vec<_>>(), [second]);
}

pub(crate) async fn retired_node_is_refused_and_nothing_changes(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    let (token, digest) = join_token("one");
    store.create_join_token(&token, digest, record("test")).await.unwrap();
    store.put_inventory(&inventory_entry(machine.id(), labels(&[])), record("test")).await.unwrap();
    let decision = decision(Some(machine.id()), DecisionKind::Operate, "retired");
    let retired = store.retire_node(machine.id(), decision).await.unwrap();
    assert!(matches!(retired, NodeChange::Changed(_)), "{retired:?}");
    let before = machine.node(&*store).await;

    for (ak, token) in [(101, None), (102, None), (102, Some(digest))] {
        let outcome = machine.enroll(&*store, ak, token).await;
        assert!(matches!(outcome, EnrollmentOutcome::Retired), "{outcome:?}");
    }
    assert_same(&machine.node(&*store).await, &before);
    assert_eq!(codes(&*store, None).await, ["retired", "enrolled"]);
    assert_eq!(store.join_tokens().await.unwrap(), [token]);
}

pub(crate) async fn admitted_node_stays_admitted_and_needs_no_token(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let (token, digest) = join_token("one");
    store.create_join_token(&token, digest, record("test")).await.unwrap();
    let admitted = Standing::Admitted { by: AdmittedBy::JoinToken };
    let first = enrolled(machine.enroll(&*store, 101, Some(digest)).await);
    assert_eq!(first.standing, admitted);
    // The attester's configuration still has the token: used, since by itself, and nobody asks.
    for token in [Some(digest), Some([0; 32]), None] {
        let again = enrolled(machine.enroll(&*store, 102, token).await);
        assert_eq!((again.standing, &again.labels), (admitted, &first.labels));
    }
    let used: Vec<_> = store.join_tokens().await.unwrap().into_iter().map(|token| token.used).collect();
    assert_eq!(used, [Some((machine.id(), NOW))]);
}

pub(crate) async fn new_endorsement_replaces_the_old(back_end: &impl BackEnd) {
    let store = back_end.store();
    let listed = Machine::new(1);
    let vouched = Machine::endorsed(endorsed_by_a_vendor(1));
    assert_eq!(listed.id(), vouched.id());
    listed.enrolled(&*store, 101).await;
    vouched.enrolled(&*store, 101).await;
    assert_eq!(listed.node(&*store).await.endorsed_key, endorsed_by_a_vendor(1));
    listed.enrolled(&*store, 101).await;
    assert_eq!(*listed.node(&*store).await.endorsed_key.endorsement(), Endorsement::ListedKey);
}

//! Enrolments of machines that are not nodes yet.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_verifier::enrollment::Endorsement;
use rootbound_verifier::node::{AdmittedBy, Labels, Standing};
use rootbound_verifier::store::{
    CompletedEnrollment, DecisionKind, EnrollmentOutcome, JoinTokenRecord, NodeChange, PendingEnrollment,
    Store, StoreError, WAITING_OF_ONE_KEY,
};

use super::BackEnd;
use crate::fixtures::vendor::endorsed_by_a_vendor;
use crate::fixtures::{
    Machine, NOW, assert_same, at_once, attestation_key, codes, decision, enrolled, fresh, inventory_entry,
    join_token, labels, later, most_labels, name, record,
};

fn pending(machine: &Machine, deadline: Timestamp) -> (PendingEnrollment, [u8; 32]) {
    let (activation, secret) = machine.activation(101, deadline);
    (PendingEnrollment { id: fresh(), activation, join_token_digest: Some([7; 32]) }, secret)
}

pub(crate) async fn pending_enrollment_comes_back_as_it_was_and_once(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let (first, secret) = pending(&machine, later(60));
    let (mut second, _) = pending(&Machine::new(2), later(60));
    second.join_token_digest = None;
    for pending in [&first, &second] {
        assert!(store.begin_enrollment(pending, 10, NOW).await.unwrap());
    }
    let taken = store.take_enrollment(&first.id).await.unwrap().unwrap();
    assert_eq!((taken.id, taken.join_token_digest), (first.id, Some([7; 32])));
    assert_eq!(taken.activation.to_stored(), first.activation.to_stored());
    let keys = taken.activation.complete(&secret, NOW).unwrap();
    assert_eq!((keys.ek().node_id(), keys.ak()), (machine.id(), &attestation_key(101)));
    assert!(store.take_enrollment(&first.id).await.unwrap().is_none());
    assert_eq!(store.take_enrollment(&second.id).await.unwrap().unwrap().join_token_digest, None);
    assert!(store.take_enrollment(&fresh()).await.unwrap().is_none());
}

pub(crate) async fn of_many_who_take_one_enrollment_at_once_one_gets_it(back_end: &impl BackEnd) {
    let (pending, _) = pending(&Machine::new(1), later(60));
    assert!(back_end.store().begin_enrollment(&pending, 10, NOW).await.unwrap());
    let taken = at_once(16, |_| {
        let (store, id) = (back_end.store(), pending.id);
        async move { store.take_enrollment(&id).await.unwrap() }
    })
    .await;
    assert_eq!(taken.into_iter().flatten().count(), 1);
}

pub(crate) async fn only_so_many_enrollments_wait_and_expired_ones_do_not_count(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (expired, _) = pending(&Machine::new(1), later(10));
    let (waiting, _) = pending(&Machine::new(2), later(60));
    let (refused, _) = pending(&Machine::new(3), later(60));
    assert!(store.begin_enrollment(&expired, 2, NOW).await.unwrap());
    assert!(store.begin_enrollment(&waiting, 2, NOW).await.unwrap());
    assert!(!store.begin_enrollment(&refused, 2, NOW).await.unwrap());
    assert!(store.take_enrollment(&refused.id).await.unwrap().is_none());
    // An answer at the deadline is in time.
    assert!(!store.begin_enrollment(&refused, 2, later(10)).await.unwrap());
    let past = later(10).plus(Duration::from_millis(1));
    assert!(store.begin_enrollment(&refused, 2, past).await.unwrap());
    assert!(store.take_enrollment(&expired.id).await.unwrap().is_some());
}

pub(crate) async fn of_one_ek_only_some_enrollments_wait_and_the_eldest_gives_way(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (busy, other) = (Machine::new(1), Machine::new(2));
    let room = WAITING_OF_ONE_KEY + 1;
    let (others, _) = pending(&other, later(60));
    assert!(store.begin_enrollment(&others, room, NOW).await.unwrap());
    let mut begun = Vec::new();
    for _ in 0..3 * WAITING_OF_ONE_KEY {
        let (pending, _) = pending(&busy, later(60));
        assert!(store.begin_enrollment(&pending, room, NOW).await.unwrap());
        begun.push(pending.id);
    }
    // All the room is taken, though by no machine alone.
    let (third, _) = pending(&Machine::new(3), later(60));
    assert!(!store.begin_enrollment(&third, room, NOW).await.unwrap());
    let waiting = begun.split_off(begun.len() - usize::try_from(WAITING_OF_ONE_KEY).unwrap());
    for id in begun {
        assert!(store.take_enrollment(&id).await.unwrap().is_none());
    }
    for id in waiting.iter().chain([&others.id]) {
        assert!(store.take_enrollment(id).await.unwrap().is_some());
    }
}

pub(crate) async fn of_many_who_begin_at_once_no_more_than_the_limit_wait(back_end: &impl BackEnd) {
    let begun = at_once(16, |index| {
        let store = back_end.store();
        let (pending, _) = pending(&Machine::new(u8::try_from(index).unwrap() + 1), later(60));
        async move { store.begin_enrollment(&pending, 5, NOW).await.unwrap() }
    })
    .await;
    assert_eq!(begun.into_iter().filter(|begun| *begun).count(), 5);
}

pub(crate) async fn pending_enrollments_are_forgotten_past_their_deadline(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (first, _) = pending(&Machine::new(1), later(10));
    let (second, _) = pending(&Machine::new(2), later(60));
    for pending in [&first, &second] {
        assert!(store.begin_enrollment(pending, 10, NOW).await.unwrap());
    }
    assert_eq!(store.forget_enrollments(later(10)).await.unwrap(), 0);
    assert_eq!(store.forget_enrollments(later(11)).await.unwrap(), 1);
    assert!(store.take_enrollment(&first.id).await.unwrap().is_none());
    assert!(store.take_enrollment(&second.id).await.unwrap().is_some());
}

pub(crate) async fn machine_that_nobody_knows_waits_for_an_operator(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let outcome = machine.enroll(&*store, 101, None).await;
    assert!(matches!(outcome, EnrollmentOutcome::Enrolled { superseded: false, .. }), "{outcome:?}");
    let node = enrolled(outcome);
    assert_eq!((node.id, node.standing, node.revision), (machine.id(), Standing::Pending, 1));
    assert_eq!((node.enrolled_at, node.last_seen), (NOW, None));
    assert_eq!(node.attestation_key, attestation_key(101));
    assert!(node.labels.is_empty());
    assert_same(&machine.node(&*store).await, &node);
    assert_eq!(codes(&*store, Some(machine.id())).await, ["enrolled"]);
    assert!(store.node(Machine::new(2).id()).await.unwrap().is_none());
}

pub(crate) async fn machine_in_the_inventory_is_admitted_with_its_labels(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let (token, digest) = join_token("spare");
    store.create_join_token(&token, digest, record("test")).await.unwrap();
    store
        .put_inventory(&inventory_entry(machine.id(), labels(&[("env", "prod")])), record("test"))
        .await
        .unwrap();
    let node = enrolled(machine.enroll(&*store, 101, Some(digest)).await);
    assert_eq!(node.standing, Standing::Admitted { by: AdmittedBy::Inventory });
    assert_eq!(node.labels, labels(&[("env", "prod")]));
    assert_same(&machine.node(&*store).await, &node);
    // A token is not spent on a machine that needs none.
    assert_eq!(store.join_tokens().await.unwrap(), [token]);
}

pub(crate) async fn join_token_admits_once_with_its_labels(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let (token, digest) = join_token("one");
    store.create_join_token(&token, digest, record("test")).await.unwrap();
    let node = enrolled(machine.enroll(&*store, 101, Some(digest)).await);
    assert_eq!(node.standing, Standing::Admitted { by: AdmittedBy::JoinToken });
    assert_eq!(node.labels, token.labels);
    let used = JoinTokenRecord { used: Some((machine.id(), NOW)), ..token };
    assert_eq!(store.join_tokens().await.unwrap(), [used]);
    let second = Machine::new(2).enroll(&*store, 102, Some(digest)).await;
    assert!(matches!(second, EnrollmentOutcome::JoinTokenRefused), "{second:?}");
}

pub(crate) async fn join_token_that_is_bound_admits_its_machine(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let (token, digest) = join_token("bound");
    let token = JoinTokenRecord { node: Some(machine.id()), ..token };
    store.create_join_token(&token, digest, record("test")).await.unwrap();
    let other = Machine::new(2).enroll(&*store, 102, Some(digest)).await;
    assert!(matches!(other, EnrollmentOutcome::JoinTokenRefused), "{other:?}");
    let node = enrolled(machine.enroll(&*store, 101, Some(digest)).await);
    assert_eq!(node.standing, Standing::Admitted { by: AdmittedBy::JoinToken });
}

pub(crate) async fn refused_join_token_changes_nothing(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    let (expired, expired_digest) = join_token("expired");
    let expired = JoinTokenRecord { expires_at: NOW, ..expired };
    store.create_join_token(&expired, expired_digest, record("test")).await.unwrap();
    let (revoked, revoked_digest) = join_token("revoked");
    store.create_join_token(&revoked, revoked_digest, record("test")).await.unwrap();
    assert!(store.revoke_join_token("revoked", record("test")).await.unwrap());
    let (used, used_digest) = join_token("used");
    store.create_join_token(&used, used_digest, record("test")).await.unwrap();
    enrolled(Machine::new(2).enroll(&*store, 102, Some(used_digest)).await);
    let (bound, bound_digest) = join_token("bound");
    let bound = JoinTokenRecord { node: Some(Machine::new(3).id()), ..bound };
    store.create_join_token(&bound, bound_digest, record("test")).await.unwrap();

    let before = store.join_tokens().await.unwrap();
    for digest in [[0; 32], expired_digest, revoked_digest, used_digest, bound_digest] {
        let outcome = machine.enroll(&*store, 101, Some(digest)).await;
        assert!(matches!(outcome, EnrollmentOutcome::JoinTokenRefused), "{outcome:?}");
    }
    assert!(store.node(machine.id()).await.unwrap().is_none());
    assert!(codes(&*store, Some(machine.id())).await.is_empty());
    assert_eq!(store.join_tokens().await.unwrap(), before);

    // Nor does it change a node that is pending.
    let node = machine.enrolled(&*store, 101).await;
    let outcome = machine.enroll(&*store, 103, Some(expired_digest)).await;
    assert!(matches!(outcome, EnrollmentOutcome::JoinTokenRefused), "{outcome:?}");
    assert_same(&machine.node(&*store).await, &node);
}

pub(crate) async fn of_many_who_redeem_one_join_token_at_once_one_is_enrolled(back_end: &impl BackEnd) {
    let (token, digest) = join_token("one");
    back_end.store().create_join_token(&token, digest, record("test")).await.unwrap();
    let outcomes = at_once(16, |index| {
        let store = back_end.store();
        let machine = Machine::new(u8::try_from(index).unwrap() + 1);
        let ak = u8::try_from(index).unwrap() + 101;
        async move { (machine.id(), machine.enroll(&*store, ak, Some(digest)).await) }
    })
    .await;
    let mut enrolled = Vec::new();
    for (id, outcome) in outcomes {
        match outcome {
            EnrollmentOutcome::Enrolled { node, .. } => {
                assert_eq!(node.standing, Standing::Admitted { by: AdmittedBy::JoinToken });
                enrolled.push(id);
            }
            EnrollmentOutcome::JoinTokenRefused => {}
            other => panic!("{other:?}"),
        }
    }
    let store = back_end.store();
    let used: Vec<_> =
        store.join_tokens().await.unwrap().into_iter().filter_map(|token| token.used).collect();
    assert_eq!(enrolled.len(), 1);
    assert_eq!(used, [(enrolled[0], NOW)]);
    let nodes: Vec<_> = store.nodes(None, 100).await.unwrap().into_iter().map(|node| node.id).collect();
    assert_eq!(nodes, enrolled);
}

pub(crate) async fn attestation_key_of_another_node_is_refused_and_nothing_changes(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (first, second) = (Machine::new(1), Machine::new(2));
    let (token, digest) = join_token("one");
    store.create_join_token(&token, digest, record("test")).await.unwrap();
    store.put_inventory(&inventory_entry(second.id(), labels(&[])), record("test")).await.unwrap();
    let refused = |outcome| assert!(matches!(outcome, EnrollmentOutcome::AttestationKeyInUse), "{outcome:?}");
    let node = first.enrolled(&*store, 101).await;
    refused(second.enroll(&*store, 101, None).await);
    refused(Machine::new(3).enroll(&*store, 101, Some(digest)).await);
    let retired = decision(Some(first.id()), DecisionKind::Operate, "retired");
    assert!(matches!(store.retire_node(first.id(), retired).await.unwrap(), NodeChange::Changed(_)));
    refused(second.enroll(&*store, 101, None).await);
    assert_eq!(first.node(&*store).await.attestation_key, node.attestation_key);
    assert!(store.node(second.id()).await.unwrap().is_none());
    assert_eq!(store.join_tokens().await.unwrap(), [token]);
    assert_eq!(codes(&*store, None).await, ["retired", "enrolled"]);

    // A node that is admitted keeps the key that it has.
    let node = second.enrolled(&*store, 102).await;
    refused(second.enroll(&*store, 101, None).await);
    assert_same(&second.node(&*store).await, &node);
}

pub(crate) async fn attestation_key_that_was_superseded_is_free(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (first, second) = (Machine::new(1), Machine::new(2));
    first.enrolled(&*store, 101).await;
    first.enrolled(&*store, 102).await;
    assert_eq!(second.enrolled(&*store, 101).await.attestation_key, attestation_key(101));
}

pub(crate) async fn of_many_nodes_with_one_attestation_key_at_once_one_is_enrolled(back_end: &impl BackEnd) {
    let outcomes = at_once(16, |index| {
        let store = back_end.store();
        let machine = Machine::new(u8::try_from(index).unwrap() + 1);
        async move { machine.enroll(&*store, 101, None).await }
    })
    .await;
    let enrolled = |outcome: &&_| matches!(outcome, EnrollmentOutcome::Enrolled { .. });
    assert_eq!(outcomes.iter().filter(enrolled).count(), 1, "{outcomes:?}");
    assert_eq!(back_end.store().nodes(None, 100).await.unwrap().len(), 1);
}

pub(crate) async fn labels_of_a_pending_node_are_joined_with_those_of_its_admission(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    let own = vec![(name("rack"), Some(name("b7"))), (name("env"), Some(name("test")))];
    let decision = decision(Some(machine.id()), DecisionKind::Operate, "labelled");
    let labelled = store.label_node(machine.id(), own, decision).await.unwrap();
    assert!(matches!(labelled, NodeChange::Changed(_)), "{labelled:?}");
    store
        .put_inventory(&inventory_entry(machine.id(), labels(&[("env", "prod")])), record("test"))
        .await
        .unwrap();
    let node = machine.enrolled(&*store, 101).await;
    assert_eq!(node.labels, labels(&[("rack", "b7"), ("env", "prod")]));
    assert_eq!((node.standing, node.revision), (Standing::Admitted { by: AdmittedBy::Inventory }, 3));
}

pub(crate) async fn labels_over_the_limit_leave_the_join_token_unused(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::new(1);
    machine.enrolled(&*store, 101).await;
    set_labels(&*store, &machine, &most_labels("own")).await;
    let before = machine.node(&*store).await;
    let (token, digest) = join_token("one");
    store.create_join_token(&token, digest, record("test")).await.unwrap();
    let completed = CompletedEnrollment {
        keys: machine.keys(103),
        join_token_digest: Some(digest),
        now: NOW,
        decision: decision(Some(machine.id()), DecisionKind::Activate, "enrolled again"),
    };
    let outcome = store.complete_enrollment(completed).await;
    assert!(matches!(outcome, Err(StoreError::Inconsistent { what: "node", .. })), "{outcome:?}");
    assert_eq!(store.join_tokens().await.unwrap(), [token]);
    assert_same(&machine.node(&*store).await, &before);
    assert_eq!(codes(&*store, None).await, ["labelled", "enrolled"]);
}

async fn set_labels(store: &dyn Store, machine: &Machine, labels: &Labels) {
    let changes = labels.iter().map(|(key, value)| (key.clone(), Some(value.clone()))).collect();
    let decision = decision(Some(machine.id()), DecisionKind::Operate, "labelled");
    let change = store.label_node(machine.id(), changes, decision).await.unwrap();
    assert!(matches!(change, NodeChange::Changed(_)), "{change:?}");
}

pub(crate) async fn endorsement_by_a_vendor_comes_back_as_it_was(back_end: &impl BackEnd) {
    let store = back_end.store();
    let machine = Machine::endorsed(endorsed_by_a_vendor(1));
    let (pending, secret) = pending(&machine, later(60));
    assert!(store.begin_enrollment(&pending, 10, NOW).await.unwrap());
    let taken = store.take_enrollment(&pending.id).await.unwrap().unwrap();
    let keys = taken.activation.complete(&secret, NOW).unwrap();
    assert_eq!(*keys.ek(), endorsed_by_a_vendor(1));
    machine.enrolled(&*store, 101).await;
    let node = machine.node(&*store).await;
    assert!(matches!(node.endorsed_key.endorsement(), Endorsement::VendorChain { .. }));
    assert_eq!(node.endorsed_key, endorsed_by_a_vendor(1));
}

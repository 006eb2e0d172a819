//! What was acknowledged is on disk, whatever happens to the process next.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rootbound_verifier::appraisal::Verdict;
use rootbound_verifier::store::{DecisionKind, PendingEnrollment};

use super::BackEnd;
use super::challenges::{open, token};
use crate::fixtures::{
    Machine, NOW, accepted, assert_same, at_once, decision, enrolled, fresh, inventory_entry, join_token,
    labels, later, name, posture, provenance, record,
};

pub(crate) async fn what_was_acknowledged_survives_a_kill(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (machine, second) = (Machine::new(1), Machine::new(2));
    let (used, used_digest) = join_token("used");
    store.create_join_token(&used, used_digest, record("test")).await.unwrap();
    store
        .put_inventory(&inventory_entry(second.id(), labels(&[("env", "prod")])), record("test"))
        .await
        .unwrap();
    enrolled(machine.enroll(&*store, 101, Some(used_digest)).await);
    machine.attested(&*store, later(600)).await;
    let worse = posture(Verdict::Contraindicated);
    let reappraised = decision(Some(machine.id()), DecisionKind::Reappraise, "reappraised");
    store.record_reappraisal(machine.id(), 2, &worse, 1, None, reappraised).await.unwrap();
    store
        .put_reference_set(name("default"), accepted(1), provenance("captured"), record("test"))
        .await
        .unwrap();
    store.withdraw_reference_set(&name("default"), provenance("wrong"), record("test")).await.unwrap();
    let (activation, secret) = second.activation(102, later(60));
    let pending = PendingEnrollment { id: fresh(), activation, join_token_digest: None };
    assert!(store.begin_enrollment(&pending, 10, NOW).await.unwrap());

    let other = back_end.after_a_kill().await;
    let found = other.store();
    assert_same(&found.nodes(None, 10).await.unwrap(), &store.nodes(None, 10).await.unwrap());
    assert_same(&found.live_nodes(NOW).await.unwrap(), &store.live_nodes(NOW).await.unwrap());
    assert_eq!(found.live_node(machine.id(), NOW).await.unwrap().unwrap().posture, Some(worse));
    assert_eq!(found.join_tokens().await.unwrap(), store.join_tokens().await.unwrap());
    assert_eq!(found.inventory().await.unwrap(), store.inventory().await.unwrap());
    assert_eq!(found.reference_sets().await.unwrap(), store.reference_sets().await.unwrap());
    assert_eq!(found.decisions(None, 10).await.unwrap(), store.decisions(None, 10).await.unwrap());
    assert_eq!(found.decisions(None, 10).await.unwrap().len(), 3);
    let taken = found.take_enrollment(&pending.id).await.unwrap().unwrap();
    assert!(taken.activation.complete(&secret, NOW).is_ok());
}

/// Kills amid concurrent writes: what was acknowledged before is there, whole; and the store works on.
pub(crate) async fn spent_challenges_survive_a_kill_under_load(back_end: &impl BackEnd) {
    const EACH: usize = 20;
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let load = at_once(8, |_| {
        let (store, acknowledged) = (back_end.store(), Arc::clone(&acknowledged));
        async move {
            let mut spent = Vec::new();
            for _ in 0..EACH {
                let (key, token) = token();
                assert!(store.spend_challenge(&open(&key, &token)).await.unwrap().is_some());
                let order = acknowledged.fetch_add(1, Ordering::SeqCst);
                spent.push((order, key, token));
            }
            spent
        }
    });
    let kill = async {
        while acknowledged.load(Ordering::SeqCst) < EACH {
            tokio::task::yield_now().await;
        }
        let before = acknowledged.load(Ordering::SeqCst);
        (before, back_end.after_a_kill().await)
    };
    let (spent, (before, killed)) = tokio::join!(load, kill);
    let found = killed.store();
    let mut replays = 0;
    for (order, key, token) in spent.into_iter().flatten() {
        let again = found.spend_challenge(&open(&key, &token)).await.unwrap();
        assert!(order >= before || again.is_none(), "number {order} of {before} was forgotten");
        replays += usize::from(again.is_none());
    }
    assert!(replays >= before);
}

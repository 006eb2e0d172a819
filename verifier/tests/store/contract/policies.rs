//! Policy bundles, and which is in force.

use rootbound_common::crypto::sha256;
use rootbound_verifier::reference::Versioned;
use rootbound_verifier::store::{Activated, Activation, PolicyBundleRecord, Store};

use super::BackEnd;
use crate::fixtures::{at_once, name, provenance, record};

async fn put(store: &dyn Store, bundle: &str, text: &str) -> PolicyBundleRecord {
    store.put_policy_bundle(name(bundle), text.into(), provenance("review 7"), record("test")).await.unwrap()
}

fn id(bundle: &str, version: u32) -> Versioned {
    Versioned { name: name(bundle), version }
}

fn in_force(number: u64, bundle: Option<Versioned>) -> Activation {
    Activation { number, bundle, provenance: provenance("now") }
}

pub(crate) async fn bundles_come_back_as_they_were_in_versions_that_count_up(back_end: &impl BackEnd) {
    let store = back_end.store();
    let mut written = Vec::new();
    for (bundle, text, version) in [("prod", "one", 1), ("lab", "one", 1), ("prod", "two", 2)] {
        let record = put(&*store, bundle, text).await;
        assert_eq!((&record.id, record.content), (&id(bundle, version), sha256(&[text.as_bytes()])));
        assert_eq!(record.provenance, provenance("review 7"));
        written.push(record);
    }
    let found = async |bundle: &str, version| store.policy_bundle(&name(bundle), version).await.unwrap();
    assert_eq!(found("prod", Some(1)).await, Some((written[0].clone(), b"one".to_vec())));
    assert_eq!(found("lab", None).await, Some((written[1].clone(), b"one".to_vec())));
    assert_eq!(found("prod", None).await, Some((written[2].clone(), b"two".to_vec())));
    assert_eq!((found("prod", Some(3)).await, found("other", None).await), (None, None));
    written.sort_by(|one, other| one.id.cmp(&other.id));
    assert_eq!(back_end.after_a_kill().await.store().policy_bundles().await.unwrap(), written);
}

pub(crate) async fn bundle_is_in_force_until_another_is(back_end: &impl BackEnd) {
    let store = back_end.store();
    assert_eq!(store.policy_activation().await.unwrap(), None);
    put(&*store, "prod", "one").await;
    put(&*store, "prod", "two").await;
    let activate = async |bundle, over| {
        store.activate_policy(bundle, over, provenance("now"), record("test")).await.unwrap()
    };
    let first = in_force(1, Some(id("prod", 2)));
    let second = in_force(2, None);
    assert_eq!(activate(Some(id("prod", 2)), 0).await, Activated::Yes(first.clone()));
    assert_eq!(store.policy_activation().await.unwrap(), Some(first.clone()));
    assert_eq!(activate(None, 1).await, Activated::Yes(second.clone()));
    assert_eq!(activate(Some(id("prod", 3)), 2).await, Activated::NoSuchVersion);
    let found = back_end.after_a_kill().await.store().policy_activations(10).await.unwrap();
    assert_eq!(found, [second.clone(), first]);
    assert_eq!(store.policy_activations(1).await.unwrap(), [second]);
}

pub(crate) async fn activation_over_another_than_the_last_changes_nothing(back_end: &impl BackEnd) {
    let store = back_end.store();
    put(&*store, "prod", "one").await;
    let activate = async |over| {
        store.activate_policy(Some(id("prod", 1)), over, provenance("now"), record("test")).await.unwrap()
    };
    assert_eq!(activate(1).await, Activated::Overtaken { by: None });
    let first = in_force(1, Some(id("prod", 1)));
    assert_eq!(activate(0).await, Activated::Yes(first.clone()));
    for over in [0, 2] {
        assert_eq!(activate(over).await, Activated::Overtaken { by: Some(first.clone()) });
    }
    assert_eq!(store.policy_activations(10).await.unwrap(), [first]);
}

pub(crate) async fn of_many_activations_at_once_one_wins_and_the_others_are_told(back_end: &impl BackEnd) {
    let store = back_end.store();
    put(&*store, "prod", "one").await;
    let outcomes = at_once(8, |_| {
        let store = back_end.store();
        async move {
            store.activate_policy(Some(id("prod", 1)), 0, provenance("now"), record("test")).await.unwrap()
        }
    })
    .await;
    let first = in_force(1, Some(id("prod", 1)));
    let (won, told): (Vec<_>, Vec<_>) =
        outcomes.into_iter().partition(|outcome| matches!(outcome, Activated::Yes(_)));
    assert_eq!(won, [Activated::Yes(first.clone())]);
    assert_eq!(told, vec![Activated::Overtaken { by: Some(first) }; 7]);
}

//! Reference sets and profiles.

use std::time::Duration;

use rootbound_verifier::reference::{ProfileBody, ReferenceBook, ReferenceSet, Versioned};
use rootbound_verifier::store::Store;

use super::BackEnd;
use crate::fixtures::{accepted, at_once, labels, name, provenance, record};

fn profile(interval: u64) -> ProfileBody {
    ProfileBody { interval: Duration::from_secs(interval), ..ProfileBody::initial(name("default")) }
}

async fn put(store: &dyn Store, set: &str, seed: u8) -> ReferenceSet {
    store
        .put_reference_set(name(set), accepted(seed), provenance("new kernel"), record("test"))
        .await
        .unwrap()
}

pub(crate) async fn versions_count_up_and_never_change(back_end: &impl BackEnd) {
    let store = back_end.store();
    let mut sets = Vec::new();
    for (set, seed, version) in [("default", 1, 1), ("lab", 2, 1), ("default", 3, 2), ("default", 1, 3)] {
        let written = put(&*store, set, seed).await;
        assert_eq!(written.id, Versioned { name: name(set), version });
        assert_eq!((&written.accepted, &written.provenance), (&accepted(seed), &provenance("new kernel")));
        sets.push((written, false));
    }
    sets.sort_by(|(one, _), (other, _)| one.id.cmp(&other.id));
    assert_eq!(store.reference_sets().await.unwrap(), sets);

    let mut profiles = Vec::new();
    for (title, interval, version) in [("web", 60, 1), ("default", 30, 1), ("web", 90, 2)] {
        let written = store
            .put_profile(name(title), profile(interval), provenance("faster"), record("test"))
            .await
            .unwrap();
        assert_eq!(*written.id(), Versioned { name: name(title), version });
        assert_eq!((written.body(), written.provenance()), (&profile(interval), &provenance("faster")));
        profiles.push(written);
    }
    profiles.sort_by(|one, other| one.id().cmp(other.id()));
    assert_eq!(store.profiles().await.unwrap(), profiles);
}

pub(crate) async fn book_has_the_current_versions(back_end: &impl BackEnd) {
    let store = back_end.store();
    let empty = store.reference_book(&ReferenceBook::default()).await.unwrap();
    assert!(empty.profile(&labels(&[])).is_err());
    for (set, seed) in [("default", 1), ("lab", 2), ("default", 3)] {
        put(&*store, set, seed).await;
    }
    // Ten, since 10 is after 9 only as a number.
    for interval in 1..=10 {
        store.put_profile(name("any"), profile(interval), provenance(""), record("test")).await.unwrap();
    }
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    let any = book.profile(&labels(&[])).unwrap();
    assert_eq!((any.id().to_string(), any.body()), ("any@10".to_owned(), &profile(10)));
    let default = book.set(&name("default")).unwrap();
    assert_eq!((default.id.version, &default.accepted), (2, &accepted(3)));
    assert_eq!(book.set(&name("lab")).unwrap().accepted, accepted(2));
}

pub(crate) async fn withdrawn_set_leaves_the_book_and_stays_listed(back_end: &impl BackEnd) {
    let store = back_end.store();
    for (set, seed) in [("default", 1), ("default", 2), ("lab", 3)] {
        put(&*store, set, seed).await;
    }
    let withdraw = async |set| {
        store.withdraw_reference_set(&name(set), provenance("CVE"), record("test")).await.unwrap()
    };
    assert!(withdraw("default").await);
    assert!(!withdraw("default").await);
    assert!(!withdraw("none").await);
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    assert!(book.set(&name("default")).is_none());
    assert!(book.set(&name("lab")).is_some());
    let listed = async || {
        let sets = store.reference_sets().await.unwrap();
        sets.into_iter().map(|(set, withdrawn)| (set.id.to_string(), withdrawn)).collect::<Vec<_>>()
    };
    let expect = |expected: &[(&str, bool)]| {
        expected.iter().map(|(id, withdrawn)| ((*id).to_owned(), *withdrawn)).collect::<Vec<_>>()
    };
    assert_eq!(listed().await, expect(&[("default@1", true), ("default@2", true), ("lab@1", false)]));

    // A number is not used again; the withdrawn ones stay withdrawn.
    assert_eq!(put(&*store, "default", 4).await.id.version, 3);
    assert_eq!(
        store
            .reference_book(&ReferenceBook::default())
            .await
            .unwrap()
            .set(&name("default"))
            .unwrap()
            .accepted,
        accepted(4)
    );
    let sets = [("default@1", true), ("default@2", true), ("default@3", false), ("lab@1", false)];
    assert_eq!(listed().await, expect(&sets));
}

pub(crate) async fn of_many_versions_written_at_once_each_has_its_number(back_end: &impl BackEnd) {
    let mut versions = at_once(16, |index| {
        let store = back_end.store();
        async move { put(&*store, "default", u8::try_from(index).unwrap()).await.id.version }
    })
    .await;
    versions.sort_unstable();
    assert_eq!(versions, (1..=16).collect::<Vec<_>>());
}

pub(crate) async fn profile_that_checks_nothing_is_not_written(back_end: &impl BackEnd) {
    let store = back_end.store();
    let nothing = ProfileBody { references: Vec::new(), ..profile(60) };
    assert!(store.put_profile(name("bad"), nothing, provenance(""), record("test")).await.is_err());
    assert!(store.profiles().await.unwrap().is_empty());
}

//! The life of sets: boot sets, updates, and the deny list.

use std::sync::Arc;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::{TaggedDigest, hash};
use rootbound_common::tpm::HashAlgorithm;
use rootbound_compute::values::{BootValue, BootValues, Measured, Source};
use rootbound_verifier::appraisal::runtime::DigestSet;
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::{
    BootSet, DeniedAs, DenyEntry, DenyList, Provenance, ReferenceBook, SetContent, SetKind, Versioned,
};
use rootbound_verifier::store::Store;
use rootbound_verifier::store::sets::{Beside, DocumentFrom, SetChange, SetsWritten, Staging, UpdateEnd};

use super::BackEnd;
use crate::fixtures::{accepted, at_once, name, provenance, record};

fn digest(seed: u8) -> TaggedDigest {
    TaggedDigest(hash(HashAlgorithm::Sha256, &[&[seed]]))
}

fn boot_set(seeds: &[u8]) -> BootSet {
    let source = Source { file: Some("/boot/vmlinuz".into()), ..Source::default() };
    let value = |seed: &u8| BootValue {
        measured: Measured::BootApplication { digest: digest(*seed) },
        label: "a kernel".into(),
        source: source.clone(),
    };
    let values = seeds.iter().map(value).collect();
    BootSet::new(BootValues::new(HashAlgorithm::Sha256, values)).unwrap()
}

/// Values of a kind: each seed is one.
fn content(kind: SetKind, seeds: &[u8]) -> SetContent {
    match kind {
        SetKind::Pcrs => SetContent::Pcrs(accepted(seeds[0])),
        SetKind::Boot => SetContent::Boot(boot_set(seeds)),
        SetKind::Digests => {
            let text: String = seeds.iter().map(|seed| format!("{}  *\n", digest(*seed))).collect();
            SetContent::Digests(Arc::new(DigestSet::parse(text.as_bytes()).unwrap()), text.into_bytes())
        }
    }
}

fn same(one: &SetContent, other: &SetContent) -> bool {
    match (one, other) {
        (SetContent::Pcrs(one), SetContent::Pcrs(other)) => one == other,
        (SetContent::Boot(one), SetContent::Boot(other)) => one == other,
        (SetContent::Digests(one, text), SetContent::Digests(other, same)) => {
            one.id() == other.id() && text == same
        }
        _ => false,
    }
}

async fn put(store: &dyn Store, kind: SetKind, seeds: &[u8]) -> Versioned {
    let sets = vec![(name("kernel"), content(kind, seeds), provenance("a test"))];
    together(store, sets, Beside::default()).await.remove(0)
}

async fn together(
    store: &dyn Store,
    sets: Vec<(Name, SetContent, Provenance)>,
    beside: Beside,
) -> Vec<Versioned> {
    match store.put_sets(sets, beside, record("test")).await.unwrap() {
        SetsWritten::Done(versions) => versions,
        other => panic!("{other:?}"),
    }
}

async fn stage(store: &dyn Store, kind: SetKind, over: u32, both: &[u8], part: &[u8]) -> SetChange {
    let (both, part) = (content(kind, both), content(kind, part));
    store.stage_set(name("kernel"), over, both, part, provenance("an update"), record("test")).await.unwrap()
}

async fn promote(store: &dyn Store, kind: SetKind, over: Option<u32>) -> SetChange {
    let (set, provenance) = (name("kernel"), provenance("done"));
    store.end_update(UpdateEnd::Promoted, kind, &set, over, provenance, record("test")).await.unwrap()
}

async fn unstage(store: &dyn Store, kind: SetKind, over: Option<u32>) -> SetChange {
    let (set, provenance) = (name("kernel"), provenance("a mistake"));
    store.end_update(UpdateEnd::Unstaged, kind, &set, over, provenance, record("test")).await.unwrap()
}

/// The current version, as the book has it.
async fn current(store: &dyn Store, kind: SetKind) -> u32 {
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    let id = match kind {
        SetKind::Pcrs => book.set(&name("kernel")).map(|set| set.id.clone()),
        SetKind::Boot => book.boot_set(&name("kernel")).map(|set| set.id.clone()),
        SetKind::Digests => book.digest_set(&name("kernel")).map(|set| set.id.clone()),
    };
    id.map_or(0, |id| id.version)
}

async fn values(store: &dyn Store, kind: SetKind, version: u32) -> SetContent {
    let id = Versioned { name: name("kernel"), version };
    store.set_content(kind, &id).await.unwrap().unwrap()
}

pub(crate) async fn boot_sets_are_written_listed_and_withdrawn(back_end: &impl BackEnd) {
    let store = back_end.store();
    for (seed, version) in [(1, 1), (2, 2)] {
        let set = boot_set(&[seed]);
        let put = store.put_boot_set(name("kernel"), set.clone(), provenance("new"), record("test")).await;
        let written = put.unwrap();
        assert_eq!((written.id.version, &written.set), (version, &set));
    }
    let listed = store.boot_sets().await.unwrap();
    assert_eq!(listed.len(), 2);
    assert_eq!((&listed[1].0.set, listed[1].1), (&boot_set(&[2]), false));
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    assert_eq!(book.boot_set(&name("kernel")).unwrap().set, boot_set(&[2]));
    let withdraw =
        async || store.withdraw_boot_set(&name("kernel"), provenance("CVE"), record("test")).await.unwrap();
    assert!(withdraw().await && !withdraw().await);
    assert_eq!(current(&*store, SetKind::Boot).await, 0);
    let last = |book: &ReferenceBook| {
        book.references().withdrawn_boot_sets.iter().map(|set| set.id.to_string()).collect::<Vec<_>>()
    };
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    assert_eq!(last(&book), ["kernel@2"], "what it demanded is not forgotten");
    assert!(store.boot_sets().await.unwrap().iter().all(|(_, withdrawn)| *withdrawn));
    assert_eq!(put(&*store, SetKind::Boot, &[3]).await.version, 3, "a number is not used again");
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    assert!(last(&book).is_empty());
}

pub(crate) async fn update_is_staged_promoted_and_what_was_before_is_gone(back_end: &impl BackEnd) {
    let store = back_end.store();
    for kind in SetKind::ALL {
        assert_eq!(stage(&*store, kind, 1, &[1, 2], &[2]).await, SetChange::Missing);
        put(&*store, kind, &[1]).await;
        assert_eq!(promote(&*store, kind, None).await, SetChange::NotStaged);
        assert_eq!(unstage(&*store, kind, None).await, SetChange::NotStaged);
        assert_eq!(stage(&*store, kind, 1, &[1, 2], &[2]).await, SetChange::Done { version: 2 });
        assert_eq!(current(&*store, kind).await, 2);
        let staged = Versioned { name: name("kernel"), version: 2 };
        assert!(store.stagings().await.unwrap().contains(&Staging { kind, staged, over: 1 }));
        assert_eq!(stage(&*store, kind, 2, &[3], &[3]).await, SetChange::AlreadyStaged { version: 2 });
        assert_eq!(promote(&*store, kind, Some(1)).await, SetChange::Overtaken { current: 2 });
        assert_eq!(promote(&*store, kind, Some(2)).await, SetChange::Done { version: 3 });
        assert_eq!(current(&*store, kind).await, 3);
        assert!(same(&values(&*store, kind, 2).await, &content(kind, &[1, 2])));
        assert!(same(&values(&*store, kind, 3).await, &content(kind, &[2])), "only what is new");
        assert_eq!(promote(&*store, kind, None).await, SetChange::NotStaged);
        assert!(store.stagings().await.unwrap().iter().all(|staging| staging.kind != kind));
    }
    let records = store.set_records().await.unwrap();
    assert_eq!(records.len(), 9);
    assert!(records.iter().all(|record| !record.withdrawn && record.id.name == name("kernel")));
}

pub(crate) async fn update_that_is_taken_back_leaves_what_was_before(back_end: &impl BackEnd) {
    let store = back_end.store();
    for kind in SetKind::ALL {
        put(&*store, kind, &[1]).await;
        stage(&*store, kind, 1, &[1, 2], &[2]).await;
        assert_eq!(unstage(&*store, kind, Some(1)).await, SetChange::Overtaken { current: 2 });
        assert_eq!(unstage(&*store, kind, None).await, SetChange::Done { version: 1 });
        assert_eq!(current(&*store, kind).await, 1);
        assert_eq!(unstage(&*store, kind, None).await, SetChange::NotStaged);
        // The next update has a number of its own.
        assert_eq!(stage(&*store, kind, 1, &[1, 3], &[3]).await, SetChange::Done { version: 3 });
    }
}

pub(crate) async fn update_that_another_version_overtook_is_none(back_end: &impl BackEnd) {
    let store = back_end.store();
    let kind = SetKind::Boot;
    put(&*store, kind, &[1]).await;
    assert_eq!(stage(&*store, kind, 7, &[1, 2], &[2]).await, SetChange::Overtaken { current: 1 });
    stage(&*store, kind, 1, &[1, 2], &[2]).await;
    assert_eq!(put(&*store, kind, &[9]).await.version, 3);
    assert_eq!(promote(&*store, kind, None).await, SetChange::NotStaged);
    assert!(store.stagings().await.unwrap().is_empty());
    assert_eq!(stage(&*store, kind, 3, &[9, 4], &[4]).await, SetChange::Done { version: 4 });
}

pub(crate) async fn of_many_steps_at_once_one_wins_and_the_others_are_told(back_end: &impl BackEnd) {
    let kind = SetKind::Digests;
    put(&*back_end.store(), kind, &[1]).await;
    let staged = at_once(8, |index| {
        let (store, seed) = (back_end.store(), u8::try_from(index).unwrap() + 10);
        async move { stage(&*store, kind, 1, &[1, seed], &[seed]).await }
    })
    .await;
    let won = |changes: &[SetChange]| changes.iter().filter(|c| matches!(c, SetChange::Done { .. })).count();
    assert_eq!(won(&staged), 1, "{staged:?}");
    assert!(staged.iter().all(|change| {
        matches!(change, SetChange::Done { version: 2 } | SetChange::AlreadyStaged { version: 2 })
    }));
    let promoted = at_once(8, |_| {
        let store = back_end.store();
        async move { promote(&*store, kind, Some(2)).await }
    })
    .await;
    assert_eq!(won(&promoted), 1, "{promoted:?}");
    assert!(promoted.iter().all(|change| {
        matches!(change, SetChange::Done { version: 3 } | SetChange::Overtaken { current: 3 })
    }));
}

pub(crate) async fn sets_of_every_kind_are_written_together(back_end: &impl BackEnd) {
    let store = back_end.store();
    let sets =
        SetKind::ALL.map(|kind| (name("kernel"), content(kind, &[1]), provenance(kind.as_str()))).to_vec();
    let written = together(&*store, sets, Beside::default()).await;
    assert_eq!(written, vec![Versioned { name: name("kernel"), version: 1 }; 3]);
    for kind in SetKind::ALL {
        assert!(same(&values(&*store, kind, 1).await, &content(kind, &[1])));
    }
    let records = store.set_records().await.unwrap();
    assert!(records.iter().all(|one| one.provenance.reason == one.kind.as_str()), "{records:?}");
    assert!(together(&*store, Vec::new(), Beside::default()).await.is_empty());
}

pub(crate) async fn documents_do_not_go_back_in_time(back_end: &impl BackEnd) {
    let store = back_end.store();
    let from = |signer: &str, made_at: Option<i64>, older: bool| {
        let (signer, origin) = (signer.to_owned(), "example.org".to_owned());
        DocumentFrom { signer, origin, made_at: made_at.map(Timestamp::from_millis), older }
    };
    let sets = |kinds: &[SetKind]| {
        let set = |kind: &SetKind| (name("kernel"), content(*kind, &[1]), provenance("a document"));
        kinds.iter().map(set).collect::<Vec<_>>()
    };
    let put = async |kinds: &[SetKind], from: DocumentFrom, denied: Option<DenyList>| {
        let denied = denied.map(|list| (list, provenance("a document")));
        store.put_sets(sets(kinds), Beside { from: Some(from), denied }, record("test")).await.unwrap()
    };
    let version = |written: &SetsWritten| match written {
        SetsWritten::Done(versions) => versions.last().map(|set| set.version),
        SetsWritten::Older { .. } | SetsWritten::DenyListOvertaken => None,
    };
    let boot = [SetKind::Boot];
    assert_eq!(version(&put(&boot, from("release", Some(5_500), false), None).await), Some(1));
    let last = Timestamp::from_millis(5_500);
    let refused = SetsWritten::Older { name: name("kernel"), last };
    assert_eq!(put(&boot, from("release", Some(4_999), false), None).await, refused);
    assert_eq!(put(&boot, from("release", None, false), None).await, refused, "it could be of any time");
    // All of it or nothing: the kind before is new here.
    let both = [SetKind::Pcrs, SetKind::Boot];
    let list = |version: u32| {
        let entry = DenyEntry {
            what: DeniedAs::Digest,
            digest: digest(9),
            label: "x".into(),
            reason: String::new(),
            author: "uid 0".into(),
            at: last,
        };
        DenyList::new(version, vec![entry]).unwrap()
    };
    assert_eq!(put(&both, from("release", Some(1), false), Some(list(1))).await, refused);
    assert!(
        store
            .set_content(SetKind::Pcrs, &Versioned { name: name("kernel"), version: 1 })
            .await
            .unwrap()
            .is_none()
    );
    assert_eq!(store.deny_list(None).await.unwrap(), None);
    assert_eq!(
        put(&both, from("release", Some(6_000), false), Some(list(2))).await,
        SetsWritten::DenyListOvertaken
    );
    assert!(
        store
            .set_content(SetKind::Pcrs, &Versioned { name: name("kernel"), version: 1 })
            .await
            .unwrap()
            .is_none()
    );
    // Of another signer it is another road; seconds are what every form has; an operator may take it, once.
    assert_eq!(version(&put(&boot, from("other", Some(1), false), None).await), Some(2));
    assert_eq!(version(&put(&boot, from("release", Some(5_000), false), None).await), Some(3));
    assert_eq!(version(&put(&boot, from("release", Some(1), true), None).await), Some(4));
    assert_eq!(put(&boot, from("release", Some(2), false), None).await, refused);
    assert_eq!(version(&put(&both, from("release", Some(7_000), false), Some(list(1))).await), Some(5));
    assert_eq!(store.deny_list(None).await.unwrap().map(|(list, _)| list.version()), Some(1));
}

pub(crate) async fn deny_list_has_versions_of_which_the_last_is_in_force(back_end: &impl BackEnd) {
    let store = back_end.store();
    assert_eq!(store.deny_list(None).await.unwrap(), None);
    let list = |version: u32, seeds: &[u8]| {
        let entry = |seed: &u8| DenyEntry {
            what: DeniedAs::Digest,
            digest: digest(*seed),
            label: "CVE".into(),
            reason: "known".into(),
            author: "uid 0".into(),
            at: Timestamp::from_millis(7),
        };
        DenyList::new(version, seeds.iter().map(entry).collect()).unwrap()
    };
    let put =
        async |list: DenyList| store.put_deny_list(list, provenance("denied"), record("test")).await.unwrap();
    assert!(!put(list(2, &[1])).await, "it does not follow");
    assert!(put(list(1, &[1])).await);
    assert!(!put(list(1, &[2])).await, "somebody was faster");
    assert!(put(list(2, &[])).await);
    assert_eq!(store.deny_list(None).await.unwrap(), Some((list(2, &[]), provenance("denied"))));
    assert_eq!(store.deny_list(Some(1)).await.unwrap().unwrap().0, list(1, &[1]));
    assert_eq!(store.deny_list(Some(3)).await.unwrap(), None);
    assert!(put(list(3, &[1, 2])).await);
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    assert_eq!(book.deny(), &list(3, &[1, 2]));
}

//! Digest sets: versions, and what they accept.

use std::sync::Arc;

use rootbound_common::crypto::{TaggedDigest, hash, sha256};
use rootbound_common::tpm::HashAlgorithm;
use rootbound_verifier::appraisal::runtime::DigestSet;
use rootbound_verifier::reference::{DigestSetVersion, ReferenceBook, SetContent, SetKind, Versioned};
use rootbound_verifier::store::Store;
use rootbound_verifier::store::sets::{Beside, SetChange, UpdateEnd};

use super::BackEnd;
use crate::fixtures::{name, provenance, record};

fn text(byte: u8) -> Vec<u8> {
    format!("sha256:{}  /usr/bin/{byte}\n", format!("{byte:02x}").repeat(32)).into_bytes()
}

async fn put(store: &dyn Store, set: &str, byte: u8) -> DigestSetVersion {
    let digests = Arc::new(DigestSet::parse(&text(byte)).unwrap());
    store.put_digest_set(name(set), digests, text(byte), provenance("a test"), record("test")).await.unwrap()
}

async fn listed(store: &dyn Store) -> Vec<(String, bool)> {
    let sets = store.digest_sets().await.unwrap();
    sets.into_iter().map(|set| (set.id.to_string(), set.withdrawn)).collect()
}

pub(crate) async fn versions_count_up_and_share_their_content(back_end: &impl BackEnd) {
    let store = back_end.store();
    let first = put(&*store, "base", 1).await;
    let second = put(&*store, "base", 2).await;
    let third = put(&*store, "other", 1).await;
    assert_eq!([first.id.version, second.id.version, third.id.version], [1, 2, 1]);
    assert_eq!(first.digests.id(), third.digests.id());
    assert_ne!(first.digests.id(), second.digests.id());
    let sets = store.digest_sets().await.unwrap();
    let found = sets.iter().map(|set| (set.content, set.digests, set.provenance.reason.as_str()));
    let expected = [&first, &second, &third].map(|set| (*set.digests.id(), 1, "a test"));
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert_eq!(store.digest_text(first.digests.id()).await.unwrap(), Some(text(1)));
    assert_eq!(store.digest_text(&[0; 32]).await.unwrap(), None);
}

pub(crate) async fn book_has_current_sets_and_takes_what_it_has_from_the_one_before(back_end: &impl BackEnd) {
    let store = back_end.store();
    for (set, byte) in [("base", 1), ("base", 2), ("other", 2)] {
        put(&*store, set, byte).await;
    }
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    let base = book.digest_set(&name("base")).unwrap();
    assert_eq!((base.id.to_string(), base.digests.len()), ("base@2".to_owned(), 1));
    let other = book.digest_set(&name("other")).unwrap();
    assert!(Arc::ptr_eq(&base.digests, &other.digests), "compiled once");
    put(&*store, "base", 3).await;
    let next = store.reference_book(&book).await.unwrap();
    assert!(Arc::ptr_eq(&next.digest_set(&name("other")).unwrap().digests, &other.digests), "nor again");
    assert_eq!(next.digest_set(&name("base")).unwrap().id.version, 3);
}

pub(crate) async fn withdrawn_digest_set_leaves_the_book_and_stays_listed(back_end: &impl BackEnd) {
    let store = back_end.store();
    for (set, byte) in [("base", 1), ("base", 2), ("other", 3)] {
        put(&*store, set, byte).await;
    }
    let withdraw =
        async |set| store.withdraw_digest_set(&name(set), provenance("CVE"), record("test")).await.unwrap();
    assert!(withdraw("base").await && !withdraw("base").await && !withdraw("none").await);
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    assert!(book.digest_set(&name("base")).is_none() && book.digest_set(&name("other")).is_some());
    assert_eq!(put(&*store, "base", 4).await.id.version, 3, "a number is not used again");
    let all = [("base@1", true), ("base@2", true), ("base@3", false), ("other@1", false)];
    assert_eq!(listed(&*store).await, all.map(|(id, withdrawn)| (id.to_owned(), withdrawn)));
}

/// Files of which a twentieth, here and there, is new in each release, in an order of its own.
fn release(number: u64) -> String {
    let pick = |file: u64, release: u64| sha256(&[&file.to_be_bytes(), &release.to_be_bytes()])[0];
    let line = |file: u64| {
        let since = (1..=number).rev().find(|release| pick(file, *release) < 13).unwrap_or(0);
        let digest = TaggedDigest(hash(HashAlgorithm::Sha256, &[&file.to_be_bytes(), &since.to_be_bytes()]));
        format!("{digest}  /usr/lib/lib{file}.so\n")
    };
    let mut lines: Vec<_> = (0..3000).map(line).collect();
    if number == 3 {
        lines.reverse();
    }
    format!("# release {number}\n{}\n# its end", lines.concat())
}

pub(crate) async fn texts_that_share_most_lines_come_back_as_they_were(back_end: &impl BackEnd) {
    let store = back_end.store();
    let content = |number| SetContent::digests(release(number).into_bytes()).unwrap();
    let sets = [0, 1].map(|number| (name("release"), content(number), provenance("new")));
    store.put_sets(sets.to_vec(), Beside::default(), record("test")).await.unwrap();
    for number in 2..10 {
        let SetContent::Digests(digests, text) = content(number) else { panic!("digests") };
        store
            .put_digest_set(name("release"), digests, text, provenance("new"), record("test"))
            .await
            .unwrap();
    }
    let (both, part) = (content(10).union(&content(9)).unwrap(), content(10));
    let both_text = match &both {
        SetContent::Digests(_, text) => text.clone(),
        SetContent::Pcrs(_) | SetContent::Boot(_) => panic!("digests"),
    };
    let staged = store
        .stage_set(name("release"), 10, both, part, provenance("an update"), record("test"))
        .await
        .unwrap();
    assert_eq!(staged, SetChange::Done { version: 11 });
    let (how, kind) = (UpdateEnd::Promoted, SetKind::Digests);
    store.end_update(how, kind, &name("release"), None, provenance(""), record("test")).await.unwrap();
    let texts = (0..10).map(|number| release(number).into_bytes());
    for (version, text) in (1..).zip(texts.chain([both_text, release(10).into_bytes()])) {
        let id = Versioned { name: name("release"), version };
        let Some(SetContent::Digests(digests, found)) = store.set_content(kind, &id).await.unwrap() else {
            panic!("{id}")
        };
        assert!(found == text, "{id}");
        assert_eq!(digests.id(), DigestSet::parse(&text).unwrap().id(), "{id}");
    }
    let book = store.reference_book(&ReferenceBook::default()).await.unwrap();
    assert_eq!(book.digest_set(&name("release")).unwrap().id.version, 12);
}

//! Join tokens; what redeems them is with the enrolments.

use rootbound_verifier::reference::Provenance;
use rootbound_verifier::store::JoinTokenRecord;

use super::BackEnd;
use crate::fixtures::{Machine, NOW, enrolled, join_token, labels, later, provenance, record};

pub(crate) async fn tokens_are_listed_the_latest_first(back_end: &impl BackEnd) {
    let store = back_end.store();
    assert!(store.join_tokens().await.unwrap().is_empty());
    let mut expected = Vec::new();
    for (id, age) in [("first", 0), ("second", 5), ("third", 5)] {
        let (token, digest) = join_token(id);
        let node = (id == "second").then(|| Machine::new(1).id());
        let token = JoinTokenRecord {
            node,
            labels: labels(&[("env", id)]),
            provenance: Provenance { created_at: later(age), ..provenance(id) },
            ..token
        };
        store.create_join_token(&token, digest, record("test")).await.unwrap();
        expected.insert(0, token);
    }
    assert_eq!(store.join_tokens().await.unwrap(), expected);
}

pub(crate) async fn token_is_written_unused(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (new, digest) = join_token("one");
    let claimed = JoinTokenRecord { used: Some((Machine::new(1).id(), NOW)), revoked: true, ..new.clone() };
    store.create_join_token(&claimed, digest, record("test")).await.unwrap();
    assert_eq!(store.join_tokens().await.unwrap(), [new]);
}

pub(crate) async fn token_is_named_and_shown_once(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (token, digest) = join_token("one");
    store.create_join_token(&token, digest, record("test")).await.unwrap();
    let (other, other_digest) = join_token("other");
    assert!(store.create_join_token(&token, other_digest, record("test")).await.is_err());
    assert!(store.create_join_token(&other, digest, record("test")).await.is_err());
    assert_eq!(store.join_tokens().await.unwrap(), [token]);
}

pub(crate) async fn only_an_unused_token_is_revoked(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (used, used_digest) = join_token("used");
    let (unused, unused_digest) = join_token("unused");
    store.create_join_token(&used, used_digest, record("test")).await.unwrap();
    store.create_join_token(&unused, unused_digest, record("test")).await.unwrap();
    let machine = Machine::new(1);
    enrolled(machine.enroll(&*store, 101, Some(used_digest)).await);
    assert!(!store.revoke_join_token("used", record("test")).await.unwrap());
    assert!(!store.revoke_join_token("none", record("test")).await.unwrap());
    assert!(store.revoke_join_token("unused", record("test")).await.unwrap());
    let expected = [
        JoinTokenRecord { revoked: true, ..unused },
        JoinTokenRecord { used: Some((machine.id(), NOW)), ..used },
    ];
    assert_eq!(store.join_tokens().await.unwrap(), expected);
}

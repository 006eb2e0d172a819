//! Tokens that were made.

use rootbound_common::id::NodeId;
use rootbound_verifier::store::Store;
use rootbound_verifier::store::tokens::{TokenFilter, TokenId, TokenRecord};

use super::BackEnd;
use crate::fixtures::{NOW, later, record};

fn id(number: u8) -> TokenId {
    TokenId::of([number; 16])
}

fn token(number: u8, audience: &str) -> TokenRecord {
    TokenRecord {
        id: id(number),
        node: NodeId::from_bytes([number; 32]),
        client: format!("client {}", number % 2),
        audience: audience.to_owned(),
        permits: "read database:orders".to_owned(),
        binding: "tpm_key".to_owned(),
        epoch: u64::from(number),
        issued_at: NOW,
        expires_at: later(u64::from(number) * 10),
        once: number == 3,
        spent_at: None,
        revoked_at: None,
    }
}

async fn four(store: &dyn Store) {
    for (number, audience) in [(1, "a"), (2, "a b"), (3, "b"), (4, "ab")] {
        store.record_token(token(number, audience), record("test")).await.unwrap();
    }
}

async fn ids(store: &dyn Store, filter: &TokenFilter, at: u64) -> Vec<TokenId> {
    let tokens = store.tokens(filter, later(at), 10).await.unwrap();
    tokens.into_iter().map(|token| token.id).collect()
}

pub(crate) async fn tokens_are_listed_by_what_they_are_the_newest_first(back_end: &impl BackEnd) {
    let store = back_end.store();
    four(&*store).await;
    let all = TokenFilter::default();
    assert_eq!(store.tokens(&all, NOW, 10).await.unwrap()[1], token(3, "b"));
    assert_eq!(ids(&*store, &all, 0).await, [id(4), id(3), id(2), id(1)]);
    assert_eq!(ids(&*store, &all, 20).await, [id(4), id(3)], "the others have expired");
    assert_eq!(store.tokens(&all, NOW, 2).await.unwrap().len(), 2);
    for (filter, expected) in [
        (TokenFilter { audience: Some("a".to_owned()), ..all.clone() }, vec![id(2), id(1)]),
        (TokenFilter { audience: Some("b".to_owned()), ..all.clone() }, vec![id(3), id(2)]),
        (TokenFilter { audience: Some("%".to_owned()), ..all.clone() }, vec![]),
        (TokenFilter { client: Some("client 0".to_owned()), ..all.clone() }, vec![id(4), id(2)]),
        (TokenFilter { node: Some(NodeId::from_bytes([3; 32])), ..all.clone() }, vec![id(3)]),
        (TokenFilter { id: Some(id(1)), audience: Some("b".to_owned()), ..all.clone() }, vec![]),
    ] {
        assert_eq!(ids(&*store, &filter, 0).await, expected, "{filter:?}");
    }
    let twice = store.record_token(token(1, "c"), record("test")).await;
    assert!(twice.is_err(), "a name is given once");
}

pub(crate) async fn revoked_tokens_stay_so_over_a_kill_until_they_expire(back_end: &impl BackEnd) {
    let store = back_end.store();
    four(&*store).await;
    let filter = TokenFilter { audience: Some("a".to_owned()), ..TokenFilter::default() };
    let mut revoked = store.revoke_tokens(&filter, later(5), record("test")).await.unwrap();
    revoked.sort();
    let mut expected = [(id(1), later(10)), (id(2), later(20))];
    expected.sort();
    assert_eq!(revoked, expected);
    assert!(store.revoke_tokens(&filter, later(5), record("test")).await.unwrap().is_empty());
    let again = back_end.after_a_kill().await;
    let store = again.store();
    assert_eq!(store.revoked_tokens(later(15)).await.unwrap(), [(id(2), later(20))]);
    assert_eq!(store.tokens(&filter, NOW, 10).await.unwrap()[0].revoked_at, Some(later(5)));
    assert_eq!(store.forget_tokens(later(20)).await.unwrap(), 1, "what expired before");
    assert_eq!(ids(&*store, &TokenFilter::default(), 0).await, [id(4), id(3), id(2)]);
}

pub(crate) async fn token_for_one_use_is_used_once(back_end: &impl BackEnd) {
    let store = back_end.store();
    four(&*store).await;
    let spend = async |number| store.spend_token(&id(number), later(5), record("test")).await.unwrap();
    assert!(!spend(1).await, "it is for many");
    assert!(!spend(9).await, "there is none");
    let (one, other) = tokio::join!(spend(3), spend(3));
    assert!(one != other, "one of two at once");
    assert!(!spend(3).await);
    store.record_token(TokenRecord { once: true, ..token(5, "a") }, record("test")).await.unwrap();
    let filter = TokenFilter { id: Some(id(5)), ..TokenFilter::default() };
    store.revoke_tokens(&filter, NOW, record("test")).await.unwrap();
    assert!(!spend(5).await, "it was revoked");
    store.record_token(TokenRecord { once: true, ..token(0, "a") }, record("test")).await.unwrap();
    assert!(!spend(0).await, "it has expired");
}

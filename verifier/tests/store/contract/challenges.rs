//! Challenges.

use std::sync::Arc;
use std::time::Duration;

use rootbound_common::id::NodeId;
use rootbound_common::random;
use rootbound_common::secret::Secret;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection};
use rootbound_common::wire::v1::CredentialPolicy;
use rootbound_verifier::challenge::{ChallengeKey, Terms, UnspentChallenge, mint};

use super::BackEnd;
use crate::fixtures::{NOW, at_once, fresh, later};

fn mint_one(key: &ChallengeKey) -> Vec<u8> {
    let pcrs = [7].into_iter().filter_map(PcrIndex::new).collect();
    let terms = Terms {
        node: NodeId::from_bytes(fresh()),
        selection: PcrSelection::of_bank(HashAlgorithm::Sha256, pcrs),
        credential_policy: CredentialPolicy { bank: HashAlgorithm::Sha256, pcrs },
        issued_at: NOW,
        expires_at: later(30),
    };
    mint(key, &terms, &mut random::system()).token
}

/// A challenge of a fresh key, still unspent, as many times as it is opened.
pub(super) fn token() -> (ChallengeKey, Vec<u8>) {
    let key = ChallengeKey::new(Secret::from_bytes(fresh()));
    let token = mint_one(&key);
    (key, token)
}

pub(super) fn open(key: &ChallengeKey, token: &[u8]) -> UnspentChallenge {
    UnspentChallenge::open(key, token, NOW).unwrap()
}

pub(crate) async fn challenge_is_spent_once(back_end: &impl BackEnd) {
    let store = back_end.store();
    let (key, one) = token();
    let other = mint_one(&key);
    let receipt = store.spend_challenge(&open(&key, &one)).await.unwrap();
    assert!(open(&key, &one).spent(receipt.unwrap()).is_some());
    assert!(store.spend_challenge(&open(&key, &one)).await.unwrap().is_none());
    assert!(store.spend_challenge(&open(&key, &other)).await.unwrap().is_some());
}

pub(crate) async fn of_many_who_spend_one_challenge_at_once_one_gets_the_receipt(back_end: &impl BackEnd) {
    let (key, token) = token();
    let token = Arc::new(token);
    let receipts = at_once(32, |_| {
        let (store, key, token) = (back_end.store(), key.clone(), Arc::clone(&token));
        async move { store.spend_challenge(&open(&key, &token)).await.unwrap() }
    })
    .await;
    assert_eq!(receipts.into_iter().flatten().count(), 1);
}

pub(crate) async fn spent_challenges_are_forgotten_when_they_are_refused_as_expired_anyway(
    back_end: &impl BackEnd,
) {
    let store = back_end.store();
    let (key, token) = token();
    let challenge = open(&key, &token);
    let due = challenge.remember_until();
    store.spend_challenge(&challenge).await.unwrap().unwrap();
    assert_eq!(store.forget_spent_challenges(due.minus(Duration::from_millis(1))).await.unwrap(), 0);
    assert!(store.spend_challenge(&challenge).await.unwrap().is_none());
    assert_eq!(store.forget_spent_challenges(due).await.unwrap(), 1);
    assert_eq!(store.forget_spent_challenges(due).await.unwrap(), 0);
    assert!(UnspentChallenge::open(&key, &token, due).is_err());
}

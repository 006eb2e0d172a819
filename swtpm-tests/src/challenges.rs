//! Challenges by the hundred: minted, and spent in a store, as only a store can.

use std::sync::Arc;

use rootbound_common::random;
use rootbound_common::secret::Secret;
use rootbound_verifier::challenge::{
    ChallengeKey, FreshChallenge, MintedChallenge, Terms, UnspentChallenge, mint,
};
use rootbound_verifier::store::{ChallengeStore, SqliteStore};
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// Mints challenges and spends them, for code that is not `async`.
#[derive(Debug)]
pub struct ChallengeDesk {
    store: Arc<SqliteStore>,
    key: ChallengeKey,
    runtime: Runtime,
    _folder: TempDir,
}

impl Default for ChallengeDesk {
    fn default() -> Self {
        Self::new()
    }
}

impl ChallengeDesk {
    /// A desk with a database of its own.
    ///
    /// # Panics
    /// Where there is no place for it.
    #[must_use]
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder for a database");
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime");
        let opened = runtime.block_on(SqliteStore::open(&folder.path().join("verifier.db")));
        let store = Arc::new(opened.expect("a database"));
        let key = ChallengeKey::new(Secret::generate(&mut random::system()));
        Self { store, key, runtime, _folder: folder }
    }

    /// The key that opens its tokens.
    #[must_use]
    pub fn key(&self) -> &ChallengeKey {
        &self.key
    }

    /// A challenge that nobody has answered.
    #[must_use]
    pub fn mint(&self, terms: &Terms) -> MintedChallenge {
        mint(&self.key, terms, &mut random::system())
    }

    /// Challenges that were spent just now, at the time of their minting; written together, as answers that come
    /// together are.
    ///
    /// # Panics
    /// Where the store fails.
    #[must_use]
    pub fn fresh(&self, terms: &Terms, count: usize) -> Vec<FreshChallenge> {
        let spending: Vec<_> = (0..count)
            .map(|_| {
                let (token, now) = (self.mint(terms).token, terms.issued_at);
                let challenge = UnspentChallenge::open(&self.key, &token, now).expect("our own challenge");
                let store = Arc::clone(&self.store);
                self.runtime.spawn(async move {
                    let receipt =
                        store.spend_challenge(&challenge).await.expect("the store").expect("a first use");
                    challenge.spent(receipt).expect("the receipt of this challenge")
                })
            })
            .collect();
        self.runtime.block_on(async {
            let mut fresh = Vec::with_capacity(count);
            for spent in spending {
                fresh.push(spent.await.expect("a task that ends"));
            }
            fresh
        })
    }
}

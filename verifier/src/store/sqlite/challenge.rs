//! Challenges.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;

use super::SqliteStore;
use crate::challenge::{SpendReceipt, UnspentChallenge};
use crate::store::{ChallengeStore, StoreError};

#[async_trait]
impl ChallengeStore for SqliteStore {
    async fn spend_challenge(
        &self,
        challenge: &UnspentChallenge,
    ) -> Result<Option<SpendReceipt>, StoreError> {
        let (nonce, remember_until) = (*challenge.nonce(), challenge.remember_until());
        let written = self
            .write(move |connection| {
                Box::pin(async move {
                    // The conflict is the replay.
                    let insert = sqlx::query(
                        "INSERT INTO spent_challenge (nonce, remember_until) VALUES (?1, ?2) \
                         ON CONFLICT DO NOTHING",
                    )
                    .bind(nonce.as_bytes().as_slice())
                    .bind(remember_until.as_millis());
                    Ok(insert.execute(connection).await?.rows_affected())
                })
            })
            .await?;
        Ok((written == 1).then(|| SpendReceipt::first_use(challenge)))
    }

    async fn forget_spent_challenges(&self, now: Timestamp) -> Result<u64, StoreError> {
        let sql = "DELETE FROM spent_challenge WHERE nonce IN \
                   (SELECT nonce FROM spent_challenge WHERE remember_until <= ?1 LIMIT ?2)";
        self.forget(sql, now).await
    }
}

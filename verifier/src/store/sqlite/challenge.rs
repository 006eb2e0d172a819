//! Challenges.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::secret::Secret;
use sqlx::Row as _;

use super::SqliteStore;
use crate::challenge::{ChallengeKey, SpendReceipt, UnspentChallenge};
use crate::store::{ChallengeStore, StoreError};

#[async_trait]
impl ChallengeStore for SqliteStore {
    async fn challenge_key(&self, candidate: Secret<32>) -> Result<ChallengeKey, StoreError> {
        let key = self
            .write(move |connection| {
                Box::pin(async move {
                    sqlx::query("INSERT INTO challenge_key (one, key) VALUES (1, ?1) ON CONFLICT DO NOTHING")
                        .bind(candidate.expose().as_slice())
                        .execute(&mut *connection)
                        .await?;
                    let row = sqlx::query("SELECT key FROM challenge_key").fetch_one(connection).await?;
                    Ok(row)
                })
            })
            .await?;
        let key: &[u8] = key.try_get("key")?;
        // The reason does not tell the bytes.
        let key = <[u8; 32]>::try_from(key).map_err(|_| StoreError::Inconsistent {
            what: "challenge key",
            id: "1".to_owned(),
            why: format!("{} bytes, not 32", key.len()),
        })?;
        Ok(ChallengeKey::new(Secret::from_bytes(key)))
    }

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

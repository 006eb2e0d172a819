//! Tokens end before their time, and the keys that sign them follow each other.

use std::sync::Arc;

use rootbound_common::clock::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Client, Keys, Ring, Tokens};
use crate::audit::{Entity, Facts, Outcome, RecordKind};
use crate::credential::files::FileError;
use crate::credential::token_keys::{KeyDetail, TokenKeyError};
use crate::flows::operate::{OperateError, Operator};
use crate::flows::{Verifier, rng};
use crate::store::StoreError;
use crate::store::tokens::{TokenFilter, TokenId, TokenRecord};

/// What became of a client's wish to end a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revocation {
    /// It counts no more, from now on or since before.
    Done,
    /// It was given to another client (RFC 7009, 2.1).
    OfOther,
}

impl Verifier {
    /// Ends a token, for the client that got it: also one whose node drifted, and may come back.
    pub async fn revoke_own(&self, client: &Client, text: &str) -> Result<Revocation, StoreError> {
        let now = self.now();
        // What was never ours, or is no more, has nothing left to end (RFC 7009, 2.2).
        let Ok(token) = self.verified_token(text, now) else { return Ok(Revocation::Done) };
        let claims = token.claims();
        if client.name(self) != claims.client_id.as_str() {
            return Ok(Revocation::OfOther);
        }
        let Ok(id) = claims.id.as_str().parse::<TokenId>() else { return Ok(Revocation::Done) };
        let record = self
            .record_of(RecordKind::Revocation, "RevokeToken", client.actor(), Outcome::Done, "token_revoked")
            .about(Entity::named("token", id.as_str()));
        let filter = TokenFilter { id: Some(id), ..TokenFilter::default() };
        let ended = self.store.revoke_tokens(&filter, now, record).await?;
        self.tokens.revoked.add(&ended, now);
        Ok(Revocation::Done)
    }

    /// Ends every token that a filter means; returns which.
    pub async fn revoke_tokens(
        &self,
        filter: &TokenFilter,
        operator: &Operator,
    ) -> Result<Vec<TokenId>, OperateError> {
        if filter.is_all() {
            return Err(OperateError::NoFilter);
        }
        let filter_shown = serde_json::to_value(filter).unwrap_or_default();
        let record = self
            .record_of(
                RecordKind::Revocation,
                "revoke_tokens",
                operator.actor(),
                Outcome::Done,
                "tokens_revoked",
            )
            .because(&operator.reason)
            .with(Facts::or_digest(serde_json::json!({ "filter": filter_shown })));
        let now = self.now();
        let ended = self.store.revoke_tokens(filter, now, record).await?;
        self.tokens.revoked.add(&ended, now);
        Ok(ended.into_iter().map(|(id, _)| id).collect())
    }

    /// Tokens that have not expired, the newest first.
    pub async fn list_tokens(
        &self,
        filter: &TokenFilter,
        limit: u32,
    ) -> Result<Vec<TokenRecord>, StoreError> {
        self.store.tokens(filter, self.now(), limit).await
    }

    /// Forgets tokens that have expired.
    pub(in crate::flows) async fn forget_tokens(&self, now: Timestamp) -> Result<u64, StoreError> {
        self.store.forget_tokens(now).await
    }

    /// The keys that sign access tokens, and those that sign JWT-SVIDs.
    #[must_use]
    pub fn list_token_keys(&self) -> TokenKeyLists {
        let Tokens { access, svid, .. } = &self.tokens;
        let list = |ring: &Ring| ring.keys.load().signing.list();
        TokenKeyLists { access: list(access), svid: list(svid) }
    }

    /// The names of the keys that sign, for the record of a start: a rotation that a crash cut short shows there.
    pub(in crate::flows) fn active_token_keys(&self) -> serde_json::Value {
        let Tokens { access, svid, .. } = &self.tokens;
        let active = |ring: &Ring| ring.keys.load().signing.active_id().to_owned();
        serde_json::json!({ "access": active(access), "svid": active(svid) })
    }

    /// The prepared keys sign from now on. Where it cannot be recorded, the keys stay as they are.
    pub async fn rotate_token_keys(
        &self,
        compromised: bool,
        operator: &Operator,
    ) -> Result<TokenKeyLists, OperateError> {
        let _rotating = self.tokens.rotation.lock().await;
        let Tokens { access, svid, lifetime, .. } = &self.tokens;
        let now = self.now();
        let next = |ring: &Ring| {
            let before = ring.keys.load_full();
            let next = before.signing.rotated(compromised, *lifetime, now, &mut rng())?;
            Ok::<_, TokenKeyError>((before, next))
        };
        let ((access_before, access_next), (svid_before, svid_next)) = (next(access)?, next(svid)?);
        let code = if compromised { "token_key_withdrawn" } else { "token_key_rotated" };
        let facts = serde_json::json!({
            "access": { "active": access_next.active_id(), "before": access_before.signing.active_id() },
            "svid": { "active": svid_next.active_id(), "before": svid_before.signing.active_id() },
        });
        let record = self
            .record_of(RecordKind::OperatorAction, "rotate_token_keys", operator.actor(), Outcome::Done, code)
            .because(&operator.reason)
            .with(Facts::or_digest(facts));
        access.file.keep(&access_next)?;
        let kept = match svid.file.keep(&svid_next) {
            Ok(()) => self.store.append(vec![record]).await.map_err(OperateError::from),
            Err(error) => Err(error.into()),
        };
        if let Err(error) = kept {
            access.file.keep(&access_before.signing)?;
            svid.file.keep(&svid_before.signing)?;
            return Err(error);
        }
        access.keys.store(Arc::new(Keys::of(access_next)));
        svid.keys.store(Arc::new(Keys::of(svid_next)));
        self.tokens.known.forget();
        tracing::info!(compromised, author = %operator.author, "keys of tokens rotated");
        Ok(self.list_token_keys())
    }
}

/// The keys that sign tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenKeyLists {
    /// Access tokens.
    pub access: Vec<KeyDetail>,
    /// JWT-SVIDs.
    pub svid: Vec<KeyDetail>,
}

/// Why the keys of tokens stay as they are.
#[derive(Debug, thiserror::Error)]
pub enum RotateError {
    /// The rules of the ring.
    #[error(transparent)]
    Keys(#[from] TokenKeyError),
    /// The file.
    #[error(transparent)]
    File(#[from] FileError),
}

impl From<TokenKeyError> for OperateError {
    fn from(error: TokenKeyError) -> Self {
        Self::TokenKeys(error.into())
    }
}

impl From<FileError> for OperateError {
    fn from(error: FileError) -> Self {
        Self::TokenKeys(error.into())
    }
}

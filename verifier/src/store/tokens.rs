//! Tokens: which were made, and which of them count no more before they expire.

use async_trait::async_trait;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use serde::{Deserialize, Serialize};

use super::StoreError;
use crate::audit::AuditRecord;

/// Names a token: 128 random bits in base64url, its `jti`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenId(String);

/// A text that names no token of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token's id is 22 characters of base64url")]
pub struct NotATokenId;

impl TokenId {
    /// Of random bytes.
    #[must_use]
    pub fn of(random: [u8; 16]) -> Self {
        Self(data_encoding::BASE64URL_NOPAD.encode(&random))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for TokenId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for TokenId {
    type Err = NotATokenId;

    fn from_str(text: &str) -> Result<Self, NotATokenId> {
        match data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()) {
            Ok(bytes) if bytes.len() == 16 => Ok(Self(text.to_owned())),
            Ok(_) | Err(_) => Err(NotATokenId),
        }
    }
}

impl TryFrom<String> for TokenId {
    type Error = NotATokenId;

    fn try_from(text: String) -> Result<Self, NotATokenId> {
        text.parse()
    }
}

impl From<TokenId> for String {
    fn from(id: TokenId) -> Self {
        id.0
    }
}

/// A token that was made; it is on record before it is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Its name.
    pub id: TokenId,
    /// The node that it is about.
    pub node: NodeId,
    /// Who got it: a SPIFFE ID, or the name of a relying party.
    pub client: String,
    /// For whom it is, with a space between two.
    pub audience: String,
    /// What it permits, in words for people.
    pub permits: String,
    /// By which key it is held.
    pub binding: String,
    /// The epoch of the node that it names.
    pub epoch: u64,
    /// When it was made.
    pub issued_at: Timestamp,
    /// From when on it counts no more.
    pub expires_at: Timestamp,
    /// Whether it is good for one use only.
    pub once: bool,
    /// When it was used, where it is good for one use only.
    pub spent_at: Option<Timestamp>,
    /// When it was revoked.
    pub revoked_at: Option<Timestamp>,
}

/// Which tokens; those that have expired are never meant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokenFilter {
    /// This one.
    #[serde(default)]
    pub id: Option<TokenId>,
    /// About this node.
    #[serde(default)]
    pub node: Option<NodeId>,
    /// Of this client.
    #[serde(default)]
    pub client: Option<String>,
    /// For this audience, alone or among others.
    #[serde(default)]
    pub audience: Option<String>,
}

impl TokenFilter {
    /// Whether it leaves nothing out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

/// Tokens.
#[async_trait]
pub trait TokenStore: Send + Sync {
    /// Records a token, and what the audit trail says of it. Returns once both are durable.
    async fn record_token(&self, token: TokenRecord, record: AuditRecord) -> Result<(), StoreError>;

    /// Uses a token up that is good for one use. `false`: it was used before, was revoked, or is not there; then nothing
    /// is recorded.
    async fn spend_token(
        &self,
        id: &TokenId,
        now: Timestamp,
        record: AuditRecord,
    ) -> Result<bool, StoreError>;

    /// Revokes those that a filter means and that have not expired; returns their names and when each expires. Where there
    /// are none, nothing is recorded.
    async fn revoke_tokens(
        &self,
        filter: &TokenFilter,
        now: Timestamp,
        record: AuditRecord,
    ) -> Result<Vec<(TokenId, Timestamp)>, StoreError>;

    /// Those that have not expired, the newest first, at most so many.
    async fn tokens(
        &self,
        filter: &TokenFilter,
        now: Timestamp,
        limit: u32,
    ) -> Result<Vec<TokenRecord>, StoreError>;

    /// The names of those that were revoked and have not expired, and when each expires.
    async fn revoked_tokens(&self, now: Timestamp) -> Result<Vec<(TokenId, Timestamp)>, StoreError>;

    /// Forgets those that expired before; returns how many.
    async fn forget_tokens(&self, before: Timestamp) -> Result<u64, StoreError>;
}

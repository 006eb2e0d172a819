//! A token that is shown, at that moment: whether it counts, and what it says.

use std::sync::Arc;
use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_token::access::{
    AccessClaims, AccessToken, Expected, ExpectedAudience, TokenError, VerifiedAccessToken,
};
use rootbound_token::claim::Text;

use crate::audit::{Entity, Outcome, RecordKind};
use crate::flows::Verifier;
use crate::flows::caller::Caller;
use crate::flows::decide::actor_of;
use crate::flows::known::TextHash;
use crate::posture::LiveNode;
use crate::store::StoreError;
use crate::store::tokens::TokenId;

/// Why a token counts for nothing. Each has a stable code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenRefusal {
    /// It is none of ours, or out of its time.
    #[error(transparent)]
    Invalid(#[from] TokenError),
    /// Somebody ended it.
    #[error("the token was revoked")]
    Revoked,
    /// Its subject is not a node that we know.
    #[error("the token's subject is not a node of this verifier")]
    UnknownNode,
    /// The node is at another epoch, or may have nothing now.
    #[error("the node's posture, or what is held against it, changed since the token was made")]
    Drifted,
    /// Whoever asks is not whom it is for.
    #[error("the token is for somebody else")]
    OtherAudience,
    /// It was good for one use.
    #[error("the token was good for one use, and was used")]
    Spent,
}

impl TokenRefusal {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Invalid(error) => error.code(),
            Self::Revoked => "token_revoked",
            Self::UnknownNode => "token_unknown_node",
            Self::Drifted => "token_drifted",
            Self::OtherAudience => "token_other_audience",
            Self::Spent => "token_spent",
        }
    }
}

/// A token that counts at this moment. Only [`Verifier::live_token`] makes it; it is used at once, never kept.
#[derive(Debug)]
pub struct LiveToken {
    token: Arc<VerifiedAccessToken>,
    id: TokenId,
    node: NodeId,
    live: Arc<LiveNode>,
}

impl LiveToken {
    /// What it claims.
    #[must_use]
    pub fn claims(&self) -> &AccessClaims {
        self.token.claims()
    }

    /// The token, for what else has to fit it.
    #[must_use]
    pub fn verified(&self) -> &VerifiedAccessToken {
        &self.token
    }

    /// The node that it is about.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How that stands.
    #[must_use]
    pub fn live(&self) -> &LiveNode {
        &self.live
    }
}

/// A token that whoever asks may act on now, once where it is good for one use. Only [`Verifier::use_token`] makes it.
#[derive(Debug)]
pub struct UsedToken(LiveToken);

impl UsedToken {
    /// The token.
    #[must_use]
    pub fn token(&self) -> &LiveToken {
        &self.0
    }
}

/// Why a token is not used.
#[derive(Debug, thiserror::Error)]
pub enum UseError {
    /// It counts for nothing.
    #[error(transparent)]
    Refused(#[from] TokenRefusal),
    /// That it was used could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// We alone made it, by this clock.
const LEEWAY: Duration = Duration::ZERO;

impl Verifier {
    /// A token as things stand now.
    ///
    /// Established when this returns, in this order: it is an access token that we signed, in time ([`AccessToken::verify`]) ·
    /// nobody revoked it · its subject is a node that we know · which is at the epoch that the token names, and may have
    /// credentials now. Who may show it, and for what, is another matter.
    pub fn live_token(&self, text: &str) -> Result<LiveToken, TokenRefusal> {
        self.live_token_of(text, |_| true, &mut None)
    }

    /// As [`Self::live_token`], for a reader that may know of some nodes only: the others are to it as if they were not.
    /// `known`: the node, once it is known which.
    pub(crate) fn live_token_of(
        &self,
        text: &str,
        may_know: impl Fn(&LiveNode) -> bool,
        known: &mut Option<NodeId>,
    ) -> Result<LiveToken, TokenRefusal> {
        let now = self.now();
        let token = self.verified_token(text, now)?;
        let claims = token.claims();
        if now >= claims.expires_at {
            return Err(TokenError::Expired { ago: now.since(claims.expires_at) }.into());
        }
        let id: TokenId = claims.id.as_str().parse().map_err(|_| TokenRefusal::UnknownNode)?;
        if self.tokens.revoked.has(&id) {
            return Err(TokenRefusal::Revoked);
        }
        let subject = claims.subject.as_str().parse().map_err(|_| TokenRefusal::UnknownNode)?;
        let node = self.trust_domain.node_of(&subject).ok_or(TokenRefusal::UnknownNode)?;
        let live = self.fleet.node(node).filter(|live| may_know(live)).ok_or(TokenRefusal::UnknownNode)?;
        *known = Some(node);
        if !live.bears(claims.posture_epoch, now) {
            return Err(TokenRefusal::Drifted);
        }
        Ok(LiveToken { token, id, node, live })
    }

    pub(super) fn verified_token(
        &self,
        text: &str,
        now: Timestamp,
    ) -> Result<Arc<VerifiedAccessToken>, TokenError> {
        let hash = TextHash::of(text.as_bytes());
        if let Some(known) = self.tokens.known.find(&hash) {
            return Ok(known);
        }
        let issuer = self.issuer();
        let audience = ExpectedAudience::WhomeverItWasMintedFor;
        let expected = Expected { issuer: &issuer, audience, leeway: LEEWAY };
        let keys = self.tokens.access.keys.load_full();
        let token = Arc::new(AccessToken::verify(text, &keys.verifying, &expected, now)?);
        self.tokens.known.add(hash, &token);
        if !Arc::ptr_eq(&keys, &self.tokens.access.keys.load()) {
            // A key went meanwhile, and this may have been signed by it.
            self.tokens.known.forget();
        }
        Ok(token)
    }

    /// Whether whoever asks may act on a token now. One that is good for one use is used up by it.
    ///
    /// Established when this returns: as [`Self::live_token`], of a node that a relying party may read · the token is for whoever
    /// asks · it was not used before, where it is good for one use, and that it is used is on record.
    pub async fn use_token(&self, reader: &Caller, text: &str) -> Result<UsedToken, UseError> {
        let may_know = |live: &LiveNode| match reader {
            Caller::RelyingParty(party) => party.may_read(&live.labels),
            // The node that it is about has named this one as the audience.
            Caller::Node(_) => true,
        };
        let token = self.live_token_of(text, may_know, &mut None)?;
        self.use_live(reader, token).await
    }

    pub(crate) async fn use_live(&self, reader: &Caller, token: LiveToken) -> Result<UsedToken, UseError> {
        let claims = token.claims();
        let mut audiences = claims.audience.names().iter().map(Text::as_str);
        let is_for = match reader {
            Caller::RelyingParty(party) => party.is_among(audiences),
            Caller::Node(node) => {
                let name = self.trust_domain.node(node.id());
                audiences.any(|audience| audience == name.as_str())
            }
        };
        if !is_for {
            return Err(TokenRefusal::OtherAudience.into());
        }
        if claims.once {
            let record = self
                .record_of(RecordKind::Decision, "UseToken", actor_of(reader), Outcome::Granted, "token_used")
                .about(Entity::node(token.node))
                .because(&format!("token {}", token.id));
            if !self.store.spend_token(&token.id, self.now(), record).await? {
                return Err(TokenRefusal::Spent.into());
            }
        }
        Ok(UsedToken(token))
    }
}

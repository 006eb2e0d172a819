//! Access tokens (RFC 9068): what they claim, and what it takes to believe it.

mod claims;
mod details;

use std::time::Duration;

use rootbound_common::clock::Timestamp;

pub use self::claims::{AccessClaims, Actors};
pub use self::details::{AuthorizationDetail, AuthorizationDetails, NotAScope, Resource, Scope};
use crate::claim::ClaimError;
use crate::jose::{JoseError, Kind, UnverifiedJws};
use crate::jwk::JwkSet;

/// No leeway is larger: whose clock is off by more has to mend it.
pub const MAX_LEEWAY: Duration = Duration::from_secs(60);

/// Why a token says nothing here: the checks of [`AccessToken::verify`] and of
/// [`JwtSvid::verify`](crate::jwt_svid::JwtSvid::verify), one each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Not a JWS of its kind, or not signed by the key that it names.
    #[error("the token is refused: {0}")]
    Jose(#[from] JoseError),
    /// The key that it names is not among the issuer's: another issuer's, retired, or made up.
    #[error("the token names a key that the issuer does not have")]
    UnknownKey,
    /// It does not claim what such a token has to, or not in its form.
    #[error("the token is refused: {0}")]
    Claim(#[from] ClaimError),
    /// Of another issuer.
    #[error("the token is of another issuer")]
    Issuer,
    /// The subject of a JWT-SVID is no SPIFFE ID.
    #[error("the token's subject is no SPIFFE ID with a path")]
    Subject,
    /// The subject of a JWT-SVID is of another trust domain than the keys.
    #[error("the token's subject is of another trust domain than its keys")]
    TrustDomain,
    /// For somebody else.
    #[error("the token is for another audience")]
    Audience,
    /// Too late.
    #[error("the token expired {ago:?} ago")]
    Expired {
        /// Since when.
        ago: Duration,
    },
    /// Too early: one of the two clocks is wrong.
    #[error("the token was issued {ahead:?} after this time")]
    FromTheFuture {
        /// By how much.
        ahead: Duration,
    },
    /// Its `nbf` is yet to come.
    #[error("the token is valid {ahead:?} after this time only")]
    NotYetValid {
        /// By how much.
        ahead: Duration,
    },
    /// Of its two times the end is not after the beginning.
    #[error("the token expires before it was issued")]
    NeverValid,
}

impl TokenError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Jose(error) => error.code(),
            Self::UnknownKey => "jwt_key_unknown",
            Self::Claim(ClaimError::Missing { .. }) => "jwt_claim_missing",
            Self::Claim(ClaimError::Form { .. }) => "jwt_claim_invalid",
            Self::Issuer => "jwt_issuer_wrong",
            Self::Subject => "jwt_subject_invalid",
            Self::TrustDomain => "jwt_trust_domain_wrong",
            Self::Audience => "jwt_audience_wrong",
            Self::Expired { .. } => "jwt_expired",
            Self::FromTheFuture { .. } => "jwt_from_the_future",
            Self::NotYetValid { .. } => "jwt_not_yet_valid",
            Self::NeverValid => "jwt_never_valid",
        }
    }
}

/// For whom a token has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpectedAudience<'a> {
    /// This name must be among those that it is for: whoever takes a token for itself says its own.
    Named(&'a str),
    /// Whomever: for the issuer alone, which is asked about tokens that it minted for others.
    WhomeverItWasMintedFor,
}

/// What a token has to be.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'a> {
    /// Its issuer, to the byte.
    pub issuer: &'a str,
    /// Whom it is for.
    pub audience: ExpectedAudience<'a>,
    /// How far the clocks of issuer and reader may be apart: up to [`MAX_LEEWAY`].
    pub leeway: Duration,
}

/// The times of a token.
pub(crate) struct Validity {
    pub(crate) not_before: Option<Timestamp>,
    pub(crate) issued_at: Option<Timestamp>,
    pub(crate) expires_at: Timestamp,
}

impl Validity {
    /// Not after its end (RFC 7519, 4.1.4: "on or after"), not before its beginning, each with leeway.
    pub(crate) fn check(&self, leeway: Duration, now: Timestamp) -> Result<(), TokenError> {
        let leeway = leeway.min(MAX_LEEWAY);
        if now >= self.expires_at.plus(leeway) {
            return Err(TokenError::Expired { ago: now.since(self.expires_at) });
        }
        if let Some(issued_at) = self.issued_at {
            if issued_at > now.plus(leeway) {
                return Err(TokenError::FromTheFuture { ahead: issued_at.since(now) });
            }
            if issued_at >= self.expires_at {
                return Err(TokenError::NeverValid);
            }
        }
        match self.not_before {
            Some(not_before) if not_before > now.plus(leeway) => {
                Err(TokenError::NotYetValid { ahead: not_before.since(now) })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// An access token that somebody showed.
#[derive(Debug, Clone, Copy)]
pub struct AccessToken;

impl AccessToken {
    /// Verifies a token.
    ///
    /// Established when this returns, in this order (RFC 9068, 4): it is one JWS of `typ: at+jwt` by ES256, as
    /// [`crate::jose`] says · the issuer has a key of the name that it says · that key signed it · it claims what an access
    /// token has to, each claim in its form · it is of this issuer · for this audience · it has not expired · it was not
    /// issued in the future · its `nbf`, if it has one, has passed.
    ///
    /// It does not say who may show it: that is [`AccessClaims::binding`], for which [`crate::dpop`] or the certificate in
    /// TLS is the answer. Nor does it say that it was not revoked, nor how its subject stands by now.
    pub fn verify(
        text: &str,
        keys: &JwkSet,
        expected: &Expected<'_>,
        now: Timestamp,
    ) -> Result<VerifiedAccessToken, TokenError> {
        let token = UnverifiedJws::parse(text, Kind::AccessToken)?;
        let key = token.key_id().and_then(|kid| keys.signing(kid)).ok_or(TokenError::UnknownKey)?;
        let verified = token.verify(key)?;
        let (claims, not_before) = AccessClaims::read(verified.claims())?;
        if claims.issuer.as_str() != expected.issuer {
            return Err(TokenError::Issuer);
        }
        match expected.audience {
            ExpectedAudience::Named(name) if !claims.audience.contains(name) => {
                return Err(TokenError::Audience);
            }
            ExpectedAudience::Named(_) | ExpectedAudience::WhomeverItWasMintedFor => {}
        }
        let (issued_at, expires_at) = (Some(claims.issued_at), claims.expires_at);
        Validity { not_before, issued_at, expires_at }.check(expected.leeway, now)?;
        Ok(VerifiedAccessToken { claims, hash: *verified.hash() })
    }
}

/// What the issuer said, in time, for this audience.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedAccessToken {
    claims: AccessClaims,
    hash: [u8; 32],
}

impl VerifiedAccessToken {
    /// What it claims.
    #[must_use]
    pub fn claims(&self) -> &AccessClaims {
        &self.claims
    }

    /// What it claims.
    #[must_use]
    pub fn into_claims(self) -> AccessClaims {
        self.claims
    }

    /// SHA-256 over its text: `ath` of a proof that goes with it.
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

#[cfg(test)]
mod tests;

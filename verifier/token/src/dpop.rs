//! DPoP proofs (RFC 9449): that whoever asks has the key, and made this for this request, just now.
//!
//! The road is header fields → [`VerifiedProof`] → ([`Replays::take`](crate::replay::Replays::take)) → [`FreshProof`], by value at
//! each step.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;

use crate::access::{MAX_LEEWAY, VerifiedAccessToken};
use crate::claim::{ClaimError, Members};
use crate::jose::{JoseError, Kind, UnverifiedJws};
use crate::jwk::{PublicJwk, Thumbprint};
use crate::nonce::{Nonces, Window};
use crate::replay::Entry;
use crate::target_uri::{TargetUri, TargetUriError};

/// Why a proof proves nothing here: the checks of RFC 9449, 4.3, one each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DpopError {
    /// No `DPoP` header field.
    #[error("the request has no DPoP proof")]
    Missing,
    /// More than one.
    #[error("the request has {found} DPoP proofs instead of one")]
    Several {
        /// How many.
        found: usize,
    },
    /// Not a JWS of this kind, by a key that it brings, or not signed by that key.
    #[error("the DPoP proof is refused: {0}")]
    Jose(#[from] JoseError),
    /// It does not claim what a proof has to, or not in its form.
    #[error("the DPoP proof is refused: {0}")]
    Claim(#[from] ClaimError),
    /// `htm` is another method.
    #[error("the DPoP proof is for another method")]
    Method,
    /// `htu` is no URI that a request has.
    #[error("the DPoP proof's htu is refused: {0}")]
    InvalidUri(TargetUriError),
    /// `htu` is another URI.
    #[error("the DPoP proof is for another URI")]
    Uri,
    /// It has no nonce.
    #[error("the DPoP proof has no nonce")]
    NonceMissing,
    /// Its nonce is none that is taken now: too old, of before a restart, or made up.
    #[error("the DPoP proof's nonce is not taken now")]
    NonceStale,
    /// Made too long ago, by its own clock.
    #[error("the DPoP proof was made {ago:?} ago")]
    TooOld {
        /// When.
        ago: Duration,
    },
    /// Made later than now, by its own clock.
    #[error("the DPoP proof was made {ahead:?} after this time")]
    FromTheFuture {
        /// By how much.
        ahead: Duration,
    },
    /// It goes with a token, and does not say with which.
    #[error("the DPoP proof has no ath, and goes with a token")]
    TokenHashMissing,
    /// It was made to go with another token.
    #[error("the DPoP proof is for another token")]
    TokenHash,
    /// The token is bound to no key, so that no proof adds to it.
    #[error("the token is not bound to a DPoP key")]
    NotBound,
    /// The token is bound to another key.
    #[error("the token is bound to another key than the DPoP proof's")]
    Key,
}

impl DpopError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing => "dpop_missing",
            Self::Several { .. } => "dpop_several",
            Self::Jose(error) => error.code(),
            Self::Claim(ClaimError::Missing { .. }) => "jwt_claim_missing",
            Self::Claim(ClaimError::Form { .. }) => "jwt_claim_invalid",
            Self::Method => "dpop_method_wrong",
            Self::InvalidUri(error) => error.code(),
            Self::Uri => "dpop_uri_wrong",
            Self::NonceMissing => "dpop_nonce_missing",
            Self::NonceStale => "dpop_nonce_stale",
            Self::TooOld { .. } => "dpop_too_old",
            Self::FromTheFuture { .. } => "dpop_from_the_future",
            Self::TokenHashMissing => "dpop_token_hash_missing",
            Self::TokenHash => "dpop_token_hash_wrong",
            Self::NotBound => "dpop_token_not_bound",
            Self::Key => "dpop_key_wrong",
        }
    }

    /// The error code of OAuth (RFC 9449, 5, 7.1, 8 and 9): for `use_dpop_nonce` the answer brings a `DPoP-Nonce`.
    #[must_use]
    pub const fn oauth_error(&self) -> &'static str {
        match self {
            Self::NonceMissing | Self::NonceStale => "use_dpop_nonce",
            Self::NotBound | Self::Key => "invalid_token",
            Self::Missing
            | Self::Several { .. }
            | Self::Jose(_)
            | Self::Claim(_)
            | Self::Method
            | Self::InvalidUri(_)
            | Self::Uri
            | Self::TooOld { .. }
            | Self::FromTheFuture { .. }
            | Self::TokenHashMissing
            | Self::TokenHash => "invalid_dpop_proof",
        }
    }
}

/// What a proof goes with.
#[derive(Debug, Clone, Copy)]
pub enum GoesWith<'a> {
    /// A request for a token, which will be bound to the key of the proof.
    TokenRequest,
    /// This token, which has to be bound to the key of the proof.
    Token(&'a VerifiedAccessToken),
}

/// What a proof has to be for.
#[derive(Debug, Clone, Copy)]
pub struct ExpectedProof<'a> {
    /// The method of the request.
    pub method: &'a str,
    /// The URI of the request as clients know it: never made up of what a request claims, unless a proxy vouches for it.
    pub uri: &'a TargetUri,
    /// What it goes with.
    pub goes_with: GoesWith<'a>,
}

/// A DPoP proof that somebody showed.
#[derive(Debug, Clone, Copy)]
pub struct DpopProof;

impl DpopProof {
    /// How old a proof may be by its own clock, beside a leeway of [`MAX_LEEWAY`]: as long as its nonce is taken.
    pub const MAX_AGE: Duration = Nonces::WINDOW.saturating_mul(2);

    /// Verifies the proof of a request, of which `headers` are the values of all `DPoP` fields.
    ///
    /// Established when this returns, in this order (RFC 9449, 4.3; its numbers in brackets): there is exactly one (1) · it is
    /// one JWS of `typ: dpop+jwt` by ES256, with a public key in it, as [`crate::jose`] says (2, 4, 5, 7) · that key signed it (6)
    /// · it claims what a proof has to, each claim in its form (3) · its method is the request's (8) · its URI is the request's (9)
    /// · its nonce is one of this process that is taken now (10) · it was made lately by its own clock (11) · if it goes with a
    /// token, it names that token, and the token is bound to its key (12).
    pub fn verify(
        headers: &[&str],
        expected: &ExpectedProof<'_>,
        nonces: &Nonces,
        now: Timestamp,
    ) -> Result<VerifiedProof, DpopError> {
        let text = match headers {
            [] => return Err(DpopError::Missing),
            [text] => text,
            several => return Err(DpopError::Several { found: several.len() }),
        };
        let proof = UnverifiedJws::parse(text, Kind::DpopProof)?;
        let key = proof.embedded_key().cloned().ok_or(JoseError::NoKey)?;
        let verified = proof.verify(&key)?;
        let claims = Members(verified.claims());
        let (id, method, uri) = (claims.text("jti")?, claims.text("htm")?, claims.text("htu")?);
        let issued_at = claims.time("iat")?;
        let nonce = claims.optional_text("nonce")?;
        let token_hash = claims.optional_text("ath")?;
        if method.as_str() != expected.method {
            return Err(DpopError::Method);
        }
        let uri = TargetUri::parse(uri.as_str()).map_err(DpopError::InvalidUri)?;
        if uri != *expected.uri {
            return Err(DpopError::Uri);
        }
        let nonce = nonce.ok_or(DpopError::NonceMissing)?;
        let window = nonces.accept(nonce.as_str(), now).map_err(|_| DpopError::NonceStale)?;
        if issued_at.plus(Self::MAX_AGE).plus(MAX_LEEWAY) < now {
            return Err(DpopError::TooOld { ago: now.since(issued_at) });
        }
        if issued_at > now.plus(MAX_LEEWAY) {
            return Err(DpopError::FromTheFuture { ahead: issued_at.since(now) });
        }
        let thumbprint = key.thumbprint();
        match expected.goes_with {
            GoesWith::TokenRequest => {}
            GoesWith::Token(token) => {
                let named = token_hash.ok_or(DpopError::TokenHashMissing)?;
                if named.as_str() != crate::base64url(token.hash()) {
                    return Err(DpopError::TokenHash);
                }
                let bound_to = token.claims().binding.key().ok_or(DpopError::NotBound)?;
                if *bound_to != thumbprint {
                    return Err(DpopError::Key);
                }
            }
        }
        let entry = entry(&thumbprint, &uri, id.as_str());
        Ok(VerifiedProof { key, thumbprint, issued_at, entry, window })
    }
}

/// What stands for a proof among those that were seen. Parts that vary in length say it, so that no two are one.
fn entry(thumbprint: &Thumbprint, uri: &TargetUri, id: &str) -> Entry {
    const DOMAIN: &[u8] = b"rootbound/v1/dpop-proof\0";
    let uri = uri.as_str().as_bytes();
    let length = u64::try_from(uri.len()).unwrap_or(u64::MAX).to_be_bytes();
    let hash = sha256(&[DOMAIN, thumbprint.as_bytes(), &length, uri, id.as_bytes()]);
    let mut entry = Entry::default();
    for (to, from) in entry.iter_mut().zip(hash) {
        *to = from;
    }
    entry
}

/// A proof that is right in itself; whether it was used before is not known yet. It is moved where it is spent.
#[derive(Debug)]
pub struct VerifiedProof {
    key: PublicJwk,
    thumbprint: Thumbprint,
    issued_at: Timestamp,
    entry: Entry,
    window: Window,
}

impl VerifiedProof {
    /// The thumbprint of its key.
    #[must_use]
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }

    /// The proof, where its key is the one that signed the handshake of the very connection that it came over: whoever shows
    /// it has the key now, so that it may come again as long as its nonce is taken. From elsewhere it comes back as it is, to
    /// be spent.
    #[must_use]
    pub fn by_the_key_in_tls(self, key: &Thumbprint) -> BesideTls {
        if self.thumbprint == *key {
            BesideTls::Fresh(FreshProof::of(self))
        } else {
            BesideTls::OfAnother(self)
        }
    }

    pub(crate) fn entry(&self) -> Entry {
        self.entry
    }

    pub(crate) fn window(&self) -> Window {
        self.window
    }
}

/// What a proof is beside the key of its connection.
#[derive(Debug)]
pub enum BesideTls {
    /// By the same key.
    Fresh(FreshProof),
    /// By another, to be spent.
    OfAnother(VerifiedProof),
}

/// A proof that counts: it was never used before ([`Replays::take`](crate::replay::Replays::take)), or came over a connection
/// that its key signed ([`VerifiedProof::by_the_key_in_tls`]).
#[derive(Debug)]
pub struct FreshProof {
    key: PublicJwk,
    thumbprint: Thumbprint,
    issued_at: Timestamp,
}

impl FreshProof {
    pub(crate) fn of(proof: VerifiedProof) -> Self {
        Self { key: proof.key, thumbprint: proof.thumbprint, issued_at: proof.issued_at }
    }

    /// The key that made it.
    #[must_use]
    pub fn key(&self) -> &PublicJwk {
        &self.key
    }

    /// The thumbprint of that key, which a token is bound to.
    #[must_use]
    pub fn thumbprint(&self) -> &Thumbprint {
        &self.thumbprint
    }

    /// When it was made, by its maker's clock.
    #[must_use]
    pub fn issued_at(&self) -> Timestamp {
        self.issued_at
    }
}

#[cfg(test)]
mod tests;

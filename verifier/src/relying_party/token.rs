//! A relying party's bearer token (RFC 6750), where it has no certificate.
//!
//! 256 random bits in base64url. The configuration has the SHA-256 alone, from which nobody gets the token: there is nothing to guess
//! that a slow hash would slow down.

use std::fmt;

use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use rand_core::CryptoRng;
use rootbound_common::crypto::sha256;
use rootbound_common::secret::Secret;
use serde::Deserialize;
use subtle::{Choice, ConstantTimeEq as _};
use zeroize::Zeroizing;

/// Bytes of a token.
const LENGTH: usize = 32;

/// What a caller shows as its token.
#[derive(Debug)]
pub struct BearerToken(Secret<LENGTH>);

/// SHA-256 of a token, over its 32 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenHash([u8; 32]);

/// A text that is no hash of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("token_sha256 is 64 lower-case hex digits, as `rootbound-verifier relying-party token` prints them")]
pub struct NotATokenHash;

/// Why a caller with a token is refused. Each has a stable code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Which of two counts, nobody should have to guess.
    #[error("the request has more than one Authorization header field")]
    Repeated,
    /// Another scheme.
    #[error("the Authorization header field must be of the scheme Bearer")]
    Scheme,
    /// Nothing that we ever make.
    #[error("the token is not 43 characters of base64url")]
    Malformed,
    /// Who shows a certificate is known by that.
    #[error("the request comes with a client certificate and with a token; show one of them")]
    AndCertificate,
    /// No relying party has it.
    #[error("no relying party has this token")]
    Unknown,
}

impl TokenError {
    /// Stable, for machines.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::Repeated => "token_repeated",
            Self::Scheme => "token_scheme",
            Self::Malformed => "token_malformed",
            Self::AndCertificate => "token_and_certificate",
            Self::Unknown => "token_unknown",
        }
    }
}

impl BearerToken {
    /// Makes one.
    #[must_use]
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self(Secret::generate(rng))
    }

    /// Out of the values of a request's Authorization header fields; `None` where there is none.
    pub fn of<'a>(mut fields: impl Iterator<Item = &'a [u8]>) -> Result<Option<Self>, TokenError> {
        let Some(field) = fields.next() else { return Ok(None) };
        if fields.next().is_some() {
            return Err(TokenError::Repeated);
        }
        // A scheme is compared without regard to case (RFC 9110, 11.1).
        let (scheme, token) = match field.split_first_chunk::<7>() {
            Some((scheme, token)) => (scheme, token),
            None => return Err(TokenError::Scheme),
        };
        if !scheme.eq_ignore_ascii_case(b"bearer ") {
            return Err(TokenError::Scheme);
        }
        Self::parse(token).map(Some)
    }

    /// The text of one.
    pub fn parse(text: &[u8]) -> Result<Self, TokenError> {
        let mut token = Zeroizing::new([0; LENGTH]);
        // What has another length is never decoded.
        if text.len() != BASE64URL_NOPAD.encode_len(LENGTH) {
            return Err(TokenError::Malformed);
        }
        match BASE64URL_NOPAD.decode_mut(text, token.as_mut()) {
            Ok(LENGTH) => Ok(Self(Secret::from_bytes(*token))),
            Ok(_) | Err(_) => Err(TokenError::Malformed),
        }
    }

    /// What the configuration has of it.
    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(sha256(&[self.0.expose()]))
    }

    /// The text, for the one who is to have it.
    #[must_use]
    pub fn reveal(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64URL_NOPAD.encode(self.0.expose()))
    }
}

impl TokenHash {
    /// Whether they are the same, in a time that says nothing of where they differ.
    pub(super) fn is(&self, other: &Self) -> Choice {
        self.0.ct_eq(&other.0)
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&HEXLOWER.encode(&self.0))
    }
}

impl TryFrom<String> for TokenHash {
    type Error = NotATokenHash;

    fn try_from(text: String) -> Result<Self, NotATokenHash> {
        let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_| NotATokenHash)?;
        bytes.try_into().map(Self).map_err(|_| NotATokenHash)
    }
}

#[cfg(test)]
mod tests {
    use rootbound_common::random;

    use super::*;

    fn of(fields: &[&str]) -> Result<Option<TokenHash>, TokenError> {
        BearerToken::of(fields.iter().map(|field| field.as_bytes()))
            .map(|token| token.map(|token| token.hash()))
    }

    #[test]
    fn a_token_is_read_as_it_was_made_and_known_by_its_hash() {
        let token = BearerToken::generate(&mut random::system());
        let text = token.reveal();
        for scheme in ["Bearer", "bearer", "BEARER"] {
            assert_eq!(of(&[&format!("{scheme} {}", *text)]), Ok(Some(token.hash())));
        }
        let hash = token.hash().to_string();
        assert_eq!(TokenHash::try_from(hash.clone()), Ok(token.hash()));
        assert!(!format!("{token:?}").contains(&*text), "it is never shown by accident");
        let other = BearerToken::generate(&mut random::system()).hash();
        assert!(bool::from(token.hash().is(&token.hash())) && !bool::from(token.hash().is(&other)));
        // The hash of 32 zero bytes, by `head -c 32 /dev/zero | sha256sum`.
        let zeros = of(&[&format!("Bearer {}", "A".repeat(43))]).unwrap().unwrap();
        assert_eq!(zeros.to_string(), "66687aadf862bd776c8fc18b8e9f8e20089714856ee233b3902a591d0d5f2925");
        assert_eq!(of(&[]), Ok(None));
    }

    #[test]
    fn what_is_no_token_is_refused_by_its_fault() {
        let good = "A".repeat(43);
        for (fields, fault) in [
            (vec![format!("Bearer {good}"), format!("Bearer {good}")], TokenError::Repeated),
            (vec![format!("Basic {good}")], TokenError::Scheme),
            (vec![format!("Bearer\t{good}")], TokenError::Scheme),
            (vec![good.clone()], TokenError::Scheme),
            (vec!["Bearer".to_owned()], TokenError::Scheme),
            (vec![String::new()], TokenError::Scheme),
            (vec!["Bearer ".to_owned()], TokenError::Malformed),
            (vec![format!("Bearer  {good}")], TokenError::Malformed),
            (vec![format!("Bearer {good}=")], TokenError::Malformed),
            (vec![format!("Bearer {}", "A".repeat(42))], TokenError::Malformed),
            (vec![format!("Bearer {}", "A".repeat(8000))], TokenError::Malformed),
            (vec![format!("Bearer {}+", "A".repeat(42))], TokenError::Malformed),
            // Two texts of one token: the last character has two bits that say nothing, and must be zero.
            (vec![format!("Bearer {}B", "A".repeat(42))], TokenError::Malformed),
        ] {
            let fields: Vec<_> = fields.iter().map(String::as_str).collect();
            assert_eq!(of(&fields), Err(fault), "{fields:?}");
        }
        for bad in ["", "ab", &"A".repeat(64), &"g".repeat(64), &"a".repeat(66)] {
            assert_eq!(TokenHash::try_from(bad.to_owned()), Err(NotATokenHash));
        }
    }
}

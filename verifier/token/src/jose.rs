//! One JWS in its compact form (RFC 7515, 7.1), signed with ES256 and nothing else.
//!
//! Established when [`UnverifiedJws::parse`] returns, in this order: the text is no longer than its kind may be · it has
//! exactly three parts · the header is at most [`MAX_HEADER`] bytes in the one base64url that it has · it is a JSON object,
//! read strictly · it has no member that changes what a signature means, or that names a key elsewhere (RFC 8725, 3.10) ·
//! `alg` is ES256 (RFC 8725, 3.1) · `typ` is that of its kind (3.11) · the key is said as its kind says it: by `kid`, or
//! by `jwk` in a DPoP proof · the signature has 64 bytes in the one base64url that it has. What it claims is not looked at
//! until [`UnverifiedJws::verify`] found the signature to be that of the key.

use std::fmt;

use rootbound_common::crypto::sha256;
use serde_json::{Map, Value};

use crate::from_base64url;
use crate::json::{self, JsonError};
use crate::jwk::{JwkError, PublicJwk};

/// A header with a key in it has some 250 bytes.
pub const MAX_HEADER: usize = 1024;
/// The same in base64url.
const MAX_HEADER_TEXT: usize = (MAX_HEADER * 4).div_ceil(3);
/// Values of a header: those that are known, a key's, and some.
const MAX_HEADER_VALUES: usize = 32;
/// Values of a payload: eight authorization details with their lists are some 200.
const MAX_CLAIM_VALUES: usize = 512;
/// 64 bytes of base64url.
const SIGNATURE_TEXT: usize = 86;

/// What a JWS is for. Each kind has a `typ` that the others have not, so that none is taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An access token (RFC 9068).
    AccessToken,
    /// A JWT-SVID (SPIFFE JWT-SVID).
    JwtSvid,
    /// A DPoP proof (RFC 9449, 4.2).
    DpopProof,
}

impl Kind {
    /// How long its text may be, in bytes: what servers take in a header field, and half of it for a proof.
    #[must_use]
    pub const fn max(self) -> usize {
        match self {
            Self::AccessToken | Self::JwtSvid => 8 * 1024,
            Self::DpopProof => 4 * 1024,
        }
    }

    fn has_type(self, typ: Option<&str>) -> bool {
        match self {
            // Media types have no case (RFC 7515, 4.1.9; RFC 9068, 4).
            Self::AccessToken => typ.is_some_and(|typ| {
                ["at+jwt", "application/at+jwt"].iter().any(|one| one.eq_ignore_ascii_case(typ))
            }),
            Self::JwtSvid => matches!(typ, None | Some("JWT" | "JOSE")),
            Self::DpopProof => typ == Some("dpop+jwt"),
        }
    }
}

/// Which of the three parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The first.
    Header,
    /// The second.
    Payload,
    /// The third.
    Signature,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::Payload => "payload",
            Self::Signature => "signature",
        })
    }
}

/// What kind of `alg` stands where ES256 has to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefusedAlgorithm {
    /// None is named.
    #[error("the header names no algorithm")]
    Absent,
    /// `none`, in whatever case: no signature at all.
    #[error("the algorithm is `none`: nothing is signed")]
    Unsigned,
    /// HS256 and its like: who can verify could have signed, by a public key that was taken for a secret.
    #[error("the algorithm is a MAC (HS…), not a signature")]
    Mac,
    /// RS256, PS256 and their like.
    #[error("the algorithm is RSA (RS… or PS…), not ES256")]
    Rsa,
    /// ES384, ES256K and their like.
    #[error("the algorithm is ECDSA of another curve or hash than ES256")]
    OtherEcdsa,
    /// EdDSA, Ed25519.
    #[error("the algorithm is EdDSA, not ES256")]
    Edwards,
    /// Anything else: of encryption, in other case, no string.
    #[error("the algorithm is not ES256")]
    Unknown,
}

impl RefusedAlgorithm {
    fn check(alg: Option<&Value>) -> Result<(), Self> {
        let text = match alg {
            None => return Err(Self::Absent),
            Some(Value::String(text)) => text.as_str(),
            Some(_) => return Err(Self::Unknown),
        };
        Err(match text {
            "ES256" => return Ok(()),
            _ if text.eq_ignore_ascii_case("none") => Self::Unsigned,
            _ if text.starts_with("HS") => Self::Mac,
            _ if text.starts_with("RS") || text.starts_with("PS") => Self::Rsa,
            _ if text.starts_with("ES") => Self::OtherEcdsa,
            _ if text.starts_with("Ed") => Self::Edwards,
            _ => Self::Unknown,
        })
    }
}

/// Why a text is no JWS of its kind, or not the key's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JoseError {
    /// Longer than its kind may be.
    #[error("it has {found} bytes, more than {limit}")]
    TooLong {
        /// How many it may have.
        limit: usize,
        /// How many it has.
        found: usize,
    },
    /// Not three parts with a dot between them: five are an encrypted JWE.
    #[error("it has not three parts with a dot between them")]
    NotThreeParts,
    /// A header that is too long, before it is decoded.
    #[error("its header has more than {MAX_HEADER} bytes")]
    HeaderTooLong,
    /// Not base64url in the one form that its bytes have: padded, with white space, of another alphabet, or with bits that
    /// nobody reads.
    #[error("its {0} is not canonical base64url without padding")]
    Encoding(Part),
    /// Not JSON that is read.
    #[error("its {part} is no JSON that is read here: {error}")]
    Json {
        /// Of which part.
        part: Part,
        /// Why not.
        error: JsonError,
    },
    /// JSON, but no object.
    #[error("its {0} is no JSON object")]
    NotAnObject(Part),
    /// A header member that is never taken.
    #[error("its header has `{member}`, which is not taken")]
    RefusedMember {
        /// Which.
        member: &'static str,
    },
    /// Signed by another algorithm, or by none.
    #[error(transparent)]
    Algorithm(#[from] RefusedAlgorithm),
    /// Of another kind.
    #[error("its typ is not that of {0:?}")]
    Type(Kind),
    /// A key of its own, where only the issuer's count.
    #[error("it brings its own key")]
    EmbeddedKey,
    /// Nothing says which key.
    #[error("its header has no kid")]
    NoKeyId,
    /// A proof without the key that it is a proof of.
    #[error("its header has no jwk")]
    NoKey,
    /// The key of a proof is none.
    #[error(transparent)]
    Key(#[from] JwkError),
    /// The signature is not the key's, or not over this.
    #[error("its signature does not verify")]
    Signature,
}

impl JoseError {
    /// A stable name.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::TooLong { .. } => "jws_too_long",
            Self::NotThreeParts => "jws_not_three_parts",
            Self::HeaderTooLong => "jws_header_too_long",
            Self::Encoding(_) => "jws_encoding_invalid",
            Self::Json { .. } => "jws_json_invalid",
            Self::NotAnObject(_) => "jws_not_an_object",
            Self::RefusedMember { .. } => "jws_header_refused",
            Self::Algorithm(_) => "jws_algorithm_refused",
            Self::Type(_) => "jws_type_wrong",
            Self::EmbeddedKey => "jws_key_embedded",
            Self::NoKeyId => "jws_key_unnamed",
            Self::NoKey => "jws_key_missing",
            Self::Key(_) => "jws_key_invalid",
            Self::Signature => "jws_signature_invalid",
        }
    }
}

/// Header members that change what is signed (RFC 7515, 4.1.11; RFC 7797; RFC 7516, 4.1.3), or where its key comes from.
const REFUSED: [&str; 6] = ["crit", "b64", "zip", "jku", "x5u", "x5c"];

/// Where the key is said to be.
#[derive(Debug, Clone)]
enum KeySource {
    Named(String),
    Brought(PublicJwk),
}

/// A JWS whose form is right, of which nothing is known yet: neither who signed it nor what it claims.
#[derive(Debug)]
pub struct UnverifiedJws<'a> {
    text: &'a str,
    signing_input: &'a str,
    payload: &'a str,
    signature: [u8; 64],
    key: KeySource,
}

impl<'a> UnverifiedJws<'a> {
    /// Reads what [the module](self) says.
    pub fn parse(text: &'a str, kind: Kind) -> Result<Self, JoseError> {
        if text.len() > kind.max() {
            return Err(JoseError::TooLong { limit: kind.max(), found: text.len() });
        }
        let mut parts = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(JoseError::NotThreeParts);
        };
        let signing_input = text.rsplit_once('.').map_or("", |(input, _)| input);
        if header.len() > MAX_HEADER_TEXT {
            return Err(JoseError::HeaderTooLong);
        }
        let header = object(header, Part::Header, MAX_HEADER_VALUES)?;
        if let Some(member) = REFUSED.into_iter().find(|member| header.contains_key(*member)) {
            return Err(JoseError::RefusedMember { member });
        }
        RefusedAlgorithm::check(header.get("alg"))?;
        let typ = match header.get("typ") {
            Some(Value::String(typ)) => Some(typ.as_str()),
            Some(_) => return Err(JoseError::Type(kind)),
            None => None,
        };
        if !kind.has_type(typ) {
            return Err(JoseError::Type(kind));
        }
        let key = match (kind, header.get("jwk")) {
            (Kind::DpopProof, Some(key)) => KeySource::Brought(PublicJwk::from_json(key)?),
            (Kind::DpopProof, None) => return Err(JoseError::NoKey),
            (Kind::AccessToken | Kind::JwtSvid, Some(_)) => return Err(JoseError::EmbeddedKey),
            (Kind::AccessToken | Kind::JwtSvid, None) => match header.get("kid") {
                Some(Value::String(kid)) if !kid.is_empty() => KeySource::Named(kid.clone()),
                Some(_) | None => return Err(JoseError::NoKeyId),
            },
        };
        // Longer ones are not decoded: there is no other length of ES256.
        let signature = (signature.len() == SIGNATURE_TEXT).then(|| from_base64url(signature)).flatten();
        let signature = signature.and_then(|bytes| bytes.try_into().ok());
        let signature = signature.ok_or(JoseError::Encoding(Part::Signature))?;
        Ok(Self { text, signing_input, payload, signature, key })
    }

    /// The key that its header names, where its kind has it so; nothing for a proof.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        match &self.key {
            KeySource::Named(kid) => Some(kid),
            KeySource::Brought(_) => None,
        }
    }

    /// The key that it brings, where its kind has it so: of which nothing is known but that it is one.
    #[must_use]
    pub fn embedded_key(&self) -> Option<&PublicJwk> {
        match &self.key {
            KeySource::Named(_) => None,
            KeySource::Brought(key) => Some(key),
        }
    }

    /// Verifies the signature by `key`, and reads what is claimed.
    ///
    /// Established when this returns: the key signed header and payload as they stand · the payload is a JSON object, read
    /// strictly.
    pub fn verify(self, key: &PublicJwk) -> Result<VerifiedJws, JoseError> {
        key.verify(self.signing_input.as_bytes(), &self.signature).map_err(|_| JoseError::Signature)?;
        let claims = object(self.payload, Part::Payload, MAX_CLAIM_VALUES)?;
        Ok(VerifiedJws { claims, hash: sha256(&[self.text.as_bytes()]) })
    }
}

/// What a key signed.
#[derive(Debug, Clone)]
pub struct VerifiedJws {
    claims: Map<String, Value>,
    hash: [u8; 32],
}

impl VerifiedJws {
    /// What it claims.
    #[must_use]
    pub fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// SHA-256 over its text: `ath` of a proof that goes with it (RFC 9449, 4.2).
    #[must_use]
    pub fn hash(&self) -> &[u8; 32] {
        &self.hash
    }
}

fn object(text: &str, part: Part, values: usize) -> Result<Map<String, Value>, JoseError> {
    let bytes = from_base64url(text).ok_or(JoseError::Encoding(part))?;
    match json::read(&bytes, values) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(JoseError::NotAnObject(part)),
        Err(error) => Err(JoseError::Json { part, error }),
    }
}

#[cfg(test)]
mod tests;

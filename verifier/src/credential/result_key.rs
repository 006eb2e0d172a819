//! The key that signs attestation results: P-256 of its own, so that whoever has it can issue no identity.

use std::fmt;

use p256::SecretKey;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use rand_core::CryptoRng;
use rootbound_token::base64url;
use rootbound_token::jwk::{PublicJwk, Thumbprint};
use serde::Serialize;
use signature::Signer;
use zeroize::Zeroizing;

/// Why there is no such key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ResultKeyError {
    /// The file holds no P-256 private key.
    #[error("no P-256 private key, unencrypted PEM in PKCS#8 or SEC 1")]
    Key,
    /// The key cannot be put into PEM.
    #[error("the key cannot be encoded")]
    Encoding,
}

/// A signing key with its name. It has no `Clone`, a redacted `Debug`, and is wiped on drop.
pub struct ResultKey {
    key: SigningKey,
    public: Jwk,
}

/// The public half as a JSON Web Key (RFC 7517; RFC 7518, 6.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    y: String,
    alg: &'static str,
    #[serde(rename = "use")]
    usage: &'static str,
    kid: String,
}

/// A JSON Web Key Set (RFC 7517, 5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct JwkSet {
    keys: Vec<Jwk>,
}

impl Jwk {
    /// Of a key that signs with ES256.
    pub(super) fn of(key: &PublicJwk) -> Self {
        let kid = key.thumbprint().to_string();
        Self { kty: "EC", crv: "P-256", x: key.x(), y: key.y(), alg: "ES256", usage: "sig", kid }
    }

    /// Its name.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// A coordinate, in base64url.
    #[must_use]
    pub fn x(&self) -> &str {
        &self.x
    }

    /// A coordinate, in base64url.
    #[must_use]
    pub fn y(&self) -> &str {
        &self.y
    }
}

impl JwkSet {
    /// Of these.
    pub(crate) fn of(keys: impl IntoIterator<Item = Jwk>) -> Self {
        Self { keys: keys.into_iter().collect() }
    }

    /// Each.
    #[must_use]
    pub fn keys(&self) -> &[Jwk] {
        &self.keys
    }

    /// Those of both.
    pub(crate) fn and(mut self, other: Self) -> Self {
        self.keys.extend(other.keys);
        self
    }
}

impl ResultKey {
    /// Makes one.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        Self::of(SigningKey::generate_from_rng(rng))
    }

    /// Reads one from PEM.
    pub fn from_pem(pem: &str) -> Result<Self, ResultKeyError> {
        let key = SecretKey::from_pem(pem).map_err(|_| ResultKeyError::Key)?;
        Ok(Self::of(SigningKey::from(key)))
    }

    fn of(key: SigningKey) -> Self {
        let point = key.verifying_key().to_sec1_point(false);
        let coordinate = |bytes: Option<&[u8]>| base64url(bytes.unwrap_or_default());
        let (x, y) = (coordinate(point.x().map(|x| &x[..])), coordinate(point.y().map(|y| &y[..])));
        let kid = Thumbprint::of_coordinates(&x, &y).to_string();
        let public = Jwk { kty: "EC", crv: "P-256", x, y, alg: "ES256", usage: "sig", kid };
        Self { key, public }
    }

    /// As PKCS#8 PEM, for its file.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, ResultKeyError> {
        SecretKey::from(&self.key).to_pkcs8_pem(LineEnding::LF).map_err(|_| ResultKeyError::Encoding)
    }

    /// What verifies its signatures.
    #[must_use]
    pub fn jwk_set(&self) -> JwkSet {
        JwkSet { keys: vec![self.public.clone()] }
    }

    /// Its name: the thumbprint of RFC 7638.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.public.kid
    }

    /// A signature of ES256 (RFC 7518, 3.4): SHA-256, R and S of 32 bytes each, without randomness (RFC 6979).
    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature: Signature = self.key.sign(message);
        signature.to_bytes().into()
    }
}

impl fmt::Debug for ResultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultKey").field("id", &self.id()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::random;

    #[test]
    fn a_key_survives_its_file() {
        let key = ResultKey::generate(&mut random::system());
        let again = ResultKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(again.jwk_set(), key.jwk_set());
        assert_eq!(again.sign(b"message"), key.sign(b"message"));
        assert_eq!(ResultKey::from_pem("not a key").unwrap_err(), ResultKeyError::Key);
    }

    #[test]
    fn it_is_published_under_its_thumbprint() {
        let key = ResultKey::generate(&mut random::system());
        let set = serde_json::to_vec(&key.jwk_set()).unwrap();
        let found = rootbound_token::jwk::JwkSet::parse(&set).unwrap();
        let found = found.signing(key.id()).expect("under its name");
        assert_eq!(found.thumbprint().to_string(), key.id());
    }

    #[test]
    fn nothing_private_is_shown() {
        let key = ResultKey::generate(&mut random::system());
        let set = serde_json::to_value(key.jwk_set()).unwrap();
        let mut members: Vec<_> = set["keys"][0].as_object().unwrap().keys().cloned().collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"]);
        assert!(format!("{key:?}").len() < 80, "{key:?}");
    }
}

//! The key that signs attestation results: P-256 of its own, so that whoever has it can issue no identity.

use std::fmt;

use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::Generate;
use p256::elliptic_curve::sec1::ToSec1Point;
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use p256::{PublicKey, SecretKey};
use rand_core::CryptoRng;
use rootbound_common::crypto::sha256;
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
    /// Of an uncompressed point (SEC 1, 2.3.3); `None` where it is none of the curve.
    pub(super) fn of_point(point: &[u8]) -> Option<Self> {
        let point = PublicKey::from_sec1_bytes(point).ok()?.to_sec1_point(false);
        let (x, y) = (base64url(point.x()?), base64url(point.y()?));
        let kid = thumbprint(&x, &y);
        Some(Self { kty: "EC", crv: "P-256", x, y, alg: "ES256", usage: "sig", kid })
    }

    /// Of its coordinates in base64url; `None` where they are no point of the curve.
    pub(super) fn of_coordinates(x: &str, y: &str) -> Option<Self> {
        let bytes = |text: &str| data_encoding::BASE64URL_NOPAD.decode(text.as_bytes()).ok();
        let point = [&[4][..], &bytes(x)?, &bytes(y)?].concat();
        Self::of_point(&point)
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
        let kid = thumbprint(&x, &y);
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

/// The required members in lexicographic order, without white space (RFC 7638, 3).
pub(super) fn thumbprint(x: &str, y: &str) -> String {
    let members = format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#);
    base64url(&sha256(&[members.as_bytes()]))
}

pub(crate) fn base64url(bytes: &[u8]) -> String {
    data_encoding::BASE64URL_NOPAD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::random;

    /// The key and the thumbprint of RFC 9449, figures 2 and 8.
    #[test]
    fn thumbprint_is_that_of_a_published_example() {
        let (x, y) =
            ("l8tFrhx-34tV3hRICRDY9zCkDlpBhF42UQUfWVAWBFs", "9VE4jf_Ok_o64zbTTlcuNJajHmt6v9TDVrU0CdvGRDA");
        assert_eq!(thumbprint(x, y), "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I");
    }

    #[test]
    fn a_key_survives_its_file() {
        let key = ResultKey::generate(&mut random::system());
        let again = ResultKey::from_pem(&key.to_pem().unwrap()).unwrap();
        assert_eq!(again.jwk_set(), key.jwk_set());
        assert_eq!(again.sign(b"message"), key.sign(b"message"));
        assert_eq!(ResultKey::from_pem("not a key").unwrap_err(), ResultKeyError::Key);
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

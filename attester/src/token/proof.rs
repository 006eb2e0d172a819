//! DPoP proofs (RFC 9449) by the key of the credential: each is a signature of the TPM.

use std::fmt;

use data_encoding::BASE64URL_NOPAD;
use http::{Method, Uri};
use rand_core::Rng as _;
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use rootbound_common::random;
use rootbound_common::tpm::{Curve, KeyParameters};
use serde::Serialize;

use super::answer::TokenText;
use crate::client::ClientIdentity;
use crate::tpm::TpmError;

/// The credential's key is no ECDSA key on P-256, so that it signs no proof that the verifier takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the credential key is not on P-256: it makes no proofs")]
pub struct NotP256;

/// Makes proofs.
#[derive(Debug, Clone)]
pub struct Prover {
    identity: ClientIdentity,
    /// The header of every proof, in base64url.
    header: String,
}

/// What a proof is for: one call of a service, with an access token.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Where.
    pub url: &'a TargetUrl,
    /// The token that goes with it.
    pub token: &'a TokenText,
    /// What the service said last in `DPoP-Nonce`.
    pub nonce: Option<&'a Nonce>,
}

#[derive(Serialize)]
struct Header {
    typ: &'static str,
    alg: &'static str,
    jwk: Jwk,
}

#[derive(Serialize)]
struct Jwk {
    kty: &'static str,
    crv: &'static str,
    x: String,
    y: String,
}

/// RFC 9449, 4.2.
#[derive(Serialize)]
struct Claims<'a> {
    jti: String,
    htm: &'a str,
    htu: &'a str,
    iat: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    nonce: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ath: Option<String>,
}

impl Prover {
    /// By the key of a credential.
    pub fn new(identity: ClientIdentity) -> Result<Self, NotP256> {
        let KeyParameters::Ecc { curve: Curve::P256, x, y, .. } = identity.public().parameters() else {
            return Err(NotP256);
        };
        let (x, y) = (BASE64URL_NOPAD.encode(x), BASE64URL_NOPAD.encode(y));
        let header = Header { typ: "dpop+jwt", alg: "ES256", jwk: Jwk { kty: "EC", crv: "P-256", x, y } };
        Ok(Self { header: encoded(&header), identity })
    }

    /// A proof for one call of a service. A service takes it once.
    pub async fn proof(&self, call: &Call<'_>, now: Timestamp) -> Result<String, TpmError> {
        let hash = BASE64URL_NOPAD.encode(&sha256(&[call.token.reveal().as_bytes()]));
        let nonce = call.nonce.map(Nonce::as_str);
        self.sign(call.method.as_str(), call.url.as_str(), nonce, Some(hash), now).await
    }

    /// A proof for requests of tokens.
    pub(super) async fn for_tokens(
        &self,
        endpoint: &str,
        nonce: Option<&Nonce>,
        now: Timestamp,
    ) -> Result<String, TpmError> {
        self.sign(Method::POST.as_str(), endpoint, nonce.map(Nonce::as_str), None, now).await
    }

    async fn sign(
        &self,
        htm: &str,
        htu: &str,
        nonce: Option<&str>,
        ath: Option<String>,
        now: Timestamp,
    ) -> Result<String, TpmError> {
        let mut id = [0; 16];
        random::system().fill_bytes(&mut id);
        let jti = BASE64URL_NOPAD.encode(&id);
        let claims = Claims { jti, htm, htu, iat: now.as_seconds(), nonce, ath };
        let signed = format!("{}.{}", self.header, encoded(&claims));
        let signature = self.identity.sign(signed.as_bytes()).await?;
        Ok(format!("{signed}.{}", BASE64URL_NOPAD.encode(&signature)))
    }
}

/// JSON in base64url. What is given here is made of strings and a number, so that there is a JSON of it.
fn encoded(value: &impl Serialize) -> String {
    BASE64URL_NOPAD.encode(&serde_json::to_vec(value).unwrap_or_default())
}

/// What a service wants to find in the next proof (RFC 9449, 8.1): 1 to 256 characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nonce(String);

/// A text that is no nonce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a nonce is 1 to 256 printable ASCII characters without spaces, quotation marks and backslashes")]
pub struct NotANonce;

impl Nonce {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Nonce {
    type Err = NotANonce;

    fn from_str(text: &str) -> Result<Self, NotANonce> {
        let plain = text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\');
        if plain && (1..=256).contains(&text.len()) { Ok(Self(text.to_owned())) } else { Err(NotANonce) }
    }
}

/// Where a call goes, as proofs name it: without query and fragment (RFC 9449, 4.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetUrl(String);

/// A text that is no URL of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a URL of a call is http:// or https:// with a host, without a user, of at most 2048 bytes")]
pub struct NotATargetUrl;

impl TargetUrl {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TargetUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for TargetUrl {
    type Err = NotATargetUrl;

    fn from_str(text: &str) -> Result<Self, NotATargetUrl> {
        if text.len() > 2048 {
            return Err(NotATargetUrl);
        }
        let uri: Uri = text.parse().map_err(|_| NotATargetUrl)?;
        let (scheme, authority) = uri.scheme_str().zip(uri.authority()).ok_or(NotATargetUrl)?;
        if !matches!(scheme, "http" | "https")
            || authority.as_str().contains('@')
            || authority.host().is_empty()
        {
            return Err(NotATargetUrl);
        }
        Ok(Self(format!("{scheme}://{authority}{}", uri.path())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_names_the_url_without_what_no_service_compares() {
        for (text, expected) in [
            ("https://orders.example", "https://orders.example/"),
            (
                "https://orders.example:8443/v1/orders/7?expand=all#top",
                "https://orders.example:8443/v1/orders/7",
            ),
            ("http://127.0.0.1/a%20b", "http://127.0.0.1/a%20b"),
            ("https://[::1]:8443/x", "https://[::1]:8443/x"),
        ] {
            assert_eq!(text.parse::<TargetUrl>().unwrap().as_str(), expected, "{text}");
        }
        let long = format!("https://orders.example/{}", "x".repeat(2048));
        for text in [
            "",
            "/v1",
            "orders.example/v1",
            "ftp://orders.example/",
            "https://",
            "https://a@b/",
            "https://a b/",
            &long,
        ] {
            assert_eq!(text.parse::<TargetUrl>(), Err(NotATargetUrl), "{text}");
        }
    }

    #[test]
    fn a_nonce_has_no_character_that_ends_it() {
        assert_eq!("eyJ7S_zG.eyJH0-Z".parse::<Nonce>().unwrap().as_str(), "eyJ7S_zG.eyJH0-Z");
        for bad in ["", "a b", "a\"b", "a\\b", "a\u{e4}", &"x".repeat(257)] {
            assert_eq!(bad.parse::<Nonce>(), Err(NotANonce), "{bad}");
        }
    }
}

//! Tokens that a thief cannot use, for whoever mints them and for whoever takes them: strict JOSE, and what is proved by it.
//!
//! Nothing here opens a file or a socket, reads a clock or draws a random number on its own. What a stranger sends is
//! bounded before it is read, and only what was verified gives out what it says.
//!
//! - [`json`]: one JSON document, read strictly
//! - [`jwk`]: P-256 keys, their names and sets of them
//! - [`jose`]: one JWS in its compact form, by ES256
//! - [`claim`]: what a token claims, in types
//! - [`access`]: access tokens; [`jwt_svid`]: JWT-SVIDs
//! - [`dpop`]: proofs that whoever shows a token has its key, for one request ([`target_uri`]), made lately ([`nonce`]),
//!   used once ([`replay`])
//! - `layer`, with the feature `tower`: all of it before each request of a service
#![forbid(unsafe_code)]

pub mod access;
pub mod claim;
pub mod dpop;
pub mod jose;
pub mod json;
pub mod jwk;
pub mod jwt_svid;
#[cfg(feature = "tower")]
pub mod layer;
pub mod nonce;
pub mod replay;
pub mod target_uri;

#[cfg(test)]
mod testing;

use data_encoding::BASE64URL_NOPAD;

/// base64url without padding (RFC 7515, 2).
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    BASE64URL_NOPAD.encode(bytes)
}

/// The bytes of a text in the one form that [`base64url`] gives them: no padding, no white space, no bits left over.
fn from_base64url(text: &str) -> Option<Vec<u8>> {
    BASE64URL_NOPAD.decode(text.as_bytes()).ok()
}

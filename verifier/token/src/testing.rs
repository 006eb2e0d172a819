//! What the tests of this crate sign.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::Value;

use crate::base64url;
use crate::jwk::PublicJwk;

/// A key that signs whatever it is given.
pub(crate) struct Signer {
    key: EcdsaKeyPair,
    public: PublicJwk,
}

impl Signer {
    pub(crate) fn new() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let public = PublicJwk::from_sec1(key.public_key().as_ref()).unwrap();
        Self { key, public }
    }

    pub(crate) fn public(&self) -> &PublicJwk {
        &self.public
    }

    pub(crate) fn kid(&self) -> String {
        self.public.thumbprint().to_string()
    }

    /// A JWS of this header and payload.
    pub(crate) fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_text(&header.to_string(), &claims.to_string())
    }

    pub(crate) fn sign_text(&self, header: &str, payload: &str) -> String {
        let input = format!("{}.{}", base64url(header.as_bytes()), base64url(payload.as_bytes()));
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", base64url(signature.as_ref()))
    }
}

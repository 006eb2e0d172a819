//! The keys that sign tokens: one that does, one that is to, and those that did.
//!
//! A key is published before it signs anything, and stays so until the last token that it signed has expired: whoever reads
//! the key set now and then never meets a token by a key that it does not have. Keys of their own, so that whoever has one
//! can issue no identity and no attestation result.

use std::fmt;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use p256::SecretKey;
use p256::elliptic_curve::Generate;
use p256::pkcs8::{EncodePrivateKey, LineEnding};
use rand_core::CryptoRng;
use rootbound_common::clock::Timestamp;
use rootbound_token::base64url;
use rootbound_token::jwk::{self, PublicJwk};
use serde::{Deserialize, Serialize};
use serde_json::json;
use zeroize::Zeroizing;

use super::result_key::{Jwk, JwkSet};

/// Why there are no keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TokenKeyError {
    /// The file does not hold them.
    #[error("not a file of token keys: {0}")]
    File(String),
    /// Not one prepared and one active key.
    #[error(
        "the file has not one prepared key, one active key and at most {} retired ones",
        TokenKeys::MAX_RETIRED
    )]
    Ring,
    /// A key in it is none.
    #[error("a key in the file is no P-256 key")]
    Key,
    /// A key cannot be encoded, or does not sign.
    #[error("the key cannot be used")]
    Signing,
    /// Readers of the key set may not have the prepared key yet.
    #[error(
        "the prepared key is published since {since}, and readers keep what they read for {} s: rotate after that, or with --compromised, \
         which refuses every token of the active key at once",
        TokenKeys::PUBLISHED_FOR.as_secs()
    )]
    TooEarly {
        /// Since when.
        since: Timestamp,
    },
    /// So many were retired lately.
    #[error(
        "{} keys were retired, and the last tokens of them have not expired: rotate later",
        TokenKeys::MAX_RETIRED
    )]
    TooManyRetired,
}

/// How far a key is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// It is published, and signs nothing yet.
    Prepared,
    /// It signs.
    Active,
    /// It signs no more, and is published for the tokens that it signed.
    Retired,
}

/// A key, as it is listed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyDetail {
    /// Its name: the thumbprint of RFC 7638.
    pub kid: String,
    /// How far it is.
    pub state: KeyState,
    /// Since when.
    pub since: Timestamp,
}

/// A key that signs.
struct SigningKey {
    pair: EcdsaKeyPair,
    pem: Zeroizing<String>,
    public: Jwk,
    since: Timestamp,
}

/// A key that signed.
#[derive(Clone)]
struct RetiredKey {
    public: Jwk,
    since: Timestamp,
}

/// All of them. It has no `Clone`, and a redacted `Debug`.
pub struct TokenKeys {
    prepared: SigningKey,
    active: SigningKey,
    retired: Vec<RetiredKey>,
}

impl SigningKey {
    fn generate(now: Timestamp, rng: &mut impl CryptoRng) -> Result<Self, TokenKeyError> {
        let key = SecretKey::generate_from_rng(rng);
        let pem = key.to_pkcs8_pem(LineEnding::LF).map_err(|_| TokenKeyError::Signing)?;
        Self::from_pem(&pem, now)
    }

    fn from_pem(pem: &str, since: Timestamp) -> Result<Self, TokenKeyError> {
        let key = SecretKey::from_pem(pem).map_err(|_| TokenKeyError::Key)?;
        let der = key.to_pkcs8_der().map_err(|_| TokenKeyError::Key)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_bytes())
            .map_err(|_| TokenKeyError::Key)?;
        let public = PublicJwk::from_sec1(pair.public_key().as_ref()).map_err(|_| TokenKeyError::Key)?;
        let public = Jwk::of(&public);
        Ok(Self { pair, pem: Zeroizing::new(pem.to_owned()), public, since })
    }
}

impl TokenKeys {
    /// For how long whoever read the key set may keep it: its `max-age`.
    pub const PUBLISHED_FOR: Duration = Duration::from_secs(300);
    /// Tokens live an hour at most; an operator who rotates each minute has to wait.
    pub const MAX_RETIRED: usize = 8;

    /// Makes the first two.
    pub fn generate(now: Timestamp, rng: &mut impl CryptoRng) -> Result<Self, TokenKeyError> {
        let (prepared, active) = (SigningKey::generate(now, rng)?, SigningKey::generate(now, rng)?);
        Ok(Self { prepared, active, retired: Vec::new() })
    }

    /// What verifies tokens that have not expired.
    #[must_use]
    pub fn jwk_set(&self) -> JwkSet {
        let signing = [&self.active.public, &self.prepared.public];
        let retired = self.retired.iter().map(|key| &key.public);
        JwkSet::of(signing.into_iter().chain(retired).cloned())
    }

    /// The same, for whoever verifies tokens here.
    #[must_use]
    pub fn verifying(&self) -> jwk::JwkSet {
        let text = serde_json::to_vec(&self.jwk_set()).unwrap_or_default();
        jwk::JwkSet::parse(&text).unwrap_or_default()
    }

    /// The name of the key that signs.
    #[must_use]
    pub fn active_id(&self) -> &str {
        self.active.public.kid()
    }

    /// Each of them.
    #[must_use]
    pub fn list(&self) -> Vec<KeyDetail> {
        let detail = |public: &Jwk, state, since| KeyDetail { kid: public.kid().to_owned(), state, since };
        let mut list = vec![
            detail(&self.prepared.public, KeyState::Prepared, self.prepared.since),
            detail(&self.active.public, KeyState::Active, self.active.since),
        ];
        list.extend(self.retired.iter().map(|key| detail(&key.public, KeyState::Retired, key.since)));
        list
    }

    /// The next state: the prepared key signs, the active one is retired, and a new one is prepared. What was retired so long
    /// ago that each of its tokens has expired goes; `longest` is how long one lives at most.
    ///
    /// `compromised`: the active key goes at once, and with it every token that it signed; that some readers do not have the
    /// prepared one yet is the lesser harm.
    pub fn rotated(
        &self,
        compromised: bool,
        longest: Duration,
        now: Timestamp,
        rng: &mut impl CryptoRng,
    ) -> Result<Self, TokenKeyError> {
        if !compromised && now.since(self.prepared.since) < Self::PUBLISHED_FOR {
            return Err(TokenKeyError::TooEarly { since: self.prepared.since });
        }
        let mut retired: Vec<_> = self.retired.clone();
        retired.retain(|key| now.since(key.since) <= longest + Self::PUBLISHED_FOR);
        if !compromised {
            retired.insert(0, RetiredKey { public: self.active.public.clone(), since: now });
        }
        if retired.len() > Self::MAX_RETIRED {
            return Err(TokenKeyError::TooManyRetired);
        }
        let active = SigningKey::from_pem(&self.prepared.pem, now)?;
        Ok(Self { prepared: SigningKey::generate(now, rng)?, active, retired })
    }

    /// Signs claims: a JWS in compact form, by ES256, of this `typ`, by the active key.
    pub fn sign(&self, typ: &str, claims: &impl Serialize) -> Result<String, TokenKeyError> {
        let header = Header { alg: "ES256", typ, kid: self.active.public.kid() };
        let unusable = |_| TokenKeyError::Signing;
        let [header, claims] =
            [serde_json::to_vec(&header).map_err(unusable)?, serde_json::to_vec(claims).map_err(unusable)?];
        let mut token = format!("{}.{}", base64url(&header), base64url(&claims));
        let signature = self.active.pair.sign(&SystemRandom::new(), token.as_bytes());
        let signature = signature.map_err(|_| TokenKeyError::Signing)?;
        token.push('.');
        token.push_str(&base64url(signature.as_ref()));
        Ok(token)
    }

    /// For the file.
    pub fn to_file(&self) -> Result<Zeroizing<String>, TokenKeyError> {
        let signing = |key: &SigningKey, state| KeyInFile {
            state,
            since: key.since,
            private: Some(key.pem.to_string()),
            x: None,
            y: None,
        };
        let mut keys =
            vec![signing(&self.prepared, KeyState::Prepared), signing(&self.active, KeyState::Active)];
        keys.extend(self.retired.iter().map(|key| KeyInFile {
            state: KeyState::Retired,
            since: key.since,
            private: None,
            x: Some(key.public.x().to_owned()),
            y: Some(key.public.y().to_owned()),
        }));
        let text = serde_json::to_string_pretty(&File { keys });
        text.map(Zeroizing::new).map_err(|_| TokenKeyError::Signing)
    }

    /// Out of the file.
    pub fn from_file(text: &str) -> Result<Self, TokenKeyError> {
        let file: File =
            serde_json::from_str(text).map_err(|error| TokenKeyError::File(error.to_string()))?;
        let (mut prepared, mut active, mut retired) = (None, None, Vec::new());
        for key in file.keys {
            let place = match (key.state, key.private.as_deref(), key.x.as_deref(), key.y.as_deref()) {
                (KeyState::Prepared, Some(pem), None, None) => {
                    prepared.replace(SigningKey::from_pem(pem, key.since)?)
                }
                (KeyState::Active, Some(pem), None, None) => {
                    active.replace(SigningKey::from_pem(pem, key.since)?)
                }
                (KeyState::Retired, None, Some(x), Some(y)) => {
                    let public = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y });
                    let public = PublicJwk::from_json(&public).map_err(|_| TokenKeyError::Key)?;
                    retired.push(RetiredKey { public: Jwk::of(&public), since: key.since });
                    None
                }
                _ => return Err(TokenKeyError::Ring),
            };
            if place.is_some() {
                return Err(TokenKeyError::Ring);
            }
        }
        match (prepared, active) {
            (Some(prepared), Some(active)) if retired.len() <= Self::MAX_RETIRED => {
                Ok(Self { prepared, active, retired })
            }
            (_, _) => Err(TokenKeyError::Ring),
        }
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenKeys").field("active", &self.active_id()).finish_non_exhaustive()
    }
}

#[derive(Serialize)]
struct Header<'a> {
    alg: &'static str,
    typ: &'a str,
    kid: &'a str,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    keys: Vec<KeyInFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyInFile {
    state: KeyState,
    since: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    private: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    x: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    y: Option<String>,
}

impl Drop for KeyInFile {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.private.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::random;

    const NOW: Timestamp = Timestamp::from_millis(1_767_225_600_000);
    const HOUR: Duration = Duration::from_secs(3600);

    fn keys() -> TokenKeys {
        TokenKeys::generate(NOW, &mut random::system()).unwrap()
    }

    fn published(keys: &TokenKeys) -> Vec<String> {
        let set = serde_json::to_value(keys.jwk_set()).unwrap();
        set["keys"].as_array().unwrap().iter().map(|key| key["kid"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn a_key_is_published_before_it_signs_and_until_its_last_token_has_expired() {
        let first = keys();
        let prepared = first.list()[0].kid.clone();
        let late = NOW.plus(TokenKeys::PUBLISHED_FOR);
        let early = first.rotated(false, HOUR, late.minus(Duration::from_millis(1)), &mut random::system());
        assert_eq!(early.unwrap_err(), TokenKeyError::TooEarly { since: NOW });

        let second = first.rotated(false, HOUR, late, &mut random::system()).unwrap();
        assert_eq!(second.active_id(), prepared, "it was published before");
        assert!(published(&second).contains(&first.active_id().to_owned()), "its tokens have not expired");
        let third = second.rotated(false, HOUR, late.plus(HOUR), &mut random::system()).unwrap();
        assert!(published(&third).contains(&first.active_id().to_owned()));
        let end = late.plus(HOUR + TokenKeys::PUBLISHED_FOR + Duration::from_secs(1));
        let fourth = third.rotated(false, HOUR, end.plus(HOUR), &mut random::system()).unwrap();
        assert!(!published(&fourth).contains(&first.active_id().to_owned()));
    }

    #[test]
    fn a_compromised_key_goes_at_once() {
        let first = keys();
        let second = first.rotated(true, HOUR, NOW, &mut random::system()).unwrap();
        assert!(!published(&second).contains(&first.active_id().to_owned()));
        assert_eq!(second.active_id(), first.list()[0].kid);
    }

    #[test]
    fn only_so_many_are_retired() {
        let (mut ring, mut now) = (keys(), NOW);
        for _ in 0..TokenKeys::MAX_RETIRED {
            now = now.plus(TokenKeys::PUBLISHED_FOR);
            ring = ring.rotated(false, HOUR, now, &mut random::system()).unwrap();
        }
        now = now.plus(TokenKeys::PUBLISHED_FOR);
        let refused = ring.rotated(false, HOUR, now, &mut random::system());
        assert_eq!(refused.unwrap_err(), TokenKeyError::TooManyRetired);
    }

    #[test]
    fn keys_survive_their_file_and_a_retired_one_without_its_private_half() {
        let first = keys();
        let late = NOW.plus(TokenKeys::PUBLISHED_FOR);
        let ring = first.rotated(false, HOUR, late, &mut random::system()).unwrap();
        let text = ring.to_file().unwrap();
        assert_eq!(text.matches("PRIVATE KEY").count(), 4, "two keys");
        let again = TokenKeys::from_file(&text).unwrap();
        assert_eq!((again.list(), again.jwk_set()), (ring.list(), ring.jwk_set()));
        let file: serde_json::Value = serde_json::from_str(&text).unwrap();
        let with = |change: &dyn Fn(&mut Vec<serde_json::Value>)| {
            let mut file = file.clone();
            change(file["keys"].as_array_mut().unwrap());
            TokenKeys::from_file(&file.to_string()).unwrap_err()
        };
        assert_eq!(with(&|keys| drop(keys.remove(0))), TokenKeyError::Ring);
        assert_eq!(with(&|keys| keys.push(keys[1].clone())), TokenKeyError::Ring);
        assert_eq!(with(&|keys| keys[0]["private"] = "x".into()), TokenKeyError::Key);
        assert_eq!(with(&|keys| keys[2]["x"] = keys[2]["y"].clone()), TokenKeyError::Key, "not on the curve");
        assert!(matches!(with(&|keys| keys[0]["more"] = 1.into()), TokenKeyError::File(_)));
    }

    #[test]
    fn nothing_private_is_shown() {
        let keys = keys();
        assert!(format!("{keys:?}").len() < 90, "{keys:?}");
        assert!(!serde_json::to_string(&keys.jwk_set()).unwrap().contains("\"d\""));
    }
}

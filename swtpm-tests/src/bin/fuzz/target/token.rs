//! What callers show: access tokens, JWT-SVIDs, DPoP proofs; and what their issuers publish.

use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::TrustDomain;
use rootbound_common::secret::Secret;
use rootbound_swtpm_tests::random::Random;
use rootbound_token::access::{AccessToken, Expected, ExpectedAudience, VerifiedAccessToken};
use rootbound_token::dpop::{DpopProof, ExpectedProof, GoesWith};
use rootbound_token::jose::{Kind, UnverifiedJws};
use rootbound_token::jwk::{JwkSet, PublicJwk};
use rootbound_token::jwt_svid::{ExpectedSvid, JwtSvid};
use rootbound_token::nonce::Nonces;
use rootbound_token::replay::{ReplayError, Replays};
use rootbound_token::target_uri::TargetUri;
use serde_json::{Value, json};

use super::{Outcome, Target};
use crate::mutate::{mutate_json, step};
use crate::pool::Pool;

/// The private key of RFC 7515, A.3: everybody has it, and an input that fails once fails again.
const KEY: &str = "jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI";
const POINT: [&str; 2] =
    ["f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"];
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SERVICE: &str = "https://db.example.org/orders";

/// Each input is read as it is, and once more with a signature that verifies, so that claims are reached.
pub(super) struct TokenTarget {
    key: EcdsaKeyPair,
    public: PublicJwk,
    keys: JwkSet,
    nonces: Nonces,
    trust_domain: TrustDomain,
}

fn decoded(text: &str) -> Vec<u8> {
    BASE64URL_NOPAD.decode(text.as_bytes()).expect("base64url")
}

impl TokenTarget {
    pub(super) fn new() -> Self {
        let point = [vec![4], decoded(POINT[0]), decoded(POINT[1])].concat();
        let key = EcdsaKeyPair::from_private_key_and_public_key(
            &ECDSA_P256_SHA256_FIXED_SIGNING,
            &decoded(KEY),
            &point,
        );
        let key = key.expect("a key pair");
        let public = PublicJwk::from_sec1(key.public_key().as_ref()).expect("a point of the curve");
        let keys = JwkSet::of_keys([public.clone()]);
        let nonces = Nonces::new(Secret::from_bytes([7; 32]));
        Self { key, public, keys, nonces, trust_domain: "example.org".parse().expect("a trust domain") }
    }

    /// Header and payload with a signature.
    fn signed(&self, input: &str) -> String {
        let signature = self.key.sign(&SystemRandom::new(), input.as_bytes()).expect("a signature");
        format!("{input}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        self.signed(&format!("{}.{}", part(header), part(claims)))
    }

    fn access_claims(&self) -> Value {
        json!({
            "iss": "https://as.example.org", "sub": "spiffe://example.org/node/a", "client_id": "c",
            "aud": [SERVICE, "b"], "iat": 1_800_000_000, "exp": 1_800_000_060, "jti": "t", "scope": "read write",
            "authorization_details": [{
                "type": "rootbound_action", "actions": ["read"], "locations": [SERVICE],
                "resource": { "type": "database", "id": "orders" },
            }],
            "cnf": { "jkt": self.public.thumbprint().to_string(), "x5t#S256": KEY },
            "act": { "sub": "a", "act": { "sub": "b", "act": { "sub": "c", "act": { "sub": "d" } } } },
            "rootbound_posture_epoch": 3, "rootbound_once": true,
        })
    }

    fn access(&self, text: &str) -> Result<VerifiedAccessToken, &'static str> {
        let audience = ExpectedAudience::Named(SERVICE);
        let leeway = Duration::from_secs(5);
        let expected = Expected { issuer: "https://as.example.org", audience, leeway };
        AccessToken::verify(text, &self.keys, &expected, NOW).map_err(|error| error.code())
    }

    /// What becomes of an access token, with what must hold for one that is taken.
    fn access_class(&self, text: &str) -> Result<(), &'static str> {
        let token = self.access(text)?;
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.public.thumbprint().to_string() });
        let written = serde_json::to_value(token.claims()).expect("claims are JSON");
        let again = self.access(&self.sign(&header, &written)).expect("what was written is read");
        assert_eq!(again.claims(), token.claims(), "as it was");
        Ok(())
    }

    fn svid_class(&self, text: &str) -> Result<(), &'static str> {
        let (trust_domain, leeway) = (&self.trust_domain, Duration::from_secs(5));
        let expected = ExpectedSvid { trust_domain, audience: SERVICE, leeway };
        let svid = JwtSvid::verify(text, &self.keys, &expected, NOW).map_err(|error| error.code())?;
        assert!(svid.subject().as_str().starts_with("spiffe://example.org/"), "of the domain of its keys");
        Ok(())
    }

    fn proof_class(&self, text: &str) -> Result<(), &'static str> {
        let uri = TargetUri::parse(SERVICE).expect("a URI");
        let expected = ExpectedProof { method: "GET", uri: &uri, goes_with: GoesWith::TokenRequest };
        let verify = || DpopProof::verify(&[text], &expected, &self.nonces, NOW);
        let proof = verify().map_err(|error| error.code())?;
        assert_eq!(proof.thumbprint(), &self.public.thumbprint(), "nobody else signs here");
        let replays = Replays::new(2);
        assert!(replays.take(proof).is_ok(), "the first time");
        let again = replays.take(verify().expect("as before"));
        assert_eq!(again.expect_err("the second time"), ReplayError::Replayed);
        Ok(())
    }
}

impl Target for TokenTarget {
    fn seeds(&self) -> Vec<Vec<u8>> {
        let kid = self.public.thumbprint().to_string();
        let key = Value::Object(self.public.to_json());
        let access =
            self.sign(&json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }), &self.access_claims());
        let svid =
            json!({ "sub": "spiffe://example.org/node/a", "aud": SERVICE, "exp": 1_800_000_060, "nbf": 1 });
        let svid = self.sign(&json!({ "alg": "ES256", "typ": "JWT", "kid": kid }), &svid);
        let proof = json!({
            "jti": "p", "htm": "GET", "htu": SERVICE, "iat": 1_800_000_000, "ath": kid, "nonce": self.nonces.issue(NOW),
        });
        let proof = self.sign(&json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": key }), &proof);
        let mut published = self.public.to_json();
        published.insert("kid".to_owned(), json!("a"));
        published.insert("use".to_owned(), json!("sig"));
        let set = json!({ "keys": [published, key, { "kty": "RSA", "n": "AQAB", "e": "AQAB" }] }).to_string();
        let uri = "HTTPS://User.Example.org:443/a/./b/%2e%2E/%7ec%2f?q#f".to_owned();
        [access, svid, proof, set, uri].map(String::into_bytes).into()
    }

    fn run(&mut self, input: &[u8]) -> Outcome {
        let Ok(text) = std::str::from_utf8(input) else {
            return Outcome { accepted: false, class: "not UTF-8".to_owned() };
        };
        for kind in [Kind::AccessToken, Kind::JwtSvid, Kind::DpopProof] {
            if UnverifiedJws::parse(text, kind).is_ok() {
                assert!(text.len() <= kind.max() && text.split('.').count() == 3, "as {kind:?}");
                assert!(UnverifiedJws::parse(&format!("{text}="), kind).is_err(), "one text for one token");
            }
        }
        let signed = text.rsplit_once('.').map(|(input, _)| self.signed(input)).unwrap_or_default();
        let classes = [self.access_class(&signed), self.svid_class(&signed), self.proof_class(&signed)];
        assert!(classes.iter().filter(|class| class.is_ok()).count() <= 1, "none is taken for another");
        let set = JwkSet::parse(input).map(|set| set.len());
        let uri = TargetUri::parse(text);
        if let Ok(uri) = &uri {
            assert_eq!(TargetUri::parse(uri.as_str()).as_ref(), Ok(uri), "what is normal stays so");
        }
        let accepted = classes.iter().any(Result::is_ok) || set.is_ok() || uri.is_ok();
        let words = classes.map(|class| class.err().unwrap_or("taken"));
        let set = set.map_or_else(
            |error| format!("{error:?}").chars().take(12).collect(),
            |keys| format!("{keys} keys"),
        );
        let uri = uri.map_or_else(|error| error.code(), |_| "a URI");
        Outcome { accepted, class: format!("{words:?} {set} {uri}") }
    }

    /// Mostly what a part of a token encodes, as JSON; else the text.
    fn mutate(&self, pool: &Pool, random: &mut Random) -> Vec<u8> {
        // Somewhat more than a token may have.
        const LIMIT: usize = 10 * 1024;
        let mut input = pool.pick(random).to_vec();
        let parts: Vec<_> = input.split(|byte| *byte == b'.').map(<[u8]>::to_vec).collect();
        let at = random.below(2);
        let part = match parts.as_slice() {
            [_, _, _] => BASE64URL_NOPAD.decode(&parts[at]).ok(),
            _ => None,
        };
        match part {
            Some(part) if !random.one_in(4) => {
                let mut parts = parts;
                let mutated = mutate_json(&Pool::new(vec![part]), LIMIT, random);
                parts[at] = BASE64URL_NOPAD.encode(&mutated).into_bytes();
                input = parts.join(&b'.');
            }
            None if random.one_in(2) => return mutate_json(pool, LIMIT, random),
            Some(_) | None => step(&mut input, pool, random),
        }
        input.truncate(LIMIT);
        input
    }
}

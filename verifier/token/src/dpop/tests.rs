use rootbound_common::random;
use rootbound_common::secret::Secret;
use serde_json::{Value, json};

use super::*;
use crate::access::{AccessToken, Expected, ExpectedAudience};
use crate::base64url;
use crate::jose::RefusedAlgorithm;
use crate::jwk::{JwkError, JwkSet};
use crate::replay::{ReplayError, Replays};
use crate::testing::Signer;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_500);
const URI: &str = "https://db.example.org/orders";

/// RFC 9449, figure 2.
const PUBLISHED: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIjoiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2fQ.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg";
/// RFC 9449, figure 12.
const PUBLISHED_WITH_TOKEN: &str = "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiJlMWozVl9iS2ljOC1MQUVCIiwiaHRtIjoiR0VUIiwiaHR1IjoiaHR0cHM6Ly9yZXNvdXJjZS5leGFtcGxlLm9yZy9wcm90ZWN0ZWRyZXNvdXJjZSIsImlhdCI6MTU2MjI2MjYxOCwiYXRoIjoiZlVIeU8ycjJaM0RaNTNFc05yV0JiMHhXWG9hTnk1OUlpS0NBcWtzbVFFbyJ9.2oW9RP35yRqzhrtNP86L-Ey71EOptxRimPPToA1plemAgR6pxHF8y6-yqyVnmcw6Fy1dqd-jfxSYoMxhAJpLjA";

fn nonces() -> Nonces {
    Nonces::new(Secret::generate(&mut random::system()))
}

struct World {
    nonces: Nonces,
    client: Signer,
    issuer: Signer,
    uri: TargetUri,
}

impl World {
    fn new() -> Self {
        Self {
            nonces: nonces(),
            client: Signer::new(),
            issuer: Signer::new(),
            uri: TargetUri::parse(URI).unwrap(),
        }
    }

    /// A token that says this of its binding.
    fn token(&self, cnf: Option<Value>) -> VerifiedAccessToken {
        let mut claims = json!({
            "iss": "https://as", "sub": "s", "client_id": "c", "aud": "https://db", "iat": 1_800_000_000,
            "exp": 1_800_000_060, "jti": "t", "rootbound_posture_epoch": 1,
        });
        if let Some(cnf) = cnf {
            claims["cnf"] = cnf;
        }
        let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.issuer.kid() });
        let keys = JwkSet::of_keys([self.issuer.public().clone()]);
        let audience = ExpectedAudience::Named("https://db");
        let expected = Expected { issuer: "https://as", audience, leeway: Duration::ZERO };
        AccessToken::verify(&self.issuer.sign(&header, &claims), &keys, &expected, NOW).unwrap()
    }

    fn bound(&self) -> VerifiedAccessToken {
        self.token(Some(json!({ "jkt": self.client.kid() })))
    }

    fn header(&self) -> Value {
        json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": self.client.public().to_json() })
    }

    fn claims(&self, token: Option<&VerifiedAccessToken>) -> Value {
        let mut claims = json!({
            "jti": "proof-1", "htm": "GET", "htu": URI, "iat": 1_800_000_000, "nonce": self.nonces.issue(NOW),
        });
        if let Some(token) = token {
            claims["ath"] = json!(base64url(token.hash()));
        }
        claims
    }

    fn verify(&self, text: &str, token: Option<&VerifiedAccessToken>) -> Result<VerifiedProof, DpopError> {
        let goes_with = token.map_or(GoesWith::TokenRequest, GoesWith::Token);
        let expected = ExpectedProof { method: "GET", uri: &self.uri, goes_with };
        DpopProof::verify(&[text], &expected, &self.nonces, NOW)
    }

    /// The proof of a token request in which one claim is another, or is not there.
    fn with(&self, claim: &str, value: Option<Value>) -> Result<VerifiedProof, DpopError> {
        let mut claims = self.claims(None);
        match value {
            Some(value) => claims[claim] = value,
            None => drop(claims.as_object_mut().unwrap().remove(claim)),
        }
        self.verify(&self.client.sign(&self.header(), &claims), None)
    }
}

fn at(text: &str, method: &str, uri: &str) -> Result<VerifiedProof, DpopError> {
    let uri = TargetUri::parse(uri).unwrap();
    let expected = ExpectedProof { method, uri: &uri, goes_with: GoesWith::TokenRequest };
    DpopProof::verify(&[text], &expected, &nonces(), Timestamp::from_millis(1_562_262_620_000))
}

/// They have no nonce: all that is checked before it holds.
#[test]
fn the_published_examples_are_read_up_to_the_nonce_that_they_do_not_have() {
    let token = "https://server.example.com/token";
    assert_eq!(at(PUBLISHED, "POST", token).unwrap_err(), DpopError::NonceMissing);
    assert_eq!(at(PUBLISHED, "post", token).unwrap_err(), DpopError::Method);
    assert_eq!(at(PUBLISHED, "POST", "https://server.example.com/other").unwrap_err(), DpopError::Uri);
    let resource = "https://resource.example.org/protectedresource";
    assert_eq!(at(PUBLISHED_WITH_TOKEN, "GET", resource).unwrap_err(), DpopError::NonceMissing);
    let spliced = format!(
        "{}.{}",
        PUBLISHED.rsplit_once('.').unwrap().0,
        PUBLISHED_WITH_TOKEN.rsplit_once('.').unwrap().1
    );
    assert_eq!(at(&spliced, "POST", token).unwrap_err(), JoseError::Signature.into());
    let proof = UnverifiedJws::parse(PUBLISHED_WITH_TOKEN, Kind::DpopProof).unwrap();
    let key = proof.embedded_key().unwrap().clone();
    let ath = sha256(&[b"Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"]);
    assert_eq!(proof.verify(&key).unwrap().claims()["ath"], base64url(&ath));
}

#[test]
fn a_proof_with_its_token_is_taken_once() {
    let world = World::new();
    let replays = Replays::new(10);
    let token = world.bound();
    let text = world.client.sign(&world.header(), &world.claims(Some(&token)));
    let proof = world.verify(&text, Some(&token)).unwrap();
    assert_eq!(proof.thumbprint(), &world.client.public().thumbprint());
    let fresh = replays.take(proof).unwrap();
    assert_eq!(
        (fresh.key(), fresh.thumbprint()),
        (world.client.public(), &world.client.public().thumbprint())
    );
    assert_eq!(fresh.issued_at(), Timestamp::from_millis(1_800_000_000_000));
    let again = replays.take(world.verify(&text, Some(&token)).unwrap());
    assert_eq!(again.unwrap_err(), ReplayError::Replayed);
    // Signed anew it is the same proof.
    let signed_again = world.client.sign(&world.header(), &world.claims(Some(&token)));
    assert_ne!(signed_again, text);
    let again = replays.take(world.verify(&signed_again, Some(&token)).unwrap());
    assert_eq!(again.unwrap_err(), ReplayError::Replayed);
    // Another jti, another key are other proofs.
    assert!(replays.take(world.with("jti", Some(json!("proof-2"))).unwrap()).is_ok());
    let other = World { client: Signer::new(), ..world };
    assert!(replays.take(other.with("jti", Some(json!("proof-1"))).unwrap()).is_ok());
}

#[test]
fn there_is_exactly_one_proof() {
    let world = World::new();
    let text = world.client.sign(&world.header(), &world.claims(None));
    let expected = ExpectedProof { method: "GET", uri: &world.uri, goes_with: GoesWith::TokenRequest };
    let verify = |headers: &[&str]| DpopProof::verify(headers, &expected, &world.nonces, NOW).map(drop);
    assert_eq!(verify(&[&text]), Ok(()));
    assert_eq!(verify(&[]), Err(DpopError::Missing));
    assert_eq!(verify(&[&text, &text]), Err(DpopError::Several { found: 2 }));
    for not in [format!("{text}, {text}"), format!("{text},{text}"), String::new(), " ".to_owned()] {
        assert!(matches!(verify(&[&not]), Err(DpopError::Jose(_))), "{not}");
    }
    assert!(matches!(verify(&[&format!("{text} ")]), Err(DpopError::Jose(JoseError::Encoding(_)))));
}

#[test]
fn a_proof_is_one_jws_with_a_public_key_that_signed_it() {
    let world = World::new();
    let with = |member: &str, value: Value| {
        let mut header = world.header();
        header[member] = value;
        world.verify(&world.client.sign(&header, &world.claims(None)), None).unwrap_err()
    };
    assert_eq!(with("typ", json!("at+jwt")), JoseError::Type(Kind::DpopProof).into());
    assert_eq!(with("typ", json!("JWT")), JoseError::Type(Kind::DpopProof).into());
    for (alg, kind) in [
        ("none", RefusedAlgorithm::Unsigned),
        ("HS256", RefusedAlgorithm::Mac),
        ("RS256", RefusedAlgorithm::Rsa),
    ] {
        assert_eq!(with("alg", json!(alg)), JoseError::Algorithm(kind).into());
    }
    let mut private = world.client.public().to_json();
    private.insert("d".to_owned(), json!("AA"));
    assert_eq!(with("jwk", Value::Object(private)), JoseError::Key(JwkError::Private { member: "d" }).into());
    let others = Value::Object(Signer::new().public().to_json());
    assert_eq!(with("jwk", others), JoseError::Signature.into());
    assert_eq!(with("jwk", json!("a")), JoseError::Key(JwkError::NotAnObject).into());
    assert_eq!(with("crit", json!(["exp"])), JoseError::RefusedMember { member: "crit" }.into());
}

#[test]
fn each_claim_of_a_proof_is_due_and_has_its_form() {
    let world = World::new();
    for claim in ["jti", "htm", "htu", "iat"] {
        assert_eq!(world.with(claim, None).unwrap_err(), ClaimError::Missing { claim }.into());
    }
    for claim in ["jti", "htm", "htu", "iat", "nonce", "ath"] {
        for not in [json!(""), json!(null), json!(["a"]), json!(1.5)] {
            let refused = world.with(claim, Some(not)).unwrap_err();
            assert!(matches!(refused, DpopError::Claim(ClaimError::Form { claim: of, .. }) if of == claim));
        }
    }
}

#[test]
fn a_proof_is_for_one_method_and_one_uri() {
    let world = World::new();
    for method in ["POST", "get", "GET ", "HEAD"] {
        assert_eq!(world.with("htm", Some(json!(method))).unwrap_err(), DpopError::Method, "{method}");
    }
    for uri in [
        "https://db.example.org/orders/",
        "https://db.example.org/",
        "http://db.example.org/orders",
        "https://db.example.org:8443/orders",
        "https://evil.example/orders",
    ] {
        assert_eq!(world.with("htu", Some(json!(uri))).unwrap_err(), DpopError::Uri, "{uri}");
    }
    for (uri, error) in [
        ("https://a@db.example.org/orders", TargetUriError::UserInformation),
        ("/orders", TargetUriError::Scheme),
        ("https://db.example.org\\orders", TargetUriError::Host),
    ] {
        assert_eq!(world.with("htu", Some(json!(uri))).unwrap_err(), DpopError::InvalidUri(error), "{uri}");
    }
    for uri in ["HTTPS://DB.example.org:443/./%6frders?a=b#c", "https://db.example.org/x/../orders"] {
        assert!(world.with("htu", Some(json!(uri))).is_ok(), "{uri}");
    }
}

#[test]
fn a_proof_was_made_just_now_for_this_process() {
    let world = World::new();
    assert_eq!(world.with("nonce", None).unwrap_err(), DpopError::NonceMissing);
    let before = world.nonces.issue(NOW.minus(Nonces::WINDOW));
    assert!(world.with("nonce", Some(json!(before))).is_ok());
    for stale in [
        world.nonces.issue(NOW.minus(Nonces::WINDOW * 2)),
        world.nonces.issue(NOW.plus(Nonces::WINDOW)),
        nonces().issue(NOW),
        "made-up".to_owned(),
    ] {
        let refused = world.with("nonce", Some(json!(stale))).unwrap_err();
        assert_eq!((refused.oauth_error(), refused), ("use_dpop_nonce", DpopError::NonceStale));
    }
    // 120 seconds, and a leeway of 60.
    let made = |seconds: i64| world.with("iat", Some(json!(1_800_000_000 + seconds))).map(drop);
    assert_eq!(made(-179), Ok(()));
    assert_eq!(made(-180), Err(DpopError::TooOld { ago: Duration::from_millis(180_500) }));
    assert_eq!(made(60), Ok(()));
    assert_eq!(made(61), Err(DpopError::FromTheFuture { ahead: Duration::from_millis(60_500) }));
}

#[test]
fn a_proof_goes_with_one_token_which_is_bound_to_its_key() {
    let world = World::new();
    let token = world.bound();
    let with = |ath: Option<Value>, token: &VerifiedAccessToken| {
        let mut claims = world.claims(Some(token));
        match ath {
            Some(ath) => claims["ath"] = ath,
            None => drop(claims.as_object_mut().unwrap().remove("ath")),
        }
        world.verify(&world.client.sign(&world.header(), &claims), Some(token)).map(drop)
    };
    let right = || Some(json!(base64url(token.hash())));
    assert_eq!(with(right(), &token), Ok(()));
    assert_eq!(with(None, &token), Err(DpopError::TokenHashMissing));
    for wrong in
        [base64url(&[0; 32]), format!("{}=", base64url(token.hash())), base64url(world.bound().hash())]
    {
        assert_eq!(with(Some(json!(wrong)), &token), Err(DpopError::TokenHash));
    }
    let ath = |token: &VerifiedAccessToken| Some(json!(base64url(token.hash())));
    for unbound in [world.token(None), world.token(Some(json!({ "x5t#S256": Signer::new().kid() })))] {
        assert_eq!(with(ath(&unbound), &unbound), Err(DpopError::NotBound));
    }
    let others = world.token(Some(json!({ "jkt": Signer::new().kid() })));
    let refused = with(ath(&others), &others).unwrap_err();
    assert_eq!((refused.oauth_error(), refused), ("invalid_token", DpopError::Key));
}

#[test]
fn each_error_has_a_code_of_its_own() {
    let errors = [
        DpopError::Missing,
        DpopError::Several { found: 2 },
        DpopError::Jose(JoseError::NoKey),
        DpopError::Claim(ClaimError::Missing { claim: "jti" }),
        DpopError::Claim(ClaimError::Form { claim: "jti", expected: "a text" }),
        DpopError::Method,
        DpopError::InvalidUri(TargetUriError::Scheme),
        DpopError::Uri,
        DpopError::NonceMissing,
        DpopError::NonceStale,
        DpopError::TooOld { ago: Duration::ZERO },
        DpopError::FromTheFuture { ahead: Duration::ZERO },
        DpopError::TokenHashMissing,
        DpopError::TokenHash,
        DpopError::NotBound,
        DpopError::Key,
    ];
    let codes: std::collections::BTreeSet<_> = errors.iter().map(DpopError::code).collect();
    assert_eq!(codes.len(), errors.len());
    let ours = errors.iter().filter(|error| error.oauth_error() == "invalid_dpop_proof").count();
    assert_eq!(ours, errors.len() - 4, "all but the nonce's and the token's");
}

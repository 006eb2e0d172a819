use rootbound_common::clock::Timestamp;
use serde_json::{Value, json};

use super::*;
use crate::claim::{Audience, Binding, Text};
use crate::jose::RefusedAlgorithm;
use crate::jwk::{CertificateThumbprint, Thumbprint};
use crate::testing::Signer;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_500);
const ISSUER: &str = "https://as.example.org";
const AUDIENCE: &str = "https://db.example.org";

fn text(text: &str) -> Text {
    text.parse().unwrap()
}

fn claims() -> AccessClaims {
    AccessClaims {
        issuer: text(ISSUER),
        subject: text("spiffe://example.org/node/a"),
        client_id: text("spiffe://example.org/node/a"),
        audience: Audience::one(text(AUDIENCE)),
        issued_at: Timestamp::from_millis(1_800_000_000_000),
        expires_at: Timestamp::from_millis(1_800_000_060_000),
        id: text("token-1"),
        scope: None,
        authorization_details: AuthorizationDetails::default(),
        binding: Binding::Key(Thumbprint::from_bytes([7; 32])),
        actors: Actors::default(),
        posture_epoch: 3,
        once: false,
    }
}

fn expected() -> Expected<'static> {
    Expected { issuer: ISSUER, audience: ExpectedAudience::Named(AUDIENCE), leeway: Duration::from_secs(5) }
}

fn verify_at(
    claims: &Value,
    expected: &Expected<'_>,
    now: Timestamp,
) -> Result<VerifiedAccessToken, TokenError> {
    let signer = Signer::new();
    let header = json!({ "alg": "ES256", "typ": "at+jwt", "kid": signer.kid() });
    let keys = JwkSet::of_keys([Signer::new().public().clone(), signer.public().clone()]);
    AccessToken::verify(&signer.sign(&header, claims), &keys, expected, now)
}

fn verify(claims: &Value) -> Result<VerifiedAccessToken, TokenError> {
    verify_at(claims, &expected(), NOW)
}

fn with(claim: &str, value: Value) -> Result<AccessClaims, TokenError> {
    let mut claims = serde_json::to_value(claims()).unwrap();
    claims[claim] = value;
    verify(&claims).map(VerifiedAccessToken::into_claims)
}

/// The claim that is not of its form.
fn form(claim: &str, value: Value) -> &'static str {
    match with(claim, value.clone()) {
        Err(TokenError::Claim(ClaimError::Form { claim, .. })) => claim,
        other => panic!("{claim}: {value} came to {other:?}"),
    }
}

fn full() -> AccessClaims {
    AccessClaims {
        audience: Audience::several(vec![text("a"), text(AUDIENCE)]).unwrap(),
        scope: Some("read write".parse().unwrap()),
        authorization_details: AuthorizationDetails::new(vec![AuthorizationDetail {
            actions: vec![text("read"), text("write")],
            resource: Resource { kind: text("database"), id: text("orders") },
            locations: vec![text("https://db.example.org/orders")],
        }])
        .unwrap(),
        binding: Binding::Both {
            key: Thumbprint::from_bytes([7; 32]),
            certificate: CertificateThumbprint::of_der(b"certificate"),
        },
        actors: Actors::new(vec![text("now"), text("before"), text("first")]).unwrap(),
        once: true,
        posture_epoch: u64::MAX,
        ..claims()
    }
}

#[test]
fn what_is_written_is_read_as_it_was() {
    for claims in [claims(), full(), AccessClaims { binding: Binding::Bearer, ..claims() }] {
        let written = serde_json::to_value(&claims).unwrap();
        assert_eq!(verify(&written).unwrap().claims(), &claims);
    }
}

/// The shapes of the standards, by hand.
#[test]
fn claims_are_written_as_the_standards_have_them() {
    assert_eq!(
        serde_json::to_value(claims()).unwrap(),
        json!({
            "iss": ISSUER, "sub": "spiffe://example.org/node/a", "client_id": "spiffe://example.org/node/a",
            "aud": AUDIENCE, "iat": 1_800_000_000, "exp": 1_800_000_060, "jti": "token-1",
            "cnf": { "jkt": "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc" },
            "rootbound_posture_epoch": 3,
        })
    );
    let full = serde_json::to_value(full()).unwrap();
    assert_eq!(full["aud"], json!(["a", AUDIENCE]));
    assert_eq!(full["scope"], "read write");
    assert_eq!(
        full["authorization_details"],
        json!([{
            "type": "rootbound_action", "actions": ["read", "write"],
            "resource": { "type": "database", "id": "orders" },
            "locations": ["https://db.example.org/orders"],
        }])
    );
    assert_eq!(full["act"], json!({ "sub": "now", "act": { "sub": "before", "act": { "sub": "first" } } }));
    assert_eq!(full["cnf"].as_object().unwrap().len(), 2);
    assert_eq!(full["rootbound_once"], true);
}

#[test]
fn each_claim_that_is_due_is_missed() {
    for claim in ["iss", "sub", "client_id", "aud", "iat", "exp", "jti", "rootbound_posture_epoch"] {
        let mut claims = serde_json::to_value(claims()).unwrap();
        claims.as_object_mut().unwrap().remove(claim);
        let refused = verify(&claims).unwrap_err();
        assert_eq!(refused, ClaimError::Missing { claim }.into());
        assert_eq!(refused.code(), "jwt_claim_missing");
    }
    assert!(with("iss", json!(7)).unwrap_err().code() == "jwt_claim_invalid");
}

#[test]
fn each_claim_has_its_form() {
    for claim in ["iss", "sub", "client_id", "jti"] {
        for not in
            [json!(""), json!(7), json!(null), json!("a\nb"), json!("a\u{202e}b"), json!("x".repeat(2049))]
        {
            assert_eq!(form(claim, not), claim);
        }
    }
    for not in [json!([]), json!(null), json!(""), json!([AUDIENCE, 7]), json!(vec![AUDIENCE; 9]), json!({})]
    {
        assert_eq!(form("aud", not), "aud");
    }
    for claim in ["iat", "exp", "nbf"] {
        for not in [
            json!("1800000000"),
            json!(1.5),
            json!(-1),
            json!(null),
            json!(253_402_300_800_i64),
            json!(u64::MAX),
        ] {
            assert_eq!(form(claim, not), claim);
        }
    }
    for not in [
        json!(""),
        json!(" a"),
        json!("a  b"),
        json!("a\tb"),
        json!("a\"b"),
        json!("é"),
        json!(["a"]),
        json!(null),
    ] {
        assert_eq!(form("scope", not), "scope");
    }
    assert_eq!(form("scope", json!("x".repeat(1025))), "scope");
    assert_eq!(form("scope", json!(vec!["a"; 33].join(" "))), "scope");
    let scope = with("scope", json!("a:b c#!")).unwrap().scope.unwrap();
    assert_eq!(scope.words().collect::<Vec<_>>(), ["a:b", "c#!"]);
    assert!(scope.contains("a:b") && !scope.contains("a"));
    for not in [json!(-1), json!("3"), json!(1.0), json!(null)] {
        assert_eq!(form("rootbound_posture_epoch", not), "rootbound_posture_epoch");
    }
    for not in [json!(1), json!("true"), json!(null)] {
        assert_eq!(form("rootbound_once", not), "rootbound_once");
    }
}

#[test]
fn a_binding_that_is_not_known_is_never_a_bearers() {
    let jkt = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc";
    for not in [
        json!({}),
        json!(null),
        json!([]),
        json!({ "jwk": {} }),
        json!({ "jkt": "" }),
        json!({ "jkt": null }),
        json!({ "jkt": format!("{jkt}=") }),
        json!({ "jkt": &jkt[..42] }),
        json!({ "jkt": jkt, "x5t#S256": 7 }),
        json!({ "JKT": jkt }),
    ] {
        assert_eq!(form("cnf", not), "cnf");
    }
    let both = with("cnf", json!({ "jkt": jkt, "x5t#S256": jkt, "kid": "ignored" })).unwrap().binding;
    assert_eq!(both.key().unwrap().to_string(), jkt);
    assert_eq!(both.certificate().unwrap().to_string(), jkt);
    let certificate = with("cnf", json!({ "x5t#S256": jkt })).unwrap().binding;
    assert_eq!((certificate.key(), certificate.certificate().is_some()), (None, true));
}

#[test]
fn a_chain_of_actors_is_bounded_and_says_nothing_else() {
    let nested = |depth: usize| {
        (0..depth).fold(json!(null), |within, _| match within {
            Value::Null => json!({ "sub": "a" }),
            within => json!({ "sub": "a", "act": within }),
        })
    };
    assert_eq!(with("act", nested(4)).unwrap().actors.chain().len(), 4);
    for not in [
        nested(5),
        nested(7),
        json!(null),
        json!("a"),
        json!({}),
        json!({ "sub": 7 }),
        json!({ "sub": "a", "iss": "b" }),
        json!({ "sub": "a", "act": null }),
    ] {
        assert_eq!(form("act", not), "act");
    }
    assert_eq!(Actors::new(vec![text("a"); 5]), None);
}

#[test]
fn details_of_another_type_or_with_more_in_them_are_refused() {
    let good = json!({
        "type": "rootbound_action", "actions": ["read"], "resource": { "type": "database", "id": "orders" },
    });
    let changed = |member: &str, value: Value| {
        let mut detail = good.clone();
        detail[member] = value;
        json!([detail])
    };
    assert_eq!(
        with("authorization_details", json!(vec![good.clone(); 8]))
            .unwrap()
            .authorization_details
            .iter()
            .count(),
        8
    );
    for not in [
        json!([]),
        json!(null),
        good.clone(),
        json!(["a"]),
        json!(vec![good.clone(); 9]),
        changed("type", json!("payment_initiation")),
        changed("type", json!(null)),
        changed("privileges", json!(["admin"])),
        changed("actions", json!([])),
        changed("actions", json!("read")),
        changed("actions", json!([""])),
        changed("actions", json!(vec!["a"; 17])),
        changed("locations", json!([])),
        changed("locations", json!(vec!["a"; 9])),
        changed("locations", json!(null)),
        changed("resource", json!("orders")),
        changed("resource", json!({ "type": "database" })),
        changed("resource", json!({ "type": "database", "id": "orders", "properties": {} })),
    ] {
        assert_eq!(form("authorization_details", not), "authorization_details");
    }
    let detail = with("authorization_details", json!([good])).unwrap().authorization_details;
    assert_eq!(AuthorizationDetails::new(vec![detail.iter().next().unwrap().clone(); 9]), None);
}

#[test]
fn a_token_of_another_issuer_or_for_another_audience_is_refused() {
    for issuer in ["https://as.example.org/", "https://AS.example.org", "https://other.example.org"] {
        assert_eq!(with("iss", json!(issuer)), Err(TokenError::Issuer), "{issuer}");
    }
    for audience in [json!("https://db.example.org/"), json!("https://db"), json!(["a", ISSUER])] {
        assert_eq!(with("aud", audience), Err(TokenError::Audience));
    }
    assert!(with("aud", json!(["a", AUDIENCE])).is_ok());
    let mut other = serde_json::to_value(claims()).unwrap();
    other["aud"] = json!("somebody");
    let issuer = Expected { audience: ExpectedAudience::WhomeverItWasMintedFor, ..expected() };
    assert!(verify_at(&other, &issuer, NOW).is_ok(), "the issuer knows its tokens");
}

#[test]
fn a_token_has_its_time() {
    let token = serde_json::to_value(claims()).unwrap();
    let at = |millis: i64, leeway: u64| {
        let expected = Expected { leeway: Duration::from_secs(leeway), ..expected() };
        verify_at(&token, &expected, Timestamp::from_millis(1_800_000_000_000 + millis)).map(drop)
    };
    assert_eq!(at(59_999, 0), Ok(()));
    assert_eq!(at(60_000, 0), Err(TokenError::Expired { ago: Duration::ZERO }), "on or after");
    assert_eq!(at(64_999, 5), Ok(()));
    assert_eq!(at(65_000, 5), Err(TokenError::Expired { ago: Duration::from_secs(5) }));
    assert_eq!(at(0, 0), Ok(()));
    assert_eq!(at(-1, 0), Err(TokenError::FromTheFuture { ahead: Duration::from_millis(1) }));
    assert_eq!(at(-5_000, 5), Ok(()));
    assert_eq!(at(-5_001, 5), Err(TokenError::FromTheFuture { ahead: Duration::from_millis(5_001) }));
    // No leeway is larger than a minute, whatever was asked for.
    assert_eq!(at(119_999, 1_000_000), Ok(()));
    assert_eq!(at(120_000, 1_000_000), Err(TokenError::Expired { ago: Duration::from_secs(60) }));
    assert_eq!(
        with("nbf", json!(1_800_000_006)),
        Err(TokenError::NotYetValid { ahead: Duration::from_millis(5_500) })
    );
    assert!(with("nbf", json!(1_800_000_005)).is_ok());
    assert_eq!(
        with("iat", json!(1_800_000_060)),
        Err(TokenError::FromTheFuture { ahead: Duration::from_millis(59_500) })
    );
    let mut reversed = token.clone();
    reversed["iat"] = json!(1_799_999_999);
    reversed["exp"] = json!(1_799_999_999);
    assert_eq!(verify(&reversed), Err(TokenError::NeverValid));
}

#[test]
fn only_a_key_of_the_issuer_signs_and_only_access_tokens_pass() {
    let (issuer, thief) = (Signer::new(), Signer::new());
    let keys = JwkSet::of_keys([issuer.public().clone()]);
    let token = serde_json::to_value(claims()).unwrap();
    let header = |kid: &str| json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid });
    let verify = |text: &str| AccessToken::verify(text, &keys, &expected(), NOW).map(drop);
    assert_eq!(verify(&issuer.sign(&header(&issuer.kid()), &token)), Ok(()));
    assert_eq!(verify(&thief.sign(&header(&thief.kid()), &token)), Err(TokenError::UnknownKey));
    assert_eq!(verify(&thief.sign(&header(&issuer.kid()), &token)), Err(JoseError::Signature.into()));
    for kid in ["../../dev/null", "' OR 1=1 --", &issuer.kid().to_lowercase()] {
        assert_eq!(verify(&issuer.sign(&header(kid), &token)), Err(TokenError::UnknownKey), "{kid}");
    }
    for typ in ["JWT", "dpop+jwt", "eat+jwt", "logout+jwt"] {
        let header = json!({ "alg": "ES256", "typ": typ, "kid": issuer.kid() });
        assert_eq!(verify(&issuer.sign(&header, &token)), Err(JoseError::Type(Kind::AccessToken).into()));
    }
    let unsigned = json!({ "alg": "none", "typ": "at+jwt", "kid": issuer.kid() });
    let unsigned = issuer.sign(&unsigned, &token);
    assert_eq!(verify(&unsigned), Err(JoseError::from(RefusedAlgorithm::Unsigned).into()));
    // A key that is for JWT-SVIDs alone signs no access tokens.
    let mut key = issuer.public().to_json();
    key.insert("kid".to_owned(), json!("svid"));
    key.insert("use".to_owned(), json!("jwt-svid"));
    let bundle = JwkSet::parse(json!({ "keys": [key] }).to_string().as_bytes()).unwrap();
    let refused = AccessToken::verify(&issuer.sign(&header("svid"), &token), &bundle, &expected(), NOW);
    assert_eq!(refused, Err(TokenError::UnknownKey));
}

//! Clients with tokens at a gateway: what passes, and each check by itself.

use std::time::Duration;

use rootbound_common::clock::Clock as _;
use rootbound_common::wire::v1::Problem;
use rootbound_verifier::audit::{Actor, Outcome, RecordKind};
use serde_json::{Value, json};

use super::super::admission::drift;
use super::super::stage::{domain, node};
use super::{BLIND, OTHER, Point, ProofKey, SERVICE, challenges, details, said};

const RECORD: &str = "https://db.example.org/records/1";

#[tokio::test]
async fn what_a_token_permits_passes_until_the_node_drifts() {
    let point = Point::new().await;
    let key = point.key();
    let token = point.reader(Some(&key)).await;
    let answer = point.ask_by(&key, &token, "GET", "/records/1?x=y").await;
    assert_eq!(said(&answer), (200, ""), "{answer:?}");
    let told = |name: &str| answer.headers[name].to_str().unwrap();
    assert_eq!(told("x-rootbound-subject"), domain().node(node(1)).as_str());
    assert_eq!((told("x-rootbound-action"), told("x-rootbound-posture-epoch")), ("read", "1"));
    assert_eq!(told("dpop-nonce"), point.nonce());
    assert!(answer.bytes.is_empty());
    let decided = &point.trail().await[0];
    assert_eq!(decided.id.to_string(), told("x-rootbound-decision"));
    assert_eq!((decided.kind, decided.outcome), (RecordKind::Decision, Outcome::Granted));
    assert_eq!(decided.actor, Actor::RelyingParty("gateway".into()));

    point.change(drift);
    let answer = point.ask_by(&key, &token, "GET", "/records/1").await;
    assert_eq!(said(&answer), (401, "token_drifted"));
    assert_eq!(challenges(&answer), ["DPoP error=\"invalid_token\", algs=\"ES256\""]);
    let problem: Problem = serde_json::from_slice(&answer.bytes).unwrap();
    assert_eq!((problem.status, problem.code.as_str()), (401, "token_drifted"));
    let refused = &point.trail().await[0];
    assert_eq!(
        (refused.outcome, refused.code.as_str()),
        (Outcome::Refused, "token_drifted"),
        "it is on record"
    );

    // It stands well again, at another epoch: the token is of before.
    point.change(|live| live.epoch = 2);
    assert_eq!(said(&point.ask_by(&key, &token, "GET", "/records/1").await), (401, "token_drifted"));
}

#[tokio::test]
async fn each_check_of_a_proof_has_its_code() {
    let point = Point::new().await;
    let key = point.key();
    let token = point.reader(Some(&key)).await;
    let other = point.reader(Some(&key)).await;
    let now = point.stage.clock.now().as_seconds();
    let set = |name: &'static str, value: Value| move |claims: &mut Value| claims[name] = value.clone();
    let without =
        |name: &'static str| move |claims: &mut Value| drop(claims.as_object_mut().unwrap().remove(name));
    let make = |change: &dyn Fn(&mut Value)| point.proof(&key, "GET", RECORD, &token, change);
    let stranger = ProofKey::new();
    let good = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": key.jwk() });
    let head = |name: &str, value: Value| {
        let mut head = good.clone();
        head[name] = value;
        let claims = json!({ "jti": "j", "htm": "GET", "htu": RECORD, "iat": now, "nonce": point.nonce() });
        key.sign_as(&head, &claims)
    };
    let mut private = key.jwk();
    private["d"] = json!("AAAA");
    let tampered = {
        let proof = make(&|_| {});
        let (input, _) = proof.rsplit_once('.').unwrap();
        let (_, signature) = other_signature(&point, &key, &token);
        format!("{input}.{signature}")
    };
    let invalid = "invalid_dpop_proof";
    let cases = [
        (make(&without("nonce")), "dpop_nonce_missing", "use_dpop_nonce"),
        (make(&set("nonce", json!("AAAAAAAAAAAAAAAAAAAAAA"))), "dpop_nonce_stale", "use_dpop_nonce"),
        (make(&set("htm", json!("POST"))), "dpop_method_wrong", invalid),
        (make(&set("htu", json!("https://db.example.org/records/2"))), "dpop_uri_wrong", invalid),
        (make(&set("htu", json!("http://db.example.org/records/1"))), "dpop_uri_wrong", invalid),
        (make(&set("htu", json!("https://evil.example.org/records/1"))), "dpop_uri_wrong", invalid),
        (make(&set("htu", json!("/records/1"))), "uri_scheme_refused", invalid),
        (make(&set("iat", json!(now - 400))), "dpop_too_old", invalid),
        (make(&set("iat", json!(now + 400))), "dpop_from_the_future", invalid),
        (make(&without("iat")), "jwt_claim_missing", invalid),
        (make(&without("jti")), "jwt_claim_missing", invalid),
        (make(&without("ath")), "dpop_token_hash_missing", invalid),
        (point.proof(&key, "GET", RECORD, &other, |_| {}), "dpop_token_hash_wrong", invalid),
        (point.proof(&stranger, "GET", RECORD, &token, |_| {}), "dpop_key_wrong", "invalid_token"),
        (tampered, "jws_signature_invalid", invalid),
        (head("typ", json!("JWT")), "", invalid),
        (head("alg", json!("none")), "", invalid),
        (head("alg", json!("HS256")), "", invalid),
        (head("jwk", private), "", invalid),
        (head("jwk", Value::Null), "", invalid),
    ];
    let authorization = format!("DPoP {token}");
    for (number, (proof, code, error)) in cases.iter().enumerate() {
        let answer =
            point.ask("GET", "/records/1", &[("authorization", &authorization), ("dpop", proof)]).await;
        let (status, found) = said(&answer);
        assert_eq!(status, 401, "{number}: {found}");
        if code.is_empty() {
            assert!(found.starts_with("jw"), "{number}: {found}");
        } else {
            assert_eq!(found, *code, "{number}");
        }
        assert_eq!(challenges(&answer), [format!("DPoP error=\"{error}\", algs=\"ES256\"")], "{found}");
        assert_eq!(answer.headers["dpop-nonce"], point.nonce());
    }
    let answer = point.ask("GET", "/records/1", &[("authorization", &authorization)]).await;
    assert_eq!(said(&answer), (401, "dpop_missing"));
    let (one, two) = (make(&|_| {}), make(&|_| {}));
    let answer = point
        .ask("GET", "/records/1", &[("authorization", &authorization), ("dpop", &one), ("dpop", &two)])
        .await;
    assert_eq!(said(&answer), (401, "dpop_several"));
    // Once it passes, and not again.
    let fields = [("authorization", authorization.as_str()), ("dpop", &one)];
    assert_eq!(said(&point.ask("GET", "/records/1", &fields).await), (200, ""));
    assert_eq!(said(&point.ask("GET", "/records/1", &fields).await), (401, "dpop_replayed"));
}

fn other_signature(point: &Point, key: &ProofKey, token: &str) -> (String, String) {
    let proof = point.proof(key, "GET", RECORD, token, |_| {});
    let (input, signature) = proof.rsplit_once('.').unwrap();
    (input.to_owned(), signature.to_owned())
}

#[tokio::test]
async fn a_proof_serves_again_where_its_key_made_the_connection_that_the_gateway_vouches_for() {
    let point = Point::new().await;
    let key = point.key();
    let token = point.reader(Some(&key)).await;
    let certificate = data_encoding::BASE64.encode(&point.leaf.chain[0]);
    let ask = async |key: &ProofKey, token: &str, proof: &str| {
        let _ = key;
        let authorization = format!("DPoP {token}");
        let fields = [
            ("authorization", authorization.as_str()),
            ("dpop", proof),
            ("x-rootbound-client-certificate", &certificate),
        ];
        let answer = point.ask_as(&point.gateway, "/forward-auth/mtls", "GET", "/records/1", &fields).await;
        (answer.status.as_u16(), said(&answer).1.to_owned())
    };
    let proof = point.proof(&key, "GET", RECORD, &token, |_| {});
    for _ in 0..3 {
        assert_eq!(ask(&key, &token, &proof).await, (200, String::new()));
    }
    // Not where it is another key's.
    let software = ProofKey::new();
    let token = point.reader(Some(&software)).await;
    let proof = point.proof(&software, "GET", RECORD, &token, |_| {});
    assert_eq!(ask(&software, &token, &proof).await, (200, String::new()));
    assert_eq!(ask(&software, &token, &proof).await, (401, "dpop_replayed".to_owned()));
}

#[tokio::test]
async fn a_bound_token_is_no_bearers() {
    let point = Point::new().await;
    let key = point.key();
    let token = point.reader(Some(&key)).await;
    let bearer = format!("Bearer {token}");
    let answer = point.ask("GET", "/records/1", &[("authorization", &bearer)]).await;
    assert_eq!(said(&answer), (401, "token_bound_as_bearer"));
    assert_eq!(challenges(&answer), ["DPoP error=\"invalid_token\", algs=\"ES256\""]);
    // Not with a proof either: the scheme says how it is shown.
    let proof = point.proof(&key, "GET", RECORD, &token, |_| {});
    let answer = point.ask("GET", "/records/1", &[("authorization", &bearer), ("dpop", &proof)]).await;
    assert_eq!(said(&answer), (401, "token_bound_as_bearer"));

    // One that is bound to the certificate, without it, with it and with another.
    let token = point.reader(None).await;
    let bearer = format!("Bearer {token}");
    let answer = point.ask("GET", "/records/1", &[("authorization", &bearer)]).await;
    assert_eq!(said(&answer), (401, "token_certificate_missing"));
    assert_eq!(challenges(&answer), ["Bearer error=\"invalid_token\""]);
    let encode = |leaf: &super::Leaf| data_encoding::BASE64.encode(&leaf.chain[0]);
    let another = point.stage.ca.sign(domain().node(node(1)).as_str(), point.stage.clock.now());
    for (leaf, expected) in [(&point.leaf, (200, "")), (&another, (401, "token_certificate_wrong"))] {
        let fields = [("authorization", bearer.as_str()), ("x-rootbound-client-certificate", &encode(leaf))];
        let answer = point.ask_as(&point.gateway, "/forward-auth/mtls", "GET", "/records/1", &fields).await;
        assert_eq!(said(&answer), expected);
    }
    let proof = point.proof(&key, "GET", RECORD, &token, |_| {});
    let fields = [
        ("authorization", format!("DPoP {token}")),
        ("dpop", proof),
        ("x-rootbound-client-certificate", encode(&point.leaf)),
    ];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = point.ask_as(&point.gateway, "/forward-auth/mtls", "GET", "/records/1", &fields).await;
    assert_eq!(said(&answer), (401, "dpop_token_not_bound"));
}

#[tokio::test]
async fn a_token_permits_what_it_names_and_the_policies_have_the_last_word() {
    let point = Point::new().await;
    let key = point.key();
    let token = point.reader(Some(&key)).await;
    let answer = point.ask_by(&key, &token, "GET", "/records/2").await;
    assert_eq!(said(&answer), (403, "token_permits_other"), "another resource");
    assert_eq!(challenges(&answer), ["DPoP error=\"insufficient_scope\", algs=\"ES256\""]);
    let answer = point.ask_by(&key, &token, "DELETE", "/records/1").await;
    assert_eq!(said(&answer), (403, "token_permits_other"), "another action");
    assert_eq!(said(&point.ask_by(&key, &token, "POST", "/shipments").await), (403, "token_permits_other"));
    assert_eq!(said(&point.ask_by(&key, &token, "GET", "/any").await), (403, "token_permits_other"));

    // A word of the scope is an action on the audience.
    let scope = point.token(Some(&key), &[("scope", "ship")]).await;
    assert_eq!(said(&point.ask_by(&key, &scope, "POST", "/shipments").await), (200, ""));
    assert_eq!(said(&point.ask_by(&key, &scope, "GET", "/records/1").await), (403, "token_permits_other"));
    assert_eq!(said(&point.ask_by(&key, &scope, "GET", "/any").await), (403, "token_permits_other"));
    // One for nothing by name is for the action that stands for any.
    let any = point.token(Some(&key), &[]).await;
    assert_eq!(said(&point.ask_by(&key, &any, "GET", "/any").await), (200, ""));
    assert_eq!(said(&point.ask_by(&key, &any, "POST", "/shipments").await), (403, "token_permits_other"));

    // The policies changed since the token was made.
    let policies = super::POLICIES.replace("@id(\"read\") permit", "@id(\"read\") forbid");
    super::put_in_force(&point.stage, super::source(&policies)).await;
    let answer = point.ask_by(&key, &token, "GET", "/records/1").await;
    assert_eq!(said(&answer), (403, "forbidden_by_policy"));
    assert!(challenges(&answer).is_empty());
}

#[tokio::test]
async fn tokens_that_count_for_nothing_are_refused_each_with_its_code() {
    let point = Point::new().await;
    let key = point.key();
    let token = point.reader(Some(&key)).await;
    // Of another audience.
    let two = [SERVICE, "https://elsewhere.example.org"];
    let elsewhere = point
        .token(
            Some(&key),
            &[("audience", two[1]), ("authorization_details", &details("read", "record", "1"))],
        )
        .await;
    let answer = point.ask_by(&key, &elsewhere, "GET", "/records/1").await;
    assert_eq!(said(&answer), (401, "token_other_audience"));
    // Made up, cut short, signed by nobody, of another form.
    let claims = token.split('.').nth(1).unwrap();
    let none = format!(
        "{}.{claims}.",
        data_encoding::BASE64URL_NOPAD.encode(b"{\"alg\":\"none\",\"typ\":\"at+jwt\"}")
    );
    for bad in ["x", &token[..token.len() - 2], &none, &format!("{token}="), &format!("{token},{token}")] {
        let answer = point.ask_by(&key, bad, "GET", "/records/1").await;
        assert_eq!(answer.status.as_u16(), 401, "{bad}");
        assert_eq!(challenges(&answer), ["DPoP error=\"invalid_token\", algs=\"ES256\""], "{bad}");
    }
    for (fields, code) in [
        (vec![], "credentials_missing"),
        (vec!["Basic dXNlcjpwYXNz".to_owned()], "authorization_scheme"),
        (vec![token.clone()], "authorization_scheme"),
        (vec![format!("DPoP {token}"), format!("DPoP {token}")], "authorization_repeated"),
        (vec![format!("DPoP {token}"), format!("Bearer {token}")], "authorization_repeated"),
    ] {
        let fields: Vec<_> = fields.iter().map(|value| ("authorization", value.as_str())).collect();
        assert_eq!(said(&point.ask("GET", "/records/1", &fields).await), (401, code));
    }
    // Revoked.
    let revoked = point.reader(Some(&key)).await;
    assert_eq!(said(&point.ask_by(&key, &revoked, "GET", "/records/1").await), (200, ""));
    let form = http::Request::post("/oauth2/revoke")
        .header("host", "localhost")
        .header("content-type", "application/x-www-form-urlencoded")
        .body(http_body_util::Full::from(format!("token={revoked}")))
        .unwrap();
    let answer = super::request(&point.stage, Some(&point.leaf), form).await.unwrap();
    assert_eq!(answer.status.as_u16(), 200, "{answer:?}");
    assert_eq!(said(&point.ask_by(&key, &revoked, "GET", "/records/1").await), (401, "token_revoked"));
    // Expired: the evidence is fresh for three minutes.
    point.stage.clock.advance(Duration::from_secs(181));
    assert_eq!(said(&point.ask_by(&key, &token, "GET", "/records/1").await), (401, "jwt_expired"));
}

#[tokio::test]
async fn a_one_time_token_is_spent_by_what_passes_and_by_nothing_else() {
    let point = Point::new().await;
    let key = point.key();
    let write = details("write", "record", "1");
    let many = point.token(Some(&key), &[("authorization_details", &write)]).await;
    let answer = point.ask_by(&key, &many, "POST", "/records/1").await;
    assert_eq!(said(&answer), (403, "token_not_one_time"));
    let once = point.token(Some(&key), &[("authorization_details", &write), ("one_time", "true")]).await;
    // A wrong resource, a wrong proof and a bearer's scheme use nothing up.
    assert_eq!(said(&point.ask_by(&key, &once, "POST", "/records/2").await), (403, "token_permits_other"));
    assert_eq!(
        said(&point.ask_by(&ProofKey::new(), &once, "POST", "/records/1").await),
        (401, "dpop_key_wrong")
    );
    let bearer = [("authorization", format!("Bearer {once}"))];
    let answer = point.ask("POST", "/records/1", &[(bearer[0].0, &bearer[0].1)]).await;
    assert_eq!(said(&answer), (401, "token_bound_as_bearer"));
    assert_eq!(said(&point.ask_by(&key, &once, "POST", "/records/1").await), (200, ""));
    assert_eq!(said(&point.ask_by(&key, &once, "POST", "/records/1").await), (401, "token_spent"));
    let late = point.token(Some(&key), &[("authorization_details", &write), ("one_time", "true")]).await;
    point.change(drift);
    assert_eq!(said(&point.ask_by(&key, &late, "POST", "/records/1").await), (401, "token_drifted"));
    let used = point.trail().await.into_iter().filter(|record| record.code.as_str() == "token_used").count();
    assert_eq!(used, 1);
}

#[tokio::test]
async fn of_a_node_that_a_gateway_may_not_read_it_hears_as_of_none() {
    let point = Point::new().await;
    let key = point.key();
    let token = point.reader(Some(&key)).await;
    let blind = point.parties.ca.sign(BLIND, point.stage.clock.now());
    let certificate = data_encoding::BASE64.encode(&point.leaf.chain[0]);
    let stranger = point.stage.ca.sign(domain().node(node(2)).as_str(), point.stage.clock.now());
    let unknown = data_encoding::BASE64.encode(&stranger.chain[0]);
    let ask = async || {
        let proof = point.proof(&key, "GET", RECORD, &token, |_| {});
        let fields = [("authorization", format!("DPoP {token}")), ("dpop", proof)];
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        point.ask_as(&blind, "/forward-auth", "GET", "/records/1", &fields).await
    };
    let answer = ask().await;
    assert_eq!(said(&answer), (401, "token_unknown_node"));
    let by_certificate = async |certificate: &str| {
        let fields = [("x-rootbound-client-certificate", certificate)];
        point.ask_as(&blind, "/forward-auth/mtls", "GET", "/records/1", &fields).await
    };
    let (hidden, none) = (by_certificate(&certificate).await, by_certificate(&unknown).await);
    assert_eq!(said(&hidden), (403, "unknown_node"));
    assert_eq!(hidden.bytes, none.bytes);
    // However it stands.
    point.change(drift);
    assert_eq!(ask().await.bytes, answer.bytes);
    assert_eq!(by_certificate(&certificate).await.bytes, none.bytes);

    // And the gateway of another service is told that the route is none of its own.
    let other = point.parties.ca.sign(OTHER, point.stage.clock.now());
    let answer = point.ask_as(&other, "/forward-auth", "GET", "/records/1", &[]).await;
    assert_eq!(said(&answer), (403, "route_of_other_gateway"));
    assert_eq!(said(&point.ask("GET", "/other", &[]).await), (403, "route_of_other_gateway"));
}

//! Who gets which token.

use std::time::Duration;

use rootbound_common::clock::Timestamp;
use rootbound_verifier::audit::{Actor, Outcome, RecordKind};
use rootbound_verifier::posture::LiveNode;
use rootbound_verifier::store::RecordFilter;
use rootbound_verifier::store::tokens::TokenFilter;

use super::super::admission::{drift, posture};
use super::super::client::ask;
use super::*;

#[tokio::test]
async fn a_node_gets_a_token_that_only_its_certificate_shows_and_the_trail_says_why() {
    let server = Server::new().await;
    let answer = server.by_node(form(TOKEN, &deploy())).await;
    let body = granted(&answer);
    assert_eq!((&body["token_type"], &body["scope"]), (&json!("Bearer"), &json!("deploy")));
    let token = text(&body["access_token"]);
    let claims = server.claims(&token, "at+jwt", "/.well-known/jwks.json").await.unwrap();
    let subject = domain().node(node(1)).to_string();
    let certificate = BASE64URL_NOPAD.encode(&sha256(&[&server.node.chain[0]]));
    assert_eq!(claims["iss"], ISSUER);
    assert_eq!((&claims["sub"], &claims["client_id"]), (&json!(subject), &json!(subject)));
    assert_eq!((&claims["aud"], &claims["scope"]), (&json!(API), &json!("deploy")));
    assert_eq!(claims["cnf"], json!({ "x5t#S256": certificate }));
    // The evidence of the stage's node is fresh for three minutes, which is less than a token lives.
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 180);
    assert_eq!(body["expires_in"], 180);
    assert!(server.is_active(&token).await);

    let page = server.stage.verifier.store().records(&RecordFilter::default(), None, 10).await.unwrap();
    let record = page.records.iter().map(|one| &one.record).find(|one| one.action.as_str() == "IssueToken");
    let record = record.unwrap();
    assert_eq!((record.kind, record.outcome), (RecordKind::Issuance, Outcome::Granted));
    assert_eq!(record.actor, Actor::Node(node(1)));
    let facts = serde_json::to_value(record).unwrap().to_string();
    assert!(facts.contains(claims["jti"].as_str().unwrap()) && facts.contains("\"deploy\""), "{facts}");
    assert!(!facts.contains(&token), "the token itself is nowhere");
}

#[tokio::test]
async fn what_the_policies_do_not_permit_is_refused_and_recorded() {
    let server = Server::new().await;
    let ask = async |parameters: &[(&str, &str)]| server.by_node(form(TOKEN, parameters)).await;
    let credentials = ("grant_type", "client_credentials");
    for (parameters, error, code) in [
        (vec![credentials, ("audience", API), ("scope", "destroy")], "invalid_scope", "unknown_action"),
        (
            vec![credentials, ("audience", "https://x.example"), ("scope", "deploy")],
            "invalid_scope",
            "no_policy_permits",
        ),
        (
            vec![credentials, ("audience", API), ("scope", "deploy read")],
            "invalid_scope",
            "no_policy_permits",
        ),
        (vec![credentials, ("audience", "https://x.example")], "invalid_scope", "no_policy_permits"),
    ] {
        let answer = ask(&parameters).await;
        assert_eq!(refused(&answer), (error, code), "{parameters:?}");
        let page = server.stage.verifier.store().records(&RecordFilter::default(), None, 1).await.unwrap();
        assert_eq!(page.records[0].record.outcome, Outcome::Refused, "{parameters:?}");
        assert_eq!(page.records[0].record.code.as_str(), code);
    }
    let details = json!([{
        "type": "rootbound_action", "actions": ["read"], "resource": { "type": "database", "id": "orders" },
    }]);
    let answer =
        ask(&[credentials, ("audience", API), ("authorization_details", &details.to_string())]).await;
    assert_eq!(granted(&answer)["authorization_details"], details);
}

#[tokio::test]
async fn a_node_that_may_have_nothing_gets_no_token() {
    let server = Server::new().await;
    type Change = fn(&mut LiveNode);
    let changes: [(&str, Change); 3] = [
        ("posture_contraindicated", drift),
        ("posture_stale", |live| posture(live).evidence_at = Timestamp::from_millis(0)),
        ("posture_unknown", |live| live.posture = None),
    ];
    for (code, change) in changes {
        live(&server.stage, &server.node, change);
        let answer = server.by_node(form(TOKEN, &deploy())).await;
        assert_eq!(refused(&answer), ("unauthorized_client", code));
    }
    // Fresh for a second more: a token would expire on its way.
    let now = server.stage.clock.now();
    live(&server.stage, &server.node, |live| {
        let posture = posture(live);
        posture.evidence_at = now.minus(posture.fresh_for).plus(Duration::from_secs(1));
    });
    let answer = server.by_node(form(TOKEN, &deploy())).await;
    assert_eq!(refused(&answer), ("unauthorized_client", "posture_nearly_stale"));
}

#[tokio::test]
async fn a_proof_by_the_key_of_the_connection_binds_the_token_and_serves_as_long_as_its_nonce() {
    let server = Server::new().await;
    let key = ProofKey::of(&server.node);
    let without = key.sign(
        &json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": key.jwk() }),
        &json!({ "jti": "a", "htm": "POST", "htu": format!("{ISSUER}{TOKEN}"), "iat": server.now() }),
    );
    let answer = server.by_node(with_proof(form(TOKEN, &deploy()), &without)).await;
    assert_eq!(refused(&answer), ("use_dpop_nonce", "dpop_nonce_missing"));
    let nonce = answer.headers["dpop-nonce"].to_str().unwrap().to_owned();
    let proof = key.proof(&server, &nonce, "b");
    let mut tokens = Vec::new();
    for _ in 0..3 {
        let answer = server.by_node(with_proof(form(TOKEN, &deploy()), &proof)).await;
        assert_eq!(granted(&answer)["token_type"], "DPoP");
        assert!(answer.headers.contains_key("dpop-nonce"));
        tokens.push(text(&answer.body["access_token"]));
    }
    let claims = server.claims(&tokens[0], "at+jwt", "/.well-known/jwks.json").await.unwrap();
    assert_eq!(claims["cnf"], json!({ "jkt": key.thumbprint() }));
    assert_eq!(server.introspect(&server.secret, &tokens[2]).await["token_type"], "DPoP");

    server.stage.clock.advance(Duration::from_secs(121));
    let answer = server.by_node(with_proof(form(TOKEN, &deploy()), &proof)).await;
    assert_eq!(refused(&answer), ("use_dpop_nonce", "dpop_nonce_stale"));
}

#[tokio::test]
async fn a_proof_by_another_key_counts_once_and_only_where_a_policy_says_that_software_keys_do() {
    let key = ProofKey::new();
    let server = Server::new().await;
    let proof = key.proof(&server, &server.nonce().await, "a");
    let answer = server.by_node(with_proof(form(TOKEN, &deploy()), &proof)).await;
    assert_eq!(refused(&answer), ("unauthorized_client", "no_policy_permits"));

    let server = Server::permissive().await;
    let proof = key.proof(&server, &server.nonce().await, "a");
    let answer = server.by_node(with_proof(form(TOKEN, &deploy()), &proof)).await;
    assert_eq!(granted(&answer)["token_type"], "DPoP");
    let answer = server.by_node(with_proof(form(TOKEN, &deploy()), &proof)).await;
    assert_eq!(refused(&answer), ("invalid_dpop_proof", "dpop_replayed"));
    let twice = with_proof(with_proof(form(TOKEN, &deploy()), &proof), &proof);
    assert_eq!(refused(&server.by_node(twice).await), ("invalid_dpop_proof", "dpop_several"));
}

#[tokio::test]
async fn a_jwt_svid_is_for_whom_a_policy_says_and_as_an_assertion_it_needs_the_key_that_it_names() {
    let svid = |audience: &'static str| {
        vec![("grant_type", "client_credentials"), ("requested_token_type", JWT), ("audience", audience)]
    };
    let server = Server::new().await;
    let answer = server.by_node(form(TOKEN, &svid("vault"))).await;
    assert_eq!(refused(&answer), ("unauthorized_client", "no_policy_permits"));

    let server = Server::permissive().await;
    let answer = server.by_node(form(TOKEN, &svid("vault"))).await;
    let body = granted(&answer);
    assert_eq!((&body["token_type"], &body["issued_token_type"]), (&json!("N_A"), &json!(JWT)));
    let for_vault = text(&body["access_token"]);
    let claims = server.claims(&for_vault, "JWT", "/.well-known/jwks-svid.json").await.unwrap();
    assert_eq!(
        (&claims["aud"], &claims["sub"]),
        (&json!("vault"), &json!(domain().node(node(1)).to_string()))
    );
    assert!(
        server.claims(&for_vault, "JWT", "/.well-known/jwks.json").await.is_none(),
        "who verifies access tokens has no key for it"
    );
    assert!(!server.is_active(&for_vault).await, "it is no access token");
    let scoped = [&svid(API)[..], &[("scope", "deploy")]].concat();
    assert_eq!(
        refused(&server.by_node(form(TOKEN, &scoped)).await),
        ("invalid_request", "svid_permits_nothing")
    );

    // As an assertion, from anywhere, with a proof by the key that it names.
    let assertion = text(&granted(&server.by_node(form(TOKEN, &svid(ISSUER))).await)["access_token"]);
    let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe";
    let asserted = |assertion: &str| {
        let mut parameters = deploy();
        let shown = [("client_assertion_type", kind), ("client_assertion", assertion)];
        parameters.extend(shown.map(|(name, value)| (name, &*String::leak(value.to_owned()))));
        form(TOKEN, &parameters)
    };
    let answer = ask(&server.stage, asserted(&for_vault)).await;
    assert_eq!(refused(&answer), ("invalid_client", "jwt_audience_wrong"));
    let answer = ask(&server.stage, asserted(&assertion)).await;
    assert_eq!(refused(&answer), ("invalid_client", "assertion_unproven"));
    let nonce = server.nonce().await;
    let stolen = ProofKey::new().proof(&server, &nonce, "a");
    let answer = ask(&server.stage, with_proof(asserted(&assertion), &stolen)).await;
    assert_eq!(refused(&answer), ("invalid_client", "assertion_unproven"));
    let own = ProofKey::of(&server.node).proof(&server, &nonce, "b");
    let answer = ask(&server.stage, with_proof(asserted(&assertion), &own)).await;
    assert_eq!(granted(&answer)["token_type"], "DPoP");
    let answer = ask(&server.stage, with_proof(asserted(&assertion), &own)).await;
    assert_eq!(refused(&answer), ("invalid_dpop_proof", "dpop_replayed"), "no connection vouches for it");
    let answer = ask(&server.stage, asserted("a.b.c")).await;
    assert_eq!(refused(&answer).0, "invalid_client");

    let filter = TokenFilter { audience: Some(ISSUER.to_owned()), ..TokenFilter::default() };
    server.stage.verifier.revoke_tokens(&filter, &operator()).await.unwrap();
    let answer = ask(&server.stage, asserted(&assertion)).await;
    assert_eq!(refused(&answer), ("invalid_client", "assertion_revoked"));
    let assertion = text(&granted(&server.by_node(form(TOKEN, &svid(ISSUER))).await)["access_token"]);
    live(&server.stage, &server.node, drift);
    let answer = ask(&server.stage, asserted(&assertion)).await;
    assert_eq!(refused(&answer), ("invalid_client", "assertion_drifted"));
    server.stage.verifier.fleet().remove(node(1));
    let answer = ask(&server.stage, asserted(&assertion)).await;
    assert_eq!(refused(&answer), ("invalid_client", "assertion_subject"));
    let page = server.stage.verifier.store().records(&RecordFilter::default(), None, 10).await.unwrap();
    let codes: Vec<_> = page.records.iter().map(|one| one.record.code.as_str()).collect();
    assert_eq!(codes[..2], ["assertion_subject", "assertion_drifted"], "what we signed is on record");
}

#[tokio::test]
async fn whom_a_token_is_for_may_exchange_it_within_what_it_permits() {
    let server = Server::permissive().await;
    let token = server.token().await;
    let answer = server.by_api(form(TOKEN, &exchange(&token, API, "deploy"))).await;
    let claims = server
        .claims(&text(&granted(&answer)["access_token"]), "at+jwt", "/.well-known/jwks.json")
        .await
        .unwrap();
    assert_eq!(claims["sub"], domain().node(node(1)).to_string());
    assert_eq!((&claims["act"], &claims["client_id"]), (&json!({ "sub": "api" }), &json!("api")));
    let certificate = BASE64URL_NOPAD.encode(&sha256(&[&server.api.chain[0]]));
    assert_eq!(claims["cnf"], json!({ "x5t#S256": certificate }));

    let answer = server.by_api(form(TOKEN, &exchange(&token, API, "deploy read"))).await;
    assert_eq!(refused(&answer), ("invalid_scope", "exchange_widened"));
    let others = bearer(&server.other, form(TOKEN, &exchange(&token, API, "deploy")));
    let answer = ask(&server.stage, others).await;
    assert_eq!(refused(&answer), ("invalid_request", "subject_token_of_others"));

    let answer = server.by_api(form(TOKEN, &exchange("a.b.c", API, "deploy"))).await;
    assert_eq!(refused(&answer).0, "invalid_request");
    let svid = [&exchange(&token, API, "")[..], &[("requested_token_type", JWT)]].concat();
    assert_eq!(refused(&server.by_api(form(TOKEN, &svid)).await), ("unauthorized_client", "svid_for_other"));

    // A thief with the token and no key of it has nothing to exchange.
    let thief = server.stage.ca.sign(domain().node(node(1)).as_str(), server.stage.clock.now());
    live(&server.stage, &thief, |_| {});
    let answer =
        request(&server.stage, Some(&thief), form(TOKEN, &exchange(&token, API, "deploy"))).await.unwrap();
    assert_eq!(refused(&answer), ("invalid_request", "subject_token_unproven"));
    live(&server.stage, &server.node, drift);
    let answer = server.by_api(form(TOKEN, &exchange(&token, API, "deploy"))).await;
    assert_eq!(refused(&answer), ("invalid_request", "token_drifted"));
}

#[tokio::test]
async fn a_relying_party_has_no_posture_and_gets_no_token_of_its_own() {
    let server = Server::permissive().await;
    let answer = server.by_api(form(TOKEN, &deploy())).await;
    assert_eq!(refused(&answer), ("unauthorized_client", "client_not_a_node"));
    // Nor one of the node's, where no policy lets it act for it.
    let server = Server::with(&[UNBOUND]).await;
    let parameters = [("grant_type", "client_credentials"), ("audience", "other"), ("scope", "hop")];
    let token = text(&granted(&server.by_node(form(TOKEN, &parameters)).await)["access_token"]);
    let message = bearer(&server.other, form(TOKEN, &exchange(&token, API, "hop")));
    assert_eq!(refused(&ask(&server.stage, message).await), ("invalid_target", "no_policy_permits"));
}

#[tokio::test]
async fn a_token_does_not_go_in_circles() {
    let server = Server::permissive().await;
    const OTHER: &str = "https://other.example.org";
    let token = server.token().await;
    let exchanged =
        async |message| text(&granted(&request(&server.stage, None, message).await.unwrap())["access_token"]);
    let by_api = |token: &str, audience: &str| {
        bearer(&server.secret, form(TOKEN, &exchange(token, audience, "deploy")))
    };
    let by_other = |token: &str, audience: &str| {
        bearer(&server.other, form(TOKEN, &exchange(token, audience, "deploy")))
    };
    let to_other = exchanged(by_api(&token, OTHER)).await;
    let back = exchanged(by_other(&to_other, API)).await;
    let claims = server.claims(&back, "at+jwt", "/.well-known/jwks.json").await.unwrap();
    assert_eq!(claims["act"], json!({ "sub": "other", "act": { "sub": "api" } }));
    let answer = ask(&server.stage, by_api(&back, OTHER)).await;
    assert_eq!(refused(&answer), ("invalid_request", "exchange_loop"));
}

#[tokio::test]
async fn a_token_passes_through_four_actors_at_most_and_never_lives_longer_than_the_first() {
    let server = Server::permissive().await;
    let name = |number: u8| domain().node(node(number)).to_string();
    let first = [("grant_type", "client_credentials"), ("audience", &*name(2)), ("scope", "hop")];
    let mut token = text(&granted(&server.by_node(form(TOKEN, &first)).await)["access_token"]);
    let expires = server.claims(&token, "at+jwt", "/.well-known/jwks.json").await.unwrap()["exp"].clone();
    for number in 2..=5 {
        server.stage.clock.advance(Duration::from_secs(1));
        let leaf = server.another(number);
        let message = form(TOKEN, &exchange(&token, &name(number + 1), "hop"));
        let answer = request(&server.stage, Some(&leaf), message).await.unwrap();
        token = text(&granted(&answer)["access_token"]);
        let claims = server.claims(&token, "at+jwt", "/.well-known/jwks.json").await.unwrap();
        assert_eq!((&claims["act"]["sub"], &claims["exp"]), (&json!(name(number)), &expires));
    }
    let leaf = server.another(6);
    let message = form(TOKEN, &exchange(&token, API, "hop"));
    let answer = request(&server.stage, Some(&leaf), message).await.unwrap();
    assert_eq!(refused(&answer), ("invalid_request", "exchange_too_deep"));
}

#[tokio::test]
async fn a_client_says_once_and_in_one_way_who_it_is() {
    let server = Server::new().await;
    let message = || form(INTROSPECT, &[("token", "x")]);
    for message in [
        basic("api", &server.secret, message()),
        form(INTROSPECT, &[("token", "x"), ("client_id", "api"), ("client_secret", &server.secret.reveal())]),
        bearer(&server.secret, message()),
    ] {
        assert_eq!(ask(&server.stage, message).await.body, json!({ "active": false }));
    }
    let answer = ask(&server.stage, message()).await;
    assert_eq!(refused(&answer), ("invalid_client", "client_unauthenticated"));
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    assert!(answer.headers.contains_key("www-authenticate"));
    let answer = ask(&server.stage, basic("other", &server.secret, message())).await;
    assert_eq!(refused(&answer), ("invalid_client", "client_id_of_other"));
    let answer = server.by_node(form(TOKEN, &[&deploy()[..], &[("client_id", "api")]].concat())).await;
    assert_eq!(refused(&answer), ("invalid_client", "client_id_of_other"));
    let own = domain().node(node(1)).to_string();
    let answer = server.by_node(form(TOKEN, &[&deploy()[..], &[("client_id", &own)]].concat())).await;
    granted(&answer);
    let answer = server.by_node(basic("api", &server.secret, message())).await;
    assert_eq!(refused(&answer), ("invalid_request", "client_authentication_twice"));
    let unknown = BearerToken::generate(&mut random::system());
    let answer = ask(&server.stage, basic("api", &unknown, message())).await;
    assert_eq!(refused(&answer), ("invalid_client", "token_unknown"));
    let malformed = with(message(), "authorization", "Basic x");
    assert_eq!(refused(&ask(&server.stage, malformed).await), ("invalid_client", "client_secret_malformed"));
    let half = form(INTROSPECT, &[("token", "x"), ("client_assertion", "y")]);
    assert_eq!(refused(&ask(&server.stage, half).await), ("invalid_request", "client_assertion_type"));
}

#[tokio::test]
async fn requests_that_are_none_say_why() {
    let server = Server::new().await;
    let credentials = ("grant_type", "client_credentials");
    for (parameters, error, code) in [
        (vec![("audience", API)], "invalid_request", "form_malformed"),
        (vec![("grant_type", "password")], "unsupported_grant_type", "grant_type"),
        (vec![credentials, credentials, ("audience", API)], "invalid_request", "form_malformed"),
        (vec![credentials], "invalid_target", "token_audience_missing"),
        (vec![credentials, ("audience", "a b")], "invalid_target", "token_audience_malformed"),
        (vec![credentials, ("audience", "a"), ("audience", "a")], "invalid_target", "token_audience_twice"),
        (vec![credentials, ("resource", "no-uri")], "invalid_target", "token_resource_malformed"),
        (vec![credentials, ("resource", "https://a/#b")], "invalid_target", "token_resource_malformed"),
        (vec![credentials, ("audience", API), ("scope", "a  b")], "invalid_scope", "token_scope_malformed"),
        (
            vec![credentials, ("audience", API), ("authorization_details", "[{\"type\":\"x\"}]")],
            "invalid_authorization_details",
            "authorization_details_malformed",
        ),
        (
            vec![
                credentials,
                ("audience", API),
                ("authorization_details", "[{\"type\":\"a\",\"type\":\"b\"}]"),
            ],
            "invalid_authorization_details",
            "authorization_details_malformed",
        ),
        (vec![credentials, ("audience", API), ("one_time", "yes")], "invalid_request", "one_time"),
        (
            vec![credentials, ("audience", API), ("requested_token_type", "x")],
            "invalid_request",
            "requested_token_type",
        ),
        (
            vec![credentials, ("audience", API), ("subject_token", "x")],
            "invalid_request",
            "subject_token_misplaced",
        ),
        (vec![credentials, ("audience", API), ("actor_token", "x")], "invalid_request", "actor_token"),
        (vec![("grant_type", EXCHANGE), ("audience", API)], "invalid_request", "subject_token_missing"),
        (
            vec![
                ("grant_type", EXCHANGE),
                ("audience", API),
                ("subject_token", "x"),
                ("subject_token_type", JWT),
            ],
            "invalid_request",
            "subject_token_type",
        ),
        (vec![credentials, ("audience", API), ("x", "1"), ("x", "2")], "invalid_request", "form_malformed"),
    ] {
        let answer = server.by_node(form(TOKEN, &parameters)).await;
        assert_eq!(refused(&answer), (error, code), "{parameters:?}");
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    }
    let answer = server.by_node(raw(TOKEN, "grant_type=%zz".to_owned())).await;
    assert_eq!(refused(&answer), ("invalid_request", "form_malformed"));
    let json = super::super::client::post(TOKEN, "{}");
    assert_eq!(refused(&server.by_node(json).await), ("invalid_request", "content_type"));
    let long = raw(TOKEN, format!("grant_type={}", "x".repeat(40_000)));
    assert_eq!(refused(&server.by_node(long).await), ("invalid_request", "body_too_large"));
}

//! What a token is worth, and until when.

use std::time::Duration;

use rootbound_verifier::flows::caller::Caller;
use rootbound_verifier::flows::tokens::live::UseError;
use rootbound_verifier::http::{Limits, Rate};
use rootbound_verifier::store::RecordFilter;
use rootbound_verifier::store::tokens::TokenFilter;

use super::super::admission::drift;
use super::super::client::ask;
use super::*;

#[tokio::test]
async fn a_token_is_worth_nothing_to_others_than_it_is_for() {
    let server = Server::new().await;
    let token = server.token().await;
    let answer = server.introspect(&server.secret, &token).await;
    assert_eq!((&answer["active"], &answer["aud"]), (&json!(true), &json!(API)));
    assert_eq!(answer["sub"], domain().node(node(1)).to_string());
    for nobody in [&server.other, &server.blind] {
        assert_eq!(server.introspect(nobody, &token).await, json!({ "active": false }));
    }
    let own = server.by_node(form(INTROSPECT, &[("token", &token)])).await;
    assert_eq!(own.body, json!({ "active": false }), "it is not for the node itself");
    for no_token in ["x", "a.b.c", &token[..token.len() - 2], &format!("{token}A")] {
        assert_eq!(
            server.introspect(&server.secret, no_token).await,
            json!({ "active": false }),
            "{no_token}"
        );
    }
    let answer = ask(&server.stage, bearer(&server.secret, form(INTROSPECT, &[]))).await;
    assert_eq!(refused(&answer), ("invalid_request", "form_malformed"), "there is none");
}

#[tokio::test]
async fn a_token_dies_with_the_posture_at_once_and_does_not_come_back() {
    let server = Server::new().await;
    let token = server.token().await;
    assert!(server.is_active(&token).await);
    live(&server.stage, &server.node, drift);
    assert!(!server.is_active(&token).await);
    live(&server.stage, &server.node, |_| {});
    assert!(!server.is_active(&token).await, "what was handed out before the drift counts no more");
    assert!(server.is_active(&server.token().await).await);
}

#[tokio::test]
async fn a_token_ends_with_its_time_and_with_the_freshness_of_the_evidence() {
    let server = Server::new().await;
    let token = server.token().await;
    server.stage.clock.advance(Duration::from_secs(179));
    assert!(server.is_active(&token).await);
    server.stage.clock.advance(Duration::from_secs(1));
    assert!(!server.is_active(&token).await);
}

#[tokio::test]
async fn a_client_gives_back_its_own_tokens_only() {
    let server = Server::permissive().await;
    let token = server.token().await;
    let answer = server.by_api(form(REVOKE, &[("token", &token)])).await;
    assert_eq!(refused(&answer), ("unauthorized_client", "token_of_other_client"));
    assert!(server.is_active(&token).await);
    let revoke = || form(REVOKE, &[("token", &token), ("token_type_hint", "access_token")]);
    for _ in 0..2 {
        let answer = server.by_node(revoke()).await;
        assert_eq!((answer.status, answer.bytes.len()), (StatusCode::OK, 0));
        assert!(!server.is_active(&token).await);
    }
    let answer = server.by_node(form(REVOKE, &[("token", "nothing")])).await;
    assert_eq!(answer.status, StatusCode::OK, "RFC 7009, 2.2");
    let answer = server.by_api(form(TOKEN, &exchange(&token, API, "deploy"))).await;
    assert_eq!(refused(&answer), ("invalid_request", "token_revoked"));
}

#[tokio::test]
async fn a_token_for_one_use_is_used_up_by_the_first_who_asks_and_is_not_exchanged() {
    let server = Server::permissive().await;
    let once = [&deploy()[..], &[("one_time", "true")]].concat();
    let token = text(&granted(&server.by_node(form(TOKEN, &once)).await)["access_token"]);
    let answer = server.by_api(form(TOKEN, &exchange(&token, API, "deploy"))).await;
    assert_eq!(refused(&answer), ("invalid_request", "subject_token_once"));
    assert_eq!(server.introspect(&server.other, &token).await, json!({ "active": false }));
    assert!(server.is_active(&token).await, "who may not use it does not use it up");
    assert!(!server.is_active(&token).await);
    let list = server.stage.verifier.list_tokens(&TokenFilter::default(), 10).await.unwrap();
    assert!(list[0].once && list[0].spent_at.is_some());
}

/// To the one who asks it is not active; the log, and gateways, are told why.
#[tokio::test]
async fn why_a_token_is_not_used_is_known_inside() {
    let server = Server::new().await;
    let once = [&deploy()[..], &[("one_time", "true")]].concat();
    let token = text(&granted(&server.by_node(form(TOKEN, &once)).await)["access_token"]);
    let verifier = &server.stage.verifier;
    let refused = async |by: &BearerToken| {
        let party = verifier.relying_parties().identify_by_token(by).unwrap();
        match verifier.use_token(&Caller::RelyingParty(party), &token).await {
            Ok(used) => {
                assert_eq!(used.token().node(), node(1));
                None
            }
            Err(UseError::Refused(refusal)) => Some(refusal.code()),
            Err(UseError::Store(error)) => panic!("{error}"),
        }
    };
    assert_eq!(refused(&server.other).await, Some("token_other_audience"));
    assert_eq!(refused(&server.secret).await, None);
    assert_eq!(refused(&server.secret).await, Some("token_spent"));
}

#[tokio::test]
async fn of_many_who_use_a_token_for_one_use_at_once_one_may() {
    let server = Server::new().await;
    let once = [&deploy()[..], &[("one_time", "true")]].concat();
    let token = text(&granted(&server.by_node(form(TOKEN, &once)).await)["access_token"]);
    let mut all = Vec::new();
    for _ in 0..8 {
        let mut http = Http::connect(&server.stage, None).await.unwrap();
        let message = bearer(&server.secret, form(INTROSPECT, &[("token", &token)]));
        all.push(tokio::spawn(async move { http.send(message).await.unwrap().body }));
    }
    let mut active = 0;
    for one in all {
        active += usize::from(one.await.unwrap()["active"] == json!(true));
    }
    assert_eq!(active, 1);
}

#[tokio::test]
async fn an_operator_ends_tokens_by_what_they_are_and_never_all_by_a_slip() {
    let server = Server::new().await;
    let (first, second) = (server.token().await, server.token().await);
    let verifier = &server.stage.verifier;
    let by = |client: Option<&str>, audience: Option<&str>| TokenFilter {
        client: client.map(str::to_owned),
        audience: audience.map(str::to_owned),
        ..TokenFilter::default()
    };
    let refused = verifier.revoke_tokens(&TokenFilter::default(), &operator()).await.unwrap_err();
    assert_eq!(refused.code(), "token_filter_missing");
    for nothing in [by(Some("api"), None), by(None, Some("https://api.example")), by(Some("x"), Some(API))] {
        assert!(verifier.revoke_tokens(&nothing, &operator()).await.unwrap().is_empty());
    }
    let newest = verifier.list_tokens(&by(None, Some(API)), 1).await.unwrap();
    let id = TokenFilter { id: Some(newest[0].id.clone()), ..TokenFilter::default() };
    assert_eq!(verifier.revoke_tokens(&id, &operator()).await.unwrap(), [newest[0].id.clone()]);
    assert!(server.is_active(&first).await && !server.is_active(&second).await);
    let node = TokenFilter { node: Some(node(1)), ..TokenFilter::default() };
    assert_eq!(verifier.revoke_tokens(&node, &operator()).await.unwrap().len(), 1);
    assert!(!server.is_active(&first).await);
}

#[tokio::test]
async fn keys_follow_each_other_and_one_in_wrong_hands_ends_its_tokens() {
    let server = Server::new().await;
    let verifier = &server.stage.verifier;
    let token = server.token().await;
    let early = verifier.rotate_token_keys(false, &operator()).await.unwrap_err();
    assert_eq!(early.code(), "token_keys_refused");
    assert!(server.is_active(&token).await);
    live(&server.stage, &server.node, |_| {});
    let second = server.token().await;
    server.stage.clock.advance(Duration::from_secs(60));
    let lists = verifier.rotate_token_keys(true, &operator()).await.unwrap();
    assert_eq!(lists.access.len(), 2);
    assert!(!server.is_active(&second).await, "its key is gone");
    assert!(server.is_active(&server.token().await).await);
}

#[tokio::test]
async fn introspection_is_signed_for_who_wants_it() {
    let server = Server::new().await;
    let token = server.token().await;
    let wanted = "application/token-introspection+jwt";
    let message = with(bearer(&server.secret, form(INTROSPECT, &[("token", &token)])), "accept", wanted);
    let answer = ask(&server.stage, message).await;
    assert_eq!((answer.status, answer.headers["content-type"].to_str().unwrap()), (StatusCode::OK, wanted));
    let signed = std::str::from_utf8(&answer.bytes).unwrap();
    let claims = server
        .claims(signed, "token-introspection+jwt", "/.well-known/jwks.json")
        .await
        .expect("a signature");
    assert_eq!((&claims["iss"], &claims["aud"]), (&json!(ISSUER), &json!("api")));
    assert_eq!(claims["token_introspection"]["active"], true);
    assert!(!server.is_active(signed).await, "what is signed by the same key is no token");
}

#[tokio::test]
async fn metadata_name_what_is_there() {
    let server = Server::new().await;
    let read = async |path: &str| ask(&server.stage, get(path)).await.body;
    let metadata = read("/.well-known/oauth-authorization-server").await;
    assert_eq!(metadata["issuer"], ISSUER);
    for (member, path) in [
        ("token_endpoint", TOKEN),
        ("introspection_endpoint", INTROSPECT),
        ("revocation_endpoint", REVOKE),
        ("jwks_uri", "/.well-known/jwks.json"),
    ] {
        assert_eq!(metadata[member], format!("{ISSUER}{path}"));
    }
    let discovery = read("/.well-known/openid-configuration").await;
    assert_eq!(discovery["issuer"], ISSUER);
    assert_eq!(discovery["jwks_uri"], format!("{ISSUER}/.well-known/jwks-svid.json"));
    let bundle = read("/.well-known/spiffe-bundle").await;
    let root = BASE64.encode(&server.stage.ca.certificate());
    assert_eq!((&bundle["keys"][0]["use"], &bundle["keys"][0]["x5c"]), (&json!("x509-svid"), &json!([root])));
    let svids = read("/.well-known/jwks-svid.json").await;
    let kids = |keys: &Value, used: &str| {
        let keys = keys["keys"].as_array().unwrap().iter().filter(|key| key["use"] == used);
        keys.map(|key| text(&key["kid"])).collect::<Vec<_>>()
    };
    assert_eq!(kids(&bundle, "jwt-svid"), kids(&svids, "sig"));

    // Where the operator has not said under which URL clients come, there are no tokens.
    let stage = Stage::new().await;
    for path in ["/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"] {
        assert_eq!(ask(&stage, get(path)).await.code(), "no_public_url");
    }
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    live(&stage, &leaf, |_| {});
    let answer = request(&stage, Some(&leaf), form(TOKEN, &deploy())).await.unwrap();
    assert_eq!(refused(&answer), ("invalid_request", "no_public_url"));
}

/// Resource servers ask thousands of times, with the secret in the way that they know.
#[tokio::test]
async fn a_known_secret_counts_as_that_of_somebody_whom_we_know_and_an_unknown_one_is_recorded() {
    let few = Limits { queries: Rate::new(1, 3), ..limits() };
    let server = Server::within(few).await;
    let message = || form(INTROSPECT, &[("token", "x")]);
    let mut http = Http::connect(&server.stage, None).await.unwrap();
    for _ in 0..10 {
        let answer = http.send(basic("api", &server.secret, message())).await.unwrap();
        assert_eq!(answer.body, json!({ "active": false }));
    }
    let stranger = BearerToken::generate(&mut random::system());
    for _ in 0..3 {
        let answer = http.send(basic("api", &stranger, message())).await.unwrap();
        assert_eq!(refused(&answer), ("invalid_client", "token_unknown"));
    }
    let answer = http.send(basic("api", &stranger, message())).await.unwrap();
    assert_eq!(refused(&answer), ("temporarily_unavailable", "rate_limited"));
    let page = server.stage.verifier.store().records(&RecordFilter::default(), None, 10).await.unwrap();
    let recorded = page.records.iter().filter(|one| one.record.code.as_str() == "token_unknown").count();
    assert_eq!(recorded, 3);
}

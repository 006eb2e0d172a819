//! Relying parties that have a token and no certificate, over real TLS.

use data_encoding::BASE64URL_NOPAD;
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use rootbound_common::clock::Clock as _;
use rootbound_common::crypto::sha256;
use rootbound_common::random;
use rootbound_verifier::audit::{Actor, AuditRecord};
use rootbound_verifier::http::{Limits, Rate};
use rootbound_verifier::node::Labels;
use rootbound_verifier::relying_party::token::{BearerToken, TokenHash};
use rootbound_verifier::relying_party::{MaySignal, RelyingParties, RelyingPartySection};
use rootbound_verifier::store::RecordFilter;
use serde_json::{Value, json};

use super::administration::Program;
use super::admission::live;
use super::client::{Answer, Http, ask, get, post, request};
use super::results::{GATEWAY, Parties};
use super::stage::{Stage, domain, limits, node};

const EVALUATION: &str = "/access/v1/evaluation";
const SIGNALS: &str = "/v1/signals";

fn token() -> BearerToken {
    BearerToken::generate(&mut random::system())
}

/// One that may read what has `env=test`, and block it.
fn known_by(name: &str, tokens: &[&BearerToken]) -> RelyingPartySection {
    let mut match_labels = Labels::default();
    match_labels.set("env".parse().unwrap(), Some("test".parse().unwrap())).unwrap();
    RelyingPartySection {
        name: name.parse().unwrap(),
        ca: None,
        accepted_names: Vec::new(),
        match_labels,
        may_signal: vec![MaySignal::Block],
        audiences: Vec::new(),
        token_sha256: tokens.iter().map(|token| token.hash()).collect(),
    }
}

fn ear() -> Request<Full<Bytes>> {
    get(&format!("/v1/nodes/{}/ear", node(1)))
}

/// May node 1 have a credential? It may while it is affirming.
fn evaluation() -> Request<Full<Bytes>> {
    let question = json!({
        "subject": { "type": "node", "id": node(1).to_string() },
        "action": { "name": "IssueCredential" },
        "resource": { "type": "credential", "id": "x509-svid" },
    });
    post(EVALUATION, question.to_string())
}

fn signal(id: &str) -> Request<Full<Bytes>> {
    let signal =
        json!({ "id": id, "node": node(1).to_string(), "kind": "block", "reason": "found something" });
    post(SIGNALS, signal.to_string())
}

fn with(mut message: Request<Full<Bytes>>, field: &str) -> Request<Full<Bytes>> {
    message.headers_mut().append("authorization", field.parse().unwrap());
    message
}

fn by(token: &BearerToken, message: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    with(message, &format!("Bearer {}", *token.reveal()))
}

/// The code of a problem document, or of an error of AuthZEN.
fn code(answer: &Answer) -> &str {
    match &answer.body {
        Value::String(message) => message.split_once(": ").unwrap().0,
        _ => answer.code(),
    }
}

fn challenges(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect()
}

/// A stage on which node 1 is affirming and has `env=test`.
async fn stage(sections: &[RelyingPartySection], limits: Limits) -> Stage {
    let stage = Stage::read_by_within(sections, limits).await;
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    live(&stage, &leaf, |_| {});
    stage
}

async fn trail(stage: &Stage) -> Vec<AuditRecord> {
    let page = stage.verifier.store().records(&RecordFilter::default(), None, 100).await.unwrap();
    page.records.into_iter().map(|record| record.record).collect()
}

#[tokio::test]
async fn who_has_a_token_asks_reads_and_signals_without_a_certificate_and_the_trail_says_so() {
    let (old, new) = (token(), token());
    let stage = stage(&[known_by("other", &[&token()]), known_by("tool", &[&old, &new])], limits()).await;
    for token in [&old, &new] {
        let answer = ask(&stage, by(token, evaluation())).await;
        assert_eq!((answer.status, &answer.body["decision"]), (StatusCode::OK, &json!(true)), "{answer:?}");
        let answer = ask(&stage, by(token, ear())).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    }
    let decided = &trail(&stage).await[0];
    assert_eq!(decided.actor, Actor::RelyingPartyByToken("tool".into()));

    // The scheme is of no case; a connection may bring several callers.
    let mut http = Http::connect(&stage, None).await.unwrap();
    let lower = with(evaluation(), &format!("bearer {}", *new.reveal()));
    assert_eq!(http.send(lower).await.unwrap().status, StatusCode::OK);
    assert_eq!(code(&http.send(evaluation()).await.unwrap()), "certificate_required");
}

#[tokio::test]
async fn a_signal_by_token_counts_as_the_relying_partys_and_says_how_it_came() {
    let token = token();
    let mut silent = known_by("silent", &[&self::token()]);
    silent.may_signal.clear();
    let mute = self::token();
    silent.token_sha256 = vec![mute.hash()];
    let stage = stage(&[known_by("tool", &[&token]), silent], limits()).await;
    let answer = ask(&stage, by(&mute, signal("1"))).await;
    assert_eq!((answer.status, code(&answer)), (StatusCode::FORBIDDEN, "signal_not_allowed"));
    // Of a node that memory alone has, the store knows nothing: it is the caller that is looked at here.
    let answer = ask(&stage, by(&token, signal("1"))).await;
    assert_eq!((answer.status, code(&answer)), (StatusCode::NOT_FOUND, "unknown_node"));
    let said: Vec<_> =
        trail(&stage).await.into_iter().filter(|record| record.action == "signal".into()).collect();
    assert_eq!(said.len(), 2, "{said:?}");
    assert_eq!(said[0].actor, Actor::RelyingPartyByToken("tool".into()));
    assert_eq!(said[1].actor, Actor::RelyingPartyByToken("silent".into()));
}

#[tokio::test]
async fn each_fault_of_a_token_has_its_code_and_its_challenge() {
    let token = token();
    let parties = Parties::new();
    let gateway = parties.section("gateway", GATEWAY, &[("env", "test")]);
    let stage = stage(&[gateway, known_by("tool", &[&token])], limits()).await;
    let good = format!("Bearer {}", *token.reveal());
    let stranger = format!("Bearer {}", *self::token().reveal());
    let (unauthorized, bad) = (StatusCode::UNAUTHORIZED, StatusCode::BAD_REQUEST);
    let (nothing, invalid) = ("Bearer", "Bearer error=\"invalid_token\"");
    let request_error = "Bearer error=\"invalid_request\"";
    for (fields, status, expected, challenge) in [
        (vec![], unauthorized, "certificate_required", nothing),
        (vec!["Basic dXNlcjpwYXNz"], unauthorized, "token_scheme", nothing),
        (vec!["Bearer abc"], unauthorized, "token_malformed", invalid),
        (vec![stranger.as_str()], unauthorized, "token_unknown", invalid),
        (vec![&good, &good], bad, "token_repeated", request_error),
        (vec![&good, &stranger], bad, "token_repeated", request_error),
    ] {
        for message in [evaluation(), ear(), signal("1"), post("/access/v1/search/subject", "{}")] {
            let path = message.uri().to_string();
            let message = fields.iter().fold(message, |message, field| with(message, field));
            let answer = ask(&stage, message).await;
            assert_eq!((answer.status, code(&answer)), (status, expected), "{path} {fields:?}");
            assert_eq!(challenges(&answer).last(), Some(&challenge), "{path} {fields:?}");
        }
    }
    // Whosever the certificate is, and whether or not the token is one.
    let ours = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    let theirs = parties.ca.sign(GATEWAY, stage.clock.now());
    for leaf in [&ours, &theirs] {
        for field in [good.as_str(), "Basic dXNlcjpwYXNz"] {
            for message in [evaluation(), ear(), signal("2")] {
                let answer = request(&stage, Some(leaf), with(message, field)).await.unwrap();
                assert_eq!((answer.status, code(&answer)), (bad, "token_and_certificate"));
                assert_eq!(challenges(&answer), [request_error]);
            }
        }
    }
    // Each by itself is well.
    assert_eq!(request(&stage, Some(&theirs), ear()).await.unwrap().status, StatusCode::OK);
    assert_eq!(ask(&stage, by(&token, ear())).await.status, StatusCode::OK);
    // A token makes no node.
    let answer = ask(&stage, by(&token, get("/v1/whoami"))).await;
    assert_eq!((answer.status, code(&answer)), (unauthorized, "certificate_required"));
    assert_eq!(challenges(&answer), ["TLS-Client-Certificate"], "it takes no token");
}

#[tokio::test]
async fn tokens_that_are_nobodys_count_as_strangers_and_are_on_record_but_not_in_it() {
    let known = token();
    let few = Limits { queries: Rate::new(1, 5), ..limits() };
    let stage = stage(&[known_by("tool", &[&known])], few).await;
    let wrong = token();
    let mut codes = Vec::new();
    for _ in 0..6 {
        let answer = ask(&stage, by(&wrong, evaluation())).await;
        codes.push(code(&answer).to_owned());
    }
    assert_eq!(codes[0], "token_unknown");
    assert_eq!(codes[5], "rate_limited", "{codes:?}");
    let answer = ask(&stage, by(&known, evaluation())).await;
    assert_eq!(
        (answer.status, &answer.body["decision"]),
        (StatusCode::OK, &json!(true)),
        "it has a rate of its own"
    );
    let records = trail(&stage).await;
    let refused = records.iter().filter(|record| record.code == "token_unknown".into()).count();
    assert!((1..=5).contains(&refused), "{refused}");
    let written = format!("{records:?}");
    for token in [&known, &wrong] {
        assert!(!written.contains(&*token.reveal()) && !written.contains(&token.hash().to_string()));
    }
}

#[test]
fn a_section_has_a_ca_or_a_token_and_no_token_twice() {
    let hash = token().hash().to_string();
    let section = |rest: &str| {
        let text = format!("name = \"a\"\nmatch_labels = {{}}\n{rest}");
        toml::from_str::<RelyingPartySection>(&text).map_err(|error| error.to_string())
    };
    let alone = section(&format!("token_sha256 = [\"{hash}\"]")).unwrap();
    assert_eq!(RelyingPartySection::check(std::slice::from_ref(&alone)), Ok(()));
    assert!(!RelyingParties::load(std::slice::from_ref(&alone), None).unwrap().is_empty());
    let five: Vec<_> = (0..5).map(|_| format!("\"{}\"", token().hash())).collect();
    for (rest, part) in [
        (String::new(), "`a`: a ca with accepted_names, token_sha256, or both"),
        ("ca = \"/c\"".to_owned(), "1 to 64 accepted_names"),
        (format!("accepted_names = [\"b\"]\ntoken_sha256 = [\"{hash}\"]"), "accepted_names without a ca"),
        (format!("token_sha256 = [\"{hash}\", \"{hash}\"]"), "a token_sha256 that is there already"),
        (format!("token_sha256 = [{}]", five.join(", ")), "at most 4 token_sha256"),
    ] {
        let why = RelyingPartySection::check(&[section(&rest).unwrap()]).unwrap_err();
        assert!(why.contains(part), "{rest}: {why}");
    }
    let other = RelyingPartySection { name: "b".parse().unwrap(), ..alone.clone() };
    assert!(RelyingPartySection::check(&[alone, other]).unwrap_err().contains("`b`: a token_sha256 that"));
    let upper = section(&format!("token_sha256 = [\"{}\"]", hash.to_uppercase())).unwrap_err();
    assert!(upper.contains("64 lower-case hex digits"), "{upper}");
}

#[test]
fn the_command_line_makes_a_token_without_a_daemon() {
    let program = Program::new();
    let made = || program.call(&["relying-party", "token", "--output", "json"]);
    let (one, other) = (made(), made());
    assert_eq!((one.code, other.code), (0, 0), "{}", one.err);
    assert_ne!(one.json()["token"], other.json()["token"]);
    let token = BASE64URL_NOPAD.decode(one.json()["token"].as_str().unwrap().as_bytes()).unwrap();
    assert_eq!(token.len(), 32);
    let hash = data_encoding::HEXLOWER.encode(&sha256(&[&token]));
    assert_eq!(one.json()["token_sha256"], json!(hash));
    assert!(TokenHash::try_from(hash).is_ok());
    let text = program.call(&["relying-party", "token"]).out;
    assert!(text.starts_with("token ") && text.contains("\ntoken_sha256 "), "{text}");
}

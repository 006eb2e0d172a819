//! Who may ask about whom, and what callers that mean no good can do.

use std::time::Duration;

use http::StatusCode;
use rootbound_common::clock::{Clock as _, Timestamp};
use rootbound_verifier::http::{Limits, Rate};
use rootbound_verifier::node::{Labels, Standing};
use rootbound_verifier::posture::LiveNode;
use serde_json::{Value, json};

use super::super::admission::{drift, live, posture};
use super::super::client::{Answer, Http, ask, get, post, request};
use super::super::stage::{Stage, domain, limits, node};
use super::{ALL, EVALUATION, EVALUATIONS, Point, SEARCH_SUBJECT, bundle, code, json as to, put_in_force};

/// A verifier whose policies are about nodes; node 1 is the gateway's to read, and affirming.
async fn of_nodes() -> Point {
    let point = Point::new().await;
    put_in_force(&point.stage.verifier, about_nodes()).await;
    live(&point.stage, &point.gateway, |_| {});
    point
}

fn about_nodes() -> rootbound_verifier::policy::BundleSource {
    bundle(include_str!("nodes.cedar"), include_str!("nodes.cedarschema"), "[]")
}

fn about(number: u8, action: &str) -> Value {
    json!({
        "subject": { "type": "node", "id": node(number).to_string() },
        "action": { "name": action },
        "resource": { "type": "database", "id": "orders" },
    })
}

fn refused(answer: &Answer) -> &str {
    assert_eq!((answer.status, &answer.body["decision"]), (StatusCode::OK, &json!(false)), "{answer:?}");
    answer.body["context"]["code"].as_str().unwrap()
}

fn allowed(answer: &Answer) {
    assert_eq!((answer.status, &answer.body["decision"]), (StatusCode::OK, &json!(true)), "{answer:?}");
}

/// What is left where only the decision's name and time differ.
fn anonymous(answer: &Answer) -> Value {
    let mut body = answer.body.clone();
    for name in ["id", "evaluated_at"] {
        assert!(body["context"].as_object_mut().unwrap().remove(name).is_some());
    }
    body
}

#[tokio::test]
async fn a_change_of_posture_is_seen_by_the_next_question() {
    type Change = fn(&mut LiveNode);
    let point = of_nodes().await;
    let mut http = point.connect().await;
    let changes: [(&str, Change); 4] = [
        ("posture_contraindicated", drift),
        ("posture_stale", |live| posture(live).evidence_at = Timestamp::from_millis(0)),
        ("posture_unknown", |live| live.posture = None),
        ("no_policy_permits", |live| {
            live.labels.set("env".parse().unwrap(), Some("prod".parse().unwrap())).unwrap();
        }),
    ];
    for (expected, change) in changes {
        live(&point.stage, &point.gateway, |_| {});
        allowed(&http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap());
        live(&point.stage, &point.gateway, change);
        let answer = http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap();
        if expected == "no_policy_permits" {
            // With the label the gateway lost it, too.
            assert_eq!(refused(&answer), "unknown_subject");
        } else {
            assert_eq!(refused(&answer), expected);
        }
    }
}

#[tokio::test]
async fn of_a_node_that_it_may_not_read_a_relying_party_hears_what_it_hears_of_none() {
    let point = of_nodes().await;
    let mut http = point.connect().await;
    let mut other = (*point.stage.verifier.fleet().node(node(1)).unwrap()).clone();
    other.labels = Labels::default();
    let mut bad = other.clone();
    drift(&mut bad);
    let fleet = point.stage.verifier.fleet();
    fleet.put(node(2), other, point.stage.clock.now());
    fleet.put(node(3), bad, point.stage.clock.now());
    let mut answers = Vec::new();
    for id in [node(2).to_string(), node(3).to_string(), node(4).to_string(), "no id".to_owned()] {
        let mut question = about(1, "db:write");
        question["subject"]["id"] = json!(id);
        let answer = http.send(to(EVALUATION, &question)).await.unwrap();
        assert_eq!(refused(&answer), "unknown_subject");
        answers.push(anonymous(&answer));
        question["action"]["name"] = json!("no such action");
        let answer = http.send(to(EVALUATION, &question)).await.unwrap();
        assert_eq!(refused(&answer), "unknown_subject", "whatever is asked");
    }
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");
}

#[tokio::test]
async fn a_node_asks_about_itself_however_it_stands_and_about_no_other() {
    let point = of_nodes().await;
    let stage = &point.stage;
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    live(stage, &leaf, |_| {});
    let other = (*stage.verifier.fleet().node(node(1)).unwrap()).clone();
    stage.verifier.fleet().put(node(2), other, stage.clock.now());
    let mut http = Http::connect(stage, Some(&leaf)).await.unwrap();
    allowed(&http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap());
    for number in [2, 3] {
        let answer = http.send(to(EVALUATION, &about(number, "db:write"))).await.unwrap();
        assert_eq!(refused(&answer), "unknown_subject");
        assert!(answer.body["context"].get("policy").is_none());
    }
    live(stage, &leaf, drift);
    let answer = http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap();
    assert_eq!(refused(&answer), "posture_contraindicated");
    live(stage, &leaf, |live| live.standing = Standing::Retired);
    let answer = http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap();
    assert_eq!((answer.status, code(&answer)), (StatusCode::FORBIDDEN, "node_retired"));
}

#[tokio::test]
async fn evidence_that_is_too_old_makes_an_obligation_and_no_permission() {
    let point = of_nodes().await;
    let mut http = point.connect().await;
    allowed(&http.send(to(EVALUATION, &about(1, "db:drop"))).await.unwrap());
    point.stage.clock.advance(Duration::from_secs(31));
    let answer = http.send(to(EVALUATION, &about(1, "db:drop"))).await.unwrap();
    assert_eq!(refused(&answer), "evidence_too_old");
    let obligation = &answer.body["context"]["obligations"][0];
    assert_eq!(obligation["properties"], json!({ "max_age_seconds": 30 }));
    allowed(&http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap());
}

#[tokio::test]
async fn a_search_for_nodes_finds_those_that_may_and_may_be_read() {
    let point = of_nodes().await;
    let mut http = point.connect().await;
    let question = json!({
        "subject": { "type": "node" },
        "action": { "name": "db:write" },
        "resource": { "type": "database", "id": "orders" },
    });
    // The store has no node: what is only in memory is not found, and nothing fails.
    let answer = http.send(to(SEARCH_SUBJECT, &question)).await.unwrap();
    assert_eq!((answer.status, &answer.body["results"]), (StatusCode::OK, &json!([])));
    assert_eq!(answer.body["page"], json!({ "next_token": "", "count": 0 }));
}

#[tokio::test]
async fn whoever_has_no_certificate_that_counts_is_told_before_its_body_is_read() {
    let point = of_nodes().await;
    let now = point.stage.clock.now();
    let not_known = point.parties.ca.sign("spiffe://partner.example/other", now);
    let unfit = point.stage.ca.sign("https://example.org/", now);
    for path in ALL {
        let answer = ask(&point.stage, post(path, "no JSON")).await;
        assert_eq!(
            (answer.status, code(&answer)),
            (StatusCode::UNAUTHORIZED, "certificate_required"),
            "{path}"
        );
        assert!(answer.headers.contains_key("www-authenticate"));
        let answer = request(&point.stage, Some(&unfit), post(path, "no JSON")).await.unwrap();
        assert_eq!((answer.status, code(&answer)), (StatusCode::FORBIDDEN, "svid_spiffe_id"), "{path}");
        let answer = request(&point.stage, Some(&not_known), post(path, "{}")).await.unwrap();
        assert_eq!(
            (answer.status, code(&answer)),
            (StatusCode::FORBIDDEN, "relying_party_unknown"),
            "{path}"
        );
    }
}

/// The finding on a certificate is kept for a second, and no longer.
#[tokio::test]
async fn a_relying_partys_certificate_is_judged_again_on_a_kept_connection() {
    let point = of_nodes().await;
    let mut http = point.connect().await;
    for _ in 0..3 {
        allowed(&http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap());
    }
    point.stage.clock.advance(Duration::from_secs(601));
    let answer = http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap();
    let expected = (StatusCode::FORBIDDEN, "relying_party_certificate_not_in_date");
    assert_eq!((answer.status, code(&answer)), expected);
}

#[tokio::test]
async fn hostile_bodies_are_refused_as_bad_requests() {
    let point = of_nodes().await;
    let mut http = point.connect().await;
    let good = about(1, "db:write").to_string();
    let with_context = |context: &str| format!("{},\"context\":{context}}}", &good[..good.len() - 1]);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let many = format!("[{}0]", "0,".repeat(20_000));
    for body in [
        good.replace("\"subject\":", "\"subject\":{},\"subject\":"),
        with_context(r#"{"a":1,"a":1}"#),
        with_context(r#"{"a":{"b":[{"c":1,"c":1}]}}"#),
        with_context(&deep),
        with_context(&format!("{{\"a\":{deep}}}")),
        format!("{good}{good}"),
        format!("\u{feff}{good}"),
    ] {
        for path in ALL {
            let answer = http.send(post(path, body.clone())).await.unwrap();
            let expected = (StatusCode::BAD_REQUEST, "body_malformed");
            assert_eq!((answer.status, code(&answer)), expected, "{path} {}", &body[..body.len().min(200)]);
        }
    }
    let many = with_context(&format!("{{\"a\":{many}}}"));
    let answer = http.send(post(EVALUATION, many)).await.unwrap();
    assert_eq!(
        (answer.status, code(&answer)),
        (StatusCode::BAD_REQUEST, "body_malformed"),
        "too many values"
    );
    for (question, expected) in [
        (json!({ "subject": { "type": "node", "id": "" } }), "question_name_empty"),
        (json!({ "subject": { "type": "node", "id": "a".repeat(2000) } }), "question_name_too_long"),
        (json!({ "context": { "list": vec![0; 1001] } }), "question_too_many_members"),
    ] {
        let mut body = about(1, "db:write");
        body.as_object_mut().unwrap().extend(question.as_object().unwrap().clone());
        let answer = http.send(to(EVALUATION, &body)).await.unwrap();
        assert_eq!((answer.status, code(&answer)), (StatusCode::BAD_REQUEST, expected));
        // In a batch it concerns its item alone.
        let mut good = about(1, "db:write");
        good["context"] = json!({});
        body["evaluations"] = json!([{}, good]);
        let answer = http.send(to(EVALUATIONS, &body)).await.unwrap();
        let items = &answer.body["evaluations"];
        assert_eq!(
            (&items[0]["decision"], &items[1]["decision"]),
            (&json!(false), &json!(true)),
            "{answer:?}"
        );
        assert_eq!(items[0]["context"]["code"], expected);
        assert_eq!(items[0]["context"]["error"]["status"], 400);
    }
    // Wrong for the action's schema: that is an answer.
    let mut body = about(1, "db:write");
    body["context"] = json!({ "amount": "much" });
    let answer = http.send(to(EVALUATION, &body)).await.unwrap();
    assert_eq!(refused(&answer), "request_does_not_fit_schema");
    let mut compressed = post(EVALUATION, good);
    compressed.headers_mut().insert("content-encoding", "gzip".parse().unwrap());
    let answer = http.send(compressed).await.unwrap();
    assert_eq!((answer.status, code(&answer)), (StatusCode::BAD_REQUEST, "content_encoding"));
}

#[tokio::test]
async fn long_bodies_and_long_batches_are_refused_at_once() {
    let point = of_nodes().await;
    let mut http = point.connect().await;
    let mut batch = about(1, "db:write");
    batch["evaluations"] = Value::from(vec![json!({}); 10_000]);
    let before = point.stage.verifier.store().trail_head().await.unwrap().sequence;
    let answer = http.send(to(EVALUATIONS, &batch)).await.unwrap();
    assert_eq!((answer.status, code(&answer)), (StatusCode::BAD_REQUEST, "body_malformed"));
    let after = point.stage.verifier.store().trail_head().await.unwrap().sequence;
    assert_eq!(after, before, "nothing is decided for it");
    batch["evaluations"] = Value::from(vec![json!({}); 1000]);
    let answer = http.send(to(EVALUATIONS, &batch)).await.unwrap();
    assert_eq!(answer.body["evaluations"].as_array().unwrap().len(), 1000);
    let pad = "x".repeat(100_000);
    let mut question = about(1, "db:write");
    question["padding"] = json!(pad);
    let answer = http.send(to(EVALUATIONS, &question)).await.unwrap();
    allowed(&answer);
    let answer = point.connect().await.send(to(EVALUATION, &question)).await.unwrap();
    assert_eq!((answer.status, code(&answer)), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
    question["padding"] = json!(pad.repeat(6));
    let answer = point.connect().await.send(to(EVALUATIONS, &question)).await.unwrap();
    assert_eq!((answer.status, code(&answer)), (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large"));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_not_allowed() {
    let point = of_nodes().await;
    let mut http = point.connect().await;
    allowed(&http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap());
    point.stage.store.close().await;
    for path in [EVALUATION, EVALUATIONS] {
        let mut body = about(1, "db:write");
        if path == EVALUATIONS {
            body["evaluations"] = json!([{}, {}]);
        }
        let answer = http.send(to(path, &body)).await.unwrap();
        assert_eq!((answer.status, code(&answer)), (StatusCode::SERVICE_UNAVAILABLE, "store_unavailable"));
        assert!(answer.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn decisions_have_a_rate_of_their_own() {
    let slow = Limits { evaluations: Rate::new(1, 2), ..limits() };
    let point = Point::with(slow).await;
    put_in_force(&point.stage.verifier, about_nodes()).await;
    live(&point.stage, &point.gateway, |_| {});
    let mut http = point.connect().await;
    for _ in 0..2 {
        allowed(&http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap());
    }
    let mut message = to(EVALUATION, &about(1, "db:write"));
    message.headers_mut().insert("x-request-id", "mine".parse().unwrap());
    let answer = http.send(message).await.unwrap();
    assert_eq!((answer.status, code(&answer)), (StatusCode::TOO_MANY_REQUESTS, "rate_limited"));
    assert!(answer.headers.contains_key("retry-after"));
    assert_eq!(answer.headers["x-request-id"], "mine");
    assert_eq!(ask(&point.stage, get("/healthz")).await.status, StatusCode::OK);
}

#[tokio::test]
async fn where_the_verifier_does_not_know_its_url_it_names_none() {
    let stage = Stage::new().await;
    let mut message = get("/.well-known/authzen-configuration");
    message.headers_mut().insert("host", "evil.example".parse().unwrap());
    let answer = ask(&stage, message).await;
    assert_eq!((answer.status, code(&answer)), (StatusCode::NOT_FOUND, "no_public_url"));
}

/// Two questions, one place, and a disk that takes its time.
#[tokio::test]
async fn under_overload_the_answer_is_a_fast_503_and_never_a_permission() {
    use sqlx::{Connection as _, SqliteConnection};

    let point = Point::with(Limits { max_evaluations: std::num::NonZeroU32::MIN, ..limits() }).await;
    put_in_force(&point.stage.verifier, about_nodes()).await;
    live(&point.stage, &point.gateway, |_| {});
    let database = format!("sqlite://{}", point.stage.folder().join("verifier.db").display());
    let mut disk = SqliteConnection::connect(&database).await.unwrap();
    sqlx::query("BEGIN IMMEDIATE").execute(&mut disk).await.unwrap();
    let mut asked = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let mut http = point.connect().await;
        asked.spawn(async move { http.send(to(EVALUATION, &about(1, "db:write"))).await.unwrap() });
    }
    let first = asked.join_next().await.unwrap().unwrap();
    assert_eq!((first.status, code(&first)), (StatusCode::SERVICE_UNAVAILABLE, "overloaded"));
    assert_eq!(first.headers["retry-after"], "1");
    sqlx::query("ROLLBACK").execute(&mut disk).await.unwrap();
    allowed(&asked.join_next().await.unwrap().unwrap());
}

//! `certification/authorization-api-1_0-scenario.md`: the names of the cases are its section numbers.

use http::StatusCode;
use serde_json::{Value, json};

use super::super::client::{Answer, Http, ask, get, post};
use super::{
    EVALUATION, EVALUATIONS, Point, SEARCH_ACTION, SEARCH_RESOURCE, SEARCH_SUBJECT, json as request, message,
};

/// What is expected of an answer.
enum Expected {
    /// One decision.
    Decision(bool),
    /// A list of them; `None`: of whichever value.
    Decisions(&'static [Option<bool>]),
    /// 400.
    BadRequest,
    /// Results, among them these.
    Found(&'static [&'static str]),
    /// No result.
    Nothing,
}

use Expected::{BadRequest, Decision, Decisions, Found, Nothing};

fn entity(kind: &str, id: &str) -> Value {
    json!({ "type": kind, "id": id })
}

fn with(mut entity: Value, properties: Value) -> Value {
    entity["properties"] = properties;
    entity
}

fn alice() -> Value {
    entity("user", "alice")
}

fn bob() -> Value {
    entity("user", "bob")
}

fn record(number: u8) -> Value {
    entity("record", &format!("record-{number}"))
}

fn archived() -> Value {
    with(record(2), json!({ "status": "archived" }))
}

fn admin() -> Value {
    with(bob(), json!({ "role": "admin" }))
}

fn action(name: &str) -> Value {
    json!({ "name": name })
}

fn tuple(subject: Value, action: Value, resource: Value) -> Value {
    json!({ "subject": subject, "action": action, "resource": resource })
}

fn plus(mut body: Value, name: &str, value: Value) -> Value {
    body[name] = value;
    body
}

fn of_type(kind: &str) -> Value {
    json!({ "type": kind })
}

type Case = (&'static str, &'static str, Value, Expected);

fn basic() -> Vec<Case> {
    let good = || tuple(alice(), action("read"), record(1));
    let context = json!({ "time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1" });
    let soft = |soft: bool| with(action("delete"), json!({ "soft": soft }));
    vec![
        ("2.2.1 permit", EVALUATION, good(), Decision(true)),
        ("rule 2", EVALUATION, tuple(alice(), action("write"), record(1)), Decision(true)),
        ("rule 3", EVALUATION, tuple(bob(), action("read"), record(1)), Decision(true)),
        ("2.2.2 deny", EVALUATION, tuple(bob(), action("write"), record(1)), Decision(false)),
        ("2.2.3 context", EVALUATION, plus(good(), "context", context.clone()), Decision(true)),
        (
            "rule 4 with context",
            EVALUATION,
            plus(tuple(bob(), action("write"), record(1)), "context", context),
            Decision(false),
        ),
        ("2.2.4 resource", EVALUATION, tuple(alice(), action("write"), archived()), Decision(false)),
        ("2.2.5 subject", EVALUATION, tuple(admin(), action("write"), archived()), Decision(true)),
        ("2.2.6 action", EVALUATION, tuple(alice(), soft(true), record(1)), Decision(true)),
        ("2.2.7 action", EVALUATION, tuple(alice(), soft(false), record(1)), Decision(false)),
        (
            "2.2.8 more properties",
            EVALUATION,
            tuple(
                with(alice(), json!({ "department": "Sales", "role": "manager" })),
                with(action("read"), json!({ "method": "GET" })),
                with(record(1), json!({ "status": "active", "owner": "bob" })),
            ),
            Decision(true),
        ),
        (
            "2.2.9 unknown fields",
            EVALUATION,
            plus(plus(good(), "foo", json!("bar")), "futureField", json!({ "nested": true })),
            Decision(true),
        ),
        ("2.4.1 subject", EVALUATION, json!({ "action": action("read"), "resource": record(1) }), BadRequest),
        ("2.4.1 action", EVALUATION, json!({ "subject": alice(), "resource": record(1) }), BadRequest),
        ("2.4.1 resource", EVALUATION, json!({ "subject": alice(), "action": action("read") }), BadRequest),
        ("2.4.2 subject.type", EVALUATION, plus(good(), "subject", json!({ "id": "alice" })), BadRequest),
        ("2.4.2 subject.id", EVALUATION, plus(good(), "subject", of_type("user")), BadRequest),
        ("2.4.2 action.name", EVALUATION, plus(good(), "action", json!({})), BadRequest),
        (
            "2.4.2 resource.type",
            EVALUATION,
            plus(good(), "resource", json!({ "id": "record-1" })),
            BadRequest,
        ),
        ("2.4.2 resource.id", EVALUATION, plus(good(), "resource", of_type("record")), BadRequest),
        ("2.4.6 subject", EVALUATION, plus(good(), "subject", json!("alice")), BadRequest),
        ("2.4.6 action.name", EVALUATION, plus(good(), "action", json!({ "name": 123 })), BadRequest),
    ]
}

fn batch() -> Vec<Case> {
    let items = |body: Value, items: Value| plus(body, "evaluations", items);
    let alice_reads = || json!({ "subject": alice(), "action": action("read") });
    let alice_writes = || json!({ "subject": alice(), "action": action("write") });
    let records = || json!([{ "resource": record(1) }, { "resource": record(2) }]);
    let active = || with(record(1), json!({ "status": "active" }));
    vec![
        ("3.2.1", EVALUATIONS, items(alice_reads(), records()), Decisions(&[None, None])),
        (
            "3.2.2",
            EVALUATIONS,
            items(
                json!({ "subject": bob(), "resource": record(1) }),
                json!([{ "action": action("read") }, { "action": action("write") }]),
            ),
            Decisions(&[Some(true), Some(false)]),
        ),
        (
            "3.2.3",
            EVALUATIONS,
            items(alice_writes(), json!([{ "resource": active() }, { "resource": archived() }])),
            Decisions(&[Some(true), Some(false)]),
        ),
        (
            "3.2.4",
            EVALUATIONS,
            items(
                json!({ "action": action("write"), "resource": archived() }),
                json!([{ "subject": alice() }, { "subject": admin() }]),
            ),
            Decisions(&[Some(false), Some(true)]),
        ),
        (
            "3.2.5",
            EVALUATIONS,
            json!({ "evaluations": [
                tuple(alice(), action("read"), record(1)),
                tuple(bob(), action("write"), record(1)),
            ] }),
            Decisions(&[Some(true), Some(false)]),
        ),
        (
            "3.2.6",
            EVALUATIONS,
            items(
                plus(alice_reads(), "context", json!({ "time": "2025-06-27T18:03-07:00" })),
                json!([{ "resource": record(1) }, {
                    "resource": record(2),
                    "context": { "time": "2025-06-27T19:00-07:00", "source": "batch-override" },
                }]),
            ),
            Decisions(&[Some(true), None]),
        ),
        (
            "3.2.7",
            EVALUATIONS,
            items(
                plus(alice_writes(), "resource", of_type("record")),
                json!([
                    { "resource": { "id": "record-1", "properties": { "status": "active" } } },
                    { "resource": archived() },
                ]),
            ),
            Decisions(&[Some(true), Some(false)]),
        ),
        (
            "3.4.1",
            EVALUATIONS,
            items(alice_reads(), json!([{ "resource": record(1) }, {}])),
            Decisions(&[Some(true), Some(false)]),
        ),
        ("3.4.2", EVALUATIONS, tuple(alice(), action("read"), record(1)), Decision(true)),
        ("3.4.3", EVALUATIONS, items(tuple(alice(), action("read"), record(1)), json!([])), Decision(true)),
        ("3.4 whole: no list", EVALUATIONS, items(alice_reads(), json!({})), BadRequest),
        ("3.4 whole: nothing", EVALUATIONS, json!({}), BadRequest),
        ("3.4 whole: default", EVALUATIONS, items(json!({ "subject": 1 }), records()), BadRequest),
    ]
}

/// The three semantics (Authorization API 1.0, "Evaluations semantics").
fn semantics() -> Vec<Case> {
    let with = |semantic: &str, actions: &[&str]| {
        let items: Vec<_> = actions.iter().map(|name| json!({ "action": action(name) })).collect();
        let body = json!({ "subject": bob(), "resource": record(1), "evaluations": items });
        plus(body, "options", json!({ "evaluations_semantic": semantic, "another_option": "value" }))
    };
    vec![
        ("all", EVALUATIONS, with("execute_all", &["write", "read", "write"]), {
            Decisions(&[Some(false), Some(true), Some(false)])
        }),
        ("deny", EVALUATIONS, with("deny_on_first_deny", &["read", "write", "read"]), {
            Decisions(&[Some(true), Some(false)])
        }),
        ("permit", EVALUATIONS, with("permit_on_first_permit", &["write", "read", "write"]), {
            Decisions(&[Some(false), Some(true)])
        }),
        ("another", EVALUATIONS, with("some", &["read"]), BadRequest),
    ]
}

fn search() -> Vec<Case> {
    let readers = || tuple(of_type("user"), action("read"), record(1));
    let context = || json!({ "time": "2025-06-27T18:03-07:00" });
    let actions = |subject: Value, resource: Value| json!({ "subject": subject, "resource": resource });
    vec![
        ("4.2.1", SEARCH_SUBJECT, readers(), Found(&["alice", "bob"])),
        ("4.2.2", SEARCH_SUBJECT, plus(readers(), "context", context()), Found(&["alice", "bob"])),
        ("4.2.3 ignored", SEARCH_SUBJECT, plus(readers(), "subject", alice()), Found(&["alice", "bob"])),
        ("4.2.4", SEARCH_SUBJECT, tuple(of_type("user"), action("write"), archived()), Found(&["bob"])),
        ("4.3.1", SEARCH_RESOURCE, tuple(alice(), action("read"), of_type("record")), Found(&["record-1"])),
        ("4.3.3", SEARCH_RESOURCE, tuple(admin(), action("write"), of_type("record")), Found(&["record-2"])),
        ("4.4.1", SEARCH_ACTION, actions(alice(), record(1)), Found(&["read", "write"])),
        (
            "4.4.2",
            SEARCH_ACTION,
            plus(actions(alice(), record(1)), "context", context()),
            Found(&["read", "write"]),
        ),
        ("4.4.3", SEARCH_ACTION, actions(admin(), archived()), Found(&["write"])),
        ("4.5.1", SEARCH_SUBJECT, plus(readers(), "page", json!({ "limit": 1 })), Found(&["alice"])),
        ("4.6.1", SEARCH_ACTION, actions(entity("user", "nonexistent-user"), record(1)), Nothing),
        ("4.6.2", SEARCH_SUBJECT, tuple(of_type("spaceship"), action("read"), record(1)), Nothing),
        ("4.6.2 resource", SEARCH_RESOURCE, tuple(alice(), action("read"), of_type("spaceship")), Nothing),
        ("4.6.2 action", SEARCH_ACTION, actions(entity("spaceship", "1"), record(1)), Nothing),
        ("4.7.1 subject", SEARCH_SUBJECT, actions(of_type("user"), record(1)), BadRequest),
        (
            "4.7.1 resource",
            SEARCH_RESOURCE,
            json!({ "action": action("read"), "resource": of_type("record") }),
            BadRequest,
        ),
        ("4.7.1 action", SEARCH_ACTION, json!({ "subject": alice() }), BadRequest),
        (
            "4.7.2 subject",
            SEARCH_SUBJECT,
            tuple(of_type("user"), action("read"), of_type("record")),
            BadRequest,
        ),
        (
            "4.7.2 resource",
            SEARCH_RESOURCE,
            tuple(of_type("user"), action("read"), of_type("record")),
            BadRequest,
        ),
        ("page", SEARCH_SUBJECT, plus(readers(), "page", json!({ "token": "of nobody" })), BadRequest),
    ]
}

fn names(answer: &Answer) -> Vec<&str> {
    let results = answer.body["results"].as_array().unwrap();
    let name = |item: &'_ Value| ["id", "name"].into_iter().find(|name| item.get(name).is_some()).unwrap();
    results.iter().map(|item| item[name(item)].as_str().unwrap()).collect()
}

fn judge(name: &str, body: &Value, answer: &Answer, expected: &Expected) {
    let wanted = if matches!(expected, BadRequest) { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    assert_eq!(answer.status, wanted, "{name}: {answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json", "{name}");
    let decided = |value: &Value, expected: Option<bool>| {
        let decision = value["decision"].as_bool().unwrap_or_else(|| panic!("{name}: {answer:?}"));
        assert!(expected.is_none_or(|expected| expected == decision), "{name}: {answer:?}");
        assert!(value["context"].is_object(), "{name}");
    };
    match expected {
        Decision(expected) => decided(&answer.body, Some(*expected)),
        Decisions(expected) => {
            let items = answer.body["evaluations"].as_array().unwrap();
            assert_eq!(items.len(), expected.len(), "{name}: {answer:?}");
            for (item, expected) in items.iter().zip(*expected) {
                decided(item, *expected);
            }
            assert!(answer.body.get("decision").is_none(), "{name}");
        }
        BadRequest => assert!(message(answer).starts_with("body_malformed: ") || name == "page", "{name}"),
        Found(expected) => {
            let found = names(answer);
            for one in *expected {
                assert!(found.contains(one), "{name}: {found:?}");
            }
            for (part, result) in [("subject", "type"), ("resource", "type")] {
                let sought = name.starts_with("4.2") && part == "subject";
                if sought || (name.starts_with("4.3") && part == "resource") {
                    let results = answer.body["results"].as_array().unwrap();
                    assert!(results.iter().all(|item| item[result] == body[part]["type"]), "{name}");
                }
            }
            assert!(answer.body["page"]["next_token"].is_string(), "{name}");
        }
        Nothing => assert_eq!(answer.body["results"], json!([]), "{name}"),
    }
}

async fn run(cases: Vec<Case>) {
    let point = Point::new().await;
    let mut http = point.connect().await;
    for (name, path, body, expected) in cases {
        let answer = http.send(request(path, &body)).await.unwrap();
        judge(name, &body, &answer, &expected);
    }
}

#[tokio::test]
async fn certification_basic() {
    run(basic()).await;
}

#[tokio::test]
async fn certification_batch() {
    run(batch()).await;
    run(semantics()).await;
}

#[tokio::test]
async fn certification_search() {
    run(search()).await;
}

/// 2.4.3 to 2.4.5, 2.5, 2.6.
#[tokio::test]
async fn certification_transport() {
    let point = Point::new().await;
    let mut http = point.connect().await;
    let good = tuple(alice(), action("read"), record(1)).to_string();
    for path in super::ALL {
        for content_type in [None, Some("text/plain"), Some("application/x-www-form-urlencoded")] {
            let mut message = post(path, good.clone());
            message.headers_mut().remove("content-type");
            if let Some(content_type) = content_type {
                message.headers_mut().insert("content-type", content_type.parse().unwrap());
            }
            let answer = http.send(message).await.unwrap();
            assert_eq!(
                (answer.status, super::code(&answer)),
                (StatusCode::BAD_REQUEST, "content_type"),
                "{path}"
            );
        }
        for body in ["", "{", "not JSON", "null", "[]", "7"] {
            let answer = http.send(post(path, body)).await.unwrap();
            assert_eq!(
                (answer.status, super::code(&answer)),
                (StatusCode::BAD_REQUEST, "body_malformed"),
                "{path}"
            );
        }
    }
    identified(&mut http, &good).await;
    let mut decisions = Vec::new();
    for _ in 0..5 {
        decisions.push(http.send(post(EVALUATION, good.clone())).await.unwrap().body["decision"].clone());
    }
    assert_eq!(decisions, [true; 5]);
}

async fn identified(http: &mut Http, good: &str) {
    let id = "bfe9eb29-ab87-4ca3-be83-a1d5d8305716";
    for body in [good, "{"] {
        let mut message = post(EVALUATION, body.to_owned());
        message.headers_mut().insert("x-request-id", id.parse().unwrap());
        assert_eq!(http.send(message).await.unwrap().headers["x-request-id"], id);
        let answer = http.send(post(EVALUATION, body.to_owned())).await.unwrap();
        assert!(!answer.headers.contains_key("x-request-id"));
    }
}

/// 4.5.2: page by page, until there is no more.
#[tokio::test]
async fn certification_pages() {
    let point = Point::new().await;
    let mut http = point.connect().await;
    let body = tuple(of_type("user"), action("read"), record(1));
    let first =
        http.send(request(SEARCH_SUBJECT, &plus(body.clone(), "page", json!({ "limit": 1 })))).await.unwrap();
    assert_eq!((names(&first), &first.body["page"]["count"]), (vec!["alice"], &json!(1)));
    let token = first.body["page"]["next_token"].clone();
    assert_ne!(token, "");
    let second =
        http.send(request(SEARCH_SUBJECT, &plus(body, "page", json!({ "token": token })))).await.unwrap();
    assert_eq!((names(&second), &second.body["page"]["next_token"]), (vec!["bob"], &json!("")));
    let other = plus(tuple(of_type("user"), action("write"), record(1)), "page", json!({ "token": token }));
    let refused = http.send(request(SEARCH_SUBJECT, &other)).await.unwrap();
    let expected = (StatusCode::BAD_REQUEST, "page_token_invalid");
    assert_eq!((refused.status, super::code(&refused)), expected, "a page of another search");
}

#[tokio::test]
async fn certification_discovery() {
    let point = Point::new().await;
    let answer = ask(&point.stage, get("/.well-known/authzen-configuration")).await;
    assert_eq!(
        (answer.status, &answer.headers["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    let base = "https://pdp.example.org:8443";
    assert_eq!(answer.body["policy_decision_point"], base);
    for (name, path) in [
        ("access_evaluation_endpoint", EVALUATION),
        ("access_evaluations_endpoint", EVALUATIONS),
        ("search_subject_endpoint", SEARCH_SUBJECT),
        ("search_resource_endpoint", SEARCH_RESOURCE),
        ("search_action_endpoint", SEARCH_ACTION),
    ] {
        assert_eq!(answer.body[name], format!("{base}{path}"), "{name}");
    }
    assert_eq!(answer.body["obligations_supported"], json!(["step-up"]));
}

//! The certification scenario of the Authorization API 1.0, case by case, over HTTP and TLS; beside it what the scenario does
//! not ask: hostile bodies, callers of each kind, limits.

mod callers;
mod costs;
mod scenario;

use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use rootbound_common::clock::Clock as _;
use rootbound_verifier::flows::Verifier;
use rootbound_verifier::flows::operate::Operator;
use rootbound_verifier::flows::policies::WhichBundle;
use rootbound_verifier::http::Limits;
use rootbound_verifier::policy::{Bundle, BundleSource};
use serde_json::Value;

use super::client::{Answer, Http, post};
use super::pki::Leaf;
use super::results::{GATEWAY, Parties};
use super::stage::{Stage, limits};

const EVALUATION: &str = "/access/v1/evaluation";
const EVALUATIONS: &str = "/access/v1/evaluations";
const SEARCH_SUBJECT: &str = "/access/v1/search/subject";
const SEARCH_RESOURCE: &str = "/access/v1/search/resource";
const SEARCH_ACTION: &str = "/access/v1/search/action";
const ALL: [&str; 5] = [EVALUATION, EVALUATIONS, SEARCH_SUBJECT, SEARCH_RESOURCE, SEARCH_ACTION];

/// A verifier with a bundle in force, and a relying party of it.
struct Point {
    stage: Stage,
    parties: Parties,
    gateway: Leaf,
}

fn bundle(policies: &str, schema: &str, entities: &str) -> BundleSource {
    // Who may ask about whom is as ever.
    let (schema, entities) = (Some(schema.to_owned()), Some(entities.to_owned()));
    let mut source = BundleSource { schema, entities, ..Bundle::builtin_source() };
    source.policies.insert("policies.cedar".parse().unwrap(), policies.to_owned());
    source
}

/// Writes a bundle and puts it in force, as an operator does.
async fn put_in_force(verifier: &Verifier, source: BundleSource) {
    let operator = Operator { author: "a test".to_owned(), reason: String::new() };
    let (written, _warnings) =
        verifier.put_policy("records".parse().unwrap(), source, &operator).await.unwrap();
    let which = WhichBundle::Written { name: written.id.name, version: Some(written.id.version) };
    verifier.activate_policy(&which, None, &operator).await.unwrap();
}

fn of_the_scenario() -> BundleSource {
    bundle(include_str!("records.cedar"), include_str!("schema.cedarschema"), include_str!("entities.json"))
}

impl Point {
    async fn new() -> Self {
        Self::with(limits()).await
    }

    async fn with(limits: Limits) -> Self {
        let parties = Parties::new();
        let stage = parties.stage_with(limits).await;
        put_in_force(&stage.verifier, of_the_scenario()).await;
        let gateway = parties.ca.sign(GATEWAY, stage.clock.now());
        Self { stage, parties, gateway }
    }

    async fn connect(&self) -> Http {
        Http::connect(&self.stage, Some(&self.gateway)).await.unwrap()
    }
}

/// What the error of an answer says: a JSON string, which begins with the code.
fn message(answer: &Answer) -> &str {
    assert_eq!(answer.headers["content-type"], "application/json", "{answer:?}");
    assert_ne!(answer.status, StatusCode::OK);
    answer.body.as_str().unwrap_or_else(|| panic!("{answer:?}"))
}

fn code(answer: &Answer) -> &str {
    message(answer).split_once(": ").unwrap().0
}

fn json(path: &str, body: &Value) -> Request<Full<Bytes>> {
    post(path, body.to_string())
}

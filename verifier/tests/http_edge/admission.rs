//! Who may call which route, judged by what the verifier knows at that moment.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use rootbound_common::clock::{Clock as _, Timestamp};
use rootbound_common::tpm::{HashAlgorithm, Name};
use rootbound_common::wire::v1::DeviationReport;
use rootbound_verifier::appraisal::Verdict;
use rootbound_verifier::appraisal::boot::Booted;
use rootbound_verifier::appraisal::trust_vector::{Configuration, Executables, TrustVector};
use rootbound_verifier::audit::{Actor, Entity, Outcome, RecordKind};
use rootbound_verifier::credential::serial::SerialNumber;
use rootbound_verifier::node::{AdmittedBy, EndorsedBy, Labels, Standing};
use rootbound_verifier::posture::{LiveCredential, LiveNode, Posture};
use rootbound_verifier::store::{AuditStore as _, RecordFilter};
use serde_json::{Value, json};

use super::client::{Http, ask, get, post, request};
use super::pki::{Ca, Leaf};
use super::stage::{Stage, domain, node};

/// A request to each endpoint of the document, and whether it asks for a certificate.
fn every_route(document: &Value) -> Vec<(Request<Full<Bytes>>, bool)> {
    let mut routes = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        let path = &path.replace("{node}", &node(1).to_string());
        for (method, operation) in methods.as_object().unwrap() {
            let request = match method.as_str() {
                "post" if path.starts_with("/oauth2/") => {
                    let form = Request::post(path).header("host", "localhost");
                    let form = form.header("content-type", "application/x-www-form-urlencoded");
                    form.body(Full::new(Bytes::from_static(b"token=x"))).unwrap()
                }
                "post" => post(path, "{}"),
                _ => get(path),
            };
            routes.push((request, operation.get("security").is_some()));
        }
    }
    assert_eq!(
        routes.iter().filter(|(_, guarded)| *guarded).count(),
        12,
        "whoami, ear, control, signals, /access and /oauth2"
    );
    routes
}

async fn document(stage: &Stage) -> Value {
    ask(stage, get("/openapi.json")).await.body
}

/// Attack 85, route by route: without a certificate.
#[tokio::test]
async fn without_a_certificate_guarded_routes_say_so() {
    let stage = Stage::new().await;
    for (request, guarded) in every_route(&document(&stage).await) {
        let route = format!("{} {}", request.method(), request.uri());
        let answer = ask(&stage, request).await;
        assert_eq!(answer.status == StatusCode::UNAUTHORIZED, guarded, "{route}");
        if guarded {
            if route.contains(" /access/") {
                let message = answer.body.as_str().unwrap();
                assert!(message.starts_with("certificate_required: "), "{message}");
            } else if route.contains(" /oauth2/") {
                assert_eq!(answer.body["code"], "client_unauthenticated");
            } else {
                assert_eq!(answer.code(), "certificate_required");
            }
            assert!(answer.headers.contains_key("www-authenticate"));
        }
    }
}

/// Attack 85, route by route: with a certificate of another CA of the same trust domain, or an expired one of ours.
#[tokio::test]
async fn with_another_cas_or_an_expired_certificate_no_route_answers() {
    let stage = Stage::new().await;
    let uri = domain().node(node(1)).to_string();
    let now = stage.clock.now();
    let foreign = Ca::other(now).sign(&uri, now);
    let expired = stage.ca.sign(&uri, now.minus(Duration::from_secs(3000)));
    let early = stage.ca.sign(&uri, now.plus(Duration::from_secs(3000)));
    let document = document(&stage).await;
    for leaf in [&foreign, &expired, &early] {
        live(&stage, leaf, |_| {});
        for (message, _) in every_route(&document) {
            let route = format!("{} {}", message.method(), message.uri());
            assert!(request(&stage, Some(leaf), message).await.is_err(), "{route}");
        }
    }
}

/// Puts node 1 into the fleet with this certificate: admitted, affirming, fresh, but for what `change` changes.
pub(super) fn live(stage: &Stage, leaf: &Leaf, change: impl FnOnce(&mut LiveNode)) {
    let now = stage.clock.now();
    let mut labels = Labels::default();
    labels.set("env".parse().unwrap(), Some("test".parse().unwrap())).unwrap();
    let posture = Posture {
        verdict: Verdict::Affirming,
        evidence_at: now,
        fresh_for: Duration::from_secs(180),
        profile: Some("default@1".to_owned()),
        references: vec!["default@1".to_owned()],
        deviations: Vec::new(),
        claims: TrustVector { executables: Executables::ApprovedBoot, ..TrustVector::NONE },
        booted: Booted::default(),
        observed: None,
    };
    let mut live = LiveNode {
        revision: stage.verifier.fleet().node(node(1)).map_or(1, |live| live.revision + 1),
        epoch: 1,
        holds: Vec::new(),
        attested_after: None,
        standing: Standing::Admitted { by: AdmittedBy::Inventory },
        labels,
        attestation_key: Name::of_public_area(HashAlgorithm::Sha256, b"key"),
        endorsed_by: EndorsedBy::Manufacturer,
        posture: Some(posture),
        credentials: vec![LiveCredential {
            serial: leaf.serial,
            not_before: now,
            not_after: now.plus(Duration::from_secs(600)),
        }],
    };
    change(&mut live);
    stage.verifier.fleet().put(node(1), live, now);
}

pub(super) fn posture(live: &mut LiveNode) -> &mut Posture {
    live.posture.as_mut().unwrap()
}

pub(super) fn drift(live: &mut LiveNode) {
    let deviation = DeviationReport {
        code: "pcr_mismatch".to_owned(),
        detail: "sha256 PCR 7 is off".to_owned(),
        bank: None,
        pcr: None,
        observed: None,
        accepted: Vec::new(),
    };
    posture(live).verdict = Verdict::Contraindicated;
    posture(live).deviations = vec![deviation];
    posture(live).claims.configuration = Configuration::Unsupportable;
}

/// One connection, one certificate that TLS likes all the time: each request is judged anew.
#[tokio::test]
async fn a_certificate_is_worth_what_its_node_is_worth_now() {
    let stage = Stage::new().await;
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    let mut http = Http::connect(&stage, Some(&leaf)).await.unwrap();
    let mut whoami = async || http.send(get("/v1/whoami")).await.unwrap();

    assert_eq!(whoami().await.code(), "unknown_node");
    live(&stage, &leaf, |_| {});
    let answer = whoami().await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.body["node"], node(1).to_string());
    assert_eq!(answer.body["spiffe_id"], domain().node(node(1)).as_str());
    assert_eq!(answer.body["serial"], leaf.serial.to_string());
    assert_eq!(answer.body["labels"], json!({ "env": "test" }));
    assert_eq!(answer.body["posture"]["status"], "affirming");

    type Change = Box<dyn FnOnce(&mut LiveNode)>;
    let changes: [(&str, Change); 6] = [
        ("posture_contraindicated", Box::new(drift)),
        ("posture_stale", Box::new(|live| posture(live).evidence_at = Timestamp::from_millis(0))),
        ("posture_unknown", Box::new(|live| live.posture = None)),
        ("admission_pending", Box::new(|live| live.standing = Standing::Pending)),
        ("node_retired", Box::new(|live| live.standing = Standing::Retired)),
        (
            "certificate_superseded",
            Box::new(|live| {
                live.credentials[0].serial = SerialNumber::generate(&mut rootbound_common::random::system());
            }),
        ),
    ];
    for (code, change) in changes {
        live(&stage, &leaf, change);
        let refused = whoami().await;
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, code));
        if code == "posture_contraindicated" {
            assert!(refused.body["detail"].as_str().unwrap().contains("sha256 PCR 7 is off"));
        }
        live(&stage, &leaf, |_| {});
        assert_eq!(whoami().await.status, StatusCode::OK, "after {code}");
    }
    // The connection outlives the certificate.
    stage.clock.advance(Duration::from_secs(601));
    assert_eq!(whoami().await.code(), "certificate_expired");
}

/// Certificates of our CA that name nobody who may call.
#[tokio::test]
async fn certificates_that_are_no_nodes_are_refused_where_a_caller_counts() {
    let stage = Stage::new().await;
    let now = stage.clock.now();
    for (uri, code) in [
        ("spiffe://example.org/verifier".to_owned(), "not_a_node"),
        ("spiffe://example.org/node/1".to_owned(), "not_a_node"),
        (format!("spiffe://example.net/node/{}", node(1)), "svid_trust_domain"),
        ("https://example.org/node".to_owned(), "svid_spiffe_id"),
    ] {
        let leaf = stage.ca.sign(&uri, now);
        live(&stage, &leaf, |_| {});
        let mut http = Http::connect(&stage, Some(&leaf)).await.unwrap();
        for message in [get("/v1/whoami"), post("/v1/evidence", "{}")] {
            let answer = http.send(message).await.unwrap();
            assert_eq!((answer.status, answer.code()), (StatusCode::FORBIDDEN, code), "{uri}");
        }
    }
}

/// A node's certificate opens the one guarded route, and no administrative one exists here.
#[tokio::test]
async fn a_nodes_certificate_opens_no_administrative_route() {
    let stage = Stage::new().await;
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    live(&stage, &leaf, |_| {});
    let mut http = Http::connect(&stage, Some(&leaf)).await.unwrap();
    for path in [rootbound_verifier::http::admin::PATH, "/v1/nodes", "/v1/inventory", "/admin"] {
        assert_eq!(
            http.send(post(path, "{\"node_list\":{}}")).await.unwrap().code(),
            "unknown_route",
            "{path}"
        );
    }
}

/// Who shows a certificate that counts for nothing is on record; who shows none can be anybody, and is not.
#[tokio::test]
async fn caller_that_is_refused_is_on_record() {
    let stage = Stage::new().await;
    let uri = domain().node(node(1)).to_string();
    let leaf = stage.ca.sign(&uri, stage.clock.now());
    live(&stage, &leaf, |node| node.standing = Standing::Retired);
    assert_eq!(ask(&stage, get("/v1/whoami")).await.status, StatusCode::UNAUTHORIZED);
    let refused = request(&stage, Some(&leaf), get("/v1/whoami")).await.unwrap();
    assert_eq!(refused.code(), "node_retired");

    let filter = RecordFilter { outcome: Some(Outcome::Refused), ..RecordFilter::default() };
    let page = stage.store.records(&filter, None, 10).await.unwrap();
    let [found] = &page.records[..] else { panic!("{page:?}") };
    assert_eq!((found.record.kind, found.record.code.as_str()), (RecordKind::Refusal, "node_retired"));
    assert_eq!(found.record.actor, Actor::Stranger, "of what it claims nothing was believed");
    assert_eq!(found.record.subject, Some(Entity::named("spiffe_id", &uri)));
}

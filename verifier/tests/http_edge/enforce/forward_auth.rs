//! `/forward-auth`: gateways, descriptions, certificates; what a client smuggles in.

use std::time::Duration;

use http::StatusCode;
use rootbound_common::clock::Clock as _;
use rootbound_common::random;
use rootbound_verifier::relying_party::RelyingPartySection;
use rootbound_verifier::relying_party::token::BearerToken;

use super::super::admission::{drift, live};
use super::super::client::{Answer, ask, get, request};
use super::super::pki::Ca;
use super::super::stage::{Stage, domain, node};
use super::{Leaf, Point, SERVICE, said, with};

const NGINX: [(&str, &str); 2] =
    [("x-original-method", "GET"), ("x-original-url", "https://db.example.org/records/1?a=b")];
const CADDY: [(&str, &str); 4] = [
    ("x-forwarded-method", "GET"),
    ("x-forwarded-proto", "https"),
    ("x-forwarded-host", "db.example.org"),
    ("x-forwarded-uri", "/records/1?a=b"),
];

fn base64(leaf: &Leaf) -> String {
    data_encoding::BASE64.encode(&leaf.chain[0])
}

/// As nginx writes `$ssl_client_escaped_cert`.
fn escaped(leaf: &Leaf) -> String {
    let text = data_encoding::BASE64.encode(&leaf.chain[0]);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
    let pem = format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"));
    pem.replace(' ', "%20").replace('\n', "%0A").replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")
}

async fn by_certificate(point: &Point, certificate: &str) -> Answer {
    let fields = [("x-rootbound-client-certificate", certificate)];
    point.ask_as(&point.gateway, "/forward-auth/mtls", "GET", "/records/1", &fields).await
}

#[tokio::test]
async fn a_certificate_that_the_gateway_vouches_for_passes_until_the_node_drifts() {
    let point = Point::new().await;
    for certificate in [base64(&point.leaf), format!(":{}:", base64(&point.leaf)), escaped(&point.leaf)] {
        let answer = by_certificate(&point, &certificate).await;
        assert_eq!(said(&answer), (200, ""), "{answer:?}");
        assert_eq!(answer.headers["x-rootbound-subject"], domain().node(node(1)).as_str());
        assert!(!answer.headers.contains_key("dpop-nonce"));
    }
    let one_time = point
        .ask_as(
            &point.gateway,
            "/forward-auth/mtls",
            "POST",
            "/records/1",
            &[("x-rootbound-client-certificate", &base64(&point.leaf))],
        )
        .await;
    assert_eq!(said(&one_time), (403, "token_not_one_time"));
    point.change(drift);
    assert_eq!(
        said(&by_certificate(&point, &base64(&point.leaf)).await),
        (403, "client_certificate_drifted")
    );
}

/// On record and of a node that stands well: the epoch that a certificate names has to be the node's, and absence is none.
#[tokio::test]
async fn a_certificate_of_another_epoch_or_of_none_does_not_pass() {
    let point = Point::new().await;
    let ca = &point.stage.ca;
    let (uri, now) = (domain().node(node(1)).to_string(), point.stage.clock.now());
    let epoch = point.stage.verifier.fleet().node(node(1)).unwrap().epoch;
    for (leaf, expected) in [
        (ca.sign_at_epoch(&uri, now, epoch), (200, "")),
        (ca.sign_at_epoch(&uri, now, epoch + 1), (403, "client_certificate_drifted")),
        (ca.sign(&uri, now), (403, "client_certificate_drifted")),
    ] {
        live(&point.stage, &leaf, |_| {});
        assert_eq!(point.stage.verifier.fleet().node(node(1)).unwrap().epoch, epoch);
        assert_eq!(said(&by_certificate(&point, &base64(&leaf)).await), expected);
    }
}

/// Its signature is verified once; its time at each request.
#[tokio::test]
async fn a_certificate_that_passed_passes_until_its_last_second() {
    let point = Point::new().await;
    let begun = point.stage.clock.now().minus(Duration::from_secs(500));
    let leaf = point.stage.ca.sign_at_epoch(domain().node(node(1)).as_str(), begun, 1);
    live(&point.stage, &leaf, |_| {});
    let certificate = base64(&leaf);
    for (after, expected) in [
        (0, (200, "")),
        (100, (200, "")),
        (1, (403, "client_certificate_untrusted")),
        (1, (403, "client_certificate_untrusted")),
    ] {
        point.stage.clock.advance(Duration::from_secs(after));
        assert_eq!(said(&by_certificate(&point, &certificate).await), expected);
    }
}

#[tokio::test]
async fn a_certificate_that_is_none_of_ours_is_refused() {
    let point = Point::new().await;
    let now = point.stage.clock.now();
    let name = domain().node(node(1)).to_string();
    let foreign = Ca::other(now).sign(&name, now);
    let early = point.stage.ca.sign(&name, now.plus(Duration::from_secs(3000)));
    let unrecorded = point.stage.ca.sign(&name, now);
    let nobody = point.stage.ca.sign("spiffe://example.org/verifier", now);
    let dns = point.stage.ca.sign_dns("node.example.org", now);
    for (leaf, code) in [
        (&foreign, "client_certificate_untrusted"),
        (&early, "client_certificate_untrusted"),
        (&unrecorded, "certificate_superseded"),
        (&nobody, "not_a_node"),
        (&dns, "svid_uri_count"),
    ] {
        let answer = by_certificate(&point, &base64(leaf)).await;
        assert_eq!(said(&answer), (403, code), "{answer:?}");
    }
    for text in ["AAAA", "(null)", "Subject=\"\"", "-----BEGIN CERTIFICATE-----"] {
        let answer = by_certificate(&point, text).await;
        let expected =
            if text == "AAAA" { "client_certificate_untrusted" } else { "client_certificate_malformed" };
        assert_eq!(said(&answer), (403, expected), "{text}");
    }
    assert_eq!(said(&by_certificate(&point, "").await), (401, "credentials_missing"), "there was none");
    let two = [
        ("x-rootbound-client-certificate", base64(&point.leaf)),
        ("x-rootbound-client-certificate", base64(&point.leaf)),
    ];
    let two: Vec<_> = two.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = point.ask_as(&point.gateway, "/forward-auth/mtls", "GET", "/records/1", &two).await;
    assert_eq!(said(&answer), (403, "client_certificate_malformed"));
    // Where the gateway vouches for none, it came from the client.
    let answer = point.ask("GET", "/records/1", &two[..1]).await;
    assert_eq!(said(&answer), (403, "client_certificate_not_vouched"));
}

#[tokio::test]
async fn a_request_is_described_by_one_convention_once() {
    let point = Point::new().await;
    let certificate = base64(&point.leaf);
    let ask = async |fields: &[(&str, &str)]| {
        let fields = [fields, &[("x-rootbound-client-certificate", certificate.as_str())]].concat();
        let answer = request(&point.stage, Some(&point.gateway), with(get("/forward-auth/mtls"), &fields))
            .await
            .unwrap();
        (answer.status.as_u16(), said(&answer).1.to_owned())
    };
    assert_eq!(ask(&NGINX).await, (200, String::new()));
    assert_eq!(ask(&CADDY).await, (200, String::new()));
    for (fields, code) in [
        (vec![], "target_not_described"),
        (NGINX[..1].to_vec(), "target_not_described"),
        (CADDY[..3].to_vec(), "target_not_described"),
        ([&NGINX[..], &CADDY[..]].concat(), "target_described_twice"),
        ([&NGINX[..], &NGINX[..1]].concat(), "target_described_twice"),
        ([&CADDY[..], &[("x-forwarded-uri", "/any")]].concat(), "target_described_twice"),
        ([&CADDY[..], &[("x-original-method", "GET")]].concat(), "target_described_twice"),
        ([&CADDY[..], &[("x-http-method-override", "DELETE")]].concat(), "target_overridden"),
        ([&NGINX[..], &[("x-rewrite-url", "/any")]].concat(), "target_overridden"),
    ] {
        assert_eq!(ask(&fields).await, (403, code.to_owned()), "{fields:?}");
    }
    let changed = |name: &str, value: &'static str| {
        CADDY.iter().map(|(one, old)| (*one, if *one == name { value } else { old })).collect::<Vec<_>>()
    };
    for (name, value, code) in [
        ("x-forwarded-method", "get", "target_method"),
        ("x-forwarded-method", "DELETE", "no_policy_permits"),
        ("x-forwarded-method", "PUT", "route_unknown"),
        ("x-forwarded-proto", "https, http", "target_scheme"),
        ("x-forwarded-host", "db.example.org, evil", "target_host"),
        ("x-forwarded-host", "other.example.org", "route_unknown"),
        ("x-forwarded-uri", "/nowhere", "route_unknown"),
        ("x-forwarded-uri", "/records/1/", "route_unknown"),
        ("x-forwarded-uri", "/RECORDS/1", "route_unknown"),
        ("x-forwarded-uri", "/records/../any", "target_ambiguous"),
        ("x-forwarded-uri", "//records/1", "target_ambiguous"),
        ("x-forwarded-uri", "/records/%31", "target_ambiguous"),
        ("x-forwarded-uri", "/records/1;x", "target_ambiguous"),
        ("x-forwarded-uri", "/records%2f1", "target_ambiguous"),
        ("x-forwarded-uri", "/records/1%00", "target_ambiguous"),
        ("x-forwarded-uri", "/records\\1", "target_ambiguous"),
        ("x-forwarded-uri", "https://db.example.org/records/1", "target_malformed"),
    ] {
        assert_eq!(ask(&changed(name, value)).await, (403, code.to_owned()), "{name}: {value}");
    }
    let long = format!("/records/{}", "1".repeat(9000));
    let fields: Vec<_> = CADDY
        .iter()
        .map(|(name, value)| (*name, if *name == "x-forwarded-uri" { &long } else { *value }))
        .collect();
    assert_eq!(ask(&fields).await, (403, "target_too_long".to_owned()));
    let long = format!("/records/{}", "1".repeat(1500));
    let fields: Vec<_> = CADDY
        .iter()
        .map(|(name, value)| (*name, if *name == "x-forwarded-uri" { &long } else { *value }))
        .collect();
    assert_eq!(ask(&fields).await, (403, "question_name_too_long".to_owned()));
}

#[tokio::test]
async fn what_a_client_says_of_itself_is_not_what_the_service_is_told() {
    let point = Point::new().await;
    let fields = [
        ("x-rootbound-client-certificate", base64(&point.leaf)),
        ("x-rootbound-subject", "spiffe://example.org/node/admin".to_owned()),
        ("x-rootbound-action", "erase".to_owned()),
        ("x-rootbound-decision", "none".to_owned()),
        ("x-rootbound-posture-epoch", "99".to_owned()),
    ];
    let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let answer = point.ask_as(&point.gateway, "/forward-auth/mtls", "GET", "/records/1", &fields).await;
    assert_eq!(said(&answer), (200, ""));
    for (name, value) in [("subject", domain().node(node(1)).to_string()), ("action", "read".to_owned())] {
        let told: Vec<_> = answer.headers.get_all(format!("x-rootbound-{name}")).iter().collect();
        assert_eq!(told, [value.as_str()]);
    }
    assert_eq!(answer.headers["x-rootbound-posture-epoch"], "1");
}

#[tokio::test]
async fn only_a_gateway_is_answered_and_what_is_wrong_with_it_is_not_its_clients_fault() {
    let token = BearerToken::generate(&mut random::system());
    let section = RelyingPartySection {
        name: "nginx".parse().unwrap(),
        ca: None,
        accepted_names: Vec::new(),
        match_labels: Default::default(),
        may_signal: Vec::new(),
        audiences: vec![SERVICE.to_owned().try_into().unwrap()],
        token_sha256: vec![token.hash()],
    };
    let stage = Stage::read_by(&[section]).await;
    let good = format!("Bearer {}", *token.reveal());
    let other = format!("Bearer {}", *BearerToken::generate(&mut random::system()).reveal());
    let of = |answer: &Answer| (answer.status, answer.code().to_owned());
    for fields in [
        vec![],
        vec![("x-rootbound-gateway", other.as_str())],
        vec![("x-rootbound-gateway", good.as_str()), ("x-rootbound-gateway", good.as_str())],
        vec![("x-rootbound-gateway", "Basic dXNlcjpwYXNz")],
        // A client's field is the client's.
        vec![("authorization", good.as_str())],
    ] {
        let answer = ask(&stage, with(get("/forward-auth"), &[&NGINX[..], &fields].concat())).await;
        assert_eq!(of(&answer), (StatusCode::BAD_GATEWAY, "gateway_refused".to_owned()), "{fields:?}");
        assert!(!answer.headers.contains_key("www-authenticate"));
    }
    let fields = [&NGINX[..], &[("x-rootbound-gateway", good.as_str())]].concat();
    let answer = ask(&stage, with(get("/forward-auth"), &fields)).await;
    assert_eq!(said(&answer), (403, "route_unknown"), "the policies that are built in have no routes");
    for method in ["POST", "DELETE", "PROPFIND"] {
        let mut message = with(get("/forward-auth"), &fields);
        *message.method_mut() = method.parse().unwrap();
        assert_eq!(said(&ask(&stage, message).await), (403, "route_unknown"), "{method}");
    }
    // Nodes are no gateways.
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    super::live(&stage, &leaf, |_| {});
    let answer = request(&stage, Some(&leaf), with(get("/forward-auth"), &NGINX)).await.unwrap();
    assert_eq!(said(&answer), (403, "gateway_not_relying_party"));
}

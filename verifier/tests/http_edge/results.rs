//! Who may read attestation results, and what they say.

use std::path::PathBuf;
use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use data_encoding::BASE64URL_NOPAD;
use http::StatusCode;
use rootbound_common::clock::{Clock as _, Timestamp};
use rootbound_common::random;
use rootbound_verifier::credential::serial::SerialNumber;
use rootbound_verifier::http::Limits;
use rootbound_verifier::node::{Labels, Standing};
use rootbound_verifier::posture::LiveNode;
use rootbound_verifier::relying_party::{LoadError, RelyingParties, RelyingPartyError, RelyingPartySection};
use serde_json::{Value, json};

use super::admission::{drift, live, posture};
use super::client::{Answer, Http, ask, get, post, request};
use super::pki::{Ca, Leaf, block};
use super::stage::{Stage, begin_of_time, domain, limits, node};

pub(super) const GATEWAY: &str = "spiffe://partner.example/gateway";

type Change = Box<dyn Fn(&mut LiveNode)>;

fn path_of(number: u8) -> String {
    format!("/v1/nodes/{}/ear", node(number))
}

/// A CA of relying parties in a folder, where sections find it.
pub(super) struct Parties {
    pub(super) ca: Ca,
    folder: tempfile::TempDir,
}

impl Parties {
    pub(super) fn new() -> Self {
        let (ca, folder) = (Ca::other(begin_of_time()), tempfile::tempdir().unwrap());
        ca.write_certificate(&folder.path().join("ca.pem"));
        Self { ca, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    pub(super) fn section(&self, name: &str, accepted: &str, labels: &[(&str, &str)]) -> RelyingPartySection {
        let mut match_labels = Labels::default();
        for (key, value) in labels {
            match_labels.set(key.parse().unwrap(), Some(value.parse().unwrap())).unwrap();
        }
        RelyingPartySection {
            name: name.parse().unwrap(),
            ca: Some(self.file()),
            accepted_names: vec![accepted.to_owned().try_into().unwrap()],
            match_labels,
            may_signal: Vec::new(),
            audiences: Vec::new(),
            token_sha256: Vec::new(),
        }
    }

    /// A verifier whose nodes with `env=test` the gateway may read, and all nodes the auditor.
    pub(super) async fn stage(&self) -> Stage {
        self.stage_with(limits()).await
    }

    pub(super) async fn stage_with(&self, limits: Limits) -> Stage {
        let gateway = self.section("gateway", GATEWAY, &[("env", "test")]);
        let auditor = self.section("auditor", "Audit.partner.example", &[]);
        Stage::read_by_within(&[gateway, auditor], limits).await
    }

    fn gateway(&self, stage: &Stage) -> Leaf {
        self.ca.sign(GATEWAY, stage.clock.now())
    }
}

/// The claims of a token whose signature holds by the key of its name that the verifier publishes.
fn verified(keys: &Value, token: &[u8]) -> Option<Value> {
    let token = std::str::from_utf8(token).unwrap();
    let decode = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).unwrap();
    let (message, signature) = token.rsplit_once('.')?;
    let (header, claims) = message.split_once('.')?;
    let header: Value = serde_json::from_slice(&decode(header)).ok()?;
    let key = keys["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?;
    assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!("eat+jwt")));
    let coordinate = |name: &str| decode(key[name].as_str().unwrap());
    let point = [vec![4], coordinate("x"), coordinate("y")].concat();
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
    public.verify(message.as_bytes(), &decode(signature)).ok()?;
    serde_json::from_slice(&decode(claims)).ok()
}

/// The claims of an answer that must be a result.
async fn claims(stage: &Stage, answer: &Answer) -> Value {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    let expected = "application/eat+jwt; eat_profile=\"tag:ietf.org,2026:rats/ear#04\"";
    assert_eq!(answer.headers["content-type"], expected);
    assert_eq!(answer.headers["cache-control"], "no-store");
    let keys = ask(stage, get("/.well-known/jwks.json")).await;
    verified(&keys.body, &answer.bytes).unwrap()
}

fn status(claims: &Value) -> &str {
    claims["submods"]["rootbound"]["ear_status"].as_str().unwrap()
}

fn drifted() -> Change {
    Box::new(drift)
}

fn stale() -> Change {
    Box::new(|live| posture(live).evidence_at = Timestamp::from_millis(0))
}

fn unknown() -> Change {
    Box::new(|live| live.posture = None)
}

#[tokio::test]
async fn a_node_reads_its_own_result_however_it_stands() {
    let stage = Stage::new().await;
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    let mut http = Http::connect(&stage, Some(&leaf)).await.unwrap();
    live(&stage, &leaf, |_| {});
    let answer = http.send(get(&path_of(1))).await.unwrap();
    let affirming = claims(&stage, &answer).await;
    assert_eq!(status(&affirming), "affirming");
    assert_eq!(affirming["sub"], domain().node(node(1)).as_str());
    assert_eq!(affirming["iat"], stage.clock.now().as_seconds());
    assert_eq!(affirming["exp"], stage.clock.now().as_seconds() + 180, "as long as its evidence is fresh");
    assert!(affirming.get("eat_nonce").is_none());

    for (change, expected) in [(drifted(), "contraindicated"), (stale(), "none"), (unknown(), "none")] {
        live(&stage, &leaf, |live| change(live));
        assert_eq!(http.send(get("/v1/whoami")).await.unwrap().status, StatusCode::FORBIDDEN);
        let answer = http.send(get(&path_of(1))).await.unwrap();
        let claims = claims(&stage, &answer).await;
        assert_eq!(status(&claims), expected);
        if expected == "none" {
            let vector = &claims["submods"]["rootbound"]["ear_trustworthiness_vector"];
            assert!(vector.as_object().unwrap().values().all(|claim| *claim == json!(0)), "{vector}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_counts_for_nothing_reads_nothing() {
    let stage = Stage::new().await;
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    let mut http = Http::connect(&stage, Some(&leaf)).await.unwrap();
    let mut code = async || {
        let refused = http.send(get(&path_of(1))).await.unwrap();
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        refused.code().to_owned()
    };
    assert_eq!(code().await, "unknown_node");
    let changes: [(&str, Change); 3] = [
        ("admission_pending", Box::new(|live| live.standing = Standing::Pending)),
        ("node_retired", Box::new(|live| live.standing = Standing::Retired)),
        (
            "certificate_superseded",
            Box::new(|live| live.credentials[0].serial = SerialNumber::generate(&mut random::system())),
        ),
    ];
    for (expected, change) in changes {
        live(&stage, &leaf, |live| change(live));
        assert_eq!(code().await, expected);
    }
    live(&stage, &leaf, |_| {});
    stage.clock.advance(Duration::from_secs(601));
    assert_eq!(code().await, "certificate_expired");
}

#[tokio::test]
async fn a_node_reads_of_no_other_whether_there_is_one_or_not() {
    let stage = Stage::new().await;
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    live(&stage, &leaf, |_| {});
    let other = stage.verifier.fleet().node(node(1)).unwrap();
    stage.verifier.fleet().put(node(2), (*other).clone(), stage.clock.now());
    let mut bodies = Vec::new();
    for path in [path_of(2), path_of(3), "/v1/nodes/1/ear".to_owned(), "/v1/nodes/%ff/ear".to_owned()] {
        let refused = request(&stage, Some(&leaf), get(&path)).await.unwrap();
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "result_of_other_node"));
        bodies.push(refused.bytes);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));
}

#[tokio::test]
async fn a_relying_party_reads_its_nodes_and_hears_the_same_of_others_as_of_none() {
    let parties = Parties::new();
    let stage = parties.stage().await;
    // Node 1 has the label env=test; node 2 is the same without.
    live(&stage, &parties.gateway(&stage), |_| {});
    let mut other = (*stage.verifier.fleet().node(node(1)).unwrap()).clone();
    other.labels = Labels::default();
    stage.verifier.fleet().put(node(2), other, stage.clock.now());

    let gateway = parties.gateway(&stage);
    let answer = request(&stage, Some(&gateway), get(&path_of(1))).await.unwrap();
    assert_eq!(status(&claims(&stage, &answer).await), "affirming");
    let mut bodies = Vec::new();
    for path in [path_of(2), path_of(3), "/v1/nodes/1/ear".to_owned(), "/v1/nodes/%ff/ear".to_owned()] {
        let refused = request(&stage, Some(&gateway), get(&path)).await.unwrap();
        assert_eq!((refused.status, refused.code()), (StatusCode::NOT_FOUND, "unknown_node"), "{path}");
        bodies.push(refused.bytes);
    }
    assert!(bodies.iter().all(|body| *body == bodies[0]));

    let auditor = parties.ca.sign_dns("audit.PARTNER.example", stage.clock.now());
    let answer = request(&stage, Some(&auditor), get(&path_of(2))).await.unwrap();
    assert_eq!(status(&claims(&stage, &answer).await), "affirming", "every node");
}

#[tokio::test]
async fn a_relying_party_hears_at_once_that_a_node_drifted_was_retired_or_fell_silent() {
    let parties = Parties::new();
    let stage = parties.stage().await;
    let gateway = parties.gateway(&stage);
    let mut http = Http::connect(&stage, Some(&gateway)).await.unwrap();
    let changes: [(Change, &str); 5] = [
        (drifted(), "contraindicated"),
        (Box::new(|live| live.standing = Standing::Retired), "contraindicated"),
        (Box::new(|live| live.standing = Standing::Pending), "contraindicated"),
        (stale(), "none"),
        (unknown(), "none"),
    ];
    for (change, expected) in changes {
        live(&stage, &gateway, |_| {});
        let answer = http.send(get(&path_of(1))).await.unwrap();
        assert_eq!(status(&claims(&stage, &answer).await), "affirming");
        live(&stage, &gateway, |live| change(live));
        let answer = http.send(get(&path_of(1))).await.unwrap();
        let claims = claims(&stage, &answer).await;
        assert_eq!(status(&claims), expected);
        let told = &claims["submods"]["rootbound"]["ear_verifier_claims"]["rootbound_deviations"];
        if claims["submods"]["rootbound"]["ear_trustworthiness_vector"]["configuration"] == 96 {
            assert_eq!(*told, json!([{ "code": "pcr_mismatch", "detail": "sha256 PCR 7 is off" }]));
        } else {
            assert_eq!(*told, Value::Null);
        }
    }
    live(&stage, &gateway, |_| {});
    stage.clock.advance(Duration::from_secs(181));
    let answer = http.send(get(&path_of(1))).await.unwrap();
    assert_eq!(status(&claims(&stage, &answer).await), "none", "by the clock alone");
}

#[tokio::test]
async fn whoever_is_no_relying_party_is_told_why() {
    let parties = Parties::new();
    let stage = parties.stage().await;
    let now = stage.clock.now();
    let gateway = parties.gateway(&stage);
    live(&stage, &gateway, |_| {});

    let anonymous = ask(&stage, get(&path_of(1))).await;
    assert_eq!((anonymous.status, anonymous.code()), (StatusCode::UNAUTHORIZED, "certificate_required"));
    for leaf in [
        parties.ca.sign("spiffe://partner.example/gateway/2", now),
        parties.ca.sign("spiffe://PARTNER.example/gateway", now),
        parties.ca.sign("audit.partner.example", now),
        parties.ca.sign_dns("x.audit.partner.example", now),
        parties.ca.sign_dns(GATEWAY, now),
    ] {
        let refused = request(&stage, Some(&leaf), get(&path_of(1))).await.unwrap();
        assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "relying_party_unknown"));
    }
    let mut padded = parties.gateway(&stage);
    padded.chain.extend(vec![padded.chain[0].clone(); 6]);
    let refused = request(&stage, Some(&padded), get(&path_of(1))).await.unwrap();
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "relying_party_chain_too_long"));

    let stranger = Ca::other(now).sign(GATEWAY, now);
    assert!(request(&stage, Some(&stranger), get(&path_of(1))).await.is_err(), "no handshake");

    let mut http = Http::connect(&stage, Some(&gateway)).await.unwrap();
    assert_eq!(http.send(get(&path_of(1))).await.unwrap().status, StatusCode::OK);
    stage.clock.advance(Duration::from_secs(601));
    let late = http.send(get(&path_of(1))).await.unwrap();
    let expected = (StatusCode::FORBIDDEN, "relying_party_certificate_not_in_date");
    assert_eq!((late.status, late.code()), expected, "the connection outlives the certificate");
}

/// Attack 85 with a relying party's CA in the attacker's hands: it signs what names a node, and opens no node's route.
#[tokio::test]
async fn a_relying_partys_ca_makes_no_nodes() {
    let parties = Parties::new();
    let everything = parties.section("gateway", domain().node(node(1)).as_str(), &[("env", "prod")]);
    let stage = Stage::read_by(&[everything]).await;
    let forged = parties.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    live(&stage, &forged, |_| {});
    let mut http = Http::connect(&stage, Some(&forged)).await.unwrap();
    let routes = ["/v1/enrollments", "/v1/enrollments/activate", "/v1/challenges", "/v1/evidence"];
    for message in std::iter::once(get("/v1/whoami")).chain(routes.map(|path| post(path, "{}"))) {
        let route = message.uri().clone();
        let refused = http.send(message).await.unwrap();
        if ["/v1/whoami", "/v1/evidence"].contains(&route.path()) {
            assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "not_a_node"), "{route}");
        } else {
            // Anybody may call: a certificate counts for nothing there.
            assert_eq!(refused.code(), "body_malformed", "{route}");
        }
    }
    let refused = http.send(get(&path_of(1))).await.unwrap();
    assert_eq!(refused.code(), "unknown_node", "it is the relying party of that name, with its labels");

    // And the other way round: what our CA signs is no relying party, whatever its name.
    let parties = Parties::new();
    let stage = parties.stage().await;
    let node = stage.ca.sign("spiffe://example.org/gateway", stage.clock.now());
    let refused = request(&stage, Some(&node), get(&path_of(1))).await.unwrap();
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "not_a_node"));
    let node = stage.ca.sign(GATEWAY, stage.clock.now());
    let refused = request(&stage, Some(&node), get(&path_of(1))).await.unwrap();
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "svid_trust_domain"));
    // Nodes go on as ever where there are relying parties.
    let leaf = stage.ca.sign(domain().node(super::stage::node(1)).as_str(), stage.clock.now());
    live(&stage, &leaf, |_| {});
    assert_eq!(request(&stage, Some(&leaf), get("/v1/whoami")).await.unwrap().status, StatusCode::OK);
    assert_eq!(request(&stage, Some(&leaf), get(&path_of(1))).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_nonce_is_found_in_the_result_or_refused() {
    let stage = Stage::new().await;
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    live(&stage, &leaf, |_| {});
    let mut http = Http::connect(&stage, Some(&leaf)).await.unwrap();
    let nonce = "aZ09-_".repeat(14);
    let answer = http.send(get(&format!("{}?nonce={nonce}", path_of(1)))).await.unwrap();
    assert_eq!(claims(&stage, &answer).await["eat_nonce"], nonce);
    let long = format!("nonce={}", "a".repeat(89));
    for query in [
        "nonce=1234567",
        &long,
        "nonce=",
        "nonce",
        "nonce=abcdefgh&nonce=abcdefgh",
        "nonce=abc%64efgh",
        "nonce=abcdefgh%22",
        "other=1",
    ] {
        let refused = http.send(get(&format!("{}?{query}", path_of(1)))).await.unwrap();
        assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "query_malformed"), "{query}");
    }
    let anonymous = ask(&stage, get(&format!("{}?nonce=1", path_of(1)))).await;
    assert_eq!(anonymous.code(), "certificate_required", "who asks comes first");
}

#[tokio::test]
async fn the_key_that_verifies_is_published_and_nothing_private() {
    let stage = Stage::new().await;
    let leaf = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
    live(&stage, &leaf, |_| {});
    let published = ask(&stage, get("/.well-known/jwks.json")).await;
    assert_eq!(published.status, StatusCode::OK);
    assert_eq!(published.headers["content-type"], "application/jwk-set+json");
    let keys = published.body["keys"].as_array().unwrap();
    assert_eq!(keys.len(), 3, "that of results, and an active and a prepared one of access tokens");
    for key in keys {
        let mut members: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
        members.sort_unstable();
        assert_eq!(members, ["alg", "crv", "kid", "kty", "use", "x", "y"], "nothing private");
    }
    let answer = request(&stage, Some(&leaf), get(&path_of(1))).await.unwrap();
    assert!(verified(&published.body, &answer.bytes).is_some());
    // The claims begin with `{`, which is `e` in base64url; `f` makes it another character.
    let mut tampered = answer.bytes.to_vec();
    let claims = tampered.iter().position(|byte| *byte == b'.').unwrap() + 1;
    assert_eq!(std::mem::replace(&mut tampered[claims], b'f'), b'e');
    assert!(verified(&published.body, &tampered).is_none());
    let other = Stage::new().await;
    let others = ask(&other, get("/.well-known/jwks.json")).await;
    assert_ne!(others.body, published.body, "each verifier has its own");
}

#[test]
fn chains_that_lead_nowhere_make_no_relying_party() {
    let parties = Parties::new();
    let now = begin_of_time();
    let loaded = RelyingParties::load(&[parties.section("gateway", GATEWAY, &[])], None).unwrap();
    let of = |chain: &[_]| loaded.identify(chain, now).map(|party| party.name().to_string());
    assert_eq!(of(&parties.ca.sign(GATEWAY, now).chain), Ok("gateway".to_owned()));
    assert_eq!(of(&[]), Err(RelyingPartyError::Malformed));
    assert_eq!(of(&[vec![0x30, 0].into()]), Err(RelyingPartyError::Malformed));
    assert_eq!(of(&[vec![0; 9000].into()]), Err(RelyingPartyError::TooLong));
    assert_eq!(of(&Ca::other(now).sign(GATEWAY, now).chain), Err(RelyingPartyError::Untrusted));
    let early = parties.ca.sign(GATEWAY, now.plus(Duration::from_secs(60)));
    assert_eq!(of(&early.chain), Err(RelyingPartyError::NotInDate));
    let nobody = RelyingParties::none().identify(&parties.ca.sign(GATEWAY, now).chain, now);
    assert!(matches!(nobody, Err(RelyingPartyError::Untrusted)));
}

#[test]
fn files_that_hold_no_ca_of_others_are_refused() {
    let parties = Parties::new();
    let section = [parties.section("gateway", GATEWAY, &[])];
    let own = parties.ca.certificate();
    let refused = RelyingParties::load(&section, Some(&own)).unwrap_err();
    assert!(matches!(refused, LoadError::OwnAuthority { .. }), "{refused}");

    let write = |content: &[u8]| std::fs::write(parties.file(), content).unwrap();
    let leaf = parties.ca.sign(GATEWAY, begin_of_time());
    write(block("CERTIFICATE", &leaf.chain[0]).as_bytes());
    let refused = RelyingParties::load(&section, None).unwrap_err();
    assert!(matches!(refused, LoadError::NotACa { position: 1, .. }), "{refused}");
    for content in ["", "no PEM", &block("CERTIFICATE", b"no certificate")] {
        write(content.as_bytes());
        let refused = RelyingParties::load(&section, None).unwrap_err();
        assert!(matches!(refused, LoadError::Malformed { .. }), "{refused}");
    }
    write(&[b'\n'; 70_000]);
    assert!(matches!(RelyingParties::load(&section, None), Err(LoadError::TooLarge { .. })));
    std::fs::remove_file(parties.file()).unwrap();
    assert!(matches!(RelyingParties::load(&section, None), Err(LoadError::Io { .. })));
}

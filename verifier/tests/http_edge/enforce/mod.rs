//! Gateways that ask whether a request may pass: a node with a token or its certificate, a policy, a table of routes, over TLS.

mod envoy;
mod forward_auth;
mod tokens;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;
use http::Request;
use http_body_util::Full;
use hyper::body::Bytes;
use rootbound_common::clock::Clock as _;
use rootbound_common::crypto::sha256;
use rootbound_verifier::flows::operate::Operator;
use rootbound_verifier::flows::policies::WhichBundle;
use rootbound_verifier::policy::{Bundle, BundleSource};
use rootbound_verifier::posture::LiveNode;
use rootbound_verifier::store::{RecordFilter, SqliteStore};
use serde_json::{Value, json};

use super::admission::live;
use super::client::{Answer, get, request};
use super::pki::Leaf;
use super::results::{GATEWAY, Parties};
use super::stage::{Stage, domain, limits, node};

const SERVICE: &str = "https://db.example.org";
/// It may read no node of these tests.
const BLIND: &str = "spiffe://partner.example/blind";
/// A gateway of another service.
const OTHER: &str = "spiffe://partner.example/other";

const SCHEMA: &str = r#"
entity record;
action read, write, erase appliesTo {
    principal: [Rootbound::Node], resource: [record], context: { attested: Rootbound::Attested },
};
action ship appliesTo {
    principal: [Rootbound::Node], resource: [Rootbound::Resource], context: { attested: Rootbound::Attested },
};
"#;

const POLICIES: &str = r#"
@id("unbound") permit (principal is Rootbound::Node, action == Rootbound::Action::"IssueUnboundCredential", resource);
@id("act") permit (principal is Rootbound::Node, action == Rootbound::Action::"Act", resource is Rootbound::Resource);
@id("read") permit (principal is Rootbound::Node, action == Action::"read", resource is record);
@id("write") permit (principal is Rootbound::Node, action == Action::"write", resource is record);
@id("ship") permit (principal is Rootbound::Node, action == Action::"ship", resource is Rootbound::Resource);
"#;

fn routes() -> String {
    let route = |method: &str, path: &str, action: &str, kind: &str, id: &str, more: &str| {
        format!(
            "[[route]]\nmethod = '{method}'\nhost = 'db.example.org'\npath = '{path}'\naction = '{action}'\n\
             resource = {{ type = '{kind}', id = '{id}' }}\n{more}\n"
        )
    };
    let ours = format!("audience = '{SERVICE}'");
    [
        route("GET", "/records/{id}", "read", "record", "{id}", &ours),
        route("DELETE", "/records/{id}", "erase", "record", "{id}", &ours),
        route("POST", "/records/{id}", "write", "record", "{id}", &format!("{ours}\none_time = true")),
        route("POST", "/shipments", "ship", "resource", SERVICE, &ours),
        route("GET", "/any", "Act", "resource", SERVICE, &ours),
        route("GET", "/other", "read", "record", "x", "audience = 'https://other.example.org'"),
    ]
    .concat()
}

/// A verifier with policies and routes, node 1 with its certificate, and a gateway.
struct Point {
    stage: Stage,
    parties: Parties,
    /// Node 1's.
    leaf: Leaf,
    gateway: Leaf,
}

impl Point {
    async fn new() -> Self {
        let parties = Parties::new();
        let mut gateway = parties.section("gateway", GATEWAY, &[("env", "test")]);
        gateway.audiences = vec![SERVICE.to_owned().try_into().unwrap()];
        let mut blind = parties.section("blind", BLIND, &[("env", "prod")]);
        blind.audiences = gateway.audiences.clone();
        let other = parties.section("other", OTHER, &[("env", "test")]);
        let stage = Stage::read_by_within(&[gateway, blind, other], limits()).await;
        put_in_force(&stage, source(POLICIES)).await;
        let leaf = stage.ca.sign_at_epoch(domain().node(node(1)).as_str(), stage.clock.now(), 1);
        live(&stage, &leaf, |_| {});
        let gateway = parties.ca.sign(GATEWAY, stage.clock.now());
        Self { stage, parties, leaf, gateway }
    }

    fn change(&self, change: impl FnOnce(&mut LiveNode)) {
        live(&self.stage, &self.leaf, change);
    }

    fn key(&self) -> ProofKey {
        ProofKey::of(&self.leaf)
    }

    fn nonce(&self) -> String {
        self.stage.verifier.dpop_nonce()
    }

    /// A proof for a request with a token, but for what `change` changes.
    fn proof(
        &self,
        key: &ProofKey,
        method: &str,
        uri: &str,
        token: &str,
        change: impl FnOnce(&mut Value),
    ) -> String {
        let mut claims = json!({
            "jti": unique(),
            "htm": method,
            "htu": uri,
            "iat": self.stage.clock.now().as_seconds(),
            "nonce": self.nonce(),
            "ath": BASE64URL_NOPAD.encode(&sha256(&[token.as_bytes()])),
        });
        change(&mut claims);
        key.sign(&claims)
    }

    /// A token for node 1, with these parameters; bound to `key`, or to the certificate.
    async fn token(&self, key: Option<&ProofKey>, parameters: &[(&str, &str)]) -> String {
        let encode = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
        };
        let form: Vec<_> = [("grant_type", "client_credentials"), ("audience", SERVICE)]
            .iter()
            .filter(|(name, _)| !parameters.iter().any(|(other, _)| other == name))
            .chain(parameters)
            .map(|(name, value)| format!("{name}={}", encode(value)))
            .collect();
        let mut message = Request::post("/oauth2/token")
            .header("host", "localhost")
            .header("content-type", "application/x-www-form-urlencoded");
        if let Some(key) = key {
            let claims = json!({
                "jti": unique(),
                "htm": "POST",
                "htu": "https://pdp.example.org:8443/oauth2/token",
                "iat": self.stage.clock.now().as_seconds(),
                "nonce": self.nonce(),
            });
            message = message.header("dpop", key.sign(&claims));
        }
        let message = message.body(Full::new(Bytes::from(form.join("&")))).unwrap();
        let answer = request(&self.stage, Some(&self.leaf), message).await.unwrap();
        answer.body["access_token"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
    }

    /// To read the record `1`.
    async fn reader(&self, key: Option<&ProofKey>) -> String {
        self.token(key, &[("authorization_details", &details("read", "record", "1"))]).await
    }

    /// Asks as the gateway, as Caddy does, with these fields of the client's.
    async fn ask(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Answer {
        self.ask_as(&self.gateway, "/forward-auth", method, target, fields).await
    }

    async fn ask_as(
        &self,
        gateway: &Leaf,
        endpoint: &str,
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
    ) -> Answer {
        let described = [
            ("x-forwarded-method", method),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "db.example.org"),
            ("x-forwarded-uri", target),
        ];
        request(&self.stage, Some(gateway), with(get(endpoint), &[&described, fields].concat()))
            .await
            .unwrap()
    }

    /// With a token and a proof that fits.
    async fn ask_by(&self, key: &ProofKey, token: &str, method: &str, target: &str) -> Answer {
        let path = target.split('?').next().unwrap();
        let proof = self.proof(key, method, &format!("{SERVICE}{path}"), token, |_| {});
        self.ask(method, target, &[("authorization", &format!("DPoP {token}")), ("dpop", &proof)]).await
    }

    async fn trail(&self) -> Vec<rootbound_verifier::audit::AuditRecord> {
        let store: &SqliteStore = &self.stage.store;
        use rootbound_verifier::store::AuditStore as _;
        let page = store.records(&RecordFilter::default(), None, 100).await.unwrap();
        page.records.into_iter().map(|record| record.record).collect()
    }
}

/// These policies, and who gets credentials and may ask as ever.
fn source(policies: &str) -> BundleSource {
    let mut source = BundleSource {
        schema: Some(SCHEMA.to_owned()),
        routes: Some(routes()),
        // Its cases are of what it permits alone.
        cases: Default::default(),
        ..Bundle::builtin_source()
    };
    source.policies.insert("policies.cedar".parse().unwrap(), policies.to_owned());
    source
}

async fn put_in_force(stage: &Stage, source: BundleSource) {
    let operator = Operator { author: "a test".to_owned(), reason: String::new() };
    let (written, _warnings) =
        stage.verifier.put_policy("enforced".parse().unwrap(), source, &operator).await.unwrap();
    let which = WhichBundle::Written { name: written.id.name, version: Some(written.id.version) };
    stage.verifier.activate_policy(&which, None, &operator).await.unwrap();
}

fn with(mut message: Request<Full<Bytes>>, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    for (name, value) in fields {
        let name: http::HeaderName = name.parse().unwrap();
        message.headers_mut().append(name, value.parse().unwrap());
    }
    message
}

fn details(action: &str, kind: &str, id: &str) -> String {
    json!([{ "type": "rootbound_action", "actions": [action], "resource": { "type": kind, "id": id } }])
        .to_string()
}

fn unique() -> String {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::SecureRandom::fill(&SystemRandom::new(), &mut bytes).unwrap();
    BASE64URL_NOPAD.encode(&bytes)
}

/// Status and code of an answer.
fn said(answer: &Answer) -> (u16, &str) {
    (answer.status.as_u16(), answer.headers.get("x-rootbound-code").map_or("", |code| code.to_str().unwrap()))
}

fn challenges(answer: &Answer) -> Vec<&str> {
    answer.headers.get_all("www-authenticate").iter().map(|value| value.to_str().unwrap()).collect()
}

/// A key that signs proofs.
struct ProofKey(EcdsaKeyPair);

impl ProofKey {
    fn of(leaf: &Leaf) -> Self {
        let der = leaf.key.secret_pkcs8_der();
        Self(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der).unwrap())
    }

    fn new() -> Self {
        Self(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn jwk(&self) -> Value {
        let (x, y) = self.0.public_key().as_ref()[1..].split_at(32);
        json!({ "kty": "EC", "crv": "P-256", "x": BASE64URL_NOPAD.encode(x), "y": BASE64URL_NOPAD.encode(y) })
    }

    fn sign(&self, claims: &Value) -> String {
        self.sign_as(&json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk() }), claims)
    }

    fn sign_as(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let input = format!("{}.{}", encode(header), encode(claims));
        let signature = self.0.sign(&SystemRandom::new(), input.as_bytes()).unwrap();
        format!("{input}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}

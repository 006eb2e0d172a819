//! The authorization server: tokens for nodes and for who acts for them, over real TLS.
//!
//! Node 1 is affirming and of the API to read; the API has two ways to show who it is, another service one.

mod mint;
mod worth;

use data_encoding::{BASE64, BASE64URL_NOPAD};
use http::{Request, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use p256::SecretKey;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use p256::elliptic_curve::Generate as _;
use p256::pkcs8::DecodePrivateKey as _;
use rootbound_common::clock::Clock as _;
use rootbound_common::crypto::sha256;
use rootbound_common::random;
use rootbound_verifier::flows::operate::Operator;
use rootbound_verifier::flows::policies::WhichBundle;
use rootbound_verifier::http::Limits;
use rootbound_verifier::policy::{Bundle, BundleSource};
use rootbound_verifier::relying_party::RelyingPartySection;
use rootbound_verifier::relying_party::token::BearerToken;
use serde_json::{Value, json};

use super::admission::live;
use super::client::{Answer, Http, get, request};
use super::pki::Leaf;
use super::results::Parties;
use super::stage::{Stage, domain, limits, node};

const TOKEN: &str = "/oauth2/token";
const INTROSPECT: &str = "/oauth2/introspect";
const REVOKE: &str = "/oauth2/revoke";
const ISSUER: &str = "https://pdp.example.org:8443";
const API: &str = "https://api.example.org";
const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";

/// An authorization server with clients.
struct Server {
    stage: Stage,
    /// Node 1.
    node: Leaf,
    /// The API, by certificate.
    api: Leaf,
    /// The API, by token.
    secret: BearerToken,
    /// Another service, by token.
    other: BearerToken,
    /// One whose audience is the API's, and that may read no node that there is.
    blind: BearerToken,
}

/// Policies by which credentials are permitted that others than the TPM can use, and by which another service acts for nodes.
const UNBOUND: (&str, &str) = ("unbound.cedar", include_str!("unbound.cedar"));
const ACTING: (&str, &str) = ("acting.cedar", include_str!("acting.cedar"));

async fn put_in_force(stage: &Stage, more: &[(&str, &str)]) {
    let mut source: BundleSource = Bundle::builtin_source();
    source.schema = Some(include_str!("schema.cedarschema").to_owned());
    let mut add = |file: &str, text: &str| source.policies.insert(file.parse().unwrap(), text.to_owned());
    add("policies.cedar", include_str!("policies.cedar"));
    for (file, text) in more {
        add(file, text);
    }
    let operator = operator();
    let put = stage.verifier.put_policy("tokens".parse().unwrap(), source, &operator).await;
    let (written, _) = put.unwrap();
    let which = WhichBundle::Written { name: written.id.name, version: Some(written.id.version) };
    stage.verifier.activate_policy(&which, None, &operator).await.unwrap();
}

fn operator() -> Operator {
    Operator { author: "a test".to_owned(), reason: String::new() }
}

impl Server {
    /// Where policies permit only what a key of the TPM holds.
    async fn new() -> Self {
        Self::with(&[]).await
    }

    /// Where they permit everything else as well.
    async fn permissive() -> Self {
        Self::with(&[UNBOUND, ACTING]).await
    }

    async fn with(more: &[(&str, &str)]) -> Self {
        Self::start(more, limits()).await
    }

    /// With these bounds.
    async fn within(limits: Limits) -> Self {
        Self::start(&[], limits).await
    }

    async fn start(more: &[(&str, &str)], limits: Limits) -> Self {
        let parties = Parties::new();
        let [secret, other, blind] = [(); 3].map(|()| BearerToken::generate(&mut random::system()));
        let section = |name: &str, audience: &str, env: &str, token: &BearerToken| RelyingPartySection {
            audiences: vec![audience.to_owned().try_into().unwrap()],
            token_sha256: vec![token.hash()],
            ..parties.section(name, &format!("spiffe://partner.example/{name}"), &[("env", env)])
        };
        let sections = [
            section("api", API, "test", &secret),
            section("other", "https://other.example.org", "test", &other),
            section("blind", API, "prod", &blind),
        ];
        let stage = Stage::read_by_within(&sections, limits).await;
        put_in_force(&stage, more).await;
        let node = stage.ca.sign(domain().node(node(1)).as_str(), stage.clock.now());
        live(&stage, &node, |_| {});
        let api = parties.ca.sign("spiffe://partner.example/api", stage.clock.now());
        Self { stage, node, api, secret, other, blind }
    }

    async fn by_node(&self, message: Request<Full<Bytes>>) -> Answer {
        request(&self.stage, Some(&self.node), message).await.unwrap()
    }

    async fn by_api(&self, message: Request<Full<Bytes>>) -> Answer {
        request(&self.stage, Some(&self.api), message).await.unwrap()
    }

    /// A token of node 1 for the API, to deploy, bound to its certificate.
    async fn token(&self) -> String {
        text(&granted(&self.by_node(form(TOKEN, &deploy())).await)["access_token"])
    }

    /// Another node, which stands as node 1 does.
    fn another(&self, number: u8) -> Leaf {
        let leaf = self.stage.ca.sign(domain().node(node(number)).as_str(), self.stage.clock.now());
        let mut other = (*self.stage.verifier.fleet().node(node(1)).unwrap()).clone();
        other.credentials[0].serial = leaf.serial;
        self.stage.verifier.fleet().put(node(number), other, self.stage.clock.now());
        leaf
    }

    /// What a token is worth to who shows this secret.
    async fn introspect(&self, by: &BearerToken, token: &str) -> Value {
        let answer =
            request(&self.stage, None, bearer(by, form(INTROSPECT, &[("token", token)]))).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.headers["cache-control"], "no-store");
        answer.body
    }

    async fn is_active(&self, token: &str) -> bool {
        let answer = self.introspect(&self.secret, token).await;
        if answer["active"] == json!(false) {
            assert_eq!(answer, json!({ "active": false }), "nothing else is told");
        }
        answer["active"].as_bool().unwrap()
    }

    /// A nonce for proofs.
    async fn nonce(&self) -> String {
        let answer = self.by_node(with_proof(form(TOKEN, &deploy()), "x.y.z")).await;
        answer.headers["dpop-nonce"].to_str().unwrap().to_owned()
    }

    fn now(&self) -> i64 {
        self.stage.clock.now().as_seconds()
    }

    /// The claims of a token, by the published keys.
    async fn claims(&self, token: &str, typ: &str, keys: &str) -> Option<Value> {
        let keys = request(&self.stage, None, get(keys)).await.unwrap().body;
        let (message, signature) = token.rsplit_once('.')?;
        let (header, claims) = message.split_once('.')?;
        let header: Value = serde_json::from_slice(&decode(header)).unwrap();
        assert_eq!((&header["alg"], &header["typ"]), (&json!("ES256"), &json!(typ)));
        let key = keys["keys"].as_array()?.iter().find(|key| key["kid"] == header["kid"])?;
        let point = [vec![4], decode(key["x"].as_str()?), decode(key["y"].as_str()?)].concat();
        let public = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED,
            point,
        );
        public.verify(message.as_bytes(), &decode(signature)).ok()?;
        serde_json::from_slice(&decode(claims)).ok()
    }
}

fn decode(text: &str) -> Vec<u8> {
    BASE64URL_NOPAD.decode(text.as_bytes()).unwrap()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// Client credentials, to deploy at the API.
fn deploy() -> Vec<(&'static str, &'static str)> {
    vec![("grant_type", "client_credentials"), ("audience", API), ("scope", "deploy")]
}

fn exchange<'a>(token: &'a str, audience: &'a str, scope: &'a str) -> Vec<(&'a str, &'a str)> {
    vec![
        ("grant_type", EXCHANGE),
        ("subject_token", token),
        ("subject_token_type", ACCESS_TOKEN),
        ("audience", audience),
        ("scope", scope),
    ]
}

fn form(path: &str, parameters: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let escape = |text: &str| {
        text.bytes()
            .map(|byte| match byte {
                byte if byte.is_ascii_alphanumeric() => char::from(byte).to_string(),
                byte => format!("%{byte:02x}"),
            })
            .collect::<String>()
    };
    let pairs: Vec<_> =
        parameters.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    raw(path, pairs.join("&"))
}

fn raw(path: &str, body: String) -> Request<Full<Bytes>> {
    let request = Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/x-www-form-urlencoded");
    request.body(Full::new(body.into())).unwrap()
}

fn bearer(token: &BearerToken, message: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    with(message, "authorization", &format!("Bearer {}", *token.reveal()))
}

fn basic(name: &str, token: &BearerToken, message: Request<Full<Bytes>>) -> Request<Full<Bytes>> {
    let credentials = BASE64.encode(format!("{name}:{}", *token.reveal()).as_bytes());
    with(message, "authorization", &format!("Basic {credentials}"))
}

fn with(mut message: Request<Full<Bytes>>, name: &'static str, value: &str) -> Request<Full<Bytes>> {
    message.headers_mut().append(name, value.parse().unwrap());
    message
}

fn with_proof(message: Request<Full<Bytes>>, proof: &str) -> Request<Full<Bytes>> {
    with(message, "dpop", proof)
}

fn granted(answer: &Answer) -> &Value {
    assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers["cache-control"], "no-store");
    &answer.body
}

/// `error` and `code` of a refusal.
fn refused(answer: &Answer) -> (&str, &str) {
    assert_ne!(answer.status, StatusCode::OK, "{answer:?}");
    assert_eq!(answer.headers["content-type"], "application/json");
    assert_eq!(answer.headers["cache-control"], "no-store");
    assert!(!answer.body["error_description"].as_str().unwrap().is_empty());
    (answer.body["error"].as_str().unwrap(), answer.body["code"].as_str().unwrap())
}

/// A key that makes proofs.
struct ProofKey(SigningKey);

impl ProofKey {
    fn new() -> Self {
        Self(SigningKey::from(SecretKey::generate_from_rng(&mut random::system())))
    }

    fn of(leaf: &Leaf) -> Self {
        Self(SigningKey::from_pkcs8_der(leaf.key.secret_pkcs8_der()).unwrap())
    }

    fn jwk(&self) -> Value {
        let point = self.0.verifying_key().to_sec1_point(false);
        let [x, y] = [point.x().unwrap(), point.y().unwrap()].map(|half| BASE64URL_NOPAD.encode(half));
        json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y })
    }

    fn thumbprint(&self) -> String {
        let jwk = self.jwk();
        let members = format!(r#"{{"crv":"P-256","kty":"EC","x":{},"y":{}}}"#, jwk["x"], jwk["y"]);
        BASE64URL_NOPAD.encode(&sha256(&[members.as_bytes()]))
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64URL_NOPAD.encode(value.to_string().as_bytes());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature: Signature = self.0.sign(message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(&signature.to_bytes()))
    }

    /// A proof for the token endpoint.
    fn proof(&self, server: &Server, nonce: &str, id: &str) -> String {
        let claims = json!({
            "jti": id, "htm": "POST", "htu": format!("{ISSUER}{TOKEN}"), "iat": server.now(), "nonce": nonce,
        });
        self.sign(&json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": self.jwk() }), &claims)
    }
}

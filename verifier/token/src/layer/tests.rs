use std::convert::Infallible;

use rootbound_common::clock::Timestamp;
use rootbound_common::random;
use rootbound_common::secret::Secret;
use serde_json::{Value, json};
use tower::{ServiceExt, service_fn};

use super::*;
use crate::base64url;
use crate::testing::Signer;

const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_500);
const SERVICE: &str = "https://orders.example.org";

struct Stopped;

impl Clock for Stopped {
    fn now(&self) -> Timestamp {
        NOW
    }
}

struct Says(Posture);

impl Introspect for Says {
    async fn introspect(&self, _text: &str, _token: &VerifiedAccessToken) -> Posture {
        self.0
    }
}

struct World {
    issuer: Signer,
    client: Signer,
    layer: EnforceLayer<Says>,
    nonce: String,
}

impl World {
    fn new(posture: Posture, bearer_tokens: BearerTokens, scope: Option<&str>) -> Self {
        let issuer = Signer::new();
        let nonces = Nonces::new(Secret::generate(&mut random::system()));
        let nonce = nonces.issue(NOW);
        let layer = EnforceLayer::new(Enforcement {
            issuer: "https://as".to_owned(),
            audience: SERVICE.to_owned(),
            origin: SERVICE.to_owned(),
            keys: Arc::new(ArcSwap::from_pointee(JwkSet::of_keys([issuer.public().clone()]))),
            leeway: Duration::ZERO,
            bearer_tokens,
            scope: scope.map(str::to_owned),
            nonces,
            replays: Replays::new(2),
            clock: Arc::new(Stopped),
            introspect: Says(posture),
        });
        Self { issuer, client: Signer::new(), layer, nonce }
    }

    fn strict() -> Self {
        Self::new(Posture::Active, BearerTokens::Refused, None)
    }

    fn token(&self, cnf: Option<Value>) -> String {
        let mut claims = json!({
            "iss": "https://as", "sub": "s", "client_id": "c", "aud": SERVICE, "iat": 1_800_000_000,
            "exp": 1_800_000_060, "jti": "t", "rootbound_posture_epoch": 1, "scope": "read",
        });
        if let Some(cnf) = cnf {
            claims["cnf"] = cnf;
        }
        self.issuer.sign(&json!({ "alg": "ES256", "typ": "at+jwt", "kid": self.issuer.kid() }), &claims)
    }

    fn bound(&self) -> String {
        self.token(Some(json!({ "jkt": self.client.kid() })))
    }

    fn proof(&self, token: &str, jti: &str, nonce: &str) -> String {
        let header = json!({ "alg": "ES256", "typ": "dpop+jwt", "jwk": self.client.public().to_json() });
        let ath = base64url(&rootbound_common::crypto::sha256(&[token.as_bytes()]));
        let htu = format!("{SERVICE}/orders");
        let claims = json!({
            "jti": jti, "htm": "GET", "htu": htu, "iat": 1_800_000_000, "nonce": nonce, "ath": ath,
        });
        self.client.sign(&header, &claims)
    }

    /// Status, `WWW-Authenticate`, and whether a nonce came along; the service answers with the token's subject.
    async fn asks(&self, headers: &[(&str, &str)], peer: Option<&[u8]>) -> (u16, String, bool) {
        let service = service_fn(|request: Request<()>| async move {
            let token = request.extensions().get::<VerifiedAccessToken>().expect("a verified token");
            Ok::<_, Infallible>(Response::new(token.claims().subject.to_string()))
        });
        let mut request = Request::builder().method("GET").uri("/orders?all");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(()).unwrap();
        if let Some(peer) = peer {
            request.extensions_mut().insert(PeerCertificate(CertificateThumbprint::of_der(peer)));
        }
        let answer = self.layer.layer(service).oneshot(request).await.unwrap();
        let challenge =
            answer.headers().get(WWW_AUTHENTICATE).map(|value| value.to_str().unwrap().to_owned());
        if answer.status() == StatusCode::OK {
            assert_eq!(answer.body(), "s");
        } else {
            assert!(answer.extensions().get::<Refusal>().is_some(), "why, for the log");
        }
        (answer.status().as_u16(), challenge.unwrap_or_default(), answer.headers().contains_key(DPOP_NONCE))
    }
}

fn told(error: &str) -> String {
    format!(r#"DPoP error="{error}", algs="ES256""#)
}

#[tokio::test]
async fn a_token_comes_through_with_a_proof_of_its_key_once() {
    let world = World::strict();
    let token = world.bound();
    let authorization = format!("DPoP {token}");
    let ask =
        async |proof: &str| world.asks(&[("authorization", &authorization), ("dpop", proof)], None).await;
    let proof = world.proof(&token, "a", &world.nonce);
    assert_eq!(ask(&proof).await, (200, String::new(), true));
    assert_eq!(ask(&proof).await, (401, told("invalid_dpop_proof"), true), "used before");
    assert_eq!(ask(&world.proof(&token, "b", "stale")).await, (401, told("use_dpop_nonce"), true));
    assert_eq!(
        ask(&world.proof("another", "b", &world.nonce)).await,
        (401, told("invalid_dpop_proof"), true)
    );
    assert_eq!(ask("no proof").await, (401, told("invalid_dpop_proof"), true));
    let thief = World { client: Signer::new(), layer: world.layer.clone(), ..World::strict() };
    let stolen = thief.proof(&token, "b", &world.nonce);
    assert_eq!(ask(&stolen).await, (401, told("invalid_token"), true), "a thief has another key");
    assert_eq!(ask(&world.proof(&token, "b", &world.nonce)).await, (200, String::new(), true));
    assert_eq!(ask(&world.proof(&token, "c", &world.nonce)).await, (503, String::new(), true), "no room");
}

#[tokio::test]
async fn a_bound_token_is_no_bearers_and_an_unbound_one_only_where_the_service_says_so() {
    let strict = World::strict();
    let bearer = |token: &str| format!("Bearer {token}");
    let ask = async |world: &World, authorization: &str| {
        world.asks(&[("authorization", authorization)], None).await
    };
    let refused = (401, told("invalid_token"), true);
    assert_eq!(ask(&strict, &bearer(&strict.bound())).await, refused);
    assert_eq!(ask(&strict, &bearer(&strict.token(None))).await, refused);
    let lax = World::new(Posture::Active, BearerTokens::Taken, None);
    assert_eq!(ask(&lax, &bearer(&lax.token(None))).await, (200, String::new(), true));
    assert_eq!(ask(&lax, &bearer(&lax.bound())).await, refused, "bound it stays");
    assert_eq!(ask(&lax, &format!("DPoP {}", lax.bound())).await, (401, told("invalid_dpop_proof"), true));
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_certificate_needs_that_peer() {
    let world = World::strict();
    let thumbprint = CertificateThumbprint::of_der(b"certificate").to_string();
    let authorization = format!("Bearer {}", world.token(Some(json!({ "x5t#S256": thumbprint }))));
    let ask = async |peer: Option<&[u8]>| world.asks(&[("authorization", &authorization)], peer).await;
    assert_eq!(ask(Some(b"certificate")).await, (200, String::new(), true));
    for peer in [None, Some(&b"another"[..])] {
        assert_eq!(ask(peer).await, (401, told("invalid_token"), true));
    }
    let both = world.token(Some(json!({ "jkt": world.client.kid(), "x5t#S256": thumbprint })));
    let proof = world.proof(&both, "a", &world.nonce);
    let authorization = format!("DPoP {both}");
    let shown = [("authorization", authorization.as_str()), ("dpop", proof.as_str())];
    assert_eq!(world.asks(&shown, None).await, (401, told("invalid_token"), true), "a proof is not enough");
    let bearer = format!("Bearer {both}");
    let shown = world.asks(&[("authorization", &bearer)], Some(b"certificate")).await;
    assert_eq!(shown, (401, told("invalid_token"), true), "nor is the certificate");
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let world = World::strict();
    assert_eq!(world.asks(&[], None).await, (401, r#"DPoP algs="ES256""#.to_owned(), true));
    let malformed = (400, told("invalid_request"), true);
    for not in ["", "DPoP", "Basic YTpi", "é"] {
        assert_eq!(world.asks(&[("authorization", not)], None).await, malformed, "{not}");
    }
    let token = format!("Bearer {}", world.token(None));
    let twice = [("authorization", token.as_str()), ("authorization", token.as_str())];
    assert_eq!(world.asks(&twice, None).await, malformed);
    for not in ["Bearer a", "DPoP a.b.c", "Bearer  x"] {
        assert_eq!(
            world.asks(&[("authorization", not)], None).await,
            (401, told("invalid_token"), true),
            "{not}"
        );
    }
}

#[tokio::test]
async fn posture_and_scope_are_asked_each_time() {
    for (posture, scope, expected) in [
        (Posture::Active, Some("read"), (200, String::new(), true)),
        (Posture::Active, Some("write"), (403, told("insufficient_scope"), true)),
        (Posture::Inactive, None, (401, told("invalid_token"), true)),
        (Posture::Unknown, None, (503, String::new(), true)),
    ] {
        let world = World::new(posture, BearerTokens::Taken, scope);
        let authorization = format!("Bearer {}", world.token(None));
        assert_eq!(world.asks(&[("authorization", &authorization)], None).await, expected, "{posture:?}");
    }
}

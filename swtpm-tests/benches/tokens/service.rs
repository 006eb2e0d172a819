//! A service that exchanges tokens, asks what they are worth, and has them enforced, as fast as it is answered.

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _};
use http::header::AUTHORIZATION;
use http::{Request, StatusCode};
use hyper::body::Bytes;
use rootbound_common::clock::{Clock as _, SystemClock};
use rootbound_common::crypto::sha256;
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::kept::{Answer, Kept};
use rootbound_swtpm_tests::measured::Load;
use rootbound_swtpm_tests::world::World;
use rootbound_token::base64url;
use rootbound_token::jwk::PublicJwk;
use serde_json::json;

use crate::way::{Asks, form_to, load, of_service, text};
use crate::{ORDERS, PUBLIC_URL, signatures};

/// A service, and how much it asks.
pub(crate) struct Service<'a> {
    pub(crate) world: &'a World,
    pub(crate) gateway: &'a Gateway,
    /// Connections that it keeps.
    pub(crate) connections: usize,
    pub(crate) lasts: Duration,
}

impl Service<'_> {
    /// Exchanges a token for one of the service, which is held by a key of its own, with another proof each time.
    pub(crate) async fn exchanges(&self, key: &Arc<Key>, token: &str) -> Load {
        let mut all = Vec::new();
        for (number, way) in self.ways().await.into_iter().enumerate() {
            let proofs = Proofs::begin(key, number, "POST", format!("{PUBLIC_URL}/oauth2/token"), None);
            all.push(Exchanges { way, proofs, form: exchange(token) });
        }
        load(all, self.lasts).await
    }

    /// One such exchange.
    pub(crate) async fn exchanged(&self, key: &Arc<Key>, token: &str) -> String {
        let way = self.ways().await.pop().expect("a connection");
        let uri = format!("{PUBLIC_URL}/oauth2/token");
        let proofs = Proofs::begin(key, usize::MAX, "POST", uri, None);
        let mut exchanges = Exchanges { way, proofs, form: exchange(token) };
        loop {
            if let Some(answer) = exchanges.once().await {
                break text(&answer, "access_token");
            }
        }
    }

    /// Asks what one token is worth.
    pub(crate) async fn introspections(&self, token: &str) -> Load {
        let form = introspection(token);
        let ways = self.ways().await;
        let all = ways.into_iter().map(|way| Introspects { way, form: form.clone() }).collect();
        load(all, self.lasts).await
    }

    /// Asks as a gateway whether a request with a token may pass, with another proof each time.
    pub(crate) async fn enforcements(&self, key: &Arc<Key>, token: &str) -> Load {
        let mut all = Vec::new();
        for (number, way) in self.ways().await.into_iter().enumerate() {
            let proofs = Proofs::begin(key, number, "GET", format!("{ORDERS}/orders"), Some(token));
            all.push(Enforced { way, proofs, authorization: format!("DPoP {token}") });
        }
        load(all, self.lasts).await
    }

    async fn ways(&self) -> Vec<Kept> {
        of_service(self.world, self.gateway, self.connections).await
    }
}

/// The form by which a service exchanges a token.
fn exchange(token: &str) -> Bytes {
    let form = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={token}\
         &subject_token_type=urn:ietf:params:oauth:token-type:access_token&audience={ORDERS}"
    );
    form.into()
}

/// The form by which it asks what a token is worth.
pub(crate) fn introspection(token: &str) -> Bytes {
    format!("token={token}").into()
}

struct Exchanges {
    way: Kept,
    proofs: Proofs,
    form: Bytes,
}

impl Exchanges {
    async fn once(&mut self) -> Option<Answer> {
        let request = form_to("/oauth2/token").header("dpop", self.proofs.next());
        let answer = self.way.send(request, self.form.clone()).await;
        self.proofs.heed(&answer);
        if answer.status == StatusCode::BAD_REQUEST && text(&answer, "error") == "use_dpop_nonce" {
            return None;
        }
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        assert!(answer.body.starts_with(b"{\"access_token\":"), "{:?}", answer.body);
        Some(answer)
    }
}

impl Asks for Exchanges {
    async fn ask(&mut self) -> bool {
        self.once().await.is_some()
    }
}

struct Introspects {
    way: Kept,
    form: Bytes,
}

impl Asks for Introspects {
    async fn ask(&mut self) -> bool {
        let answer = self.way.send(form_to("/oauth2/introspect"), self.form.clone()).await;
        assert!(answer.body.starts_with(b"{\"active\":true"), "{:?}", answer.body);
        true
    }
}

struct Enforced {
    way: Kept,
    proofs: Proofs,
    authorization: String,
}

impl Asks for Enforced {
    async fn ask(&mut self) -> bool {
        let request = Request::get("/forward-auth")
            .header("x-forwarded-method", "GET")
            .header("x-forwarded-proto", "https")
            .header("x-forwarded-host", "orders.example")
            .header("x-forwarded-uri", "/orders")
            .header(AUTHORIZATION, &self.authorization)
            .header("dpop", self.proofs.next());
        let answer = self.way.send(request, Bytes::new()).await;
        self.proofs.heed(&answer);
        if answer.status == StatusCode::UNAUTHORIZED && text(&answer, "code").starts_with("dpop_nonce") {
            return false;
        }
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        true
    }
}

/// Proofs of one connection, one for each request.
struct Proofs {
    key: Arc<Key>,
    connection: usize,
    made: u64,
    method: &'static str,
    uri: String,
    token_hash: Option<String>,
    nonce: Option<String>,
}

impl Proofs {
    /// The first one is without a nonce, and earns one.
    fn begin(
        key: &Arc<Key>,
        connection: usize,
        method: &'static str,
        uri: String,
        token: Option<&str>,
    ) -> Self {
        let token_hash = token.map(|token| base64url(&sha256(&[token.as_bytes()])));
        Self { key: Arc::clone(key), connection, made: 0, method, uri, token_hash, nonce: None }
    }

    fn next(&mut self) -> String {
        self.made += 1;
        let mut claims = json!({
            "jti": format!("{}-{}", self.connection, self.made),
            "htm": self.method,
            "htu": self.uri,
            "iat": SystemClock.now().as_seconds(),
        });
        if let Some(nonce) = &self.nonce {
            claims["nonce"] = nonce.as_str().into();
        }
        if let Some(hash) = &self.token_hash {
            claims["ath"] = hash.as_str().into();
        }
        self.key.sign(&claims)
    }

    fn heed(&mut self, answer: &Answer) {
        if let Some(nonce) = answer.headers.get("dpop-nonce") {
            self.nonce = Some(nonce.to_str().expect("a text").to_owned());
        }
    }
}

/// The service's own key.
pub(crate) struct Key {
    pair: EcdsaKeyPair,
    rng: SystemRandom,
    header: String,
}

impl Key {
    pub(crate) fn generate() -> Self {
        let pair = signatures::generate();
        let jwk = PublicJwk::from_sec1(pair.public_key().as_ref()).expect("a point").to_json();
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk });
        Self { pair, rng: SystemRandom::new(), header: base64url(header.to_string().as_bytes()) }
    }

    fn sign(&self, claims: &serde_json::Value) -> String {
        let signed = format!("{}.{}", self.header, base64url(claims.to_string().as_bytes()));
        let signature = self.pair.sign(&self.rng, signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", base64url(signature.as_ref()))
    }
}

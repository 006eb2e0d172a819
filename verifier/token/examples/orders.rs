//! A service that lets in whoever shows a token for it, bound to a key that only the caller's TPM has.
//!
//! `cargo run -p rootbound-token --features tower --example orders`, with the issuer's keys in `jwks.json`.

use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router, routing::get};
use rootbound_common::{clock::SystemClock, random, secret::Secret};
use rootbound_token::access::VerifiedAccessToken;
use rootbound_token::layer::{BearerTokens, EnforceLayer, Enforcement, Introspect, Posture};
use rootbound_token::{jwk::JwkSet, nonce::Nonces, replay::Replays};

/// Asks nobody: put a request to the verifier's introspection endpoint here. Until then nobody comes in.
struct Nobody;

impl Introspect for Nobody {
    async fn introspect(&self, _text: &str, _token: &VerifiedAccessToken) -> Posture {
        Posture::Unknown
    }
}

async fn orders(Extension(token): Extension<VerifiedAccessToken>) -> String {
    format!("orders, for {}\n", token.claims().subject)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let keys = JwkSet::parse(&tokio::fs::read("jwks.json").await?)?;
    let layer = EnforceLayer::new(Enforcement {
        issuer: "https://verifier.example.org".to_owned(),
        audience: "https://orders.example.org".to_owned(),
        origin: "https://orders.example.org".to_owned(),
        keys: Arc::new(arc_swap::ArcSwap::from_pointee(keys)),
        leeway: Duration::from_secs(5),
        bearer_tokens: BearerTokens::Refused,
        scope: None,
        nonces: Nonces::new(Secret::generate(&mut random::system())),
        replays: Replays::new(Replays::CAPACITY),
        clock: Arc::new(SystemClock),
        introspect: Nobody,
    });
    let service = Router::new().route("/orders", get(orders)).layer(layer);
    axum::serve(tokio::net::TcpListener::bind("127.0.0.1:8080").await?, service).await?;
    Ok(())
}

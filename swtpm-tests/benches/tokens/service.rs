//! A service that exchanges tokens, and asks what they are worth, as fast as it is answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _};
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rootbound_attester::client::read_trust_anchors;
use rootbound_common::clock::{Clock as _, SystemClock};
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::world::World;
use rootbound_token::base64url;
use rootbound_token::jwk::PublicJwk;
use rustls_pki_types::ServerName;
use serde_json::json;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::{Load, ORDERS, PUBLIC_URL, signatures};

/// Exchanges a token for one of the service, which is held by a key in software, with another proof each time.
pub(crate) async fn exchange(
    world: &World,
    gateway: &Gateway,
    token: &str,
    connections: usize,
    lasts: Duration,
) -> Load {
    let body = format!(
        "grant_type=urn:ietf:params:oauth:grant-type:token-exchange&subject_token={token}\
         &subject_token_type=urn:ietf:params:oauth:token-type:access_token&audience={ORDERS}"
    );
    let (body, key) = (Bytes::from(body), Arc::new(Key::generate()));
    let begin = async |mut way: Way| {
        // To no use, but for the nonce that comes with the refusal.
        let (_, headers, _) = way.send("/oauth2/token", body.clone(), Some("none")).await;
        let nonce = nonce(&headers).expect("a nonce");
        (way, nonce)
    };
    let mut ways = Vec::new();
    for _ in 0..connections {
        ways.push(begin(Way::open(world, gateway).await).await);
    }
    let begun = Instant::now();
    let tasks: JoinSet<Vec<Duration>> = ways
        .into_iter()
        .enumerate()
        .map(|(position, (mut way, mut current))| {
            let (body, key) = (body.clone(), Arc::clone(&key));
            async move {
                let mut waits = Vec::new();
                while begun.elapsed() < lasts {
                    let start = Instant::now();
                    let proof = key.proof(&format!("{position}-{}", waits.len()), &current);
                    let (status, headers, answer) =
                        way.send("/oauth2/token", body.clone(), Some(&proof)).await;
                    current = nonce(&headers).unwrap_or(current);
                    if status == StatusCode::BAD_REQUEST
                        && answer.starts_with(b"{\"error\":\"use_dpop_nonce\"")
                    {
                        continue;
                    }
                    assert_eq!(status, StatusCode::OK, "{answer:?}");
                    assert!(answer.starts_with(b"{\"access_token\":"), "{answer:?}");
                    waits.push(start.elapsed());
                }
                waits
            }
        })
        .collect();
    let waits = tasks.join_all().await.concat();
    Load::new(waits, begun.elapsed())
}

/// Asks what one token is worth, again and again.
pub(crate) async fn introspect(
    world: &World,
    gateway: &Gateway,
    token: &str,
    connections: usize,
    lasts: Duration,
) -> Load {
    let body = Bytes::from(format!("token={token}"));
    let mut ways = Vec::new();
    for _ in 0..connections {
        ways.push(Way::open(world, gateway).await);
    }
    let begun = Instant::now();
    let tasks: JoinSet<Vec<Duration>> = ways
        .into_iter()
        .map(|mut way| {
            let body = body.clone();
            async move {
                let mut waits = Vec::new();
                while begun.elapsed() < lasts {
                    let start = Instant::now();
                    let (status, _, answer) = way.send("/oauth2/introspect", body.clone(), None).await;
                    assert!(
                        status == StatusCode::OK && answer.starts_with(b"{\"active\":true"),
                        "{answer:?}"
                    );
                    waits.push(start.elapsed());
                }
                waits
            }
        })
        .collect();
    let waits = tasks.join_all().await.concat();
    Load::new(waits, begun.elapsed())
}

fn nonce(headers: &HeaderMap) -> Option<String> {
    headers.get("dpop-nonce")?.to_str().ok().map(str::to_owned)
}

/// A connection that is kept.
struct Way(SendRequest<Full<Bytes>>);

impl Way {
    async fn open(world: &World, gateway: &Gateway) -> Self {
        let anchors = read_trust_anchors(&world.bundle()).expect("the trust bundle");
        let connector = TlsConnector::from(Arc::new(gateway.tls(anchors)));
        let stream = TcpStream::connect(world.address()).await.expect("a verifier that listens");
        stream.set_nodelay(true).expect("a socket");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let stream = connector.connect(name, stream).await.expect("TLS");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        // Ends with the sender.
        tokio::spawn(connection);
        Self(sender)
    }

    async fn send(&mut self, path: &str, body: Bytes, proof: Option<&str>) -> (StatusCode, HeaderMap, Bytes) {
        let mut request = Request::post(path)
            .header(HOST, "127.0.0.1")
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        if let Some(proof) = proof {
            request = request.header("dpop", proof);
        }
        let request = request.body(Full::from(body)).expect("a request");
        self.0.ready().await.expect("a connection that is kept");
        let response = self.0.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        (head.status, head.headers, body.collect().await.expect("a body").to_bytes())
    }
}

/// The service's own key.
struct Key {
    pair: EcdsaKeyPair,
    rng: SystemRandom,
    header: String,
}

impl Key {
    fn generate() -> Self {
        let pair = signatures::generate();
        let jwk = PublicJwk::from_sec1(pair.public_key().as_ref()).expect("a point").to_json();
        let header = json!({ "typ": "dpop+jwt", "alg": "ES256", "jwk": jwk });
        Self { pair, rng: SystemRandom::new(), header: base64url(header.to_string().as_bytes()) }
    }

    fn proof(&self, id: &str, nonce: &str) -> String {
        let htu = format!("{PUBLIC_URL}/oauth2/token");
        let iat = SystemClock.now().as_seconds();
        let claims = json!({ "jti": id, "htm": "POST", "htu": htu, "iat": iat, "nonce": nonce });
        let signed = format!("{}.{}", self.header, base64url(claims.to_string().as_bytes()));
        let signature = self.pair.sign(&self.rng, signed.as_bytes()).expect("a signature");
        format!("{signed}.{}", base64url(signature.as_ref()))
    }
}

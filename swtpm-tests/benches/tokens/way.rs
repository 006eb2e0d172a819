//! A connection to the verifier that is kept, with one request under way at a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HOST};
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rootbound_attester::client::read_trust_anchors;
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::world::World;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

use crate::Load;

/// What was answered.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn nonce(&self) -> Option<String> {
        self.headers.get("dpop-nonce")?.to_str().ok().map(str::to_owned)
    }

    /// A member of the object that was answered.
    pub(crate) fn text(&self, member: &str) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).expect("JSON");
        body[member].as_str().unwrap_or_else(|| panic!("{:?}", self.body)).to_owned()
    }
}

pub(crate) struct Way(SendRequest<Full<Bytes>>);

impl Way {
    pub(crate) async fn open(world: &World, tls: ClientConfig) -> Self {
        let connector = TlsConnector::from(Arc::new(tls));
        let stream = TcpStream::connect(world.address()).await.expect("a verifier that listens");
        stream.set_nodelay(true).expect("a socket");
        let name = ServerName::try_from("127.0.0.1").expect("an address");
        let stream = connector.connect(name, stream).await.expect("TLS");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        // Ends with the sender.
        tokio::spawn(connection);
        Self(sender)
    }

    /// So many, by the certificate of a service.
    pub(crate) async fn of_service(world: &World, gateway: &Gateway, count: usize) -> Vec<Self> {
        let anchors = read_trust_anchors(&world.bundle()).expect("the trust bundle");
        let mut ways = Vec::new();
        for _ in 0..count {
            ways.push(Self::open(world, gateway.tls(Arc::clone(&anchors))).await);
        }
        ways
    }

    pub(crate) async fn send(&mut self, request: Builder, body: Bytes) -> Answer {
        let request = request.header(HOST, "127.0.0.1").body(Full::from(body)).expect("a request");
        self.0.ready().await.expect("a connection that is kept");
        let response = self.0.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    /// Sends a form.
    pub(crate) async fn post(&mut self, path: &str, form: Bytes) -> Answer {
        self.send(form_to(path), form).await
    }
}

/// A request with a form, to be sent.
pub(crate) fn form_to(path: &str) -> Builder {
    Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded")
}

/// What asks one thing again and again.
pub(crate) trait Asks: Send + 'static {
    /// Asks once, and says whether the answer counts.
    fn ask(&mut self) -> impl Future<Output = bool> + Send;
}

/// Has all of them ask, side by side.
pub(crate) async fn load(all: Vec<impl Asks>, lasts: Duration) -> Load {
    let begun = Instant::now();
    let tasks: JoinSet<Vec<Duration>> = all
        .into_iter()
        .map(|mut one| async move {
            let mut waits = Vec::new();
            while begun.elapsed() < lasts || waits.is_empty() {
                let start = Instant::now();
                if one.ask().await {
                    waits.push(start.elapsed());
                }
            }
            waits
        })
        .collect();
    let waits = tasks.join_all().await.concat();
    Load::new(waits, begun.elapsed())
}

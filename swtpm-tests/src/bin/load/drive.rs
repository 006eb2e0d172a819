//! Nodes that attest as fast as they are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{CONTENT_TYPE, HOST};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rootbound_attester::client::{client_config, read_trust_anchors};
use rootbound_common::wire::v1::{Challenge, EvidenceRequest, EvidenceResponse};
use rootbound_swtpm_tests::daemon::VerifierSite;
use rootbound_swtpm_tests::world::Simulated;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How requests reach the verifier.
#[derive(Clone, Copy)]
pub(crate) enum Connections {
    /// By the attester's own client, which connects anew for each.
    PerRequest,
    /// All of a node's over one connection: the verifier without handshakes.
    Kept,
}

impl Connections {
    pub(crate) fn in_words(self) -> &'static str {
        match self {
            Self::PerRequest => "a TLS connection each time",
            Self::Kept => "one TLS connection each",
        }
    }
}

/// How long each request waited, and how long all took.
pub(crate) struct Load {
    waited: Vec<Duration>,
    lasted: Duration,
}

impl Load {
    /// Each node answers the challenge that came with the last answer, at once, again and again.
    pub(crate) async fn of(
        nodes: &[Arc<Simulated>],
        connections: Connections,
        site: &VerifierSite,
        lasts: Duration,
    ) -> Self {
        let mut tasks = Vec::new();
        let start = Instant::now();
        for node in nodes {
            let node = Arc::clone(node);
            let mut way = match connections {
                Connections::PerRequest => Way::Anew,
                Connections::Kept => Way::Kept(connect(site).await),
            };
            tasks.push(tokio::spawn(async move {
                let mut waited = Vec::new();
                let mut challenge = node.challenge().await.expect("a challenge");
                while start.elapsed() < lasts {
                    let evidence = node.answer(&challenge);
                    let sent = Instant::now();
                    challenge = way.submit(&node, evidence).await;
                    waited.push(sent.elapsed());
                }
                waited
            }));
        }
        let mut waited = Vec::new();
        for task in tasks {
            waited.extend(task.await.expect("a node that is accepted"));
        }
        Self::new(waited, start.elapsed())
    }

    /// What was waited for within this time.
    pub(crate) fn new(mut waited: Vec<Duration>, lasted: Duration) -> Self {
        waited.sort_unstable();
        Self { waited, lasted }
    }

    #[expect(clippy::cast_precision_loss, reason = "no load has 2^52 requests")]
    pub(crate) fn per_second(&self) -> f64 {
        self.waited.len() as f64 / self.lasted.as_secs_f64()
    }

    /// The time within which so many of a hundred were answered.
    pub(crate) fn percentile(&self, percent: usize) -> Duration {
        let position = self.waited.len() * percent / 100;
        self.waited.get(position).or(self.waited.last()).copied().unwrap_or_default()
    }
}

enum Way {
    Anew,
    Kept(SendRequest<Full<Bytes>>),
}

impl Way {
    async fn submit(&mut self, node: &Simulated, evidence: EvidenceRequest) -> Challenge {
        let answer: EvidenceResponse = match self {
            Self::Anew => node.submit(evidence).await.expect("good evidence"),
            Self::Kept(sender) => {
                let body = serde_json::to_vec(&evidence).expect("JSON");
                let request = Request::post("/v1/evidence")
                    .header(HOST, "127.0.0.1")
                    .header(CONTENT_TYPE, "application/json")
                    .body(Full::from(body))
                    .expect("a request");
                let response = sender.send_request(request).await.expect("an answer");
                assert_eq!(response.status(), StatusCode::OK);
                let body = response.into_body().collect().await.expect("a body").to_bytes();
                serde_json::from_slice(&body).expect("an answer of version 1")
            }
        };
        answer.next
    }
}

async fn connect(site: &VerifierSite) -> SendRequest<Full<Bytes>> {
    let anchors = read_trust_anchors(&site.bundle()).expect("the trust bundle");
    let connector = TlsConnector::from(Arc::new(client_config(anchors).expect("a TLS configuration")));
    let url = site.url();
    let address = url.strip_prefix("https://").expect("a URL of ours");
    let stream = TcpStream::connect(address).await.expect("a verifier that listens");
    stream.set_nodelay(true).expect("a socket");
    let name = ServerName::try_from("127.0.0.1").expect("an address");
    let stream = connector.connect(name, stream).await.expect("TLS");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    // Ends with the sender.
    tokio::spawn(connection);
    sender
}

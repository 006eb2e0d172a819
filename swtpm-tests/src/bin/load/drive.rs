//! Nodes that attest as fast as they are answered.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use rootbound_attester::client::{client_config, read_trust_anchors};
use rootbound_common::wire::v1::{Challenge, EvidenceRequest, EvidenceResponse};
use rootbound_swtpm_tests::daemon::VerifierSite;
use rootbound_swtpm_tests::kept::Kept;
use rootbound_swtpm_tests::measured::Load;
use rootbound_swtpm_tests::world::Simulated;

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

/// Each node answers the challenge that came with the last answer, at once, again and again.
pub(crate) async fn load(
    nodes: &[Arc<Simulated>],
    connections: Connections,
    site: &VerifierSite,
    lasts: Duration,
) -> Load {
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
    Load::new(waited, start.elapsed())
}

enum Way {
    Anew,
    Kept(Kept),
}

impl Way {
    async fn submit(&mut self, node: &Simulated, evidence: EvidenceRequest) -> Challenge {
        match self {
            Self::Anew => node.submit(evidence).await.expect("good evidence").next,
            Self::Kept(way) => submit(way, &evidence).await,
        }
    }
}

/// Sends evidence over a connection that is kept; returns the next challenge.
pub(crate) async fn submit(way: &mut Kept, evidence: &EvidenceRequest) -> Challenge {
    let request = Request::post("/v1/evidence").header(CONTENT_TYPE, "application/json");
    let answer = way.send(request, serde_json::to_vec(evidence).expect("JSON").into()).await;
    assert_eq!(answer.status, StatusCode::OK);
    serde_json::from_slice::<EvidenceResponse>(&answer.body).expect("an answer of version 1").next
}

async fn connect(site: &VerifierSite) -> Kept {
    let anchors = read_trust_anchors(&site.bundle()).expect("the trust bundle");
    let url = site.url();
    let address = url.strip_prefix("https://").and_then(|address| address.parse().ok());
    Kept::open(address.expect("a URL of ours"), client_config(anchors).expect("a TLS configuration")).await
}

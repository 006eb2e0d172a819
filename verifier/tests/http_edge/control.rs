//! The control stream: what it says, when it ends, and what it takes.

use std::num::NonZeroU32;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rootbound_common::clock::Clock as _;
use rootbound_verifier::hold::{HeldBy, Hold, HoldKind};
use rootbound_verifier::http::Limits;
use rootbound_verifier::node::Standing;
use rootbound_verifier::posture::LiveNode;
use serde_json::json;

use super::admission::live;
use super::client::{ask, config, get, in_time, request, tls_with};
use super::pki::Leaf;
use super::stage::{Stage, domain, limits, node};

const PATH: &str = "/v1/control";

/// A stream that a client holds.
struct Held {
    body: Incoming,
    heard: String,
    _sender: SendRequest<Full<Bytes>>,
}

impl Held {
    async fn open(stage: &Stage, leaf: &Leaf) -> Self {
        let (response, sender) = respond(stage, leaf).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut held = Self { body: response.into_body(), heard: String::new(), _sender: sender };
        held.hears(": held\n\n").await;
        held
    }

    /// Waits until this is heard; what was heard until then is forgotten.
    async fn hears(&mut self, text: &str) {
        loop {
            if let Some(at) = self.heard.find(text) {
                self.heard.drain(..at + text.len());
                return;
            }
            let frame = in_time(text, self.body.frame()).await;
            let frame = frame.unwrap_or_else(|| panic!("ended before {text:?}: {:?}", self.heard)).unwrap();
            self.heard += std::str::from_utf8(&frame.into_data().unwrap()).unwrap();
        }
    }

    /// Waits until it ends with this code, and with nothing after it.
    async fn ends(mut self, code: &str) {
        self.hears(&format!("event: end\ndata: {{\"code\":\"{code}\"}}\n\n")).await;
        assert_eq!(self.heard, "");
        let rest = in_time("the end", self.body.collect()).await.unwrap().to_bytes();
        assert!(rest.is_empty(), "{rest:?}");
    }
}

async fn respond(stage: &Stage, leaf: &Leaf) -> (Response<Incoming>, SendRequest<Full<Bytes>>) {
    let stream = tls_with(stage, config(stage, Some(leaf))).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(PATH).header("host", "localhost").header("accept", "text/event-stream");
    let response = sender.send_request(request.body(Full::default()).unwrap());
    (in_time("the head of a stream", response).await.unwrap(), sender)
}

fn leaf(stage: &Stage, number: u8) -> Leaf {
    stage.ca.sign(&domain().node(node(number)).to_string(), stage.clock.now())
}

fn hold(stage: &Stage, kind: HoldKind) -> Hold {
    Hold {
        id: "00112233445566778899aabbccddeeff".parse().unwrap(),
        kind,
        by: HeldBy::Operator("uid 0".to_owned()),
        reason: "why, which is nobody's business".to_owned().try_into().unwrap(),
        since: stage.clock.now(),
        expires_at: None,
    }
}

#[tokio::test]
async fn a_stream_says_what_is_current_and_then_what_changes() {
    let stage = Stage::new().await;
    let leaf = leaf(&stage, 1);
    live(&stage, &leaf, |_| {});
    let mut held = Held::open(&stage, &leaf).await;
    held.hears("event: released\ndata: {}\n\n").await;
    assert!(stage.verifier.listens(node(1)));
    live(&stage, &leaf, |node| node.attested_after = Some(stage.clock.now()));
    held.hears("event: attest\ndata: {}\n\n").await;
    live(&stage, &leaf, |node| node.holds.push(hold(&stage, HoldKind::Block)));
    held.hears("event: blocked\ndata: {\"codes\":[\"node_blocked\"]}\n\n").await;
    live(&stage, &leaf, |node| node.holds.push(hold(&stage, HoldKind::Lower)));
    held.hears("event: blocked\ndata: {\"codes\":[\"posture_warning\"]}\n\n").await;
    assert!(!held.heard.contains("nobody's business"));

    // Whoever comes back hears what is current, in place of the first.
    let mut again = Held::open(&stage, &leaf).await;
    again.hears("event: blocked\ndata: {\"codes\":[\"posture_warning\"]}\n\n").await;
    held.ends("stream_replaced").await;
    live(&stage, &leaf, |_| {});
    again.hears("event: released\ndata: {}\n\n").await;
    drop(again);
    in_time("a stream whose client has gone", async {
        while stage.verifier.listens(node(1)) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_ends_at_once_with_what_it_was_held_by() {
    let stage = Stage::new().await;
    let leaf = leaf(&stage, 1);
    type Change = Box<dyn Fn(&mut LiveNode)>;
    let superseded: Change = Box::new(|node| node.credentials.clear());
    let retired: Change = Box::new(|node| node.standing = Standing::Retired);
    for (change, code) in [(superseded, "certificate_superseded"), (retired, "node_retired")] {
        live(&stage, &leaf, |_| {});
        let held = Held::open(&stage, &leaf).await;
        live(&stage, &leaf, change);
        held.ends(code).await;
    }
    live(&stage, &leaf, |_| {});
    let held = Held::open(&stage, &leaf).await;
    stage.clock.advance(Duration::from_secs(1200));
    stage.verifier.fleet().drop_credential(node(1), leaf.serial);
    held.ends("certificate_expired").await;
    assert!(!stage.verifier.listens(node(1)));
}

#[tokio::test]
async fn streams_are_bounded_and_take_no_slot_of_a_connection() {
    let one = NonZeroU32::new(1).unwrap();
    let bounds = Limits { max_connections: one, max_control_streams: one, ..limits() };
    let stage = Stage::with(bounds).await;
    let (first, second) = (leaf(&stage, 1), leaf(&stage, 2));
    live(&stage, &first, |_| {});
    let other = LiveNode::clone(&stage.verifier.fleet().node(node(1)).unwrap());
    let credentials = vec![rootbound_verifier::posture::LiveCredential {
        serial: second.serial,
        not_before: stage.clock.now(),
        not_after: stage.clock.now().plus(Duration::from_secs(600)),
    }];
    stage.verifier.fleet().put(node(2), LiveNode { credentials, ..other }, stage.clock.now());
    let held = Held::open(&stage, &first).await;
    let (refused, _sender) = respond(&stage, &second).await;
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.headers()["retry-after"], "60");
    let problem = refused.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&problem).contains("\"too_many_streams\""));
    drop(_sender);
    // Without a stream it is answered, and at once, since there is no room to wait in.
    let answer = in_time("a slot", async {
        loop {
            if let Ok(answer) = request(&stage, Some(&second), get("/v1/control?wait=25")).await {
                return answer;
            }
        }
    })
    .await;
    assert_eq!(answer.body, json!({ "attest": false, "renew": false, "blocked": [] }));
    drop(held);
}

#[tokio::test]
async fn a_verifier_that_stops_ends_its_streams() {
    let stage = Stage::new().await;
    let leaf = leaf(&stage, 1);
    live(&stage, &leaf, |_| {});
    let held = Held::open(&stage, &leaf).await;
    let Stage { server, .. } = stage;
    let begun = tokio::time::Instant::now();
    tokio::join!(server.shutdown(), held.ends("stream_reconnect"));
    assert!(begun.elapsed() < Limits::default().drain_timeout, "it waited for the stream");
}

#[tokio::test]
async fn a_node_without_a_stream_asks_and_may_wait() {
    let stage = Stage::new().await;
    let leaf = leaf(&stage, 1);
    live(&stage, &leaf, |node| node.holds.push(hold(&stage, HoldKind::Block)));
    let asked = |path: &'static str| request(&stage, Some(&leaf), get(path));
    let state = json!({ "attest": false, "renew": false, "blocked": ["node_blocked"] });
    let answer = asked(PATH).await.unwrap();
    assert_eq!((answer.status, &answer.body), (StatusCode::OK, &state), "however it stands");
    assert_eq!(answer.headers["cache-control"], "no-store");
    let (waited, ()) = tokio::join!(asked("/v1/control?wait=25"), async {
        in_time("a listener", async {
            while !stage.verifier.listens(node(1)) {
                tokio::task::yield_now().await;
            }
        })
        .await;
        live(&stage, &leaf, |node| node.posture = None);
    });
    assert_eq!(waited.unwrap().body, json!({ "attest": true, "renew": false, "blocked": [] }));
    assert_eq!(asked("/v1/control?wait=26").await.unwrap().code(), "wait_malformed");
    assert_eq!(ask(&stage, get(PATH)).await.code(), "certificate_required");
}

//! A service that asks for decisions as fast as it is answered, while nodes change.
//!
//! The verifier runs in this process, over TLS on loopback, on a SQLite file; the generator shares its threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use hyper::body::Bytes;
use rootbound_attester::client::read_trust_anchors;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::kept::{Answer, Kept};
use rootbound_swtpm_tests::measured::{Load, Row};
use rootbound_swtpm_tests::policies;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::World;
use rootbound_verifier::appraisal::Verdict;
use rootbound_verifier::posture::LiveNode;
use serde_json::json;

use crate::drift;

/// How the load is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Settings {
    /// Connections that are kept, with one request under way on each.
    pub(crate) connections: usize,
    /// Questions of a batch.
    pub(crate) batch: usize,
    /// Nodes in the fleet.
    pub(crate) nodes: usize,
    /// How long each load lasts.
    pub(crate) lasts: Duration,
}

/// Nodes whose posture changes each second.
const CHANGES: u64 = 100;

/// Measures single questions, then batches.
pub(crate) async fn run(settings: Settings) {
    let gateway = Gateway::new();
    let world = World::builder().relying_party(gateway.section("gateway", &[])).start().await;
    policies::put_in_force(&world.verifier, "databases", policies::databases()).await;
    let ids = fleet(&world, settings.nodes).await;
    let over = Arc::new(AtomicBool::new(false));
    let changes = tokio::spawn(change(Arc::clone(&world.verifier), ids.clone(), Arc::clone(&over)));
    let single: Vec<_> = ids.iter().map(|id| ("/access/v1/evaluation", question(*id))).collect();
    let batch: Vec<_> = ids
        .chunks(settings.batch)
        .map(|ids| {
            let items: Vec<_> = ids.iter().map(|id| json!({ "subject": node(*id) })).collect();
            let body =
                json!({ "action": { "name": "db:write" }, "resource": orders(), "evaluations": items });
            ("/access/v1/evaluations", Bytes::from(body.to_string()))
        })
        .collect();
    for (bodies, items) in [(single, 1), (batch, settings.batch)] {
        let load = ask(&world, &gateway, Arc::new(bodies), settings).await;
        let name = format!(
            "evaluation, {} connections kept, {items} at once, {} nodes, {CHANGES} changes/s",
            settings.connections, settings.nodes
        );
        let items = u32::try_from(items).expect("few items");
        Row::rate(&name, load.per_second() * f64::from(items), load.percentile(50), load.percentile(99))
            .publish();
    }
    over.store(true, Ordering::Relaxed);
    changes.await.expect("changes that end");
    drift::run(&world, &gateway).await;
}

fn node(id: NodeId) -> serde_json::Value {
    json!({ "type": "node", "id": id.to_string() })
}

pub(crate) fn question(id: NodeId) -> Bytes {
    let body = json!({ "subject": node(id), "action": { "name": "db:write" }, "resource": orders() });
    Bytes::from(body.to_string())
}

fn orders() -> serde_json::Value {
    json!({ "type": "database", "id": "orders" })
}

/// A fleet in memory: one node that attested, and copies of it.
async fn fleet(world: &World, count: usize) -> Vec<NodeId> {
    let node = world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
    let live = world.verifier.fleet().node(node.node).expect("a node");
    let mut copy = LiveNode::clone(&live);
    let value = Some("prod".parse().expect("a value"));
    copy.labels.set("env".parse().expect("a label"), value).expect("few labels");
    let ids = (0..count).map(|number| NodeId::of_endorsement_key(&number.to_be_bytes()));
    let ids: Vec<_> = ids.collect();
    for id in &ids {
        world.verifier.fleet().put(*id, copy.clone(), world.verifier.now());
    }
    ids
}

/// Nodes that drift, and recover, one after the other.
async fn change(verifier: Arc<rootbound_verifier::flows::Verifier>, ids: Vec<NodeId>, over: Arc<AtomicBool>) {
    let mut tick = tokio::time::interval(Duration::from_millis(1000 / CHANGES));
    for id in ids.iter().cycle() {
        if over.load(Ordering::Relaxed) {
            return;
        }
        tick.tick().await;
        let Some(live) = verifier.fleet().node(*id) else { continue };
        let mut live = LiveNode::clone(&live);
        live.revision += 1;
        if let Some(posture) = &mut live.posture {
            posture.verdict = match posture.verdict {
                Verdict::Affirming => Verdict::Contraindicated,
                Verdict::Contraindicated => Verdict::Affirming,
            };
        }
        verifier.fleet().put(*id, live, verifier.now());
    }
}

async fn ask(
    world: &World,
    gateway: &Gateway,
    bodies: Arc<Vec<(&'static str, Bytes)>>,
    settings: Settings,
) -> Load {
    let mut ways = Vec::new();
    for _ in 0..settings.connections {
        let anchors = read_trust_anchors(&world.bundle()).expect("the trust bundle");
        ways.push(Kept::open(world.address(), gateway.tls(anchors)).await);
    }
    let start = Instant::now();
    let tasks: Vec<_> = ways
        .into_iter()
        .enumerate()
        .map(|(position, mut way)| {
            let bodies = Arc::clone(&bodies);
            tokio::spawn(async move {
                let mut waited = Vec::new();
                // Each connection begins elsewhere in the fleet.
                let from = position * bodies.len() / settings.connections;
                for (path, body) in bodies.iter().cycle().skip(from) {
                    if start.elapsed() >= settings.lasts {
                        break;
                    }
                    let sent = Instant::now();
                    decided(&mut way, path, body.clone()).await;
                    waited.push(sent.elapsed());
                }
                waited
            })
        })
        .collect();
    let mut waited = Vec::new();
    for task in tasks {
        waited.extend(task.await.expect("a service that is answered"));
    }
    Load::new(waited, start.elapsed())
}

/// Asks, and says whether what was asked for is allowed; of a batch nothing is said.
pub(crate) async fn decided(way: &mut Kept, path: &str, body: Bytes) -> bool {
    let request = Request::post(path).header(CONTENT_TYPE, "application/json");
    let Answer { status, body, .. } = way.send(request, body).await;
    assert_eq!(status, StatusCode::OK);
    assert!(body.starts_with(b"{\"decision\":") || body.starts_with(b"{\"evaluations\":"), "{body:?}");
    body.starts_with(b"{\"decision\":true")
}

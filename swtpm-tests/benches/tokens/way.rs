//! Connections of a service or a node, and what is asked over them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Request;
use http::header::CONTENT_TYPE;
use http::request::Builder;
use rootbound_attester::client::read_trust_anchors;
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::kept::{Answer, Kept};
use rootbound_swtpm_tests::measured::Load;
use rootbound_swtpm_tests::world::World;
use tokio::task::JoinSet;

/// So many, by the certificate of a service.
pub(crate) async fn of_service(world: &World, gateway: &Gateway, count: usize) -> Vec<Kept> {
    let anchors = read_trust_anchors(&world.bundle()).expect("the trust bundle");
    let mut ways = Vec::new();
    for _ in 0..count {
        ways.push(Kept::open(world.address(), gateway.tls(Arc::clone(&anchors))).await);
    }
    ways
}

/// A request with a form, to be sent.
pub(crate) fn form_to(path: &str) -> Builder {
    Request::post(path).header(CONTENT_TYPE, "application/x-www-form-urlencoded")
}

/// A member of the object that was answered.
pub(crate) fn text(answer: &Answer, member: &str) -> String {
    let body: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    body[member].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
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

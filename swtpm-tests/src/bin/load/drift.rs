//! How soon after evidence of drift was sent the first decision is refused.

use std::time::{Duration, Instant};

use rootbound_attester::client::{client_config, read_trust_anchors};
use rootbound_common::crypto::hash;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::kept::Kept;
use rootbound_swtpm_tests::measured::{Load, Row};
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{World, operator};

use crate::drive::submit;
use crate::evaluate::{decided, question};

/// Times that the node drifts and recovers.
const ROUNDS: usize = 300;
/// From the evidence to the first decision that is refused.
const REFUSED: Duration = Duration::from_millis(5);

/// A service asks about one node as fast as it is answered; the node sends evidence that it drifted.
pub(crate) async fn run(world: &World, gateway: &Gateway) {
    let mut node = world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
    let labels = [("env".parse().expect("a label"), Some("prod".parse().expect("a value")))];
    world.verifier.label(node.node, labels.into(), &operator()).await.expect("a label");
    let well = node.tpm.pcrs.clone();
    node.tpm.extend(PcrIndex::new(4).expect("a PCR"), hash(HashAlgorithm::Sha256, &[b"another loader"]));
    let drifted = node.tpm.pcrs.clone();

    let anchors = read_trust_anchors(&world.bundle()).expect("the trust bundle");
    let mut node_way =
        Kept::open(world.address(), client_config(anchors.clone()).expect("a TLS configuration")).await;
    let mut service_way = Kept::open(world.address(), gateway.tls(anchors)).await;
    let question = question(node.node);
    let mut challenge = node.challenge().await.expect("a challenge");
    let (mut begun, mut waited) = (Instant::now(), Vec::new());
    for round in 0..ROUNDS {
        node.tpm.pcrs.clone_from(&well);
        challenge = submit(&mut node_way, &node.answer(&challenge)).await;
        assert!(decided(&mut service_way, "/access/v1/evaluation", question.clone()).await, "round {round}");
        node.tpm.pcrs.clone_from(&drifted);
        let evidence = node.answer(&challenge);
        let sent = Instant::now();
        let refused = async {
            while decided(&mut service_way, "/access/v1/evaluation", question.clone()).await {}
            sent.elapsed()
        };
        let (next, took) = tokio::join!(submit(&mut node_way, &evidence), refused);
        challenge = next;
        // The first ones warm what is cold.
        if round < ROUNDS / 10 {
            begun = Instant::now();
        } else {
            waited.push(took);
        }
    }
    let load = Load::new(waited, begun.elapsed());
    let slow = load.percentile(99);
    Row::time("evidence of drift sent to first decision refused, p50", load.percentile(50)).publish();
    Row::time("the same, p99", slow).time_at_most(slow, REFUSED).publish();
}

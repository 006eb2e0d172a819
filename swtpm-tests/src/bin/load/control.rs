//! Control streams: what idle ones cost the verifier, and how soon a wish is done.

use std::time::{Duration, Instant};

use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_common::wire::v1::CredentialOutcome;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::daemon::{AttesterSite, Daemon, VerifierSite};
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::measured::Row;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::Simulated;
use rootbound_verifier::http::admin::message::{Command, NodeDetail, Reply, Words};
use rootbound_verifier::node::{Labels, Name};

use crate::{operate, shown};

/// 150 MB for 10,000.
const STREAM_KB: u64 = 15;
/// From the operator's word to the verdict, over a software TPM.
const JUDGED: Duration = Duration::from_millis(50);
const ROUNDS: usize = 20;
/// The attester answers a few at once, and then one each two seconds.
const BETWEEN: Duration = Duration::from_millis(2200);

/// Opens so many streams of simulated nodes, and holds them.
pub(crate) async fn idle_streams(site: &VerifierSite, verifier: &Daemon, count: usize) {
    let mut clients = Vec::new();
    for number in 0..count {
        let tpm = SoftwareTpm::booted(&[HashAlgorithm::Sha256]);
        let node = NodeId::of_endorsement_key(&tpm.endorsement_key.subject_public_key_info());
        let (labels, reason) = (Labels::default(), Words::default());
        operate(site, Command::InventoryAdd { node, waive_endorsement: true, labels, reason }).await;
        let node = Simulated { node, tpm, client: site.client() };
        node.enroll().await.expect("a listed EK enrols");
        if number == 0 {
            let challenge = node.challenge().await.expect("a challenge");
            node.submit(node.answer(&challenge)).await.expect("evidence");
            let (name, reason) = (Name::default_set(), Words::default());
            operate(site, Command::ReferenceCapture { node: node.node, name, reason }).await;
        }
        let challenge = node.challenge().await.expect("a challenge");
        let (evidence, key) = node.answer_with_request(&challenge);
        match node.submit(evidence).await.expect("evidence").credential {
            Some(CredentialOutcome::Issued { certificate_chain, .. }) => {
                clients.push(Https::to(&node.client).as_simulated(&certificate_chain, key));
            }
            other => panic!("no credential: {other:?}"),
        }
    }
    // Until what the enrolments needed is freed again.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let before = verifier.resident_kb();
    let open = tokio::task::spawn_blocking(move || {
        clients.iter().map(|client| client.hold("/v1/control").expect("a stream")).collect::<Vec<_>>()
    });
    let open = open.await.expect("a thread that ends");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = verifier.resident_kb().saturating_sub(before);
    let target = STREAM_KB.saturating_mul(u64::try_from(count).unwrap_or(u64::MAX));
    Row::memory(format!("resident, verifier, for {count} idle control streams"), grown)
        .memory_at_most(grown, target)
        .publish();
    drop(open);
}

/// Asks a real attester on a software TPM for evidence, again and again.
pub(crate) async fn attest_now(site: &VerifierSite, program: &str, swtpm: &Swtpm) {
    let attester = AttesterSite::new(program, &swtpm.tcti(), &site.url(), &site.bundle());
    let daemon = attester.spawn();
    let pending =
        shown(site, |node| matches!(node.standing, rootbound_verifier::node::Standing::Pending)).await;
    let (node, reason) = (pending.id, Words::default());
    operate(site, Command::NodeApprove { node, reason: reason.clone() }).await;
    shown(site, |node| node.evidence_at.is_some()).await;
    operate(site, Command::ReferenceCapture { node, name: Name::default_set(), reason: reason.clone() })
        .await;
    // Whose first evidence nothing explained has no credential: it asks for one when it starts.
    daemon.stop().await;
    let _daemon = attester.spawn();
    let begun = Instant::now();
    while !detail(site, node).await.listens {
        assert!(begun.elapsed() < Duration::from_secs(60), "the attester holds no stream");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut took = Vec::new();
    for _ in 0..ROUNDS {
        tokio::time::sleep(BETWEEN).await;
        let before = detail(site, node).await.made_at;
        let begun = Instant::now();
        operate(site, Command::NodeAttestNow { node, renew: false, reason: reason.clone() }).await;
        while detail(site, node).await.made_at == before {
            assert!(begun.elapsed() < Duration::from_secs(30), "no new evidence");
        }
        took.push(begun.elapsed());
    }
    took.sort_unstable();
    let median = took[took.len() / 2];
    Row::time("attest-now to new evidence judged over swtpm, p50", median)
        .time_at_most(median, JUDGED)
        .publish();
    Row::time("the same, the slowest", took[took.len() - 1]).publish();
}

async fn detail(site: &VerifierSite, node: NodeId) -> NodeDetail {
    let Reply::Node(detail) = operate(site, Command::NodeShow { node }).await else { panic!("a node") };
    *detail
}

//! A disk that is full.

use rootbound_common::id::NodeId;
use rootbound_common::wire::v1::PostureStatus;
use rootbound_swtpm_tests::daemon::{VerifierSite, until};
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Simulated, refused};
use rootbound_verifier::http::admin::message::{Command, Words};

use crate::VERIFIER;
use crate::ledger::Ledger;
use crate::machine::Machine;

/// Nobody hears of a key that could be lost: there is no enrolment before the AK is on disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attester_that_starts_on_a_full_disk_says_so_and_enrols_once_there_is_room() {
    let machine = Machine::new().await;
    let daemon = machine.site.spawn_on_small_disk(true);
    daemon.says("cannot write ").await;
    assert!(daemon.said("cannot write ")[0].contains("identity.json"), "{}", daemon.log());
    assert!(machine.world.verifier.fleet().node(machine.node).is_none(), "nobody has heard of the AK");

    daemon.free_disk();
    machine.converges(&daemon).await;
    daemon.stop().await;
    machine.examine_in_order();
}

/// It attests all the same, uses the new credential itself, and saves and delivers it once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attester_whose_disk_fills_up_says_so_once_and_goes_on_attesting() {
    let mut machine = Machine::new().await;
    let daemon = machine.site.spawn_on_small_disk(false);
    machine.converges(&daemon).await;
    let before = machine.site.view().credential().unwrap().unwrap();

    daemon.fill_disk();
    machine.change_policy().await;
    daemon.says("the credential is not saved").await;
    daemon.says("the credential is not delivered").await;
    until("the credential works", async || daemon.said("the credential works").len() >= 2).await;
    let accepted = machine.accepted().await;
    until("three more quotes", async || machine.accepted().await >= accepted + 3).await;
    assert_eq!(machine.world.status(machine.node), PostureStatus::Affirming);
    for text in ["the credential is not saved", "the credential is not delivered"] {
        let lines = daemon.said(text);
        assert_eq!(lines.len(), 1, "told once:\n{}", daemon.log());
        assert!(lines[0].contains("ERROR") && lines[0].contains("File too large"), "{}", daemon.log());
    }
    assert_eq!(machine.site.view().credential().unwrap().unwrap(), before, "what was saved is whole");
    machine.examine();

    daemon.free_disk();
    until("the credential is delivered", async || machine.up_to_date()).await;
    daemon.stop().await;
    machine.examine_in_order();
}

/// What cannot be written down is not granted: no admission, no appraisal, no certificate. A challenge that could not be
/// spent is still good once there is room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verifier_whose_disk_is_full_grants_nothing_and_goes_on_once_there_is_room() {
    let site = VerifierSite::init(VERIFIER, &[]);
    let verifier = site.run_on_small_disk().await;
    let [known, late] = [SoftwareTpm::new(), SoftwareTpm::new()].map(|tpm| {
        let node = NodeId::of_endorsement_key(&tpm.endorsement_key.subject_public_key_info());
        Simulated { node, tpm, client: site.client() }
    });
    for node in [known.node, late.node] {
        let (labels, reason) = (Default::default(), Words::default());
        let verb = Command::InventoryAdd { node, waive_endorsement: true, labels, reason };
        site.ask(&verb).await.unwrap();
    }
    known.enroll().await.unwrap();
    let challenge = known.challenge().await.unwrap();
    let (evidence, _) = known.answer_with_request(&challenge);

    verifier.fill_disk();
    for _ in 0..3 {
        assert_eq!(refused(known.submit(evidence.clone()).await), "store_unavailable");
        assert_eq!(refused(late.enroll().await), "store_unavailable");
    }
    let retire = Command::NodeRetire { node: known.node, reason: Words::default() };
    site.ask(&retire).await.unwrap_err();
    let probe = Https::to(&known.client);
    let unready = probe.get("/readyz").await;
    assert_eq!((unready.status, unready.code().as_str()), (503, "not_ready"));
    let body = String::from_utf8_lossy(&unready.body).into_owned();
    assert!(body.contains("neither the store nor its audit trail can be written"), "{body}");
    let list = Command::InventoryRemove { node: late.node, reason: Words::default() };
    site.ask(&list).await.unwrap_err();

    verifier.free_disk();
    assert_eq!(probe.get("/readyz").await.status, 200, "without a write by anybody else");
    known.submit(evidence.clone()).await.expect("the challenge was not spent");
    assert_eq!(refused(known.submit(evidence).await), "challenge_spent");
    late.enroll().await.unwrap();
    let verified = site.verb(&["audit", "verify", "--output", "json"]);
    let told: serde_json::Value = serde_json::from_slice(&verified.stdout).unwrap();
    assert!(verified.status.success() && told["whole"] == true, "{told}");
    verifier.stop().await;
    let mut ledger = Ledger::default();
    for node in [known.node, late.node] {
        (ledger.node(node).listed, ledger.node(node).admitted) = (true, Some(true));
    }
    ledger.node(known.node).answered = 1;
    ledger.audit(&site).await;
}

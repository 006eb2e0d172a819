//! The road from end to end: real software TPMs, the real attester, the real verifier over TLS.

use std::time::Duration;

use rootbound_attester::client::RequestError;
use rootbound_attester::renew::Rounds;
use rootbound_attester::tpm::TpmError;
use rootbound_common::crypto::hash;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_common::wire::v1::{CredentialOutcome, PostureStatus};
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Simulated, World, operator, refused};
use rootbound_swtpm_tests::{Manufacturer, Swtpm};
use rootbound_verifier::appraisal::Verdict;
use rootbound_verifier::audit::RecordKind;
use rootbound_verifier::credential::presented::PresentedSvid;
use rootbound_verifier::enrollment::EndorsementRoots;
use rootbound_verifier::node::{AdmittedBy, Labels, Name, Standing};
use rootbound_verifier::reference::AcceptedPcrs;
use rootbound_verifier::store::RecordFilter;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

const MINUTE: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

/// Software keys on a machine that has booted something.
fn booted() -> SoftwareTpm {
    let mut tpm = SoftwareTpm::new();
    for index in [0, 4, 7] {
        tpm.extend(PcrIndex::new(index).unwrap(), hash(HashAlgorithm::Sha256, &[b"booted", &[index]]));
    }
    tpm
}

async fn world_and_tpm() -> (World, Swtpm) {
    let swtpm = Swtpm::manufacture();
    (World::new(&[swtpm.manufacturer()]).await, swtpm)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_enrols_is_admitted_attests_and_acts_until_it_drifts() {
    let (world, swtpm) = world_and_tpm().await;
    let mut machine = world.machine(swtpm);

    machine.attester.attest().await.expect_err("not admitted yet");
    let node = machine.node().await;
    let record = world.verifier.store().node(node).await.unwrap().expect("enrolled");
    assert_eq!(record.standing, Standing::Pending);
    world.verifier.approve(node, &operator()).await.unwrap();

    machine.attester.attest().await.unwrap();
    assert_eq!(world.status(node), PostureStatus::Contraindicated, "no reference value yet");
    assert!(world.deviations(node).iter().all(|code| code == "no_reference_value"));
    assert!(machine.attester.credential().is_none());

    world.capture(node).await;
    assert_eq!(world.status(node), PostureStatus::Affirming, "appraised again without new evidence");
    machine.attest_anew().await.unwrap();
    let who = machine.whoami(&world).await.unwrap();
    assert_eq!((who.node, who.posture.status), (node, PostureStatus::Affirming));
    assert_eq!(who.spiffe_id.as_str(), format!("spiffe://test.example/node/{node}"));
    let certificates = world.verifier.store().certificates(node, 10).await.unwrap();
    assert_eq!(certificates[0].serial.to_string(), who.serial, "on record");

    machine.swtpm.extend(4, b"another boot loader");
    machine.attest_anew().await.unwrap();
    assert_eq!(world.status(node), PostureStatus::Contraindicated);
    assert_eq!(world.deviations(node), ["pcr_mismatch"]);
    assert_eq!(world.last_decision(node).await, (false, "posture_contraindicated".to_owned()));

    let signed = machine.whoami(&world).await;
    let Err(error @ RequestError::Handshake { .. }) = signed else { panic!("the TPM signed: {signed:?}") };
    assert!(matches!(error.tpm(), Some(TpmError::PolicyFailed { .. })), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_that_the_key_is_not_tied_to_is_refused_by_the_verifier_at_once() {
    let (world, swtpm) = world_and_tpm().await;
    let profile = world.verifier.store().profiles().await.unwrap().remove(0);
    let mut body = profile.body().clone();
    body.credential_policy.pcrs = body.credential_policy.pcrs.iter().filter(|pcr| pcr.get() != 14).collect();
    world.verifier.put_profile(name("default"), body, &operator()).await.unwrap();
    let mut machine = world.affirming(swtpm).await;
    machine.whoami(&world).await.unwrap();

    machine.swtpm.extend(14, b"a module that nobody knows");
    machine.whoami(&world).await.expect("the key still signs, and nobody has seen the drift yet");
    machine.attest_anew().await.unwrap();
    assert_eq!(refused(machine.whoami(&world).await), "posture_contraindicated");
}

#[tokio::test(flavor = "multi_thread")]
async fn steady_state_is_one_request_with_the_challenge_of_the_last_answer() {
    let (world, swtpm) = world_and_tpm().await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    let count = || async { world.verifier.store().decisions(Some(node), 100).await.unwrap().len() };
    let before = count().await;
    for _ in 0..3 {
        let wait = machine.attester.attest().await.unwrap();
        assert_eq!(wait, MINUTE, "the profile's interval");
    }
    assert_eq!(count().await, before + 3, "one decision each, none refused");
    assert_eq!(world.last_decision(node).await, (true, "affirming".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_turns_a_node_stale_and_evidence_brings_it_back() {
    let (world, swtpm) = world_and_tpm().await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    world.advance(3 * MINUTE + Duration::from_secs(30));
    assert_eq!(world.status(node), PostureStatus::Stale);
    assert_eq!(refused(machine.whoami(&world).await), "posture_stale");
    let round = machine.attester.round().await;
    round.expect("the challenge in hand has expired; a fresh one is asked for at once");
    assert_eq!(world.status(node), PostureStatus::Affirming);
    machine.whoami(&world).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn reboot_power_cut_and_suspend_are_not_refused() {
    let (world, swtpm) = world_and_tpm().await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    for event in [Swtpm::reboot, Swtpm::power_cut, Swtpm::suspend_resume, Swtpm::reboot, Swtpm::power_cut] {
        event(&mut machine.swtpm);
        machine.attest_anew().await.unwrap();
        assert_eq!(world.status(node), PostureStatus::Affirming);
        machine.whoami(&world).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn inventory_and_join_tokens_admit_and_give_labels() {
    let manufacturer = Manufacturer::new();
    let swtpm = Swtpm::manufacture_by(&manufacturer);
    let world = World::new(&[&manufacturer]).await;
    let mut labels = Labels::default();
    labels.set(name("env"), Some(name("prod"))).unwrap();
    let standing = |node: NodeId| {
        let live = world.verifier.fleet().node(node).unwrap();
        (live.standing, live.labels.clone())
    };

    let mut listed = world.machine(swtpm);
    let node = listed.node().await;
    world.verifier.add_inventory(node, false, labels.clone(), &operator()).await.unwrap();
    listed.attester.attest().await.unwrap();
    assert_eq!(standing(node), (Standing::Admitted { by: AdmittedBy::Inventory }, labels.clone()));

    let hour = Duration::from_secs(3600);
    let (token, record) =
        world.verifier.create_join_token(None, labels.clone(), hour, &operator()).await.unwrap();
    let mut bearer = world.machine_with_token(Swtpm::manufacture_by(&manufacturer), &token);
    bearer.attester.attest().await.unwrap();
    let node = bearer.node().await;
    assert_eq!(standing(node), (Standing::Admitted { by: AdmittedBy::JoinToken }, labels.clone()));
    let used = world.verifier.store().join_tokens().await.unwrap().remove(0);
    assert_eq!((used.id, used.used.map(|(node, _)| node)), (record.id, Some(node)));

    let mut second = world.machine_with_token(Swtpm::manufacture_by(&manufacturer), &token);
    second.attester.attest().await.expect_err("a token is used once");
    let node = second.node().await;
    assert!(world.verifier.store().node(node).await.unwrap().is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verifier_that_restarts_knows_everything_that_it_said() {
    let (mut world, swtpm) = world_and_tpm().await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    world.restart().await;
    assert_eq!(world.status(node), PostureStatus::Affirming);
    machine.restart(&world);
    machine.attester.attest().await.unwrap();
    machine.whoami(&world).await.expect("a credential of before the restart counts");
    assert_eq!(
        world.last_decision(node).await,
        (true, "affirming".to_owned()),
        "no new enrolment was needed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn retiring_ends_everything_at_once_and_approving_takes_back() {
    let (world, swtpm) = world_and_tpm().await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    world.verifier.retire(node, &operator()).await.unwrap();
    assert_eq!(refused(machine.whoami(&world).await), "node_retired");
    machine.attest_anew().await.expect_err("a retired node gets no challenge");
    assert_eq!(world.last_decision(node).await, (true, "retired".to_owned()));
    world.verifier.approve(node, &operator()).await.unwrap();
    machine.attest_anew().await.unwrap();
    machine.whoami(&world).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_references_and_labels_take_effect_without_new_evidence() {
    let (world, swtpm) = world_and_tpm().await;
    let machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    world.verifier.remove_reference_set(&name("default"), &operator()).await.unwrap();
    assert_eq!(world.status(node), PostureStatus::Contraindicated);
    assert_eq!(refused(machine.whoami(&world).await), "posture_contraindicated");
    world.capture(node).await;
    assert_eq!(world.status(node), PostureStatus::Affirming);

    let mut body = world.verifier.store().profiles().await.unwrap().remove(0).body().clone();
    body.match_labels.set(name("env"), Some(name("prod"))).unwrap();
    body.references = vec![name("prod")];
    world.verifier.put_profile(name("prod"), body, &operator()).await.unwrap();
    assert_eq!(world.status(node), PostureStatus::Affirming, "the node has not that label");
    let label = vec![(name("env"), Some(name("prod")))];
    world.verifier.label(node, label, &operator()).await.unwrap();
    assert_eq!(world.status(node), PostureStatus::Contraindicated);
    world.verifier.label(node, vec![(name("env"), None)], &operator()).await.unwrap();
    assert_eq!(world.status(node), PostureStatus::Affirming);
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_are_the_tpms_own_whatever_the_attestation_key() {
    let (world, swtpm) = world_and_tpm().await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    let record = || async { world.verifier.store().node(node).await.unwrap().unwrap() };
    let last = |record: &rootbound_verifier::node::NodeRecord| record.last_seen.unwrap();
    let first = record().await;
    std::fs::remove_dir_all(machine.dir().join("state")).unwrap();
    machine.restart(&world);
    machine.attester.attest().await.expect("another AK, the same TPM");
    let second = record().await;
    assert_ne!(first.attestation_key, second.attestation_key, "another AK");
    let (before, after) = (last(&first), last(&second));
    assert_eq!(before.clock.reset_count, after.clock.reset_count);
    assert_eq!(before.firmware_version, after.firmware_version);
    assert!(after.clock.clock >= before.clock.clock);
}

#[tokio::test(flavor = "multi_thread")]
async fn manufacturers_are_trusted_from_when_their_roots_are_read_again() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[]).await;
    let (root, issuer) = swtpm.ca_certificates();
    let mut machine = world.machine(swtpm);
    let refused = machine.attester.attest().await.unwrap_err();
    assert!(format!("{refused:?}").contains("endorsement_unknown_issuer"), "{refused:?}");

    let folder = world.path().join("ek-roots");
    std::fs::write(folder.join("ca.pem"), root + &issuer).unwrap();
    world.verifier.trust(EndorsementRoots::load(&folder).unwrap());
    machine.attester.attest().await.expect_err("not admitted yet");
    let node = machine.node().await;
    let record = world.verifier.store().node(node).await.unwrap().expect("enrolled");
    assert_eq!(record.standing, Standing::Pending);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_held_back_longer_each_round_is_refused_in_the_second() {
    let world = World::new(&[]).await;
    let mut node = world.affirming_simulated(booted()).await;
    let challenge = node.challenge().await.unwrap();
    let mut next = node.submit(node.answer(&challenge)).await.unwrap().next;
    let pass = |node: &mut Simulated, seconds: u64| {
        node.tpm.clock.clock += seconds * 1000;
        world.advance(Duration::from_secs(seconds));
    };
    // Quoted some time before it is submitted: forgiven, with time left for a machine that is busy with other tests.
    pass(&mut node, 60);
    let early = node.answer(&next);
    pass(&mut node, 20);
    next = node.submit(early).await.expect("20 s late").next;
    // And as much more: no fresh evidence, whatever the last one's arrival says.
    pass(&mut node, 40);
    let early = node.answer(&next);
    pass(&mut node, 40);
    assert_eq!(refused(node.submit(early).await), "evidence_too_old");
}

/// The certificate was on record already when the reference values changed: it counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_a_reference_change_held_back_take_no_room() {
    let world = World::new(&[]).await;
    let node = world.affirming_simulated(booted()).await;
    let (verifier, accepted) = (world.verifier.clone(), AcceptedPcrs::captured(&node.tpm.pcrs).unwrap());
    let changes = tokio::spawn(async move {
        loop {
            let name = Name::default_set();
            verifier.put_reference_set(name, accepted.clone(), &operator()).await.unwrap();
        }
    });
    let (mut issued, mut held_back) = (0, 0);
    let records = async || world.verifier.store().certificates(node.node, 1000).await.unwrap().len();
    // A node may hold sixteen at once.
    for _ in 0..300 {
        if issued == 12 || held_back == 3 {
            break;
        }
        let challenge = node.challenge().await.unwrap();
        match node.submit(node.answer_with_request(&challenge).0).await {
            Ok(_) => issued += 1,
            refusal => assert_eq!(refused(refusal), "node_changed"),
        }
        held_back = records().await - issued;
        let live = world.verifier.fleet().node(node.node).unwrap();
        assert_eq!(live.credentials.len(), issued, "{held_back} were held back");
    }
    println!("{issued} were issued, {held_back} held back");
    changes.abort();
    drop(changes.await);
    let now = world.verifier.now();
    let stored = world.verifier.store().live_node(node.node, now).await.unwrap().unwrap();
    assert_eq!(stored.credentials.len(), issued, "after a restart, too");
}

/// Evidence that could not be recorded speaks against the node, and is later: what this evidence earns is out of date.
#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_whose_node_came_to_stand_otherwise_is_withdrawn() {
    let world = World::new(&[]).await;
    let node = world.affirming_simulated(booted()).await;
    let live = || world.verifier.fleet().node(node.node).unwrap();
    let mut later = live().posture.clone().unwrap();
    later.verdict = Verdict::Contraindicated;
    later.evidence_at = world.verifier.now().plus(Duration::from_secs(60));
    world.verifier.fleet().distrust(node.node, live().attestation_key, later);
    let before = live().epoch;
    let challenge = node.challenge().await.unwrap();
    let answer = node.submit(node.answer_with_request(&challenge).0).await;
    assert_eq!(refused(answer), "node_changed");
    assert!(live().credentials.is_empty() && live().epoch >= before);
    let stored = world.verifier.store().live_node(node.node, world.verifier.now()).await.unwrap().unwrap();
    assert!(stored.credentials.is_empty() && stored.epoch <= live().epoch);
    let filter = RecordFilter { kinds: vec![RecordKind::Issuance], ..RecordFilter::default() };
    let page = world.verifier.store().records(&filter, None, 10).await.unwrap();
    assert_eq!(page.records.first().map(|record| record.record.action.as_str()), Some("withdraw"));

    // What is shown later still counts, and the epoch goes on from there.
    world.advance(Duration::from_secs(120));
    let challenge = node.challenge().await.unwrap();
    let (request, _key) = node.answer_with_request(&challenge);
    let credential = node.submit(request).await.unwrap().credential;
    let Some(CredentialOutcome::Issued { certificate_chain, .. }) = credential else {
        panic!("{credential:?}")
    };
    let certificate = CertificateDer::from_pem_slice(certificate_chain.as_bytes()).unwrap();
    let svid = PresentedSvid::parse(&certificate, world.verifier.trust_domain()).unwrap();
    assert_eq!(svid.epoch, Some(live().epoch));
    assert!(live().epoch > before);
}

#[tokio::test(flavor = "multi_thread")]
async fn reference_changes_at_once_leave_the_last_one_in_force() {
    let world = World::new(&[]).await;
    let node = world.affirming_simulated(booted()).await;
    for _ in 0..10 {
        let (verifier, name) = (world.verifier.clone(), name("default"));
        let withdrawn = tokio::spawn(async move { verifier.remove_reference_set(&name, &operator()).await });
        let body = world.verifier.store().profiles().await.unwrap().remove(0).body().clone();
        let somebody = operator();
        let unused = world.verifier.put_profile(self::name("unused"), unmatched(body), &somebody);
        let (withdrawn, unused) = tokio::join!(withdrawn, unused);
        withdrawn.unwrap().unwrap();
        unused.unwrap();
        assert_eq!(world.status(node.node), PostureStatus::Contraindicated);
        let live = world.verifier.fleet().node(node.node).unwrap();
        let stored =
            world.verifier.store().live_node(node.node, world.verifier.now()).await.unwrap().unwrap();
        assert_eq!(
            (live.revision, &live.posture),
            (stored.revision, &stored.posture),
            "memory is what is stored"
        );
        world.capture(node.node).await;
        assert_eq!(world.status(node.node), PostureStatus::Affirming);
    }
}

/// A profile that no node of these tests has.
fn unmatched(
    mut body: rootbound_verifier::reference::ProfileBody,
) -> rootbound_verifier::reference::ProfileBody {
    body.match_labels.set(name("role"), Some(name("none"))).unwrap();
    body
}

#[tokio::test(flavor = "multi_thread")]
async fn a_challenge_of_before_the_profile_changed_gives_no_credential_on_the_old_pcrs() {
    let world = World::new(&[]).await;
    let node = world.affirming_simulated(booted()).await;
    let challenge = node.challenge().await.unwrap();
    let mut body = world.verifier.store().profiles().await.unwrap().remove(0).body().clone();
    body.credential_policy.pcrs = body.credential_policy.pcrs.iter().filter(|pcr| pcr.get() < 8).collect();
    world.verifier.put_profile(name("default"), body, &operator()).await.unwrap();
    let response = node.submit(node.answer_with_request(&challenge).0).await.unwrap();
    let Some(CredentialOutcome::Refused { code, .. }) = response.credential else { panic!("{response:?}") };
    assert_eq!(code, "credential_policy_changed");
    assert_eq!(response.next.attest_in, 0, "the next is asked for at once");
    let response = node.submit(node.answer_with_request(&response.next).0).await.unwrap();
    assert!(matches!(response.credential, Some(CredentialOutcome::Issued { .. })), "{response:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_collects_no_more_than_a_few_credentials() {
    let world = World::new(&[]).await;
    let node = world.affirming_simulated(booted()).await;
    let mut codes = Vec::new();
    for _ in 0..17 {
        let challenge = node.challenge().await.unwrap();
        let response = node.submit(node.answer_with_request(&challenge).0).await.unwrap();
        if let Some(CredentialOutcome::Refused { code, .. }) = response.credential {
            codes.push(code);
        }
    }
    assert_eq!(codes, ["too_many_credentials"], "of seventeen");
    world.advance(11 * MINUTE);
    let challenge = node.challenge().await.unwrap();
    let response = node.submit(node.answer_with_request(&challenge).0).await.unwrap();
    assert!(matches!(response.credential, Some(CredentialOutcome::Issued { .. })), "{response:?}");
}

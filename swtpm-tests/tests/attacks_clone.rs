//! Attacks with a TPM that is another, or the same at another time: relayed, copied, rolled back, reset. Each is tried on
//! a verifier that runs, refused with a code of its own, on record, and changes nothing else.
//!
//! | attack | tests |
//! |---|---|
//! | 39 relay | `evidence_and_requests_of_one_node_are_worth_nothing_to_another`, `a_certificate_speaks_for_its_own_node_only` |
//! | 41 counters and clock go back; clones | `counters_and_clocks_that_go_back_are_refused_whatever_the_ak`, `a_rolled_back_tpm_is_refused_and_a_new_ak_does_not_help`, `of_two_clones_the_one_that_is_behind_is_refused`, `an_ak_of_another_hierarchy_does_not_hide_a_rollback` |
//! | 42 legit: boot after suspend, power loss | `suspends_boots_and_power_cuts_are_not_refused`, `counters_and_clocks_that_go_back_are_refused_whatever_the_ak` |
//! | 43 firmware | `firmware_that_goes_back_or_changes_amid_a_boot_is_refused` |
//! | 44 TPM reset alone | `a_tpm_that_was_reset_alone_has_nothing_to_show` |
//! | 86 node A for node B | `a_certificate_speaks_for_its_own_node_only`, `evidence_and_requests_of_one_node_are_worth_nothing_to_another` |

use std::time::Duration;

use rootbound_attester::attest::AttestError;
use rootbound_attester::client::{ClientIdentity, RequestError};
use rootbound_attester::tpm::TpmError;
use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::blob::Blob;
use rootbound_common::tpm::{ClockState, HashAlgorithm, put_sized};
use rootbound_common::wire::v1::{
    ActivateRequest, ChallengeRequest, CredentialOutcome, PostureStatus, WhoamiResponse,
};
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::certificate_request::RequestParts;
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::manual::{Manual, create_parent, hex, tool, tools_statement};
use rootbound_swtpm_tests::scene::Scene;
use rootbound_swtpm_tests::software_tpm::{SoftwareKey, SoftwareTpm, Template};
use rootbound_swtpm_tests::swtpm::MEASURED_PCRS;
use rootbound_swtpm_tests::watch::{Bystander, Watch};
use rootbound_swtpm_tests::world::{Machine, World, nonce, operator, refused};
use rootbound_verifier::flows::operate::OperateError;
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::ReferenceError;

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

#[tokio::test(flavor = "multi_thread")]
async fn evidence_and_requests_of_one_node_are_worth_nothing_to_another() {
    let scene = Scene::set().await;
    let (world, clean) = (&scene.world, &scene.node);
    let bad = world.simulated(SoftwareTpm::booted(&[])).await;
    let mut watch = Watch::on(world, bad.node).await;
    // The bad machine has the clean one's TPM answer its own challenge.
    let challenge = bad.challenge().await.unwrap();
    let (answer, _) = clean.answer_with_request(&challenge);
    watch.refused("another TPM's answer", bad.submit(answer).await, "signature_invalid").await;
    let challenge = bad.challenge().await.unwrap();
    let mut values = bad.answer(&challenge);
    values.pcrs = clean.tpm.values(&challenge.selection);
    watch.refused("another TPM's values", bad.submit(values).await, "pcr_digest_mismatch").await;

    // It has the clean one's TPM quote over a request of its own: for a key in its own TPM, by its own AK; for that key,
    // with what the clean AK says of another; for that key, called by the name of the other.
    let policy = clean.challenge().await.unwrap().credential_policy;
    let policy = clean.tpm.policy(&policy.selection());
    let template = Template::credential(policy.as_bytes());
    let (ours, theirs) = (SoftwareKey::p256(template.clone()), SoftwareKey::p256(template));
    for (case, code) in [("its own AK", "certify_signature"), ("another key's name", "certify_name")] {
        let challenge = clean.challenge().await.unwrap();
        let extra = CertifyStatement::extra_data(&nonce(&challenge));
        let certify = match code {
            "certify_signature" => bad.tpm.certify(&ours, extra.as_bytes()).sign(&bad.tpm.attestation_key),
            _ => clean.tpm.certify(&theirs, extra.as_bytes()).sign(&clean.tpm.attestation_key),
        };
        let request = RequestParts::honest(&ours, &certify).sign(&ours);
        let quote = clean.quote(&challenge, Some(&request)).sign(&clean.tpm.attestation_key);
        let answer = clean.submit(clean.evidence(&challenge, quote, Some(request))).await.unwrap();
        let Some(CredentialOutcome::Refused { code: found, .. }) = answer.credential else {
            panic!("{case}: {:?}", answer.credential);
        };
        assert_eq!(found, code, "{case}");
        assert_eq!(world.last_decision(clean.node).await, (false, code.to_owned()), "{case}");
    }
    assert!(world.verifier.store().certificates(clean.node, 1).await.unwrap().is_empty());
    watch.untouched("the end").await;
    assert_eq!(world.status(bad.node), PostureStatus::Unknown);
    drop(watch);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_speaks_for_its_own_node_only() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    let victim = world.affirming_simulated(SoftwareTpm::booted(&[SHA256])).await;
    let identity = ClientIdentity::new(machine.tpm.clone(), machine.attester.credential().unwrap()).unwrap();
    let https = Https::to(&world.client()).as_machine(identity);

    let challenge = victim.challenge().await.unwrap();
    let evidence = victim.answer(&challenge);
    let mut watch = Watch::on(&world, victim.node).await;
    let own = Watch::on(&world, node).await;
    let reply = https.post("/v1/evidence", &evidence).await;
    assert_eq!(reply.status, 403);
    watch.code("good evidence of another", &reply.code(), "caller_is_other_node").await;
    let mut forged = evidence.clone();
    forged.quote = Blob::empty();
    let reply = https.post("/v1/evidence", &forged).await;
    watch.code("bad evidence of another", &reply.code(), "caller_is_other_node").await;
    own.untouched("the caller").await;
    drop((watch, own));
    victim.submit(evidence).await.expect("nobody has spent its challenge");

    // Reading: a node is told about itself, whatever it asks for, and there is nothing else to ask.
    let of_the_victim = victim.node;
    for path in [format!("/v1/whoami?node={of_the_victim}"), format!("/v1/whoami?spiffe_id={of_the_victim}")]
    {
        let reply = https.get(&path).await;
        let who: WhoamiResponse = serde_json::from_slice(&reply.body).unwrap();
        assert_eq!(who.node, node, "{path}");
    }
    for path in ["/v1/whoami/", "/v1/nodes/", "/v1/evidence/", "/v1/challenges/", "/v1/enrollments/"] {
        let reply = https.get(&format!("{path}{of_the_victim}")).await;
        assert_eq!((reply.status, reply.code().as_str()), (404, "unknown_route"), "{path}");
    }
    // A challenge for another says what to quote, and nothing of how the other stands.
    let reply = https.post("/v1/challenges", &ChallengeRequest { node: of_the_victim }).await;
    assert_eq!(reply.status, 200);
    let text = String::from_utf8(reply.body).unwrap();
    assert!(!text.contains("posture") && !text.contains("affirming"), "{text}");
    bystander.is_well(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_and_clocks_that_go_back_are_refused_whatever_the_ak() {
    const SAVED_EVERY: u64 = 1 << 22;
    let mut scene = Scene::set().await;
    let world = &scene.world;
    let node = &mut scene.node;
    let seen = ClockState { clock: 10_000_000, reset_count: 8, restart_count: 3, safe: true };
    node.tpm.clock = seen;
    node.submit(node.answer(&node.challenge().await.unwrap())).await.unwrap();
    for round in ["the first AK", "another AK"] {
        let mut watch = Watch::on(world, node.node).await;
        for (clock, code) in [
            (ClockState { reset_count: 7, clock: 99_000_000, ..seen }, "reset_count_went_back"),
            (
                ClockState { reset_count: 0, restart_count: 99, clock: u64::MAX, ..seen },
                "reset_count_went_back",
            ),
            (ClockState { restart_count: 2, clock: 99_000_000, ..seen }, "restart_count_went_back"),
            (ClockState { restart_count: 0, clock: 99_000_000, ..seen }, "restart_count_went_back"),
            (ClockState { clock: 9_999_999, ..seen }, "clock_went_back"),
            (ClockState { clock: 0, restart_count: 4, ..seen }, "clock_went_back"),
            (ClockState { clock: 9_999_999, safe: false, ..seen }, "clock_went_back"),
            (ClockState { reset_count: 9, clock: 9_999_999, ..seen }, "clock_went_back"),
            (
                ClockState { reset_count: 9, clock: seen.clock - SAVED_EVERY - 1, safe: false, ..seen },
                "clock_went_back",
            ),
        ] {
            node.tpm.clock = clock;
            let outcome = node.submit(node.answer(&node.challenge().await.unwrap())).await;
            watch.refused(format!("{round}: {clock:?}"), outcome, code).await;
        }
        drop(watch);
        node.tpm.attestation_key = SoftwareKey::p256(Template::attestation_p256());
        node.enroll().await.unwrap();
        assert_eq!(world.status(node.node), PostureStatus::Unknown, "another AK starts without trust");
    }
    // Legit: a boot after suspends; a power cut, after which the clock is what was saved last.
    let boot =
        |reset_count, restart_count, clock, safe| ClockState { clock, reset_count, restart_count, safe };
    for clock in [
        boot(9, 0, seen.clock, true),
        boot(9, 1, seen.clock, true),
        boot(10, 0, seen.clock - SAVED_EVERY, false),
        boot(10, 0, seen.clock + 1, true),
        boot(4_000_000_000, 0, seen.clock + 2, true),
    ] {
        node.tpm.clock = clock;
        let answer = node.submit(node.answer(&node.challenge().await.unwrap())).await;
        assert_eq!(answer.expect("legitimate").posture.status, PostureStatus::Affirming, "{clock:?}");
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_that_goes_back_or_changes_amid_a_boot_is_refused() {
    let mut scene = Scene::set().await;
    let world = &scene.world;
    let node = &mut scene.node;
    let version = node.tpm.firmware_version;
    let mut watch = Watch::on(world, node.node).await;
    for other in [version + 1, version - 1, 0, u64::MAX] {
        node.tpm.firmware_version = other;
        let outcome = node.submit(node.answer(&node.challenge().await.unwrap())).await;
        watch.refused(format!("{other:#x} amid a boot"), outcome, "firmware_changed_within_boot").await;
    }
    node.tpm.clock.reset_count += 1;
    for older in [version - 1, version - (1 << 32), 0] {
        node.tpm.firmware_version = older;
        let outcome = node.submit(node.answer(&node.challenge().await.unwrap())).await;
        watch.refused(format!("{older:#x} after a boot"), outcome, "firmware_went_back").await;
    }
    drop(watch);
    // An upgrade comes with a boot. A downgrade is an operator's to allow.
    node.tpm.firmware_version = version + 1;
    node.submit(node.answer(&node.challenge().await.unwrap())).await.expect("an upgrade");
    node.tpm.clock.reset_count += 1;
    node.tpm.firmware_version = version;
    let outcome = node.submit(node.answer(&node.challenge().await.unwrap())).await;
    assert_eq!(refused(outcome), "firmware_went_back");
    world.verifier.retire(node.node, &operator()).await.unwrap();
    world.verifier.approve(node.node, &operator()).await.unwrap();
    node.submit(node.answer(&node.challenge().await.unwrap())).await.expect("approved anew");
    scene.end().await;
}

/// The code with which the verifier refused an attempt of the attester.
fn code<T: std::fmt::Debug>(attempt: Result<T, AttestError>) -> String {
    match attempt {
        Err(AttestError::Request(RequestError::Refused(refusal))) => refusal.code.as_str().to_owned(),
        other => panic!("not refused: {other:?}"),
    }
}

/// Loses what the attester remembers, so that it makes another AK.
fn forget_everything(world: &World, machine: &mut Machine) {
    std::fs::remove_dir_all(machine.dir().join("state")).unwrap();
    machine.restart(world);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolled_back_tpm_is_refused_and_a_new_ak_does_not_help() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    let snapshot = machine.swtpm.snapshot();
    machine.swtpm.reboot();
    machine.swtpm.reboot();
    machine.attest_anew().await.unwrap();
    let mut watch = Watch::on(&world, node).await;
    machine.swtpm.rollback(&snapshot);
    watch.code("rolled back", &code(machine.attest_anew().await), "reset_count_went_back").await;
    watch.code("and again", &code(machine.attest_anew().await), "reset_count_went_back").await;
    drop(watch);
    bystander.is_well(&world).await;

    forget_everything(&world, &mut machine);
    assert_eq!(code(machine.attester.attest().await), "reset_count_went_back");
    assert_eq!(world.last_decision(node).await, (false, "reset_count_went_back".to_owned()));
    assert_eq!(
        world.status(node),
        PostureStatus::Unknown,
        "the AK of before is superseded, and its trust with it"
    );
    // An operator who knows why takes the machine back.
    world.verifier.retire(node, &operator()).await.unwrap();
    world.verifier.approve(node, &operator()).await.unwrap();
    machine.attest_anew().await.unwrap();
    assert_eq!(world.status(node), PostureStatus::Affirming);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_clones_the_one_that_is_behind_is_refused() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let mut original = world.affirming(swtpm).await;
    let node = original.node().await;
    let snapshot = original.swtpm.snapshot();
    let mut clone = world.machine(original.swtpm.clone_of(&snapshot));
    for file in ["identity.json", "credential.json"] {
        std::fs::copy(original.dir().join("state").join(file), clone.dir().join("state").join(file)).unwrap();
    }
    clone.restart(&world);
    original.attest_anew().await.expect("the clone has said nothing yet");
    // The clone has booted once more than the original: to the verifier, a reboot.
    clone.attester.attest().await.unwrap();
    assert_eq!(clone.node().await, node);
    let mut watch = Watch::on(&world, node).await;
    watch.code("the original", &code(original.attest_anew().await), "reset_count_went_back").await;
    drop(watch);
    clone.attest_anew().await.unwrap();

    // Each that enrols with a new AK ends what the other has, and is as far behind as it was.
    forget_everything(&world, &mut original);
    assert_eq!(code(original.attester.attest().await), "reset_count_went_back");
    assert_eq!(world.status(node), PostureStatus::Unknown);
    assert_eq!(refused(clone.whoami(&world).await), "certificate_superseded");
    assert_eq!(code(clone.attest_anew().await), "signature_invalid");
    // Whichever goes on, nobody is trusted for long on what the other has shown.
    world.advance(Duration::from_secs(200));
    assert_ne!(world.status(node), PostureStatus::Affirming);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspends_boots_and_power_cuts_are_not_refused() {
    let mut swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let node = Manual::affirming(&world, &swtpm).await;
    let seen = || async {
        assert_eq!(node.attest().await.expect("legitimate").posture.status, PostureStatus::Affirming);
        world.verifier.store().node(node.node).await.unwrap().unwrap().last_seen.unwrap().clock
    };
    let first = seen().await;
    swtpm.suspend_resume();
    swtpm.suspend_resume();
    let suspended = seen().await;
    assert_eq!(
        (suspended.reset_count, suspended.restart_count),
        (first.reset_count, first.restart_count + 2)
    );
    swtpm.reboot();
    let booted = seen().await;
    assert_eq!((booted.reset_count, booted.restart_count), (first.reset_count + 1, 0), "fallen to zero");
    swtpm.power_cut();
    let cut = seen().await;
    assert_eq!((cut.reset_count, cut.safe), (first.reset_count + 2, false));
    swtpm.power_cut();
    swtpm.suspend_resume();
    let unsafe_and_suspended = seen().await;
    assert!(unsafe_and_suspended.reset_count > cut.reset_count && !unsafe_and_suspended.safe);
    swtpm.reboot();
    assert!(seen().await.reset_count > unsafe_and_suspended.reset_count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_that_was_reset_alone_has_nothing_to_show() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    machine.whoami(&world).await.unwrap();
    machine.swtpm.reset_alone();
    let signed = machine.whoami(&world).await;
    let Err(error @ RequestError::Handshake { .. }) = signed else { panic!("the TPM signed: {signed:?}") };
    assert!(matches!(error.tpm(), Some(TpmError::PolicyFailed { .. })), "{error:?}");

    machine.attest_anew().await.expect("the truth is accepted, and is what it is");
    assert_eq!(world.status(node), PostureStatus::Contraindicated);
    let expected: Vec<_> = ["bank_idle"].into_iter().chain(["pcr_mismatch"; MEASURED_PCRS.len()]).collect();
    assert_eq!(world.deviations(node), expected);
    assert_eq!(world.last_decision(node).await, (false, "posture_contraindicated".to_owned()));
    let captured = world.verifier.capture(node, Name::default_set(), &operator()).await;
    let idle = ReferenceError::IdleBank { bank: SHA256 };
    assert!(matches!(&captured, Err(OperateError::Reference(error)) if *error == idle), "{captured:?}");
    machine.swtpm.reboot();
    machine.attest_anew().await.unwrap();
    machine.whoami(&world).await.expect("a boot puts it right");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ak_of_another_hierarchy_does_not_hide_a_rollback() {
    let mut swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let node = Manual::affirming(&world, &swtpm).await;
    let snapshot = swtpm.snapshot();
    swtpm.reboot();
    swtpm.reboot();
    node.attest().await.unwrap();
    swtpm.rollback(&snapshot);
    assert_eq!(refused(node.attest().await), "reset_count_went_back");
    // Of an AK outside of the endorsement hierarchy a TPM states each counter with a number of the AK's own added
    // (Part 1, 36.7): whoever makes enough of them finds one whose resetCount is high enough.
    create_parent(&swtpm, "o");
    for attempt in 0..3 {
        let ak = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|sign";
        tool(
            &swtpm,
            &format!("tpm2_create -C parent.ctx -G ecc256:ecdsa-sha256:null -a {ak} -u ak.pub -r ak.priv"),
        );
        tool(&swtpm, "tpm2_load -C parent.ctx -u ak.pub -r ak.priv -c ak.ctx");
        enroll_by_tools(&node, &swtpm).await;
        let mut watch = Watch::on(&world, node.node).await;
        let challenge = node.challenge().await;
        let values = node.quote(&challenge, &challenge.selection).await.values;
        let extra = hex(&Manual::extra_data(&challenge));
        let pcrs = MEASURED_PCRS.map(|pcr| pcr.to_string()).join(",");
        tool(&swtpm, &format!("tpm2_quote -c ak.ctx -l sha256:{pcrs} -q {extra} -m attest -s signature"));
        let outcome = node.submit(&challenge, tools_statement(&swtpm), values).await;
        watch.refused(format!("attempt {attempt}"), outcome, "ak_other_hierarchy").await;
        drop(watch);
        assert_eq!(world.status(node.node), PostureStatus::Unknown, "no trust under the new AK");
    }
}

/// Enrols the AK in `ak.ctx` by tpm2-tools, whatever its parent.
async fn enroll_by_tools(node: &Manual, swtpm: &Swtpm) {
    let mut request = node.enroll_request();
    let sized = std::fs::read(swtpm.dir().join("ak.pub")).unwrap();
    request.ak_public = Blob::new(sized[2..].to_vec()).unwrap();
    let begun = node.client.enroll(&request).await.unwrap();
    // The form of tpm2-tools: their magic and version, TPM2B_ID_OBJECT, TPM2B_ENCRYPTED_SECRET.
    let mut file = vec![0xba, 0xdc, 0xc0, 0xde, 0, 0, 0, 1];
    put_sized(&mut file, begun.credential_blob.as_bytes());
    put_sized(&mut file, begun.encrypted_secret.as_bytes());
    std::fs::write(swtpm.dir().join("credential"), file).unwrap();
    swtpm.tool_ok("tpm2_startauthsession", &["--policy-session", "-S", "policy.ctx"]);
    swtpm.tool_ok("tpm2_policysecret", &["-Q", "-S", "policy.ctx", "-c", "e"]);
    tool(
        swtpm,
        "tpm2_activatecredential -c ak.ctx -C 0x81010001 -P session:policy.ctx -i credential -o secret",
    );
    swtpm.tool_ok("tpm2_flushcontext", &["policy.ctx"]);
    let secret = Blob::new(std::fs::read(swtpm.dir().join("secret")).unwrap()).unwrap();
    node.client.activate(&ActivateRequest { enrollment: begun.enrollment, secret }).await.unwrap();
}

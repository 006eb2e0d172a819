//! Attacks with evidence that was good once, or elsewhere, or for something else: each is tried on a verifier that runs,
//! refused with a code of its own, on record, and changes nothing else.
//!
//! | attack | tests |
//! |---|---|
//! | 33 replay | `an_accepted_quote_is_accepted_once` |
//! | 34 nonce of another node or purpose | `a_nonce_of_another_node_challenge_or_purpose_is_refused` |
//! | 35 nonces | `nonces_never_repeat_and_have_one_spelling` |
//! | 36 quoted while clean, submitted late | `a_quote_that_was_held_back_is_too_old`, `a_tpm_clock_set_ahead_buys_no_more_than_the_life_of_a_challenge`; legit: `a_slow_tpm_clock_costs_one_more_request` |
//! | 37 one challenge submitted twice | `of_32_submissions_at_once_one_is_accepted`, `challenge_is_spent_once_for_two_verifiers_on_one_database` |
//! | 38 cross-protocol | `statements_and_requests_count_for_their_own_purpose_and_message_only` |
//! | 45 legit: a PCR moves during the quote | `a_pcr_that_moves_during_the_quote_is_nobodys_fault` |

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rootbound_attester::certificate_request::UnsignedRequest;
use rootbound_attester::client::RequestError;
use rootbound_attester::renew::Rounds;
use rootbound_attester::tpm::Tpm;
use rootbound_common::attestation_attribute::CertifyStatement;
use rootbound_common::binding::{Purpose, extra_data};
use rootbound_common::blob::Blob;
use rootbound_common::clock::Clock;
use rootbound_common::crypto::hash;
use rootbound_common::random;
use rootbound_common::secret::Secret;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection};
use rootbound_common::wire::v1::{
    Challenge, ChallengeRequest, CredentialOutcome, EvidenceRequest, EvidenceResponse, PostureStatus,
};
use rootbound_swtpm_tests::exchange::pcrs;
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::keys::bound_key;
use rootbound_swtpm_tests::manual::{Manual, evidence, tool};
use rootbound_swtpm_tests::scene::Scene;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::swtpm::MEASURED_PCRS;
use rootbound_swtpm_tests::watch::{Bystander, Watch};
use rootbound_swtpm_tests::world::{World, nonce, refused};
use rootbound_swtpm_tests::{Action, Interposer, Swtpm};
use rootbound_verifier::challenge::{ChallengeKey, Terms, UnspentChallenge, mint};
use rootbound_verifier::flows::attest::AttestError;
use rootbound_verifier::store::{ChallengeStore, SqliteStore};
use serde_json::json;
use tokio::task::JoinSet;

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;
/// Of the initial profile.
const INTERVAL: Duration = Duration::from_secs(60);
/// How long a challenge lives that is to be answered at once.
const AT_ONCE: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_quote_is_accepted_once() {
    let swtpm = Swtpm::manufacture();
    let mut world = World::new(&[swtpm.manufacturer()]).await;
    let node = Manual::affirming(&world, &swtpm).await;
    let challenge = node.challenge().await;
    let quote = node.quote(&challenge, &challenge.selection).await;
    let accepted = evidence(&challenge, quote.statement, quote.values);
    let answer = node.client.evidence(&accepted).await.unwrap();
    let mut watch = Watch::on(&world, node.node).await;
    for _ in 0..3 {
        watch.refused("again", node.client.evidence(&accepted).await, "challenge_spent").await;
    }
    for (case, other) in [("a fresh challenge", node.challenge().await), ("the next challenge", answer.next)]
    {
        let replay = EvidenceRequest { challenge: other.token, ..accepted.clone() };
        watch.refused(case, node.client.evidence(&replay).await, "extra_data_mismatch").await;
    }
    world.advance(AT_ONCE);
    watch.refused("when it has expired", node.client.evidence(&accepted).await, "challenge_expired").await;
    drop(watch);
    world.restart().await;
    let client = world.client();
    let mut watch = Watch::on(&world, node.node).await;
    // The key that mints challenges is drawn anew at each start.
    watch.refused_unnamed("after a restart", client.evidence(&accepted).await, "challenge_invalid").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_nonce_of_another_node_challenge_or_purpose_is_refused() {
    let scene = Scene::set().await;
    let (world, node) = (&scene.world, &scene.node);
    let other = world.simulated(SoftwareTpm::booted(&[SHA256])).await;
    let mut watch = scene.watch().await;
    let mut others_watch = Watch::on(world, other.node).await;

    let challenge = node.challenge().await.unwrap();
    let outcome = other.submit(other.answer(&challenge)).await;
    watch.refused("answered by another node", outcome, "signature_invalid").await;
    let challenge = other.challenge().await.unwrap();
    let outcome = node.submit(node.answer(&challenge)).await;
    others_watch.refused("answered in another's name", outcome, "signature_invalid").await;
    watch.untouched("a challenge of another node").await;

    let (one, two) = (node.challenge().await.unwrap(), other.challenge().await.unwrap());
    let foreign = Challenge { nonce: two.nonce.clone(), ..one.clone() };
    watch
        .refused("another node's nonce", node.submit(node.answer(&foreign)).await, "extra_data_mismatch")
        .await;
    let (one, two) = (node.challenge().await.unwrap(), node.challenge().await.unwrap());
    let earlier = Challenge { nonce: two.nonce, ..one };
    watch
        .refused("another nonce of its own", node.submit(node.answer(&earlier)).await, "extra_data_mismatch")
        .await;

    for (case, make) in [
        (
            "another purpose",
            (|challenge| extra_data(Purpose::Certify, &nonce(challenge), &[]).as_bytes().to_vec())
                as fn(&Challenge) -> Vec<u8>,
        ),
        ("another purpose, with parts", |challenge| {
            extra_data(Purpose::Certify, &nonce(challenge), &[b""]).as_bytes().to_vec()
        }),
        ("no parts", |challenge| extra_data(Purpose::Quote, &nonce(challenge), &[]).as_bytes().to_vec()),
        ("the nonce itself", |challenge| challenge.nonce.as_bytes().to_vec()),
        ("its hash", |challenge| hash(SHA256, &[challenge.nonce.as_bytes()]).as_bytes().to_vec()),
        ("nothing", |_| Vec::new()),
    ] {
        let challenge = node.challenge().await.unwrap();
        let mut quote = node.quote(&challenge, None);
        quote.extra_data = make(&challenge);
        let signed = quote.sign(&node.tpm.attestation_key);
        let outcome = node.submit(node.evidence(&challenge, signed, None)).await;
        watch.refused(case, outcome, "extra_data_mismatch").await;
    }
    others_watch.untouched("the end").await;
    drop((watch, others_watch));
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nonces_never_repeat_and_have_one_spelling() {
    const MINTED: usize = 10_000;
    let scene = Scene::set().await;
    let (mut nonces, mut tokens) = (BTreeSet::new(), BTreeSet::new());
    // By the verifier without HTTP around it: it is the minting that is looked at.
    let request = ChallengeRequest { node: scene.node.node };
    for _ in 0..MINTED {
        let challenge = scene.world.verifier.challenge(&request).await.unwrap();
        assert_eq!(challenge.nonce.as_bytes().len(), 32);
        nonces.insert(challenge.nonce.into_bytes());
        tokens.insert(challenge.token.into_bytes());
    }
    assert_eq!((nonces.len(), tokens.len()), (MINTED, MINTED));
    // Neither a counter nor a clock: each bit of the nonces is set in half of them, by six standard deviations.
    for bit in 0..256 {
        let set = nonces.iter().filter(|nonce| nonce[bit / 8] >> (bit % 8) & 1 == 1).count();
        assert!((MINTED / 2 - 300..=MINTED / 2 + 300).contains(&set), "bit {bit} is set {set} times");
    }

    let mut watch = scene.watch().await;
    // A token of whatever other bytes is none.
    let token = scene.node.challenge().await.unwrap().token.into_bytes();
    let mut changed: Vec<_> = (0..token.len())
        .step_by(7)
        .map(|at| {
            let mut changed = token.clone();
            changed[at] ^= 1;
            changed
        })
        .collect();
    changed.extend([Vec::new(), vec![0; 32], token[1..].to_vec(), token[..token.len() - 1].to_vec()]);
    changed.extend([[&token[..], &[0]].concat(), [&[0], &token[..]].concat(), token.repeat(2), vec![0; 512]]);
    for changed in changed {
        let case = format!("a token of {} bytes", changed.len());
        let outcome = scene.send(|evidence| evidence.challenge = Blob::new(changed).unwrap()).await;
        watch.refused_unnamed(case, outcome, "challenge_invalid").await;
    }
    // And a token of these very bytes has one spelling.
    let https = Https::to(&scene.node.client);
    let message = serde_json::to_value(scene.node.answer(&scene.node.challenge().await.unwrap())).unwrap();
    let spelled = message["challenge"].as_str().unwrap().to_owned();
    for other in [
        format!("{spelled}="),
        format!("{spelled}=="),
        format!("{spelled}\n"),
        format!(" {spelled}"),
        spelled.replacen(&spelled[..4], &format!("{}\r\n", &spelled[..4]), 1),
        format!("{spelled}A"),
        spelled.replace('-', "+").replace('_', "/") + "+",
    ] {
        let mut message = message.clone();
        message["challenge"] = json!(other);
        let reply = https.post("/v1/evidence", &message).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "body_malformed"), "{other:?}");
        watch.untouched(&other).await;
    }
    assert_eq!(https.post("/v1/evidence", &message).await.status, 200, "none of these has spent it");
    drop(watch);
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quote_that_was_held_back_is_too_old() {
    let mut scene = Scene::set().await;
    let world = &scene.world;
    let node = &mut scene.node;
    let challenge = node.challenge().await.unwrap();
    assert_eq!((challenge.attest_in, challenge.expires_in), (0, AT_ONCE.as_secs()));
    let clean = node.answer(&challenge);
    let mut watch = Watch::on(world, node.node).await;
    world.advance(AT_ONCE);
    watch.refused("fetched, quoted, held back", node.submit(clean).await, "challenge_expired").await;
    drop(watch);

    let fresh = node.challenge().await.unwrap();
    let next = node.submit(node.answer(&fresh)).await.unwrap().next;
    assert_eq!((next.attest_in, next.expires_in), (60, 150));
    let clean = node.answer(&next);
    let mut watch = Watch::on(world, node.node).await;
    world.advance(INTERVAL);
    watch.refused("the next, quoted at once", node.submit(clean).await, "evidence_too_old").await;
    drop(watch);

    // Honest, by a TPM's clock that is right, fifteen percent slow, or as much fast (Part 1, 36.5).
    for elapsed in [60_000, 51_000, 69_000] {
        let fresh = node.challenge().await.unwrap();
        let next = node.submit(node.answer(&fresh)).await.unwrap().next;
        world.advance(INTERVAL);
        node.tpm.clock.clock += elapsed;
        let answer = node.submit(node.answer(&next)).await.expect("in time");
        let age = world.verifier.now().since(answer.posture.evidence_at.unwrap());
        assert!(age < Duration::from_secs(15), "{elapsed} ms by the TPM are {age:?} old");
    }
    // Off or asleep in between, while the clock stood still for an unknown time: dated by its challenge.
    for suspended in [false, true] {
        let fresh = node.challenge().await.unwrap();
        let next = node.submit(node.answer(&fresh)).await.unwrap().next;
        node.tpm.clock.clock += 60_000;
        node.tpm.clock.reset_count += u32::from(!suspended);
        node.tpm.clock.restart_count += u32::from(suspended);
        let answer = node.answer(&next);
        let mut watch = Watch::on(world, node.node).await;
        world.advance(INTERVAL);
        watch.refused("over a boot or a sleep", node.submit(answer).await, "evidence_too_old").await;
    }
    let fresh = node.challenge().await.unwrap();
    let next = node.submit(node.answer(&fresh)).await.unwrap().next;
    node.tpm.clock.clock += 150_000;
    let late = node.answer(&next);
    let mut watch = Watch::on(world, node.node).await;
    world.advance(Duration::from_secs(150));
    watch.refused("after two intervals and 30 s", node.submit(late).await, "challenge_expired").await;
    drop(watch);
    let fresh = node.challenge().await.unwrap();
    node.submit(node.answer(&fresh)).await.expect("a fresh challenge is always good");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tpm_clock_set_ahead_buys_no_more_than_the_life_of_a_challenge() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let node = Manual::affirming(&world, &swtpm).await;
    let next = node.attest().await.unwrap().next;
    // TPM2_ClockSet by whoever has the owner hierarchy, while the machine is clean; then its quote; then the drift.
    let clock = world.verifier.store().node(node.node).await.unwrap().unwrap().last_seen.unwrap().clock.clock;
    tool(&swtpm, &format!("tpm2_setclock {}", clock + 150_000));
    let clean = node.quote(&next, &next.selection).await;
    swtpm.extend(14, b"a module that nobody knows");
    let clean = evidence(&next, clean.statement, clean.values);
    let mut watch = Watch::on(&world, node.node).await;
    world.advance(Duration::from_secs(next.expires_in));
    watch
        .refused("a clean quote, dated ahead", node.client.evidence(&clean).await, "challenge_expired")
        .await;
    drop(watch);
    assert_eq!(node.attest().await.unwrap().posture.status, PostureStatus::Contraindicated);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_tpm_clock_costs_one_more_request() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    // The verifier's clock is an interval on, the TPM's stands where it was.
    world.advance(INTERVAL);
    machine.attester.round().await.expect("a fresh challenge instead of the one in hand");
    let decisions = world.verifier.store().decisions(Some(node), 2).await.unwrap();
    let codes: Vec<_> = decisions.iter().map(|decision| decision.code.as_str()).collect();
    assert_eq!(codes, ["affirming", "evidence_too_old"], "the latest first");
    assert_eq!(world.status(node), PostureStatus::Affirming);
    machine.whoami(&world).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_32_submissions_at_once_one_is_accepted() {
    const AT_THE_SAME_TIME: usize = 32;
    let scene = Scene::set().await;
    let (world, node) = (&scene.world, &scene.node);
    let challenge = node.challenge().await.unwrap();
    let (evidence, _key) = node.answer_with_request(&challenge);
    let decided = || async { world.verifier.store().decisions(Some(node.node), 10_000).await.unwrap() };
    let (before, certificates) = (decided().await.len(), world.verifier.store());
    let mut codes = submit_all(world, vec![evidence; AT_THE_SAME_TIME]).await;
    codes.sort();
    assert_eq!(codes.first().map(String::as_str), Some("accepted"));
    assert!(codes[1..].iter().all(|code| code == "challenge_spent"), "{codes:?}");
    let decisions = decided().await;
    let new = &decisions[..decisions.len() - before];
    assert_eq!(new.len(), AT_THE_SAME_TIME, "each is on record");
    assert_eq!(new.iter().filter(|decision| decision.granted).count(), 1);
    assert_eq!(certificates.certificates(node.node, 100).await.unwrap().len(), 1, "one credential");

    // As many challenges of one node at once: each is good, but none is judged on a record that has changed since.
    let mut challenges = JoinSet::new();
    for _ in 0..AT_THE_SAME_TIME {
        let (client, request) = (world.client(), ChallengeRequest { node: node.node });
        challenges.spawn(async move { client.challenge(&request).await.unwrap() });
    }
    let answers = challenges.join_all().await.iter().map(|challenge| node.answer(challenge)).collect();
    let revision = || world.verifier.fleet().node(node.node).unwrap().revision;
    let before = revision();
    let codes = submit_all(world, answers).await;
    assert!(codes.iter().all(|code| code == "accepted" || code == "node_changed"), "{codes:?}");
    let accepted = codes.iter().filter(|code| *code == "accepted").count();
    assert!(accepted >= 1);
    assert_eq!(revision(), before + u64::try_from(accepted).unwrap(), "each changed the record once");
    scene.end().await;
}

/// Challenges belong to the process that minted them, and what was spent to all that share the database.
#[tokio::test(flavor = "multi_thread")]
async fn challenge_is_spent_once_for_two_verifiers_on_one_database() {
    let scene = Scene::set().await;
    let (world, node) = (&scene.world, &scene.node);
    let replica = world.replica().await;
    let (evidence, _key) = node.answer_with_request(&node.challenge().await.unwrap());
    let (here, there) = tokio::join!(node.submit(evidence.clone()), replica.attest(evidence.clone(), None));
    here.expect("the one that minted it");
    for outcome in [there, replica.attest(evidence.clone(), None).await] {
        assert!(
            matches!(&outcome, Err(AttestError::Refused(refusal)) if refusal.code() == "challenge_invalid"),
            "{outcome:?}"
        );
    }
    assert_eq!(refused(node.submit(evidence).await), "challenge_spent");
    let challenge = replica.challenge(&ChallengeRequest { node: node.node }).await.unwrap();
    let evidence = node.answer(&challenge);
    assert_eq!(refused(node.submit(evidence.clone()).await), "challenge_invalid");
    let answer = replica.attest(evidence, None).await.expect("nobody has spent it");
    assert_eq!(answer.posture.status, PostureStatus::Affirming);

    // Would they share the key: of two who spend one challenge at once, one gets a receipt.
    let stores = [open_store(world).await, open_store(world).await];
    let key = ChallengeKey::new(Secret::generate(&mut random::system()));
    let now = world.clock.now();
    for _ in 0..20 {
        let terms = Terms {
            node: node.node,
            selection: challenge.selection.clone(),
            credential_policy: challenge.credential_policy,
            issued_at: now,
            expires_at: now.plus(Duration::from_secs(30)),
        };
        let token = mint(&key, &terms, &mut random::system()).token;
        let [one, other] = [(); 2].map(|()| UnspentChallenge::open(&key, &token, now).unwrap());
        let receipts = tokio::join!(stores[0].spend_challenge(&one), stores[1].spend_challenge(&other));
        assert_ne!(receipts.0.unwrap().is_some(), receipts.1.unwrap().is_some());
    }
    scene.end().await;
}

async fn open_store(world: &World) -> SqliteStore {
    SqliteStore::open(&world.path().join("verifier.db")).await.unwrap()
}

async fn submit_all(world: &World, answers: Vec<EvidenceRequest>) -> Vec<String> {
    let mut tasks = JoinSet::new();
    for evidence in answers {
        let client = world.client();
        tasks.spawn(async move { client.evidence(&evidence).await });
    }
    let code = |outcome: Result<EvidenceResponse, RequestError>| match outcome {
        Ok(_) => "accepted".to_owned(),
        refusal => refused(refusal),
    };
    tasks.join_all().await.into_iter().map(code).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn statements_and_requests_count_for_their_own_purpose_and_message_only() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let real = Manual::affirming(&world, &swtpm).await;
    // TPM2_Quote with the extraData of TPM2_Certify, in its place.
    let challenge = real.challenge().await;
    let policy = challenge.credential_policy.selection();
    let key = bound_key(&real.tpm, &policy).await;
    let extra = CertifyStatement::extra_data(&nonce(&challenge));
    let quote = real.tpm.quote(&real.ak, &policy, extra.as_bytes()).await.unwrap();
    let request =
        UnsignedRequest::new(key.public(), &quote.statement.attest, &quote.statement.signature).unwrap();
    let signature = real.tpm.sign(&key, &policy, &request.digest()).await.unwrap();
    let (r, s) = signature.split_at(32);
    let request = request.assemble(r, s).unwrap();
    let bound = extra_data(Purpose::Quote, &nonce(&challenge), &EvidenceRequest::bound_parts(Some(&request)));
    let quote = real.tpm.quote(&real.ak, &challenge.selection, bound.as_bytes()).await.unwrap();
    let mut message = evidence(&challenge, quote.statement, quote.values);
    message.certificate_request = Blob::new(request);
    let answer = real.client.evidence(&message).await.expect("good evidence, with a bad request");
    assert_eq!(denied(answer), "certify_kind");
    assert_eq!(world.last_decision(real.node).await, (false, "certify_kind".to_owned()));
    assert!(world.verifier.store().certificates(real.node, 1).await.unwrap().is_empty());

    let node = world.affirming_simulated(SoftwareTpm::booted(&[SHA256])).await;
    let (one, two) = (node.challenge().await.unwrap(), node.challenge().await.unwrap());
    let (first, _) = node.answer_with_request(&one);
    let request = first.certificate_request.clone().unwrap();
    let (second, _) = node.answer_with_request(&two);
    let mut watch = Watch::on(&world, node.node).await;
    let swapped = EvidenceRequest { certificate_request: Some(request.clone()), ..second };
    watch.refused("another message's request", node.submit(swapped).await, "extra_data_mismatch").await;
    let stripped = EvidenceRequest { certificate_request: None, ..first };
    watch.refused("its request taken out", node.submit(stripped).await, "extra_data_mismatch").await;
    let challenge = node.challenge().await.unwrap();
    let added = EvidenceRequest { certificate_request: Some(request.clone()), ..node.answer(&challenge) };
    watch.refused("a request put in", node.submit(added).await, "extra_data_mismatch").await;
    drop(watch);
    // Even where the TPM goes along: the AK spoke of the key for another challenge.
    let challenge = node.challenge().await.unwrap();
    let signed = node.quote(&challenge, Some(request.as_bytes())).sign(&node.tpm.attestation_key);
    let message = node.evidence(&challenge, signed, Some(request.into_bytes()));
    assert_eq!(denied(node.submit(message).await.unwrap()), "certify_extra_data");
    assert_eq!(world.last_decision(node.node).await, (false, "certify_extra_data".to_owned()));
    assert!(world.verifier.store().certificates(node.node, 1).await.unwrap().is_empty());
    bystander.is_well(&world).await;
}

/// The code with which a credential was denied.
fn denied(answer: EvidenceResponse) -> String {
    match answer.credential {
        Some(CredentialOutcome::Refused { code, .. }) => code,
        other => panic!("not denied: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pcr_that_moves_during_the_quote_is_nobodys_fault() {
    const TPM2_QUOTE: u32 = 0x158;
    const TPM2_PCR_READ: u32 = 0x17e;
    let swtpm = Arc::new(Swtpm::manufacture());
    let world = World::new(&[swtpm.manufacturer()]).await;
    world
        .change_profile(|body| {
            body.pcrs = PcrSelection::of_bank(SHA256, pcrs(MEASURED_PCRS.into_iter().chain([10])))
        })
        .await;
    // A kernel that measures a file before each command that looks at PCRs, so many times.
    let moves = Arc::new(AtomicU32::new(0));
    let interposer = Interposer::new(&swtpm, {
        let (swtpm, moves) = (Arc::clone(&swtpm), Arc::clone(&moves));
        move |code, _| {
            let more = |left: u32| left.checked_sub(1);
            if [TPM2_QUOTE, TPM2_PCR_READ].contains(&code)
                && moves.fetch_update(Ordering::SeqCst, Ordering::SeqCst, more).is_ok()
            {
                swtpm.extend(10, b"a file");
            }
            Action::Forward
        }
    });
    let node = Manual::new(&world, Tpm::spawn(interposer.tcti()).unwrap()).await;
    node.enroll().await.unwrap();
    node.attest().await.unwrap();
    world.capture(node.node).await;
    assert_eq!(node.attest().await.unwrap().posture.status, PostureStatus::Affirming);
    for times in [1, 3, 4, 9] {
        moves.store(times, Ordering::SeqCst);
        let answer = node.attest().await.expect("evidence");
        assert_eq!(moves.load(Ordering::SeqCst), 0, "it did move");
        let deviations: Vec<_> = answer.posture.deviations.iter().map(|deviation| deviation.pcr).collect();
        assert_eq!(deviations, [PcrIndex::new(10)], "what moved, and nothing else");
    }
    let decisions = world.verifier.store().decisions(Some(node.node), 100).await.unwrap();
    assert!(
        decisions
            .iter()
            .all(|decision| ["affirming", "contraindicated", "enrolled"].contains(&decision.code.as_str())),
        "{decisions:?}"
    );
}

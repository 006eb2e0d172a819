//! Attacks 12 to 16: which node does a TPM become, under which AK, and who lets it in?

use std::collections::HashSet;
use std::time::Duration;

use rootbound_attester::client::RequestError;
use rootbound_attester::enroll::EkChoice;
use rootbound_attester::tpm::TpmError;
use rootbound_common::blob::Blob;
use rootbound_common::crypto::sha256;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_common::wire::v1::{
    ActivateRequest, ActivateResponse, Admission, ChallengeRequest, EnrollRequest, JoinToken, PostureStatus,
};
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::manual::{Manual, activation, certificates};
use rootbound_swtpm_tests::software_tpm::{SoftwareKey, SoftwareTpm, Template};
use rootbound_swtpm_tests::vendor::{Draft, Vendor};
use rootbound_swtpm_tests::watch::{Bystander, Watch};
use rootbound_swtpm_tests::world::{Simulated, World, operator, refused};
use rootbound_swtpm_tests::{Manufacturer, Swtpm};
use rootbound_verifier::node::{AdmittedBy, Labels, Name, NodeRecord, Standing};

const ROUNDS: usize = 8;
const MINUTE: Duration = Duration::from_secs(60);

fn booted() -> SoftwareTpm {
    SoftwareTpm::booted(&[HashAlgorithm::Sha256])
}

fn new_ak() -> SoftwareKey {
    SoftwareKey::p256(Template::attestation_p256())
}

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

async fn record(world: &World, node: NodeId) -> Option<NodeRecord> {
    world.verifier.store().node(node).await.unwrap()
}

/// Attack 12 (CVE-2022-1053).
#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_an_ak_that_was_replaced_meanwhile_is_refused() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let mut machine = Manual::admitted(&world, &swtpm).await;
    machine.attest().await.unwrap();
    let challenge = machine.challenge().await;
    let in_flight = machine.quote(&challenge, &challenge.selection).await;
    machine.ak = machine.tpm.create_ak(None).await.unwrap();
    machine.enroll().await.unwrap();
    let mut watch = Watch::on(&world, machine.node).await;
    let late = machine.submit(&challenge, in_flight.statement, in_flight.values).await;
    watch.refused("a quote by the AK of before", late, "signature_invalid").await;
    assert_eq!(world.status(machine.node), PostureStatus::Unknown, "the new AK has shown nothing");
    machine.attest().await.unwrap();
    assert_eq!(world.status(machine.node), PostureStatus::Affirming);

    // At once: whichever is first, what the old AK signed does not count under the new one.
    let mut node = world.simulated(booted()).await;
    for round in 0..ROUNDS {
        let challenge = node.challenge().await.unwrap();
        let evidence = node.answer_with_request(&challenge).0;
        node.tpm.attestation_key = new_ak();
        let begun = node.client.enroll(&node.enroll_request()).await.unwrap();
        let answer = activation(&begun, &node.open(&begun));
        let (judged, activated) = tokio::join!(node.submit(evidence), node.client.activate(&answer));
        activated.unwrap();
        if judged.is_err() {
            let code = refused(judged);
            assert!(["signature_invalid", "node_changed"].contains(&code.as_str()), "{round}: {code}");
        }
        let live = world.verifier.fleet().node(node.node).unwrap();
        assert_eq!((&live.posture, live.credentials.len()), (&None, 0), "{round}");
        assert_eq!(live.attestation_key, node.tpm.attestation_key.name(), "{round}");
        Watch::on(&world, node.node).await.untouched("memory is as the store").await;
    }
    let challenge = node.challenge().await.unwrap();
    let answer = node.submit(node.answer(&challenge)).await.unwrap();
    assert_eq!(answer.posture.status, PostureStatus::Affirming);
    bystander.is_well(&world).await;
}

/// Attack 13 (CVE-2025-13609).
#[tokio::test(flavor = "multi_thread")]
async fn id_of_a_node_is_of_no_use_to_another_tpm() {
    let manufacturer = Manufacturer::new();
    let swtpm = Swtpm::manufacture_by(&manufacturer);
    let world = World::new(&[&manufacturer]).await;
    let bystander = Bystander::new(&world).await;
    let mut victim = world.affirming(swtpm).await;
    let id = victim.node().await;
    let mut watch = Watch::on(&world, id).await;
    let swtpm = Swtpm::manufacture_by(&manufacturer);
    let attacker = Manual::admitted(&world, &swtpm).await;

    // An id cannot be claimed, only its EK: what goes with it in public is no secret.
    let victims_ek = victim.tpm.preferred_endorsement_key().await.unwrap();
    let claim = EnrollRequest {
        ek_public: Blob::new(victims_ek.public.as_bytes().to_vec()).unwrap(),
        ek_certificates: certificates(&victims_ek.certificate),
        ..attacker.enroll_request()
    };
    let begun = attacker.client.enroll(&claim).await.unwrap();
    let opened = attacker.open(&attacker.ak, &begun).await;
    assert!(matches!(opened, Err(TpmError::ForeignCredential { .. })), "{opened:?}");
    let guess = async { refused(attacker.activate(&begun, &[0; 32]).await) };
    let decision = watch.refuses("the victim's EK", "activation_secret_wrong", guess).await;
    assert_eq!(decision.node, Some(id), "an operator sees who is attacked");

    let challenge = attacker.client.challenge(&ChallengeRequest { node: id }).await.unwrap();
    let quote = attacker.quote(&challenge, &challenge.selection).await;
    let evidence = attacker.submit(&challenge, quote.statement, quote.values).await;
    watch.refused("the victim's challenge", evidence, "signature_invalid").await;
    victim.is_well(&world).await;
    bystander.is_well(&world).await;
}

/// Attack 13, as a race.
#[tokio::test(flavor = "multi_thread")]
async fn of_two_reenrollments_at_once_one_ak_is_enrolled_and_works() {
    let world = World::new(&[]).await;
    let bystander = Bystander::new(&world).await;
    let mut node = world.simulated(booted()).await;
    for round in 0..ROUNDS {
        let mut answers = Vec::new();
        let mut keys = Vec::new();
        for _ in 0..2 {
            node.tpm.attestation_key = new_ak();
            let begun = node.client.enroll(&node.enroll_request()).await.unwrap();
            answers.push(activation(&begun, &node.open(&begun)));
            keys.push(std::mem::replace(&mut node.tpm.attestation_key, new_ak()));
        }
        let (one, two) = tokio::join!(node.client.activate(&answers[0]), node.client.activate(&answers[1]));
        assert_eq!((one.unwrap().node, two.unwrap().node), (node.node, node.node));
        let enrolled = record(&world, node.node).await.unwrap().attestation_key.name();
        let first = keys.remove(0);
        let second = keys.remove(0);
        let (winner, loser) = if first.name() == enrolled { (first, second) } else { (second, first) };
        assert_eq!(winner.name(), enrolled, "{round}");

        node.tpm.attestation_key = loser;
        let mut watch = Watch::on(&world, node.node).await;
        let challenge = node.challenge().await.unwrap();
        let evidence = node.submit(node.answer(&challenge)).await;
        watch.refused(format_args!("{round}: the other AK"), evidence, "signature_invalid").await;
        node.tpm.attestation_key = winner;
        let challenge = node.challenge().await.unwrap();
        let answer = node.submit(node.answer(&challenge)).await.unwrap();
        assert_eq!(answer.posture.status, PostureStatus::Affirming, "{round}");
    }
    bystander.is_well(&world).await;
}

/// Attack 14: swtpm has a certificate for its P-384 EK, too.
#[tokio::test(flavor = "multi_thread")]
async fn second_ek_of_a_tpm_inherits_nothing_and_brings_no_ak_along() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let first = Manual::admitted(&world, &swtpm).await;
    let labels = vec![(name("env"), Some(name("prod")))];
    world.verifier.label(first.node, labels, &operator()).await.unwrap();
    first.attest().await.unwrap();
    let mut watch = Watch::on(&world, first.node).await;
    let mut second = Manual::stranger(&world, first.tpm.clone(), EkChoice::P384).await;
    assert_ne!(first.node, second.node);

    let own_ak = std::mem::replace(&mut second.ak, first.ak.clone());
    let attempt = async { refused(second.enroll().await) };
    let decision = watch.refuses("the AK of the first", "ak_in_use", attempt).await;
    assert_eq!(decision.node, Some(second.node));
    assert!(record(&world, second.node).await.is_none());
    second.ak = own_ak;
    let activated = second.enroll().await.unwrap();
    assert_eq!((activated.admission, activated.challenge.is_none()), (Admission::Pending, true));
    let stranger = record(&world, second.node).await.unwrap();
    assert_eq!((stranger.standing, stranger.labels), (Standing::Pending, Labels::default()));

    // A ban: neither by the EK that is banned, listed as it is, nor with the AK that is.
    let begun = first.client.enroll(&first.enroll_request()).await.unwrap();
    world.verifier.retire(first.node, &operator()).await.unwrap();
    let mut watch = bystander.watch(&world).await;
    let secret = first.open(&first.ak, &begun).await.unwrap();
    let attempt = async { refused(first.activate(&begun, &secret).await) };
    watch.refuses("an enrolment that was under way", "node_retired", attempt).await;
    let attempt = async { refused(first.enroll().await) };
    watch.refuses("the banned EK", "node_retired", attempt).await;
    let attempt = async { refused(first.client.challenge(&ChallengeRequest { node: first.node }).await) };
    watch.turns_away("a challenge", "node_retired", attempt).await;
    second.ak = first.ak.clone();
    let attempt = async { refused(second.enroll().await) };
    watch.refuses("the banned AK", "ak_in_use", attempt).await;
    assert_eq!(record(&world, second.node).await.unwrap().standing, Standing::Pending);
    assert_eq!(record(&world, first.node).await.unwrap().standing, Standing::Retired);
    bystander.is_well(&world).await;
}

/// Attack 15 (CVE-2023-38201).
#[tokio::test(flavor = "multi_thread")]
async fn wrong_secret_spends_the_attempt_and_tells_nothing() {
    let world = World::new(&[]).await;
    let bystander = Bystander::new(&world).await;
    let node = world.affirming_simulated(booted()).await;
    let mut watch = Watch::on(&world, node.node).await;
    let https = Https::to(&node.client);
    let path = "/v1/enrollments/activate";
    let mut answers = HashSet::new();
    type Guess = fn(&[u8]) -> Vec<u8>;
    let wrongs: [(&str, Guess); 6] = [
        ("one bit", |right| [&right[..31], &[right[31] ^ 1]].concat()),
        ("all but the last byte", |right| right[..31].to_vec()),
        ("a byte more", |right| [right, &[0]].concat()),
        ("twice", |right| right.repeat(2)),
        ("nothing", |_| Vec::new()),
        ("what the store keeps", |right| sha256(&[right]).to_vec()),
    ];
    for (what, wrong) in wrongs {
        let begun = node.client.enroll(&node.enroll_request()).await.unwrap();
        let right = node.open(&begun);
        let wrong = activation(&begun, &wrong(&right));
        let attempt = async {
            let reply = https.post(path, &wrong).await;
            answers.insert((reply.status, reply.body.clone()));
            reply.code()
        };
        watch.refuses(what, "activation_secret_wrong", attempt).await;
        let attempt = async { refused(node.client.activate(&activation(&begun, &right)).await) };
        watch.refuses(format_args!("the right one after {what}"), "enrollment_unknown", attempt).await;
    }
    assert_eq!(answers.len(), 1, "every wrong secret is answered alike: {answers:?}");
    let begun = node.client.enroll(&node.enroll_request()).await.unwrap();
    let message = serde_json::json!({ "enrollment": begun.enrollment, "secret": "A".repeat(87) });
    let attempt = async { https.post(path, &message).await.code() };
    watch.turns_away("65 bytes", "body_malformed", attempt).await;
    for id in [vec![7; 32], vec![7; 31], vec![]] {
        let unknown = ActivateRequest { enrollment: Blob::new(id).unwrap(), ..activation(&begun, &[0; 32]) };
        let attempt = async { refused(node.client.activate(&unknown).await) };
        watch.refuses("an enrolment that is none", "enrollment_unknown", attempt).await;
    }
    let last = node.client.activate(&activation(&begun, &node.open(&begun))).await;
    assert_eq!(last.unwrap().node, node.node, "what others guessed has not spent it");
    assert_eq!(world.status(node.node), PostureStatus::Affirming, "the same AK once more");
    bystander.is_well(&world).await;
}

/// Attack 16, secrets.
#[tokio::test(flavor = "multi_thread")]
async fn secret_is_good_once_in_time_and_for_its_own_enrollment() {
    let world = World::new(&[]).await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let node = world.simulated(booted()).await;
    let begin = async || {
        let begun = node.client.enroll(&node.enroll_request()).await.unwrap();
        let secret = node.open(&begun);
        (begun, secret)
    };

    let ((one, of_one), (two, of_two)) = (begin().await, begin().await);
    let attempt = async { refused(node.client.activate(&activation(&one, &of_two)).await) };
    watch.refuses("the secret of another enrolment", "activation_secret_wrong", attempt).await;
    node.client.activate(&activation(&two, &of_two)).await.unwrap();
    for (what, begun, secret) in [("replayed", &two, &of_two), ("spent by another's secret", &one, &of_one)] {
        let attempt = async { refused(node.client.activate(&activation(begun, secret)).await) };
        watch.refuses(what, "enrollment_unknown", attempt).await;
    }

    let (begun, secret) = begin().await;
    world.advance(Duration::from_secs(61));
    for (what, code) in [("expired", "activation_expired"), ("expired, again", "enrollment_unknown")] {
        let attempt = async { refused(node.client.activate(&activation(&begun, &secret)).await) };
        watch.refuses(what, code, attempt).await;
    }

    let (begun, secret) = begin().await;
    let answer = activation(&begun, &secret);
    let outcomes = at_once((0..8).map(|_| {
        let (client, answer) = (world.client(), answer.clone());
        async move { client.activate(&answer).await }
    }))
    .await;
    assert_eq!(codes_of_losers(outcomes).1, vec!["enrollment_unknown"; 7]);
    bystander.is_well(&world).await;
}

async fn at_once<T: Send + 'static>(
    attempts: impl Iterator<Item = impl Future<Output = T> + Send + 'static>,
) -> Vec<T> {
    let mut tasks = tokio::task::JoinSet::new();
    for attempt in attempts {
        tasks.spawn(attempt);
    }
    tasks.join_all().await
}

/// What the one winner was told, and the codes of the others.
fn codes_of_losers(outcomes: Vec<Result<ActivateResponse, RequestError>>) -> (ActivateResponse, Vec<String>) {
    let (mut won, lost): (Vec<_>, Vec<_>) = outcomes.into_iter().partition(Result::is_ok);
    assert_eq!(won.len(), 1, "exactly one wins");
    (won.remove(0).unwrap(), lost.into_iter().map(refused).collect())
}

/// A machine that its vendor vouches for, and nobody else.
fn vouched(world: &World, vendor: &Vendor) -> (Simulated, EnrollRequest) {
    let tpm = booted();
    let node = NodeId::of_endorsement_key(&tpm.endorsement_key.subject_public_key_info());
    let certificate = vendor.endorse(&tpm.endorsement_key.public(), &Draft::endorsement());
    let simulated = Simulated { node, tpm, client: world.client() };
    let request =
        EnrollRequest { ek_certificates: certificates([&certificate]), ..simulated.enroll_request() };
    (simulated, request)
}

/// Shows a token with an enrolment.
async fn redeem(
    (machine, request): &(Simulated, EnrollRequest),
    token: JoinToken,
) -> Result<ActivateResponse, RequestError> {
    let request = EnrollRequest { join_token: Some(token), ..request.clone() };
    let begun = machine.client.enroll(&request).await?;
    machine.client.activate(&activation(&begun, &machine.open(&begun))).await
}

/// Attack 16, join tokens.
#[tokio::test(flavor = "multi_thread")]
async fn join_token_admits_the_one_that_it_is_for_once() {
    let vendor = Vendor::root("Vendor root");
    let world = World::builder().root(vendor.der()).start().await;
    let bystander = Bystander::new(&world).await;
    let mut watch = bystander.watch(&world).await;
    let create = async |node| {
        let created = world.verifier.create_join_token(node, Labels::default(), MINUTE, &operator()).await;
        created.unwrap()
    };
    let machine = vouched(&world, &vendor);
    let id = machine.0.node;

    // Eight machines at once, all of them past the TPM's part.
    let (token, of_token) = create(None).await;
    let racers: Vec<_> = (0..8).map(|_| vouched(&world, &vendor)).collect();
    let mut attempts = Vec::new();
    for (racer, request) in &racers {
        let request = EnrollRequest { join_token: Some(token.clone()), ..request.clone() };
        let begun = racer.client.enroll(&request).await.unwrap();
        attempts.push(activation(&begun, &racer.open(&begun)));
    }
    let outcomes = at_once(attempts.into_iter().map(|answer| {
        let client = world.client();
        async move { client.activate(&answer).await }
    }))
    .await;
    let (winner, losers) = codes_of_losers(outcomes);
    assert_eq!((winner.admission, losers), (Admission::Admitted, vec!["join_token_refused".to_owned(); 7]));
    let used = world.verifier.store().join_tokens().await.unwrap().remove(0);
    assert_eq!((used.id, used.used.map(|(node, _)| node)), (of_token.id, Some(winner.node)));
    for (racer, _) in &racers {
        let standing = record(&world, racer.node).await.map(|record| record.standing);
        let expected = Standing::Admitted { by: AdmittedBy::JoinToken };
        assert_eq!(standing, (racer.node == winner.node).then_some(expected));
    }

    let (bound, _) = create(Some(racers[0].0.node)).await;
    let (revoked, of_revoked) = create(None).await;
    world.verifier.revoke_join_token(&of_revoked.id, &operator()).await.unwrap();
    let (expired, _) = create(None).await;
    world.advance(MINUTE);
    let (good, _) = create(Some(id)).await;
    for (what, token) in [
        ("used", token),
        ("another machine's", bound),
        ("revoked", revoked),
        ("expired", expired),
        ("made up", JoinToken(format!("rbjt_{}", "A".repeat(43)))),
        ("one letter more", JoinToken(format!("{}A", good.0))),
        ("another case", JoinToken(good.0.to_lowercase())),
        ("its public name", JoinToken(of_revoked.id)),
        ("empty", JoinToken(String::new())),
        ("too long", JoinToken("x".repeat(129))),
    ] {
        let attempt = async { refused(redeem(&machine, token).await) };
        watch.refuses(what, "join_token_refused", attempt).await;
        assert!(record(&world, id).await.is_none(), "{what}");
    }
    let admitted = redeem(&machine, good).await.unwrap();
    assert_eq!((admitted.node, admitted.admission), (id, Admission::Admitted));
    bystander.is_well(&world).await;
}

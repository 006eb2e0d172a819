//! A profile that observes: what deviates is recorded, and not acted on, for a time that ends by itself.

use std::time::Duration;

use rootbound_common::crypto::hash;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection};
use rootbound_common::wire::v1::{CredentialOutcome, EvidenceResponse, PostureStatus};
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Simulated, World};
use rootbound_verifier::appraisal::runtime::RuntimeRules;
use rootbound_verifier::audit::RecordKind;
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::Observe;
use rootbound_verifier::store::RecordFilter;

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;
/// No longer than the certificate of the server is good for clients, whose time is real.
const LASTS: Duration = Duration::from_secs(50);

/// A node that booted something else since its values were captured.
async fn drifted(world: &World) -> Simulated {
    let mut node = world.affirming_simulated(SoftwareTpm::booted(&[SHA256])).await;
    node.tpm.extend(PcrIndex::new(4).unwrap(), hash(SHA256, &[b"another loader"]));
    node
}

/// Evidence with a request for a credential, and what the verifier says to it.
async fn asks(node: &Simulated) -> (EvidenceResponse, Result<Duration, String>) {
    let challenge = node.challenge().await.unwrap();
    let (evidence, _) = node.answer_with_request(&challenge);
    let answer = node.submit(evidence).await.unwrap();
    let outcome = match answer.credential.clone().unwrap() {
        CredentialOutcome::Issued { not_after, .. } => Ok(not_after.since(challenge_time(&answer))),
        CredentialOutcome::Refused { code, .. } => Err(code),
    };
    (answer, outcome)
}

/// When the evidence was made.
fn challenge_time(answer: &EvidenceResponse) -> rootbound_common::clock::Timestamp {
    answer.posture.evidence_at.unwrap()
}

async fn observe(world: &World, lasts: Duration, issue: bool) {
    let until = world.verifier.now().plus(lasts);
    world.change_profile(|body| body.observe = Some(Observe { until, issue })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_deviates_is_recorded_and_not_acted_on_until_the_time_is_over() {
    let world = World::new(&[]).await;
    let node = drifted(&world).await;
    observe(&world, LASTS, false).await;
    let (answer, credential) = asks(&node).await;
    assert_eq!(answer.posture.status, PostureStatus::Warning);
    let rest = answer.posture.observed_until.unwrap().since(world.verifier.now());
    // It is written in whole seconds.
    assert!(rest <= LASTS && rest > LASTS - Duration::from_secs(30), "{rest:?}");
    assert_eq!(world.deviations(node.node), ["pcr_mismatch"], "it is told");
    assert_eq!(
        credential.unwrap_err(),
        "posture_contraindicated",
        "no more than a profile that enforces gives"
    );
    world.advance(LASTS);
    assert_eq!(world.status(node.node), PostureStatus::Contraindicated);
    let (answer, credential) = asks(&node).await;
    assert_eq!(
        (answer.posture.status, answer.posture.observed_until),
        (PostureStatus::Contraindicated, None)
    );
    assert_eq!(credential.unwrap_err(), "posture_contraindicated");
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_issued_meanwhile_where_the_profile_says_so_and_the_trail_says_so_too() {
    let world = World::new(&[]).await;
    let node = drifted(&world).await;
    let rest = Duration::from_secs(90);
    observe(&world, rest, true).await;
    let (_, credential) = asks(&node).await;
    let lasts = credential.unwrap();
    assert!(lasts <= rest, "no credential outlasts the observation: {lasts:?}");
    let filter = RecordFilter { kinds: vec![RecordKind::Issuance], ..RecordFilter::default() };
    let records = world.verifier.store().records(&filter, None, 1).await.unwrap().records;
    let attested = records[0].record.facts.as_ref().unwrap().member("attested").unwrap();
    assert_eq!(
        (&attested["node"]["observed"], &attested["node"]["posture"]),
        (&true.into(), &"warning".into())
    );

    // Evidence that the rules of another version do not observe any more.
    world.change_profile(|body| body.observe = None).await;
    assert_eq!(world.status(node.node), PostureStatus::Contraindicated, "at once");
    assert_eq!(asks(&node).await.1.unwrap_err(), "posture_contraindicated");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_keeps_silent_about_what_ran_is_not_observed() {
    let world = World::new(&[]).await;
    let node = world.affirming_simulated(SoftwareTpm::booted(&[SHA256])).await;
    observe(&world, LASTS, true).await;
    let rules = RuntimeRules { digest_sets: vec![Name::default_set()], ..RuntimeRules::default() };
    world
        .change_profile(|body| {
            let pcrs = (0..=10).chain([14]).filter_map(PcrIndex::new);
            body.pcrs = PcrSelection::of_bank(SHA256, pcrs.collect());
            body.runtime = Some(rules);
        })
        .await;
    let (answer, credential) = asks(&node).await;
    assert_eq!(world.deviations(node.node), ["ima_list_missing"]);
    assert_eq!(answer.posture.status, PostureStatus::Contraindicated);
    assert_eq!(credential.unwrap_err(), "posture_contraindicated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_that_says_nothing_is_no_matter_of_observation() {
    let world = World::new(&[]).await;
    let mut node = world.affirming_simulated(SoftwareTpm::booted(&[SHA256])).await;
    observe(&world, LASTS, true).await;
    node.tpm.reboot();
    let (answer, credential) = asks(&node).await;
    assert_eq!(answer.posture.status, PostureStatus::Contraindicated);
    assert!(world.deviations(node.node).contains(&"bank_idle".to_owned()));
    assert_eq!(credential.unwrap_err(), "posture_contraindicated");
}

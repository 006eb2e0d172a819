//! Policies on their way into force, and out of it: by the stories that the administrative socket calls.

use rootbound_common::tpm::HashAlgorithm;
use rootbound_common::wire::v1::{ChallengeRequest, CredentialOutcome};
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::policies::{databases, nothing, put_in_force};
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Simulated, World, operator};
use rootbound_verifier::audit::{Outcome, RecordId, RecordKind};
use rootbound_verifier::flows::attest::AttestError;
use rootbound_verifier::flows::policies::{PolicyError, WhichBundle};
use rootbound_verifier::policy::{Bundle, BundleSource};
use rootbound_verifier::store::RecordFilter;
use serde_json::json;

fn which(text: &str) -> WhichBundle {
    let (name, version) = text.split_once('@').unwrap_or((text, ""));
    WhichBundle::Written { name: name.parse().unwrap(), version: version.parse().ok() }
}

async fn node(world: &World) -> Simulated {
    world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await
}

/// Asked of the verifier itself, since a restarted one listens elsewhere.
async fn credential(world: &World, node: &Simulated) -> CredentialOutcome {
    let challenge = world.verifier.challenge(&ChallengeRequest { node: node.node }).await.unwrap();
    let (request, _key) = node.answer_with_request(&challenge);
    world.verifier.attest(request, None).await.unwrap().credential.unwrap()
}

/// The bundle about databases, and nobody may do anything.
fn strict() -> BundleSource {
    let mut source = databases();
    source.policies.extend(nothing().policies);
    // Those of the bundle that it adds to say otherwise.
    source.cases.clear();
    source
}

#[tokio::test(flavor = "multi_thread")]
async fn whether_a_node_gets_a_credential_is_decided_by_the_policies_in_force() {
    let mut world = World::new(&[]).await;
    let node = node(&world).await;
    assert!(matches!(credential(&world, &node).await, CredentialOutcome::Issued { .. }));
    put_in_force(&world.verifier, "strict", nothing()).await;
    for restarted in [false, true] {
        let refused = credential(&world, &node).await;
        let CredentialOutcome::Refused { code, .. } = refused else { panic!("{refused:?}") };
        assert_eq!(code, "forbidden_by_policy", "restarted: {restarted}");
        let decision = world.verifier.store().decisions(Some(node.node), 1).await.unwrap().remove(0);
        let explained = world.verifier.explain(decision.id).await.unwrap();
        assert_eq!(explained.bundle, "strict@1");
        assert!(explained.words.contains(&"forbid nothing: forbids".to_owned()), "{:?}", explained.words);
        // What is in force is the store's to say.
        world.restart().await;
    }
    world.verifier.activate_policy(&WhichBundle::Builtin, None, &operator()).await.unwrap();
    assert!(matches!(credential(&world, &node).await, CredentialOutcome::Issued { .. }));
}

/// What was decided by policies that were replaced meanwhile is held back, and counts for nothing.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_a_change_of_policies_held_back_take_no_room() {
    let world = World::new(&[]).await;
    let node = node(&world).await;
    put_in_force(&world.verifier, "one", Bundle::builtin_source()).await;
    let verifier = world.verifier.clone();
    let changes = tokio::spawn(async move {
        for bundle in [which("one"), WhichBundle::Builtin].iter().cycle() {
            verifier.activate_policy(bundle, None, &operator()).await.map(drop).or_else(already).unwrap();
        }
    });
    let (mut issued, mut held_back) = (0, 0);
    for _ in 0..200 {
        if issued == 12 || held_back == 3 {
            break;
        }
        let challenge = world.verifier.challenge(&ChallengeRequest { node: node.node }).await.unwrap();
        let (request, _key) = node.answer_with_request(&challenge);
        match world.verifier.attest(request, None).await {
            Ok(_) => issued += 1,
            Err(AttestError::Refused(refusal)) => {
                assert_eq!(refusal.code(), "node_changed");
                held_back += 1;
            }
            Err(error) => panic!("{error}"),
        }
        let live = world.verifier.fleet().node(node.node).unwrap();
        assert_eq!(live.credentials.len(), issued, "{held_back} were held back");
    }
    changes.abort();
    drop(changes.await);
}

fn already(error: PolicyError) -> Result<(), PolicyError> {
    if matches!(error, PolicyError::Already(_)) { Ok(()) } else { Err(error) }
}

#[tokio::test(flavor = "multi_thread")]
async fn bundle_is_written_only_if_it_compiles_and_its_cases_hold() {
    let world = World::new(&[]).await;
    let put = async |name: &str, source| {
        world
            .verifier
            .put_policy(name.parse().unwrap(), source, &operator())
            .await
            .map(|(record, _warnings)| record.id.version)
    };
    let taken = put("builtin", nothing()).await.unwrap_err();
    assert!(matches!(taken, PolicyError::NameTaken) && taken.code() == "policy_name_taken", "{taken}");
    let mut broken = nothing();
    broken.policies.insert("broken.cedar".parse().unwrap(), "permit (".to_owned());
    let refused = put("a", broken).await.unwrap_err();
    assert!(matches!(refused, PolicyError::Bundle(_)) && refused.code() == "policy_refused", "{refused}");
    let mut failing = nothing();
    let case = json!([{
        "name": "an affirming node acts",
        "question": {
            "subject": { "type": "node", "id": "01".repeat(32) },
            "action": { "name": "Act" },
            "resource": { "type": "resource", "id": "door" },
        },
        "facts": { "node": { "node": "01".repeat(32), "posture": "affirming" } },
        "expect": { "decision": true, "code": "permitted" },
    }]);
    failing.cases.insert("cases.json".parse().unwrap(), case.to_string());
    let refused = put("a", failing).await.unwrap_err();
    assert!(matches!(refused, PolicyError::CasesFail { failed: 1, cases: 1, .. }), "{refused}");
    assert_eq!(refused.code(), "policy_cases_fail");
    assert!(refused.to_string().contains("an affirming node acts"), "{refused}");
    assert!(world.verifier.store().policy_bundles().await.unwrap().is_empty());
    assert_eq!((put("a", nothing()).await.unwrap(), put("a", nothing()).await.unwrap()), (1, 2));
    let (_, warnings) =
        world.verifier.put_policy("a".parse().unwrap(), nothing(), &operator()).await.unwrap();
    assert!(warnings.iter().any(|warning| warning.contains("IssueCredential")), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_operators_who_activate_one_wins_and_the_other_is_told() {
    let world = World::new(&[]).await;
    put_in_force(&world.verifier, "strict", nothing()).await;
    put_in_force(&world.verifier, "strict", nothing()).await;
    let activate =
        async |name: &str, over| world.verifier.activate_policy(&which(name), over, &operator()).await;
    let told = activate("strict@1", Some(1)).await.unwrap_err();
    assert!(matches!(&told, PolicyError::Overtaken { by } if by == "strict@2 (activation 2)"), "{told}");
    assert_eq!(told.code(), "policy_overtaken");
    let again = activate("strict@2", None).await.unwrap_err();
    assert!(matches!(again, PolicyError::Already(_)) && again.code() == "policy_already_active", "{again}");
    for missing in ["strict@3", "other"] {
        let refused = activate(missing, None).await.unwrap_err();
        assert!(
            matches!(refused, PolicyError::NoSuchBundle(_)) && refused.code() == "no_such_policy",
            "{refused}"
        );
    }
    assert_eq!(activate("strict@1", Some(2)).await.unwrap().number, 3);

    let filter = RecordFilter { kinds: vec![RecordKind::PolicyChange], ..RecordFilter::default() };
    let records = world.verifier.store().records(&filter, None, 20).await.unwrap().records;
    let codes: Vec<_> = records.iter().rev().map(|found| found.record.code.as_str()).collect();
    let (put, active) = ("put_policy", "activate_policy");
    assert_eq!(codes, [put, active, put, active, active], "each change, and none that was refused");
    assert_eq!(records[0].record.versions[0].as_str(), "strict@1");
}

#[tokio::test(flavor = "multi_thread")]
async fn dry_run_says_which_recorded_decisions_would_change_and_changes_nothing() {
    let (gateway, blind) = (Gateway::new(), Gateway::new());
    let world = World::builder()
        .relying_party(gateway.section("orders", &[]))
        .relying_party(blind.section("elsewhere", &[("env", "other")]))
        .start()
        .await;
    put_in_force(&world.verifier, "databases", databases()).await;
    let node = node(&world).await.node;
    let service = Https::to(&world.client()).as_gateway(&gateway);
    let ask = async |action: &str, reason: &str| {
        let question = json!({
            "subject": { "type": "node", "id": node.to_string() },
            "action": { "name": action },
            "resource": { "type": "database", "id": "orders" },
            "context": { "reason": reason, "authorization": "Bearer secret" },
        });
        let answer = service.post("/access/v1/evaluation", &question).await;
        let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        (answer["decision"].as_bool().unwrap(), answer["context"]["id"].as_str().unwrap().to_owned())
    };
    let (allowed, id) = ask("db:read", "report").await;
    assert!(allowed);
    assert!(!ask("db:write", "report").await.0);
    // More than a record keeps: it is decided all the same, and cannot be looked at again.
    let (allowed, large) = ask("db:read", &"\"".repeat(4000)).await;
    assert!(allowed);
    // Whoever may not ask is refused by that, whatever a bundle would say; a search is no decision.
    let question = json!({
        "subject": { "type": "node", "id": node.to_string() },
        "action": { "name": "db:read" },
        "resource": { "type": "database", "id": "orders" },
    });
    let other = Https::to(&world.client()).as_gateway(&blind);
    let answer = other.post("/access/v1/evaluation", &question).await;
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["context"]["code"], "unknown_subject");
    let not_asked = answer["context"]["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(service.post("/access/v1/search/action", &question).await.status, 200);
    let (written, _warnings) =
        world.verifier.put_policy("strict".parse().unwrap(), strict(), &operator()).await.unwrap();
    let rehearsal = world.verifier.rehearse(&which("strict"), 100).await.unwrap();
    assert_eq!(rehearsal.bundle, written.id.to_string());
    assert_eq!((rehearsal.decisions, rehearsal.now_allowed), (4, 0));
    assert_eq!((rehearsal.now_denied, rehearsal.without_inputs, rehearsal.not_asked), (1, 1, 1));
    let explained = world.verifier.explain(not_asked).await.unwrap();
    assert!(explained.words[0].contains("may not ask about this subject"), "{:?}", explained.words);
    let change = rehearsal.changes.iter().find(|change| change.id.to_string() == id).unwrap();
    assert_eq!((change.was.as_str(), change.would_be.as_str()), ("permitted", "forbidden_by_policy"));
    assert_eq!(
        (change.action.as_str(), change.policies.as_slice()),
        ("db:read", &["nothing".to_owned()][..])
    );
    let same = world.verifier.rehearse(&which("databases"), 100).await.unwrap();
    assert_eq!((same.now_allowed, same.now_denied), (0, 0));
    assert_eq!(world.verifier.rehearse(&which("strict"), 1).await.unwrap().decisions, 1);
    assert!(ask("db:read", "report").await.0, "nothing is in force by that");

    // Long after, by the bundle that decided.
    world.verifier.activate_policy(&which("strict"), None, &operator()).await.unwrap();
    let explained = world.verifier.explain(id.parse().unwrap()).await.unwrap();
    assert_eq!(
        (explained.bundle.as_str(), explained.record.record.outcome),
        ("databases@1", Outcome::Granted)
    );
    assert!(explained.words.iter().any(|line| line == "permit read: permits"), "{:?}", explained.words);
    // Of what the service said, what the schema declares is on record, and no more.
    let record = serde_json::to_value(&explained.record.record.facts).unwrap();
    assert_eq!(record["question"]["context"], json!({ "reason": "report" }));
    let never = RecordId::new(world.verifier.now(), &mut rootbound_common::random::system());
    let refused = world.verifier.explain(never).await.unwrap_err();
    assert!(
        matches!(refused, PolicyError::NoSuchDecision(_)) && refused.code() == "no_such_decision",
        "{refused}"
    );
    let refused = world.verifier.explain(large.parse().unwrap()).await.unwrap_err();
    assert!(matches!(refused, PolicyError::WithoutInputs(_)), "{refused}");
    assert_eq!(refused.code(), "decision_without_inputs");
}

//! Attacks on what the verifier remembers, and faults of the place where it does: nothing is issued on what cannot be
//! recorded, and no earlier trust is left over.
//!
//! | attack | tests |
//! |---|---|
//! | 48 an error amid verification | `a_store_that_fails_amid_verification_issues_nothing`, `drift_that_cannot_be_recorded_still_ends_trust`, `drift_whose_story_outlasts_the_patience_of_its_caller_ends_trust` |
//! | 94 stored state | `a_stored_quote_that_was_changed_is_noticed`, `one_bad_row_does_not_keep_the_others_trusted`, `evidence_of_a_node_whose_row_is_damaged_is_an_error_of_ours` |

use std::time::Duration;

use rootbound_attester::client::RequestError;
use rootbound_common::crypto::hash;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex};
use rootbound_common::wire::v1::PostureStatus;
use rootbound_swtpm_tests::daemon::until;
use rootbound_swtpm_tests::database::{Fault, Hold, execute};
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::scene::Scene;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::watch::issued;
use rootbound_swtpm_tests::world::{World, operator, refused};
use rootbound_verifier::flows::operate::OperateError;
use rootbound_verifier::http::{Limits as HttpLimits, Rate};
use rootbound_verifier::node::Name;
use rootbound_verifier::store::StoreError;

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_amid_verification_issues_nothing() {
    let scene = Scene::set().await;
    let (world, node) = (&scene.world, &scene.node);
    let mut watch = scene.watch().await;
    let id: String = node.node.to_string();
    for (event, table, condition) in [
        ("UPDATE", "node", format!("NEW.id = x'{id}'")),
        ("UPDATE", "evidence", format!("NEW.node = x'{id}'")),
        ("INSERT", "certificate", format!("NEW.node = x'{id}'")),
        ("INSERT", "decision", format!("NEW.node = x'{id}'")),
        ("INSERT", "spent_challenge", "true".to_owned()),
    ] {
        let challenge = node.challenge().await.unwrap();
        let (evidence, _) = node.answer_with_request(&challenge);
        let fault = Fault::on(world, event, table, &condition).await;
        let case = format!("{event} of {table} fails");
        let failed = node.submit(evidence.clone()).await;
        assert!(
            matches!(&failed, Err(RequestError::Refused(refusal)) if refusal.status == 503),
            "{failed:?}"
        );
        assert_eq!(refused(failed), "store_unavailable", "{case}");
        watch.untouched(&case).await;
        if table != "spent_challenge" {
            scene.bystander.is_well(world).await;
        }
        match table {
            // The challenge is spent, whatever came of it.
            "node" | "evidence" | "certificate" => {
                watch.refused(&case, node.submit(evidence).await, "challenge_spent").await;
            }
            // A refusal that cannot be recorded is none: whoever asks learns nothing from it.
            _ => {
                assert_eq!(refused(node.submit(evidence).await), "store_unavailable", "{case}");
                watch.untouched(&case).await;
            }
        }
        fault.repair().await;
    }
    drop(watch);
    let challenge = node.challenge().await.unwrap();
    let (evidence, _) = node.answer_with_request(&challenge);
    assert!(!issued(node.submit(evidence).await.expect("it has recovered")).is_empty());
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_that_cannot_be_recorded_still_ends_trust() {
    let mut scene = Scene::set().await;
    let world = &scene.world;
    let challenge = scene.node.challenge().await.unwrap();
    let (evidence, key) = scene.node.answer_with_request(&challenge);
    let chain = issued(scene.node.submit(evidence).await.unwrap());
    let identity = Https::to(&scene.node.client).as_simulated(&chain, key);
    assert_eq!(identity.get("/v1/whoami").await.status, 200);

    let good = scene.node.tpm.pcrs.clone();
    scene.node.tpm.extend(PcrIndex::new(4).unwrap(), hash(SHA256, &[b"another boot loader"]));
    let challenge = scene.node.challenge().await.unwrap();
    let fault = Fault::on(world, "UPDATE", "evidence", "true").await;
    assert_eq!(refused(scene.node.submit(scene.node.answer(&challenge)).await), "store_unavailable");
    assert_eq!(world.status(scene.node.node), PostureStatus::Contraindicated);
    assert_eq!(identity.get("/v1/whoami").await.code(), "posture_contraindicated");
    fault.repair().await;

    // The store has the evidence before, which is good; nothing that an operator changes goes back to it.
    let label = vec![("rack".parse().unwrap(), Some("b7".parse().unwrap()))];
    world.verifier.label(scene.node.node, label, &operator()).await.unwrap();
    world.verifier.reappraise_all().await.unwrap();
    scene.world.change_profile(|body| body.interval *= 2).await;
    assert_eq!(world.status(scene.node.node), PostureStatus::Contraindicated);
    assert_eq!(world.deviations(scene.node.node), ["pcr_mismatch"]);
    assert_eq!(identity.get("/v1/whoami").await.code(), "posture_contraindicated");
    let decisions = world.verifier.store().decisions(Some(scene.node.node), 1).await.unwrap();
    assert_eq!(decisions[0].code, "labelled", "nothing was made of the evidence before");

    let challenge = scene.node.challenge().await.unwrap();
    let answer = scene.node.submit(scene.node.answer(&challenge)).await.unwrap();
    assert_eq!(answer.posture.status, PostureStatus::Contraindicated);
    assert_eq!(world.last_decision(scene.node.node).await, (false, "contraindicated".to_owned()));

    // Evidence made later ends it.
    let fault = Fault::on(world, "UPDATE", "evidence", "true").await;
    let challenge = scene.node.challenge().await.unwrap();
    assert_eq!(refused(scene.node.submit(scene.node.answer(&challenge)).await), "store_unavailable");
    fault.repair().await;
    scene.node.tpm.reboot();
    scene.node.tpm.pcrs = good;
    let challenge = scene.node.challenge().await.unwrap();
    let answer = scene.node.submit(scene.node.answer(&challenge)).await.unwrap();
    assert_eq!(answer.posture.status, PostureStatus::Affirming);
    assert_eq!(identity.get("/v1/whoami").await.status, 200);
    scene.bystander.is_well(world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn drift_whose_story_outlasts_the_patience_of_its_caller_ends_trust() {
    // Less than what the store waits for, and more than anything here takes on a busy machine.
    let request_timeout = Duration::from_secs(3);
    let plenty = Rate::new(1_000_000, 1_000_000);
    let limits = HttpLimits {
        request_timeout,
        enrollments: plenty,
        attestations: plenty,
        queries: plenty,
        ..HttpLimits::default()
    };
    let world = World::builder().http_limits(limits).start().await;
    let mut node = world.affirming_simulated(SoftwareTpm::booted(&[SHA256])).await;
    node.tpm.extend(PcrIndex::new(4).unwrap(), hash(SHA256, &[b"another boot loader"]));
    let challenge = node.challenge().await.unwrap();
    let hold = Hold::on(&world).await;
    assert_eq!(refused(node.submit(node.answer(&challenge)).await), "timed_out");
    assert_eq!(world.status(node.node), PostureStatus::Affirming, "nothing was looked at yet");
    hold.release().await;
    until("the story ends", async || world.status(node.node) == PostureStatus::Contraindicated).await;
    assert_eq!(world.deviations(node.node), ["pcr_mismatch"]);
    until("it is on record", async || {
        world.last_decision(node.node).await == (false, "contraindicated".to_owned())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stored_quote_that_was_changed_is_noticed() {
    let scene = Scene::set().await;
    let (world, node) = (&scene.world, &scene.node);
    let id = node.node.to_string();
    for (case, change) in [
        ("values", r#"pcrs = replace(pcrs, '"4":"', '"4":"0123456789abcdef')"#),
        (
            "values of the right form",
            r#"pcrs = json_set(pcrs, '$.sha256."4"', json_extract(pcrs, '$.sha256."7"'))"#,
        ),
        ("no values", "pcrs = '{}'"),
        ("no JSON", "pcrs = 'x'"),
        ("the quote", "quote = CAST(x'00' || substr(quote, 2) AS BLOB)"),
        ("the end of the quote", "quote = substr(quote, 1, length(quote) - 1)"),
        ("a longer quote", "quote = CAST(quote || x'00' AS BLOB)"),
        ("no quote", "quote = x''"),
        ("the signature", "signature = CAST(signature || x'00' AS BLOB)"),
        ("no signature", "signature = x''"),
    ] {
        let changed = execute(world, &format!("UPDATE evidence SET {change} WHERE node = x'{id}'")).await;
        assert_eq!(changed, 1, "{case}");
        let captured = world.verifier.capture(node.node, Name::default_set(), &operator()).await;
        let error = captured.expect_err(case);
        assert!(
            matches!(
                error,
                OperateError::StoredEvidence { .. } | OperateError::Store(StoreError::Inconsistent { .. })
            ),
            "{case}: {error:?}"
        );
        // What was made of it before ends with the next appraisal, and a fresh quote puts it right.
        world.verifier.reappraise_all().await.expect(case);
        assert_eq!(world.status(node.node), PostureStatus::Contraindicated, "{case}");
        assert_eq!(world.deviations(node.node), ["stored_evidence_invalid"], "{case}");
        assert_eq!(
            world.last_decision(node.node).await,
            (false, "stored_evidence_invalid".to_owned()),
            "{case}"
        );
        scene.end().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_bad_row_does_not_keep_the_others_trusted() {
    let mut scene = Scene::set().await;
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(scene.world.affirming_simulated(SoftwareTpm::booted(&[SHA256])).await.node);
    }
    // Appraised in the order of their ids.
    let bad = *others.iter().min().unwrap();
    let changed = format!("UPDATE evidence SET quote = x'' WHERE node = x'{bad}'");
    assert_eq!(execute(&scene.world, &changed).await, 1);
    scene.world.verifier.remove_reference_set(&Name::default_set(), &operator()).await.unwrap();
    for node in &others {
        assert_eq!(scene.world.status(*node), PostureStatus::Contraindicated, "{node}");
    }
    assert_eq!(scene.world.deviations(bad), ["stored_evidence_invalid"]);

    // What memory had, a start has from the rows.
    scene.world.restart().await;
    for node in &others {
        assert_eq!(scene.world.status(*node), PostureStatus::Contraindicated, "{node}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn evidence_of_a_node_whose_row_is_damaged_is_an_error_of_ours() {
    let scene = Scene::set().await;
    let (world, node) = (&scene.world, &scene.node);
    let challenge = node.challenge().await.unwrap();
    let (evidence, _) = node.answer_with_request(&challenge);
    let id = node.node.to_string();
    execute(world, &format!("UPDATE node SET ak_public = x'00' WHERE id = x'{id}'")).await;
    let failed = node.submit(evidence).await;
    assert!(matches!(&failed, Err(RequestError::Refused(refusal)) if refusal.status == 500), "{failed:?}");
    assert_eq!(refused(failed), "internal");
    assert_eq!(refused(node.challenge().await), "internal");
    assert!(world.verifier.store().certificates(node.node, 1).await.unwrap().is_empty());
    scene.bystander.is_well(world).await;
    // Trust that was earned before is not renewed, and ends.
    world.advance(Duration::from_secs(181));
    assert_eq!(world.status(node.node), PostureStatus::Stale);
}

//! Attacks on which PCRs a quote is over, and on their values: each is tried on a verifier that runs, refused with a code
//! of its own, on record, and changes nothing else.
//!
//! | attack | tests |
//! |---|---|
//! | 24, 25, 26 another, empty, smaller, larger selection | `real_quotes_over_other_pcrs_are_refused` |
//! | 27 values that nobody signed | `values_that_are_not_under_the_signature_are_refused` |
//! | 28 banks: order, twice, size of the bitmap | `banks_in_another_order_twice_or_of_another_size_are_refused`, `real_quotes_over_other_pcrs_are_refused` |
//! | 29 unextended bank | `an_idle_bank_never_counts_as_matching` |
//! | 46 arrays of PCRs | `values_of_pcrs_that_do_not_exist_or_none_at_all_are_refused` |

use rootbound_common::crypto::{Digest, hash};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrValues, put_sized};
use rootbound_common::wire::v1::{CredentialPolicy, PostureStatus};
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::exchange::pcrs;
use rootbound_swtpm_tests::https::Https;
use rootbound_swtpm_tests::keys::{bank_pcrs, sha256_pcrs};
use rootbound_swtpm_tests::manual::{Manual, hex, tool, tools_statement};
use rootbound_swtpm_tests::scene::Scene;
use rootbound_swtpm_tests::software_tpm::{SoftwareTpm, Statement as Fabricated};
use rootbound_swtpm_tests::swtpm::MEASURED_PCRS;
use rootbound_swtpm_tests::watch::{Bystander, Watch};
use rootbound_swtpm_tests::world::{World, operator};
use rootbound_verifier::flows::operate::OperateError;
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::{AcceptedPcrs, ReferenceError};
use serde_json::{Value, json};

const SHA256: HashAlgorithm = HashAlgorithm::Sha256;
const SHA384: HashAlgorithm = HashAlgorithm::Sha384;

/// TPML_PCR_SELECTION, whatever its parts.
fn raw_selection(banks: &[(HashAlgorithm, &[u8])]) -> Vec<u8> {
    let mut out = u32::try_from(banks.len()).unwrap().to_be_bytes().to_vec();
    for (bank, bitmap) in banks {
        out.extend(bank.tpm_id().to_be_bytes());
        out.push(u8::try_from(bitmap.len()).unwrap());
        out.extend(*bitmap);
    }
    out
}

#[tokio::test(flavor = "multi_thread")]
async fn banks_in_another_order_twice_or_of_another_size_are_refused() {
    let mut scene = Scene::set().await;
    let both = SoftwareTpm::booted(&[SHA256, SHA384]);
    let measured = pcrs(MEASURED_PCRS);
    let (one, other) = ((SHA256, measured), (SHA384, measured));
    scene.world.change_profile(|body| body.pcrs = PcrSelection::of_banks([one, other]).unwrap()).await;
    scene.node = scene.world.affirming_simulated(both).await;
    let values = scene.node.tpm.values(&PcrSelection::of_banks([one, other]).unwrap());
    let mut watch = scene.watch().await;
    for banks in [vec![other, one], vec![one], vec![other], vec![one, (SHA384, pcrs([0]))]] {
        let selection = PcrSelection::of_banks(banks).unwrap();
        let outcome = scene.state(|quote| {
            let mut quoted = PcrValues::default();
            for (bank, index, value) in values.iter() {
                if selection.pcrs(bank).contains(index) {
                    quoted.insert(index, *value);
                }
            }
            let digest = quoted.digest(&selection, SHA256).unwrap();
            quote.attested = Fabricated::quoted(&selection, digest.as_bytes());
        });
        watch.refused(selection.to_string(), outcome.await, "selection_differs").await;
    }
    // The right selection with a digest over the banks in the other order.
    let swapped = values.digest(&PcrSelection::of_banks([other, one]).unwrap(), SHA256).unwrap();
    let selection = PcrSelection::of_banks([one, other]).unwrap();
    let outcome = scene.state(|quote| quote.attested = Fabricated::quoted(&selection, swapped.as_bytes()));
    watch.refused("digest in the other order", outcome.await, "pcr_digest_mismatch").await;
    let bitmap: &[u8] = &[0xff, 0x43, 0x00];
    let many = [0xff; 255];
    for (case, selection) in [
        ("a bank twice", raw_selection(&[(SHA256, bitmap), (SHA256, bitmap)])),
        ("a bank again", raw_selection(&[(SHA256, bitmap), (SHA384, bitmap), (SHA256, bitmap)])),
        ("no byte", raw_selection(&[(SHA256, &[]), (SHA384, bitmap)])),
        ("one byte", raw_selection(&[(SHA256, &bitmap[..1]), (SHA384, bitmap)])),
        ("four bytes", raw_selection(&[(SHA256, &[0xff, 0x43, 0, 0]), (SHA384, bitmap)])),
        ("255 bytes", raw_selection(&[(SHA256, &many), (SHA384, bitmap)])),
        ("five banks", raw_selection(&[(SHA256, bitmap); 5])),
    ] {
        let outcome = scene.state(|quote| {
            quote.attested = selection;
            put_sized(&mut quote.attested, &[7; 32]);
        });
        watch.refused(case, outcome.await, "quote_malformed").await;
    }
    drop(watch);
    let answer = scene.send(|_| {}).await.unwrap();
    assert_eq!(answer.posture.status, PostureStatus::Affirming);
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_are_not_under_the_signature_are_refused() {
    let scene = Scene::set().await;
    let mut watch = scene.watch().await;
    let pcr = |index| PcrIndex::new(index).unwrap();
    for index in MEASURED_PCRS {
        let outcome = scene.send(|evidence| evidence.pcrs.insert(pcr(index), hash(SHA256, &[b"wished for"])));
        watch.refused(format!("PCR {index}"), outcome.await, "pcr_digest_mismatch").await;
    }
    let outcome = scene.send(|evidence| {
        let (four, seven) =
            (*evidence.pcrs.get(SHA256, pcr(4)).unwrap(), *evidence.pcrs.get(SHA256, pcr(7)).unwrap());
        evidence.pcrs.insert(pcr(4), seven);
        evidence.pcrs.insert(pcr(7), four);
    });
    watch.refused("swapped", outcome.await, "pcr_digest_mismatch").await;
    let outcome = scene.send(|evidence| evidence.pcrs.insert(pcr(23), Digest::zero(SHA256))).await;
    watch.refused("one more", outcome, "pcr_values_incomplete").await;
    let outcome = scene.send(|evidence| evidence.pcrs.insert(pcr(0), Digest::zero(SHA384))).await;
    watch.refused("one of another bank", outcome, "pcr_values_incomplete").await;
    let outcome = scene.state(|quote| {
        // What is signed is the truth: that the digest is over other values than those that are shown.
        let end = quote.attested.len();
        quote.attested[end - 32..].fill(7);
    });
    watch.refused("another digest", outcome.await, "pcr_digest_mismatch").await;
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn values_of_pcrs_that_do_not_exist_or_none_at_all_are_refused() {
    let scene = Scene::set().await;
    let https = Https::to(&scene.node.client);
    let mut watch = scene.watch().await;
    let zeros = "0".repeat(64);
    let honest = serde_json::to_value(scene.node.tpm.values(&sha256_pcrs(&MEASURED_PCRS))).unwrap();
    let with = |pcr: &str, value: Value| {
        let mut pcrs = honest.clone();
        pcrs["sha256"][pcr] = value;
        pcrs
    };
    let first = |count: u8| -> Value { (0..count).map(|pcr| (pcr.to_string(), json!(zeros))).collect() };
    let send = async |pcrs: Value| {
        let challenge = scene.node.challenge().await.unwrap();
        let mut message = serde_json::to_value(scene.node.answer(&challenge)).unwrap();
        message["pcrs"] = pcrs;
        https.post("/v1/evidence", &message).await
    };
    // What has not the shape of a message is refused at the edge: it is nobody's, and leaves no record.
    for (case, pcrs) in [
        ("PCR 24", with("24", json!(zeros))),
        ("PCR 255", with("255", json!(zeros))),
        ("PCR 256", with("256", json!(zeros))),
        ("PCR -1", with("-1", json!(zeros))),
        ("PCR 07", with("07", json!(zeros))),
        ("25 PCRs", json!({"sha256": first(25)})),
        ("a short value", with("4", json!("00"))),
        ("a long value", with("4", json!(zeros.repeat(2)))),
        ("no value", with("4", Value::Null)),
        ("an unknown bank", json!({"sm3": {"4": zeros}})),
        ("a list", json!([zeros])),
        ("nothing", Value::Null),
    ] {
        let reply = send(pcrs).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "body_malformed"), "{case}");
        watch.untouched(case).await;
    }
    let text = serde_json::to_string(&scene.node.answer(&scene.node.challenge().await.unwrap())).unwrap();
    let bank = text.replacen("{\"sha256\":", "{\"sha256\":{},\"sha256\":", 1);
    let pcr = text.replacen("{\"0\":", &format!("{{\"0\":\"{zeros}\",\"0\":"), 1);
    for (case, twice) in [("a bank twice", bank), ("a PCR twice", pcr)] {
        assert_ne!(twice, text);
        let reply = https.post_bytes("/v1/evidence", twice.as_bytes()).await;
        assert_eq!((reply.status, reply.code().as_str()), (400, "body_malformed"), "{case}");
        watch.untouched(case).await;
    }
    // What has, but not the values that are signed, is a refusal of this node's evidence.
    let mut fewer = honest.clone();
    fewer["sha256"].as_object_mut().unwrap().remove("14");
    for (case, pcrs) in [
        ("no bank", json!({})),
        ("a bank of no values", json!({"sha256": {}})),
        ("one fewer", fewer),
        ("24 values", json!({"sha256": first(24)})),
    ] {
        let reply = send(pcrs).await;
        assert_eq!(reply.status, 403, "{case}");
        watch.code(case, &reply.code(), "pcr_values_incomplete").await;
    }
    scene.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn real_quotes_over_other_pcrs_are_refused() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let bystander = Bystander::new(&world).await;
    let node = Manual::affirming(&world, &swtpm).await;
    let mut watch = Watch::on(&world, node.node).await;
    // A resettable PCR that is brought to the value of PCR 4, which it is to stand for.
    swtpm.extend(4, b"a boot loader that nobody knows");
    swtpm.extend(23, b"boot 0: measured into PCR 4");
    for (case, pcrs) in [
        ("one instead of another", &[0, 1, 2, 3, 23, 5, 6, 7, 8, 9, 14][..]),
        ("without the one that moved", &[0, 1, 2, 3, 5, 6, 7, 8, 9, 14]),
        ("one more", &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 16]),
        ("one only", &[7]),
    ] {
        let challenge = node.challenge().await;
        let quote = node.quote(&challenge, &sha256_pcrs(pcrs)).await;
        let values = quote.values.clone();
        let outcome = node.submit(&challenge, quote.statement, values).await;
        watch.refused(case, outcome, "selection_differs").await;
    }
    // Values that are labelled as what was asked for do not change what was signed.
    let challenge = node.challenge().await;
    let quote = node.quote(&challenge, &sha256_pcrs(&[0, 1, 2, 3, 23, 5, 6, 7, 8, 9, 14])).await;
    let mut labelled = PcrValues::default();
    for (_, index, value) in quote.values.iter() {
        labelled.insert(if index.get() == 23 { PcrIndex::new(4).unwrap() } else { index }, *value);
    }
    let outcome = node.submit(&challenge, quote.statement, labelled).await;
    watch.refused("PCR 23 as PCR 4", outcome, "selection_differs").await;

    node.lend_ak(&swtpm);
    for (selection, code) in [
        // Of a bank that is not active a TPM quotes no PCR, and signs that.
        ("sha1:0,1,2,3,4,5,6,7,8,9,14", "selection_differs"),
        ("sha256:0+sha256:1,2,3,4,5,6,7,8,9,14", "quote_malformed"),
        ("sha1:0+sha256:0,1,2,3,4,5,6,7,8,9,14", "selection_differs"),
    ] {
        let challenge = node.challenge().await;
        let extra = hex(&Manual::extra_data(&challenge));
        tool(&swtpm, &format!("tpm2_quote -c ak.ctx -l {selection} -q {extra} -m attest -s signature"));
        let outcome = node.submit(&challenge, tools_statement(&swtpm), PcrValues::default()).await;
        watch.refused(selection, outcome, code).await;
    }
    drop(watch);
    let answer = node.attest().await.unwrap();
    assert_eq!(
        answer.posture.status,
        PostureStatus::Contraindicated,
        "the truth is accepted, and is what it is"
    );
    bystander.is_well(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_bank_never_counts_as_matching() {
    let swtpm = Swtpm::builder().banks(&[SHA256, SHA384]).idle(&[SHA384]).start();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let measured = pcrs(MEASURED_PCRS);
    world
        .change_profile(|body| {
            body.pcrs = bank_pcrs(SHA384, &MEASURED_PCRS);
            body.credential_policy = CredentialPolicy { bank: SHA384, pcrs: measured };
        })
        .await;
    let mut machine = world.admitted(swtpm).await;
    let node = machine.node().await;
    machine.attester.attest().await.unwrap();
    assert_eq!(world.status(node), PostureStatus::Contraindicated);
    assert_eq!(world.deviations(node)[0], "bank_idle");
    let captured = world.verifier.capture(node, Name::default_set(), &operator()).await;
    let idle = ReferenceError::IdleBank { bank: SHA384 };
    assert!(matches!(&captured, Err(OperateError::Reference(error)) if *error == idle), "{captured:?}");

    // Even where an operator lists the very zeros.
    let zeros = measured.iter().map(|pcr| (pcr, Digest::zero(SHA384)));
    let zeros = AcceptedPcrs::new(zeros).unwrap();
    world.verifier.put_reference_set(Name::default_set(), zeros, &operator()).await.unwrap();
    machine.attest_anew().await.unwrap();
    assert_eq!(world.deviations(node), ["bank_idle"]);
    assert_eq!(world.last_decision(node).await, (false, "posture_contraindicated".to_owned()));
    assert!(machine.attester.credential().is_none());

    // The attester does not choose the bank, whichever was measured into.
    let manual = Manual::admitted(&world, &machine.swtpm).await;
    let mut watch = Watch::on(&world, node).await;
    let challenge = manual.challenge().await;
    let quote = manual.quote(&challenge, &sha256_pcrs(&MEASURED_PCRS)).await;
    let outcome = manual.submit(&challenge, quote.statement, quote.values).await;
    watch.refused("the other bank", outcome, "selection_differs").await;
    assert_eq!(world.status(node), PostureStatus::Unknown, "nothing shown since it enrolled anew");
}

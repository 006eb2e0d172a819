//! What the programs say to those who start them: operators, scripts, service managers.

use std::os::unix::net::UnixDatagram;
use std::process::Output;

use der::Decode;
use rootbound_attester::enroll::{EkChoice, Endorsement};
use rootbound_attester::tpm::Tpm;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::daemon::{AttesterSite, LIMIT, VerifierSite};
use rootbound_swtpm_tests::manual::activation;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::watch::issued;
use rootbound_swtpm_tests::world::Simulated;
use rootbound_swtpm_tests::world::{World, refused};
use serde_json::Value;
use x509_cert::Certificate;

const VERIFIER: &str = env!("CARGO_BIN_EXE_verifier-under-test");
const ATTESTER: &str = env!("CARGO_BIN_EXE_attester-under-test");

fn text(output: Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn json(output: Output) -> Value {
    serde_json::from_str(&text(output)).unwrap()
}

/// The rest of the line that begins with these words.
fn field(text: &str, name: &str) -> String {
    let line = text.lines().find(|line| line.starts_with(name) && line[name.len()..].starts_with([' ', ':']));
    let line = line.unwrap_or_else(|| panic!("no {name}:\n{text}"));
    line[name.len()..].trim_start_matches(':').trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn identify_says_which_machine_this_is() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let site = AttesterSite::new(ATTESTER, &swtpm.tcti(), &world.url(), &world.bundle());
    let before = json(site.run("identify --output json"));
    assert!(before["ak_name"].is_null(), "there is none yet");

    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let endorsement = Endorsement::read(&tpm, EkChoice::Auto).await.unwrap();
    let about = tpm.identify().await.unwrap();
    drop(tpm);
    let certificate = endorsement.key().certificate.clone().expect("the EK certificate of swtpm_setup");
    let certificate = Certificate::from_der(&certificate).unwrap();
    let content = certificate.tbs_certificate();
    let expiry = content.validity().not_after.to_unix_duration().as_millis();
    let expiry = Timestamp::from_millis(i64::try_from(expiry).unwrap()).to_string();

    let daemon = site.spawn();
    daemon.says("refused by the verifier").await;
    daemon.stop().await;
    let ak = site.view().identity().unwrap().unwrap().attestation_key;
    let ak = ak.to_attestation_key().unwrap().name().to_string();

    let answer = json(site.run("identify --output json"));
    let banks: Vec<_> = about.active_banks.iter().map(|bank| bank.name()).collect();
    for (name, expected) in [
        ("ek_hash", Value::from(endorsement.node().to_string())),
        ("ak_name", ak.as_str().into()),
        ("tpm_manufacturer", about.manufacturer.as_str().into()),
        ("tpm_model", about.model.as_str().into()),
        ("tpm_firmware", about.firmware.as_str().into()),
        ("active_pcr_banks", banks.clone().into()),
    ] {
        assert_eq!(answer[name], expected, "{name}");
    }
    assert_eq!(answer["ek_certificate"]["issuer"], content.issuer().to_string());
    assert_eq!(answer["ek_certificate"]["not_after"], expiry);
    assert!(about.manufacturer == "IBM" && banks.contains(&"sha256"), "{about:?}");

    let answer = text(site.run("identify"));
    for (name, expected) in [
        ("EK hash", endorsement.node().to_string()),
        ("EK issuer", content.issuer().to_string()),
        ("EK expiry", expiry),
        ("AK name", ak),
        ("TPM", format!("{} {}", about.manufacturer, about.model)),
        ("TPM firmware", about.firmware),
        ("PCR banks", banks.join(" ")),
    ] {
        assert_eq!(field(&answer, name), expected.trim(), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attester_tells_its_service_manager_and_writes_its_log_as_json() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let site = AttesterSite::new(ATTESTER, &swtpm.tcti(), &world.url(), &world.bundle());
    site.configure("[log]\nformat = \"json\"\n");
    let path = world.path().join("notify");
    let manager = UnixDatagram::bind(&path).unwrap();
    manager.set_read_timeout(Some(LIMIT)).unwrap();
    let hears = || {
        let mut said = [0; 512];
        let length = manager.recv(&mut said).expect("a word in time");
        String::from_utf8(said[..length].to_vec()).unwrap().trim().to_owned()
    };
    let daemon = site.spawn_notifying(&path);
    assert_eq!(hears(), "READY=1");
    assert!(hears().starts_with("STATUS=refused by the verifier: admission_pending"));
    let log = daemon.stop().await;
    // Between the two it may have tried once more.
    assert!((0..10).any(|_| hears() == "STOPPING=1"));
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    for message in ["started", "refused by the verifier", "stopped"] {
        assert!(lines.iter().any(|line| line["message"] == message), "{message}:\n{log}");
    }
    let refusal = lines.iter().find(|line| line["message"] == "refused by the verifier").unwrap();
    assert_eq!((&refusal["level"], &refusal["code"]), (&"WARN".into(), &"admission_pending".into()));
    assert!(lines.iter().all(|line| line["timestamp"].is_string()), "{log}");
}

/// What an operator does with nodes, by the program.
#[tokio::test(flavor = "multi_thread")]
async fn operators_list_show_approve_label_capture_and_retire_nodes() {
    let site = VerifierSite::init(VERIFIER, &[]);
    let verifier = site.run().await;
    let tpm = SoftwareTpm::booted(&[HashAlgorithm::Sha256]);
    let node = NodeId::of_endorsement_key(&tpm.endorsement_key.subject_public_key_info());
    let machine = Simulated { node, tpm, client: site.client() };
    let id = node.to_string();
    let done = |arguments: &[&str]| text(site.verb(arguments));
    let listed = |arguments: &[&str]| -> Vec<String> {
        let list = [&["node", "list", "--output", "json"], arguments].concat();
        let nodes = json(site.verb(&list))["nodes"].as_array().unwrap().clone();
        nodes.iter().map(|node| node["id"].as_str().unwrap().to_owned()).collect()
    };
    let (this, none): ([String; 1], [String; 0]) = ([id.clone()], []);

    // Its EK is vouched for, and then the machine is not expected any more: it enrols, and waits.
    done(&["inventory", "add", &id, "--waive-endorsement"]);
    let begun = machine.client.enroll(&machine.enroll_request()).await.unwrap();
    done(&["inventory", "remove", &id]);
    machine.client.activate(&activation(&begun, &machine.open(&begun))).await.unwrap();
    assert_eq!(refused(machine.challenge().await), "admission_pending");
    assert_eq!(field(&done(&["node", "show", &id]), "Standing"), "pending");
    let approved = done(&["node", "approve", &id, "--reason", "it is that of rack 7"]);
    assert_eq!(field(&approved, "Node"), id);
    assert_eq!(field(&approved, "Standing"), "admitted (approval)");
    assert!(done(&["node", "show", &id]).contains("it is that of rack 7"));
    assert_eq!(site.verb(&["node", "approve", &id]).status.code(), Some(4), "it is admitted");

    let labelled = done(&["node", "label", &id, "env=prod", "rack=b7"]);
    assert_eq!(field(&labelled, "Labels"), "env=prod,rack=b7");
    let labelled = done(&["node", "label", &id, "rack=b8", "--remove", "env"]);
    assert_eq!(field(&labelled, "Labels"), "rack=b8");
    assert_eq!(listed(&[]), this);
    assert_eq!(listed(&["--label", "rack=b8", "--posture", "unknown"]), this);
    assert_eq!(listed(&["--label", "rack=b7"]), none);
    assert_eq!(listed(&["--posture", "affirming"]), none);
    assert_eq!(listed(&["--after", &id]), none);
    assert_eq!(site.verb(&["reference", "capture", &id]).status.code(), Some(4), "it has shown nothing");

    let challenge = machine.challenge().await.unwrap();
    machine.submit(machine.answer(&challenge)).await.unwrap();
    assert_eq!(listed(&["--posture", "contraindicated"]), this);
    let shown = done(&["node", "show", &id]);
    assert!(field(&shown, "Posture").starts_with("contraindicated, evidence of "), "{shown}");
    assert!(shown.contains("deviation (no_reference_value)"), "{shown}");

    let captured = done(&["reference", "capture", &id, "--name", "default", "--reason", "known to be good"]);
    assert!(captured.contains("default@1 written") && captured.contains("1 now affirming"), "{captured}");
    let challenge = machine.challenge().await.unwrap();
    let answer = machine.submit(machine.answer_with_request(&challenge).0).await.unwrap();
    assert!(!issued(answer).is_empty());
    assert_eq!(listed(&["--posture", "affirming", "--limit", "1"]), this);
    let table = done(&["node", "list"]);
    assert!(table.contains(&id) && table.contains("affirming") && table.contains("rack=b8"), "{table}");
    let shown = done(&["node", "show", &id]);
    for (name, expected) in [
        ("Node", id.clone()),
        ("SPIFFE ID", format!("spiffe://test.example/node/{id}")),
        ("Standing", "admitted (approval)".to_owned()),
        ("Labels", "rack=b8".to_owned()),
        ("Endorsed by", "the operator, by the inventory".to_owned()),
        ("AK name", machine.tpm.attestation_key.public().name().to_string()),
    ] {
        assert_eq!(field(&shown, name), expected, "{shown}");
    }
    assert!(field(&shown, "Posture").ends_with("by profile default@1 and default@1"), "{shown}");
    assert!(shown.contains(" current") && shown.contains("credential_issued"), "{shown}");
    let detail = json(site.verb(&["node", "show", &id, "--output", "json"]));
    assert_eq!((&detail["id"], &detail["posture"]["status"]), (&id.as_str().into(), &"affirming".into()));
    assert_eq!(detail["credentials"][0]["current"], true);

    let retired = done(&["node", "retire", &id]);
    assert_eq!(field(&retired, "Standing"), "retired");
    assert_eq!(refused(machine.challenge().await), "node_retired");
    assert_eq!(
        refused(machine.enroll().await),
        "endorsement_no_certificate",
        "nobody vouches for it any more"
    );
    let back = done(&["node", "approve", &id]);
    assert_eq!(
        (field(&back, "Standing"), field(&back, "Posture")),
        ("admitted (approval)".into(), "unknown".into())
    );
    verifier.stop().await;
}

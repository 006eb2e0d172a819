//! A list that is far longer than one message: both programs take it in a bounded part of memory.
//!
//! `LONG_LIST_MB` says how long; 300 in `scripts/bench`, where the programs are optimized.

use std::time::{Duration, Instant};

use rootbound_attester::enroll::{EkChoice, Endorsement};
use rootbound_attester::tpm::Tpm;
use rootbound_common::blob::Blob;
use rootbound_common::crypto::hash;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet};
use rootbound_common::wire::v1::PostureStatus;
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::daemon::{AttesterSite, Daemon, VerifierSite, until_within};
use rootbound_swtpm_tests::measured::Row;
use rootbound_swtpm_tests::measured_logs::ImaList;
use rootbound_verifier::appraisal::runtime::RuntimeRules;
use rootbound_verifier::http::admin::message::{Command, Reply, Words};
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::{AcceptedPcrs, ProfileBody};

const VERIFIER: &str = env!("CARGO_BIN_EXE_verifier-under-test");
const ATTESTER: &str = env!("CARGO_BIN_EXE_attester-under-test");
const BANK: HashAlgorithm = HashAlgorithm::Sha256;
const MB: usize = 1_000_000;

fn pcrs(indices: impl IntoIterator<Item = u8>) -> PcrSet {
    indices.into_iter().filter_map(PcrIndex::new).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn list_that_is_longer_than_memory_should_be_is_taken_in_parts() {
    let megabytes = std::env::var("LONG_LIST_MB").map_or(20, |text| text.parse().expect("a number"));
    let swtpm = Swtpm::manufacture();
    let verifier = VerifierSite::init(VERIFIER, &[swtpm.manufacturer()]);
    let verifier_runs = verifier.run().await;
    let attester = AttesterSite::new(ATTESTER, &swtpm.tcti(), &verifier.url(), &verifier.bundle());
    let tpm = Tpm::spawn(swtpm.tcti()).unwrap();
    let node = Endorsement::read(&tpm, EkChoice::Auto).await.unwrap().node();

    let booted = tpm.read_pcrs(&PcrSelection::of_bank(BANK, pcrs((0..10).chain([14])))).await.unwrap();
    let program = hash(BANK, &[b"a program"]);
    let mut list = ImaList::begin(&swtpm, &booted);
    let mut length = 0;
    while length < megabytes * MB {
        let path = format!("/{}/{length}", "a".repeat(4000));
        list.digest(&swtpm, &path, program);
        length += path.len() + 88;
    }
    drop(tpm);
    std::fs::write(attester.state().join("../ima"), list.bytes(0)).unwrap();
    attester.configure(&format!("[collect]\nima = {:?}\n", attester.state().join("../ima")));
    let entries = list.len();
    drop(list);

    let (name, reason) = (Name::default_set(), Words::default());
    let accepted = AcceptedPcrs::new(booted.iter().map(|(_, pcr, value)| (pcr, *value))).unwrap();
    let mut body = ProfileBody::initial(name.clone());
    body.pcrs = PcrSelection::of_bank(BANK, pcrs((0..=10).chain([14])));
    body.runtime = Some(RuntimeRules { digest_sets: vec![name.clone()], ..RuntimeRules::default() });
    body.interval = Duration::from_secs(1);
    body.stale_after = 100;
    let frame = zstd::encode_all(format!("sha256:{program}  *\n").as_bytes(), 1).unwrap();
    for verb in [
        Command::DigestsSet { name: name.clone(), frame: Blob::new(frame).unwrap(), reason: reason.clone() },
        Command::ProfileSet { name: name.clone(), body: Box::new(body), reason: reason.clone() },
        Command::ReferenceSet { name, accepted, reason: reason.clone() },
        Command::InventoryAdd { node, waive_endorsement: false, labels: Default::default(), reason },
    ] {
        verifier.ask(&verb).await.unwrap();
    }
    let (verifier_before, began) = (verifier_runs.peak_kb(), Instant::now());
    let attester_runs = attester.spawn();
    let limit = Duration::from_secs(60) + Duration::from_secs(3) * u32::try_from(megabytes).unwrap();
    until_within(limit, "every entry is judged", async || {
        let Ok(Reply::Node(detail)) = verifier.ask(&Command::NodeShow { node }).await else { return false };
        let codes = detail.posture.deviations.iter().map(|deviation| deviation.code.as_str());
        let wrong: Vec<_> = codes.filter(|code| *code != "ima_list_incomplete").collect();
        assert!(wrong.is_empty(), "{wrong:?}");
        detail.posture.status == PostureStatus::Affirming
    })
    .await;
    let took = began.elapsed();
    let (of_verifier, of_attester) = (verifier_runs.peak_kb() - verifier_before, attester_runs.peak_kb());
    let what = |who: &str| format!("{who}, IMA list of {megabytes} MB, {entries} entries");
    Row::time(what("sent and judged"), took).publish();
    for (who, kilobytes, most) in [
        ("memory of the attester", of_attester, 32 * 1024),
        ("of the verifier, above idle", of_verifier, 64 * 1024),
    ] {
        Row::memory(what(who), kilobytes).memory_at_most(kilobytes, most).publish();
        assert!(kilobytes <= most, "{who}: {kilobytes} KB");
    }
    for daemon in [attester_runs, verifier_runs] {
        Daemon::stop(daemon).await;
    }
}

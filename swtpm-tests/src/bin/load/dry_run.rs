//! A dry run over a large fleet, while a node attests.
//!
//! The verifier runs in this process on a SQLite file. Each machine of the fleet has an AK, a quote and an IMA list of its
//! own, so that none is judged by what was found of another; all have booted alike.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rootbound_common::blob::Blob;
use rootbound_common::crypto::hash;
use rootbound_common::random;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet};
use rootbound_common::wire::v1::{BootLogPart, EvidenceRequest, ImaPart, PostureStatus};
use rootbound_swtpm_tests::measured::{Load, Row};
use rootbound_swtpm_tests::measured_logs::{BootLog, ImaList};
use rootbound_swtpm_tests::software_tpm::{EndorsementKey, SoftwareKey, SoftwareTpm, Template};
use rootbound_swtpm_tests::world::{Simulated, World, operator};
use rootbound_verifier::appraisal::runtime::RuntimeRules;
use rootbound_verifier::audit::RecordId;
use rootbound_verifier::enrollment::{AttestationKey, ChainWaiver, PendingActivation, UnendorsedKey};
use rootbound_verifier::evidence::StoredQuote;
use rootbound_verifier::evidence::ima::{Position, Progress};
use rootbound_verifier::flows::Verifier;
use rootbound_verifier::flows::survey::dry_run::Proposal;
use rootbound_verifier::http::{Limits, Rate};
use rootbound_verifier::node::{LastSeen, Name};
use rootbound_verifier::posture::Posture;
use rootbound_verifier::reference::{LogKind, ProfileBody};
use rootbound_verifier::store::logs::{
    BootLogRecord, FrameChange, ImaRecord, LogChange, LogRecord, NewFrames, Pending,
};
use rootbound_verifier::store::{
    CompletedEnrollment, DecisionKind, DecisionRecord, DecisionTrail, EnrollmentOutcome, EvidenceRecord,
};

const BANK: HashAlgorithm = HashAlgorithm::Sha256;
/// Entries that all lists begin with.
const COMMON: usize = 100;
/// Files of which each list has three more, in an order of its own.
const OWN: usize = 64;
/// Events of a boot loader, besides those of the firmware.
const LOADER: usize = 60;
/// For 100,000 nodes.
const TARGET: Duration = Duration::from_secs(60);

/// Fills a store with a fleet, and measures.
pub(crate) async fn run(nodes: usize) {
    // One node connects as often as it can.
    let plenty = Rate::new(1_000_000, 1_000_000);
    let limits = Limits {
        connections: plenty,
        enrollments: plenty,
        attestations: plenty,
        queries: plenty,
        ..Limits::default()
    };
    let world = World::builder().http_limits(limits).start().await;
    let model = Model::new(&world).await;
    let begun = Instant::now();
    model.copies(&world, nodes).await;
    eprintln!("{nodes} nodes in {:.0?}", begun.elapsed());

    let over = Arc::new(AtomicBool::new(false));
    let alone = attesting(&model.first, Duration::from_secs(2), &AtomicBool::new(false)).await;
    let attests = tokio::spawn({
        let (first, over) = (Arc::clone(&model.first), Arc::clone(&over));
        async move { attesting(&first, Duration::MAX, &over).await }
    });
    let begun = Instant::now();
    let proposals = || vec![Proposal::DigestText(name("default"), packed(&model.proposed()))];
    let mut progress = world.verifier.dry_run(proposals(), &operator()).await.expect("a dry run");
    while !progress.finished {
        tokio::time::sleep(Duration::from_millis(20)).await;
        progress = world.verifier.dry_run_progress(progress.id).expect("a dry run");
    }
    let took = begun.elapsed();
    over.store(true, Ordering::Relaxed);
    let beside = attests.await.expect("a node that is accepted");
    let summary = world.verifier.dry_run_page(progress.id, None, 1).expect("an answer").summary;
    let all = u64::try_from(nodes).expect("a number") + 1;
    assert_eq!((summary.nodes, summary.to_contraindicated + summary.moved), (all, all), "{summary:?}");

    let list = COMMON + 4;
    let row =
        Row::time(format!("dry run, {nodes} nodes, each with a list of {list} entries of its own"), took);
    let row = if nodes == 100_000 { row.time_at_most(took, TARGET) } else { row };
    row.publish();
    for (when, load) in [("alone", alone), ("beside a dry run", beside)] {
        let name = format!("evidence, 1 simulated node, {when}");
        Row::rate(name, load.per_second(), load.percentile(50), load.percentile(99)).publish();
    }
}

/// Attests as fast as it is answered.
async fn attesting(node: &Simulated, lasts: Duration, over: &AtomicBool) -> Load {
    let (begun, mut waited) = (Instant::now(), Vec::new());
    let mut challenge = node.challenge().await.expect("a challenge");
    while begun.elapsed() < lasts && !over.load(Ordering::Relaxed) {
        let evidence = EvidenceRequest {
            ima: Some(ImaPart::Present { from: list_length(&challenge), zstd: blob(&[]), more: false }),
            ..node.answer(&challenge)
        };
        let sent = Instant::now();
        challenge = node.submit(evidence).await.expect("good evidence").next;
        waited.push(sent.elapsed());
    }
    Load::new(waited, begun.elapsed())
}

fn list_length(challenge: &rootbound_common::wire::v1::Challenge) -> u64 {
    challenge.logs.known.map_or(0, |known| known.ima_entries)
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

fn pcr(index: u8) -> PcrIndex {
    PcrIndex::new(index).expect("a PCR number")
}

fn pcrs(indices: impl IntoIterator<Item = u8>) -> PcrSet {
    indices.into_iter().map(pcr).collect()
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).expect("memory")
}

fn blob<const MAX: usize>(bytes: &[u8]) -> Blob<MAX> {
    Blob::new(packed(bytes)).expect("a short log")
}

fn path(kind: &str, number: usize) -> String {
    format!("/usr/lib/x86_64-linux-gnu/{kind}{number:04}/lib{number:07}.so.1")
}

/// What every machine of the fleet has.
struct Model {
    first: Arc<Simulated>,
    boot: BootLog,
    /// Up to where lists part.
    common: ImaList,
    /// PCRs at that place.
    tpm: SoftwareTpm,
    posture: Posture,
}

impl Model {
    /// A node that attested over the network, and is affirming by its boot log and by a digest set.
    async fn new(world: &World) -> Self {
        let collect = |body: &mut ProfileBody| {
            body.pcrs = PcrSelection::of_bank(BANK, pcrs((0..=10).chain([14])));
            body.collect = vec![LogKind::BootLog, LogKind::Ima];
            body.ignored = pcrs([10]);
        };
        world.change_profile(collect).await;
        let mut tpm = SoftwareTpm::booted(&[BANK]);
        let mut boot = BootLog::of_boot(0);
        boot.separators(&mut tpm);
        for number in 0..LOADER {
            let command = format!("grub_cmd: set variable_{number}='a value of some length'");
            boot.write(8, 0x0d, command.as_bytes());
            tpm.extend(pcr(8), hash(BANK, &[command.as_bytes()]));
        }
        let values = tpm.values(&PcrSelection::of_bank(BANK, pcrs(0..10)));
        let mut common = ImaList::begin(&mut tpm, &values);
        for number in 0..COMMON {
            let path = path("common", number);
            common.run(&mut tpm, &path, path.as_bytes());
        }
        let at_common = SoftwareTpm { pcrs: tpm.pcrs.clone(), ..SoftwareTpm::new() };
        let mut list = common.clone();
        for _ in 0..3 {
            let path = path("own", 0);
            list.run(&mut tpm, &path, path.as_bytes());
        }
        let first = world.simulated(tpm).await;
        let challenge = first.challenge().await.expect("a challenge");
        let evidence = EvidenceRequest {
            boot_log: Some(BootLogPart::Present { zstd: blob(boot.bytes()) }),
            ima: Some(ImaPart::Present { from: 0, zstd: blob(&list.bytes(0)), more: false }),
            ..first.answer(&challenge)
        };
        first.submit(evidence).await.expect("evidence");
        world.capture(first.node).await;
        let rules = world.verifier.show_boot(first.node).await.expect("a boot").rules;
        let frame = packed(&text(0..COMMON, 0..OWN));
        world.verifier.put_digest_set(name("default"), &frame, &operator()).await.expect("a digest set");
        world
            .change_profile(|body| {
                let digest_sets = vec![name("default")];
                body.runtime = Some(RuntimeRules { digest_sets, ..RuntimeRules::default() });
                body.ignored = PcrSet::EMPTY;
                body.boot = Some(rules);
            })
            .await;
        assert_eq!(world.status(first.node), PostureStatus::Affirming, "{:?}", world.deviations(first.node));
        let live = world.verifier.fleet().node(first.node).expect("a node");
        let posture = live.posture.clone().expect("a posture");
        Self { first: Arc::new(first), boot, common, tpm: at_common, posture }
    }

    /// A set in which one file is missing that every machine ran.
    fn proposed(&self) -> Vec<u8> {
        text(1..COMMON, 0..OWN)
    }

    /// Writes so many machines into the store, and shows them.
    async fn copies(&self, world: &World, count: usize) {
        let mut tasks = tokio::task::JoinSet::new();
        for number in 1..=count {
            // As many as one commit takes.
            if tasks.len() >= 256 {
                tasks.join_next().await.expect("a task").expect("a machine");
            }
            let copy = self.copy(world, number);
            let (verifier, boot) = (Arc::clone(&world.verifier), packed(self.boot.bytes()));
            let posture = self.posture.clone();
            tasks.spawn(async move { copy.store(&verifier, boot, posture).await });
        }
        tasks.join_all().await;
    }

    fn copy(&self, world: &World, number: usize) -> Copy {
        let ak = SoftwareKey::p256(Template::attestation_p256());
        let mut tpm = SoftwareTpm::with_keys(EndorsementKey::p256(), ak);
        tpm.pcrs = self.tpm.pcrs.clone();
        let mut list = self.common.clone();
        for digit in [number, number / OWN, number / OWN / OWN] {
            let path = path("own", digit % OWN);
            list.run(&mut tpm, &path, path.as_bytes());
        }
        Copy { tpm, list, now: world.verifier.now() }
    }
}

/// The text of a digest set.
fn text(common: std::ops::Range<usize>, own: std::ops::Range<usize>) -> Vec<u8> {
    let paths = common.map(|number| path("common", number)).chain(own.map(|number| path("own", number)));
    let line = |path: String| format!("sha256:{}  {path}\n", hash(BANK, &[path.as_bytes()]));
    paths.map(line).collect::<String>().into_bytes()
}

/// A machine like the model.
struct Copy {
    tpm: SoftwareTpm,
    list: ImaList,
    now: rootbound_common::clock::Timestamp,
}

impl Copy {
    async fn store(self, verifier: &Verifier, boot: Vec<u8>, posture: Posture) {
        let Self { tpm, list, now } = self;
        let store = verifier.store();
        let decision = |kind, code: &str| DecisionRecord {
            id: RecordId::new(now, &mut random::system()),
            at: now,
            node: None,
            kind,
            granted: true,
            code: code.to_owned(),
            detail: String::new(),
            trail: DecisionTrail::default(),
        };
        let ek = UnendorsedKey::parse(&tpm.endorsement_key.public_area()).expect("an EK");
        let waiver = ChainWaiver::of_inventory_entry(ek.node_id());
        let ek = ek.endorse_by_waiver(waiver).expect("its own waiver");
        let ak = AttestationKey::parse(&tpm.attestation_key.public_area()).expect("an AK");
        let name = tpm.attestation_key.name();
        let deadline = now.plus(Duration::from_secs(60));
        let begun = PendingActivation::begin(ek, ak, deadline, &mut random::system());
        let (activation, made) = begun.expect("an activation");
        let secret =
            tpm.endorsement_key.activate_credential(&name, &made.credential_blob, &made.encrypted_secret);
        let keys = activation.complete(&secret.expect("our own EK"), now).expect("the secret");
        let completed = CompletedEnrollment {
            keys,
            join_token_digest: None,
            now,
            decision: decision(DecisionKind::Activate, "enrolled"),
        };
        let EnrollmentOutcome::Enrolled { node, .. } =
            store.complete_enrollment(completed).await.expect("an enrolment")
        else {
            panic!("a new machine");
        };
        let selection = PcrSelection::of_bank(BANK, pcrs((0..=10).chain([14])));
        let signed = tpm.quote(&selection, b"").sign(&tpm.attestation_key);
        let bytes = list.bytes(0);
        let prefix = Position {
            entries: u64::try_from(list.len()).expect("a short list"),
            bytes: u64::try_from(bytes.len()).expect("a short list"),
            value: *tpm.pcrs.get(BANK, pcr(10)).expect("PCR 10"),
        };
        let ima = ImaRecord {
            progress: Progress::restore(prefix, None).expect("a walk"),
            findings: None,
            pending: Pending::default(),
            resend: false,
            retried: false,
        };
        let boot_log = BootLogRecord::Present(boot);
        let record = LogRecord { reset_count: tpm.clock.reset_count, boot_log, ima: Some(ima) };
        let covered = Some(packed(&bytes));
        let frames = FrameChange::Replace(NewFrames { covered, pending: None });
        let evidence = EvidenceRecord {
            node: node.id,
            revision: node.revision,
            last_seen: LastSeen { clock: tpm.clock, firmware_version: tpm.firmware_version, made_at: now },
            quote: StoredQuote {
                quote: signed.attest,
                signature: signed.signature,
                pcrs: tpm.values(&selection),
                evidence_at: now,
            },
            logs: Some(LogChange { record, frames }),
            posture,
            epoch: 1,
            certificate: None,
            decision: decision(DecisionKind::Attest, "attested"),
            also: Vec::new(),
        };
        store.record_evidence(evidence).await.expect("evidence");
        let live = store.live_node(node.id, now).await.expect("the store").expect("a node");
        verifier.fleet().put(node.id, live, now);
    }
}

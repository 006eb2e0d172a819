//! An update of kernel and packages without a false alarm, and a vulnerable binary that is denied at once: the life of
//! reference values, seen by a node.

use rootbound_common::blob::Blob;
use rootbound_common::crypto::{Digest, TaggedDigest, hash};
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet};
use rootbound_common::wire::v1::{BootLogPart, EvidenceRequest, ImaPart, PostureStatus};
use rootbound_compute::values::{BootValue, BootValues, Measured, Source};
use rootbound_swtpm_tests::measured_logs::{BootLog, ImaList, Measures};
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Simulated, World, operator};
use rootbound_verifier::appraisal::boot::BootRules;
use rootbound_verifier::appraisal::runtime::RuntimeRules;
use rootbound_verifier::flows::operate::OperateError;
use rootbound_verifier::flows::sets::{SetValues, WhichSet};
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::{AcceptedPcrs, DeniedAs, LogKind, SetKind, Side};

const BANK: HashAlgorithm = HashAlgorithm::Sha256;
const KERNEL_A: &[u8] = b"kernel A";
const KERNEL_B: &[u8] = b"kernel B";

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn pcrs(indices: impl IntoIterator<Item = u8>) -> PcrSet {
    indices.into_iter().filter_map(PcrIndex::new).collect()
}

fn digest(content: &[u8]) -> Digest {
    hash(BANK, &[content])
}

fn kernel(version: &str, image: &[u8]) -> SetValues {
    let source = Source { package: Some("linux".into()), version: Some(version.into()), ..Source::default() };
    let measured = Measured::BootApplication { digest: TaggedDigest(digest(image)) };
    let values = vec![BootValue { measured, label: "the kernel".into(), source }];
    SetValues::Boot(BootValues::new(BANK, values))
}

fn files(contents: &[&[u8]]) -> SetValues {
    let line = |content: &&[u8]| format!("sha256:{}  /usr/bin/app\n", digest(content));
    let text: String = contents.iter().map(line).collect();
    SetValues::Digests(zstd::encode_all(text.as_bytes(), 1).unwrap())
}

fn which(kind: SetKind, text: &str) -> WhichSet {
    WhichSet { kind: Some(kind), name: name(text), version: None }
}

/// A node of software keys that boots a kernel and runs a program.
struct Node {
    simulated: Simulated,
    boot: BootLog,
    ima: ImaList,
}

impl Node {
    async fn new(world: &World) -> Self {
        let simulated = world.simulated(SoftwareTpm::new()).await;
        Self { simulated, boot: BootLog::new(), ima: ImaList::default() }
    }

    /// Boots a kernel, runs a version of the program, and shows it.
    async fn boots(&mut self, image: &[u8], app: &[u8]) {
        self.simulated.tpm.reboot();
        let mut tpm = &mut self.simulated.tpm;
        self.boot = BootLog::new();
        // Firmware, of which only PCR 4 has a log.
        for pcr in [0, 1, 2, 3, 5, 6, 7, 8, 9, 14] {
            tpm.measure(pcr, format!("firmware of PCR {pcr}").as_bytes());
        }
        self.boot.application(&mut *tpm, b"shim");
        self.boot.write(4, 4, &[0; 4]);
        tpm.measure(4, &[0; 4]);
        self.boot.application(&mut *tpm, image);
        let values = tpm.values(&PcrSelection::of_bank(BANK, pcrs(0..10)));
        self.ima = ImaList::begin(&mut *tpm, &values);
        self.ima.run(&mut *tpm, "/usr/bin/app", app);
        self.attest().await;
    }

    async fn attest(&mut self) {
        self.simulated.tpm.clock.clock += 1;
        let challenge = self.simulated.challenge().await.unwrap();
        let frame = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
        let boot_log = BootLogPart::Present { zstd: Blob::new(frame(self.boot.bytes())).unwrap() };
        let entries = Blob::new(frame(&self.ima.bytes(0))).unwrap();
        let ima = ImaPart::Present { from: 0, zstd: entries, more: false };
        let answer = self.simulated.answer(&challenge);
        let evidence = EvidenceRequest { boot_log: Some(boot_log), ima: Some(ima), ..answer };
        self.simulated.submit(evidence).await.unwrap();
    }
}

/// A world in which a node that boots kernel A is affirming: PCR 4 by the boot set `kernel`, what runs by the digest set
/// `base`, the rest by PCR values.
async fn affirming() -> (World, Node) {
    let world = World::new(&[]).await;
    world
        .change_profile(|body| {
            body.pcrs = PcrSelection::of_bank(BANK, pcrs((0..=10).chain([14])));
            body.collect = vec![LogKind::BootLog, LogKind::Ima];
            body.ignored = pcrs([10]);
        })
        .await;
    let mut node = Node::new(&world).await;
    node.boots(KERNEL_A, b"app 1").await;
    world.capture(node.simulated.node).await;
    world
        .change_profile(|body| {
            let mut rules = BootRules::of(BANK, pcrs([4]));
            rules.sets = vec![name("loader"), name("kernel")];
            body.boot = Some(rules);
            body.runtime = Some(RuntimeRules { digest_sets: vec![name("base")], ..RuntimeRules::default() });
            body.ignored = PcrSet::EMPTY;
        })
        .await;
    let codes = world.deviations(node.simulated.node);
    assert!(
        codes.contains(&"boot_application".to_owned()),
        "a set that is not there accepts nothing: {codes:?}"
    );
    let verifier = &world.verifier;
    verifier.put_set(name("loader"), kernel("15.8", b"shim"), &operator()).await.unwrap();
    verifier.put_set(name("kernel"), kernel("6.1", KERNEL_A), &operator()).await.unwrap();
    verifier.put_set(name("base"), files(&[b"app 1"]), &operator()).await.unwrap();
    is_affirming(&world, &node, &["kernel@1", "base@1"]);
    (world, node)
}

fn is_affirming(world: &World, node: &Node, by: &[&str]) {
    let id = node.simulated.node;
    assert_eq!(world.status(id), PostureStatus::Affirming, "{:?}", world.deviations(id));
    let references = world.verifier.fleet().node(id).unwrap().posture.as_ref().unwrap().references.clone();
    for version in by {
        assert!(references.iter().any(|named| named == version), "{version}: {references:?}");
    }
}

/// The deviations with their words.
fn deviations(world: &World, node: &Node) -> Vec<(String, String)> {
    let live = world.verifier.fleet().node(node.simulated.node).unwrap();
    let posture = live.posture.as_ref().unwrap();
    posture.deviations.iter().map(|one| (one.code.clone(), one.detail.clone())).collect()
}

fn code<T: std::fmt::Debug>(outcome: Result<T, OperateError>) -> &'static str {
    outcome.unwrap_err().code()
}

#[tokio::test(flavor = "multi_thread")]
async fn update_is_staged_rolled_out_and_promoted_without_a_false_alarm_and_what_was_before_is_refused() {
    let (world, mut node) = affirming().await;
    let verifier = &world.verifier;
    let staged =
        verifier.stage_set(name("kernel"), None, kernel("6.2", KERNEL_B), &operator()).await.unwrap();
    assert_eq!((staged.id.to_string(), staged.reappraised.now_contraindicated), ("kernel@2".to_owned(), 0));
    verifier.stage_set(name("base"), Some(1), files(&[b"app 2"]), &operator()).await.unwrap();
    is_affirming(&world, &node, &["kernel@2", "base@2"]);
    let twice = verifier.stage_set(name("kernel"), None, kernel("6.3", b"kernel C"), &operator()).await;
    assert_eq!(code(twice), "set_already_staged");

    node.boots(KERNEL_B, b"app 2").await;
    is_affirming(&world, &node, &["kernel@2", "base@2"]);
    for (set, kind) in [("kernel", SetKind::Boot), ("base", SetKind::Digests)] {
        let over = WhichSet { version: Some(1), ..which(kind, set) };
        assert_eq!(code(verifier.promote_set(&over, &operator()).await), "set_overtaken");
        let promoted = verifier.promote_set(&which(kind, set), &operator()).await.unwrap();
        assert_eq!((promoted.id.version, promoted.reappraised.now_contraindicated), (3, 0));
        assert_eq!(code(verifier.promote_set(&which(kind, set), &operator()).await), "set_not_staged");
    }
    is_affirming(&world, &node, &["kernel@3", "base@3"]);

    node.boots(KERNEL_A, b"app 1").await;
    let found = deviations(&world, &node);
    let codes: Vec<_> = found.iter().map(|(code, _)| code.as_str()).collect();
    assert_eq!(codes, ["boot_application", "runtime_unknown_file"]);
    assert!(found[0].1.contains(&digest(KERNEL_A).to_string()), "{found:?}");

    // Every step is on record, with who did it and why.
    let filter = rootbound_verifier::store::RecordFilter {
        kinds: vec![rootbound_verifier::audit::RecordKind::ReferenceChange],
        ..Default::default()
    };
    let records = verifier.store().records(&filter, None, 100).await.unwrap().records;
    for action in ["put_boot_set", "stage_set", "promote_set"] {
        let found = records.iter().find(|one| one.record.action.as_str() == action).expect(action);
        assert_eq!(found.record.detail.as_str(), "because");
        assert!(!found.record.versions.is_empty(), "{action}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn update_that_is_taken_back_leaves_what_was_before_in_force() {
    let (world, mut node) = affirming().await;
    let verifier = &world.verifier;
    let kernel_set = which(SetKind::Boot, "kernel");
    assert_eq!(code(verifier.unstage_set(&kernel_set, &operator()).await), "set_not_staged");
    verifier.stage_set(name("kernel"), None, kernel("6.2", KERNEL_B), &operator()).await.unwrap();
    node.boots(KERNEL_B, b"app 1").await;
    is_affirming(&world, &node, &["kernel@2"]);
    let back = verifier.unstage_set(&kernel_set, &operator()).await.unwrap();
    assert_eq!((back.id.version, back.reappraised.now_contraindicated), (1, 1));
    assert_eq!(world.deviations(node.simulated.node), ["boot_application"]);
    node.boots(KERNEL_A, b"app 1").await;
    is_affirming(&world, &node, &["kernel@1"]);
    verifier.withdraw_set(&WhichSet { kind: None, ..kernel_set }, &operator()).await.unwrap();
    assert_eq!(world.deviations(node.simulated.node), ["boot_application"], "and without a set nothing is");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_denied_wins_over_every_set_within_one_call_and_names_label_and_version() {
    let (mut world, node) = affirming().await;
    let pcr_0 = PcrSelection::of_bank(BANK, pcrs([0]));
    let pcr_0 = node.simulated.tpm.values(&pcr_0).iter().map(|(_, _, value)| *value).next().unwrap();
    let denied = [
        (digest(KERNEL_A), "boot_denied", "CVE-2026-1"),
        (digest(b"app 1"), "runtime_denied", "CVE-2026-2"),
        (pcr_0, "pcr_denied", "CVE-2026-3"),
    ];
    for (version, (digest, expected, label)) in [1, 3, 5].into_iter().zip(denied) {
        let digest = TaggedDigest(digest);
        let entries = [(DeniedAs::Digest, digest)];
        let (list, reappraised) = world.verifier.deny(&entries, label, &operator()).await.unwrap();
        assert_eq!((list.version(), reappraised.now_contraindicated), (version, 1));
        let words = format!("{label} (deny@{version})");
        let found = deviations(&world, &node);
        assert!(
            matches!(&found[..], [(code, detail)] if code == expected && detail.contains(&words)),
            "{found:?}"
        );
        let again = world.verifier.deny(&entries, label, &operator()).await;
        assert_eq!(code(again), "deny_list_refused");
        world.restart().await;
        assert_eq!(world.deviations(node.simulated.node), [expected], "and after a restart");
        let (list, reappraised) = world.verifier.undeny(&[digest], &operator()).await.unwrap();
        assert_eq!((list.version(), reappraised.now_affirming), (version + 1, 1));
        assert_eq!(code(world.verifier.undeny(&[digest], &operator()).await), "not_denied");
    }
    is_affirming(&world, &node, &["kernel@1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_is_told_what_is_wrong_with_a_set() {
    let (world, _node) = affirming().await;
    let verifier = &world.verifier;
    let put = async |set: &str, values| verifier.put_set(name(set), values, &operator()).await;
    assert_eq!(code(put("kernel", SetValues::Boot(BootValues::new(BANK, vec![]))).await), "boot_set_refused");
    let event = Measured::Event { pcr: PcrIndex::new(11).unwrap(), digest: TaggedDigest(digest(b"phase")) };
    let values = vec![BootValue { measured: event, label: String::new(), source: Source::default() }];
    let odd = SetValues::Boot(BootValues::new(BANK, values));
    assert_eq!(code(put("kernel", odd.clone()).await), "boot_set_contradicts_profile");
    assert_eq!(
        code(verifier.stage_set(name("kernel"), None, odd, &operator()).await),
        "boot_set_contradicts_profile"
    );
    for values in [kernel("1", b"x"), files(&[b"x"]), SetValues::Pcrs(pcr(b"x"))] {
        assert_eq!(code(put("deny", values).await), "set_name_reserved");
    }
    assert_eq!(
        code(verifier.stage_set(name("none"), None, kernel("1", b"x"), &operator()).await),
        "not_found"
    );
    let overtaken = verifier.stage_set(name("kernel"), Some(9), kernel("1", b"x"), &operator()).await;
    assert_eq!(code(overtaken), "set_overtaken");
    put("kernel", files(&[b"x"])).await.unwrap();
    for set in ["gone", "there"] {
        put(set, files(&[b"y"])).await.unwrap();
    }
    verifier.withdraw_set(&which(SetKind::Digests, "gone"), &operator()).await.unwrap();
    let (gone, there) = (which(SetKind::Digests, "gone"), which(SetKind::Digests, "there"));
    assert_eq!(code(verifier.merge_sets(&gone, &there, name("both"), &operator()).await), "set_withdrawn");
    let by_version = WhichSet { version: Some(1), ..gone };
    verifier.merge_sets(&by_version, &there, name("both"), &operator()).await.unwrap();
    let of_two_kinds = WhichSet { kind: None, name: name("kernel"), version: None };
    assert_eq!(code(verifier.read_set(&of_two_kinds).await), "set_kind_ambiguous");
    let (boot, digests) = (which(SetKind::Boot, "kernel"), which(SetKind::Digests, "kernel"));
    assert_eq!(code(verifier.diff_sets(&boot, &digests, 9).await), "set_kinds_differ");
    let no_label = [(DeniedAs::Digest, TaggedDigest(digest(b"x")))];
    assert_eq!(code(verifier.deny(&no_label, "", &operator()).await), "deny_list_refused");
}

fn pcr(value: &[u8]) -> AcceptedPcrs {
    AcceptedPcrs::new([(PcrIndex::new(0).unwrap(), digest(value))]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn two_versions_of_every_kind_are_compared_and_merged() {
    let (world, _node) = affirming().await;
    let verifier = &world.verifier;
    let versions = [
        (kernel("1", b"a"), kernel("2", b"b")),
        (files(&[b"a", b"both"]), files(&[b"b", b"both"])),
        (SetValues::Pcrs(pcr(b"a")), SetValues::Pcrs(pcr(b"b"))),
    ];
    for (kind, (one, other)) in [SetKind::Boot, SetKind::Digests, SetKind::Pcrs].into_iter().zip(versions) {
        let set = format!("{kind}");
        verifier.put_set(name(&set), one, &operator()).await.unwrap();
        verifier.put_set(name(&set), other, &operator()).await.unwrap();
        let at = |version| WhichSet { version: Some(version), ..which(kind, &set) };
        let diff = verifier.diff_sets(&at(1), &at(2), 9).await.unwrap();
        let shared = u64::from(kind == SetKind::Digests);
        assert_eq!((diff.removed, diff.added, diff.shared, diff.left_out), (1, 1, shared, 0));
        let sides: Vec<_> = diff.differences.iter().map(|one| one.side).collect();
        assert_eq!(sides, [Side::Removed, Side::Added]);
        assert!(diff.differences[0].value.contains(&digest(b"a").to_string()), "{diff:?}");
        assert_eq!(diff.differences[1].source.contains("linux 2"), kind == SetKind::Boot, "{diff:?}");
        let bounded = verifier.diff_sets(&at(1), &at(2), 1).await.unwrap();
        assert_eq!((bounded.differences.len(), bounded.left_out), (1, 1));
        let merged = verifier.merge_sets(&at(1), &at(2), name("merged"), &operator()).await.unwrap();
        assert_eq!(merged.kind, kind);
        let found = verifier.read_set(&which(kind, "merged")).await.unwrap();
        assert_eq!(u64::try_from(found.content.len()).unwrap(), 2 + shared);
        assert!(found.provenance.reason.contains(&format!("{set}@1 and {set}@2 merged")), "{found:?}");
        let same = verifier.diff_sets(&at(2), &which(kind, &set), 9).await.unwrap();
        assert_eq!((same.removed, same.added), (0, 0), "without a version: the current one");
    }
}

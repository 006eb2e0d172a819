//! What a dry run says comes true when the same is put in force, and until then nothing has changed; why a node deviates;
//! what nodes share.

use std::sync::Arc;

use rootbound_common::blob::Blob;
use rootbound_common::crypto::hash;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet};
use rootbound_common::wire::v1::{BootLogPart, DeviationReport, EvidenceRequest, ImaPart, PostureStatus};
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::measured_logs::{BootLog, ImaList};
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Simulated, World, operator};
use rootbound_verifier::appraisal::Verdict;
use rootbound_verifier::appraisal::runtime::{DigestSet, RuntimeRules};
use rootbound_verifier::audit::RecordKind;
use rootbound_verifier::flows::Verifier;
use rootbound_verifier::flows::survey::SurveyError;
use rootbound_verifier::flows::survey::dry_run::{DryRunPage, Proposal};
use rootbound_verifier::flows::survey::shared::WhichFiles;
use rootbound_verifier::flows::survey::why::{Explained, GroupKind, Why};
use rootbound_verifier::node::{Labels, Name};
use rootbound_verifier::reference::{AcceptedPcrs, LogKind, ProfileBody, ReferenceChange};
use rootbound_verifier::store::RecordFilter;

const BANK: HashAlgorithm = HashAlgorithm::Sha256;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn pcrs(indices: impl IntoIterator<Item = u8>) -> PcrSet {
    indices.into_iter().filter_map(PcrIndex::new).collect()
}

/// Begins a dry run, waits until it is done, and reads it.
async fn dry_run(verifier: &Arc<Verifier>, proposals: Vec<Proposal>) -> DryRunPage {
    let mut progress = verifier.dry_run(proposals, &operator()).await.unwrap();
    while !progress.finished {
        tokio::task::yield_now().await;
        progress = verifier.dry_run_progress(progress.id).unwrap();
    }
    verifier.dry_run_page(progress.id, None, 100).unwrap()
}

/// All that a dry run must not change.
async fn state(world: &World, nodes: &[NodeId]) -> String {
    let store = world.verifier.store();
    let mut state = String::new();
    for id in nodes {
        let node = store.node(*id).await.unwrap().unwrap();
        let live = world.verifier.fleet().node(*id).unwrap();
        let (logs, decisions) =
            (store.logs(*id).await.unwrap(), store.decisions(Some(*id), 100).await.unwrap());
        state += &format!("{} {:?} {live:?} {logs:?} {decisions:?}\n", node.revision, node.last_seen);
    }
    let (sets, digests) = (store.reference_sets().await.unwrap(), store.digest_sets().await.unwrap());
    format!("{state}{sets:?} {digests:?} {:?}", store.profiles().await.unwrap())
}

fn now_of(world: &World, node: NodeId) -> (Verdict, Vec<DeviationReport>) {
    let live = world.verifier.fleet().node(node).unwrap();
    let posture = live.posture.as_ref().unwrap();
    (posture.verdict, posture.deviations.clone())
}

/// Holds a prediction for one node to become affirming and one to become contraindicated against what came of it.
fn assert_came_true(world: &World, page: &DryRunPage, gone: &[(NodeId, Vec<DeviationReport>)]) {
    for changed in &page.changed {
        let (verdict, mut deviations) = now_of(world, changed.node);
        assert_eq!(verdict, changed.would_be, "{}", changed.node);
        if verdict == Verdict::Affirming {
            let before = gone.iter().find(|(node, _)| *node == changed.node).unwrap();
            deviations = before.1.clone();
        }
        // The first ones are kept, and the others counted.
        let more = deviations.len() - changed.deviations.len();
        deviations.truncate(changed.deviations.len());
        assert_eq!((deviations, u64::try_from(more).unwrap()), (changed.deviations.clone(), changed.more));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn real_machines_turn_as_a_dry_run_of_pcr_values_said_and_not_before() {
    let (old, new) = (Swtpm::manufacture(), Swtpm::manufacture());
    let world = World::new(&[old.manufacturer(), new.manufacturer()]).await;
    let old = world.affirming(old).await;
    let mut new = world.admitted(new).await;
    new.swtpm.reboot_into(7);
    new.restart(&world);
    new.attest_anew().await.unwrap();
    let (old, new) = (old.node().await, new.node().await);
    assert_eq!(world.status(new), PostureStatus::Contraindicated, "another boot than the captured one");
    let gone = vec![(new, now_of(&world, new).1)];

    let quote = world.verifier.store().last_quote(new).await.unwrap().unwrap();
    let accepted = AcceptedPcrs::captured(&quote.pcrs).unwrap();
    let before = state(&world, &[old, new]).await;
    let change = ReferenceChange::Set(name("default"), accepted.clone());
    let page = dry_run(&world.verifier, vec![Proposal::Change(change)]).await;
    assert_eq!(state(&world, &[old, new]).await, before, "nothing has changed");
    let summary = &page.summary;
    assert_eq!((summary.nodes, summary.to_contraindicated, summary.to_affirming), (2, 1, 1));
    assert!(!summary.outdated);
    assert_eq!(summary.arising[0].code, "pcr_mismatch");
    assert_eq!(summary.resolved[0].code, "pcr_mismatch");
    let filter = RecordFilter { kinds: vec![RecordKind::OperatorAction], ..RecordFilter::default() };
    let trail = world.verifier.store().records(&filter, None, 10).await.unwrap();
    let record = &trail.records[0].record;
    assert_eq!(
        (record.id, record.action.as_str()),
        (summary.id, "dry_run"),
        "the trail says that it was asked"
    );

    let (_, turned) = world.verifier.put_reference_set(name("default"), accepted, &operator()).await.unwrap();
    assert_eq!((turned.now_contraindicated, turned.now_affirming), (1, 1));
    assert_came_true(&world, &page, &gone);
    let turned: Vec<_> = page.changed.iter().map(|changed| (changed.node, changed.would_be)).collect();
    let mut expected = vec![(old, Verdict::Contraindicated), (new, Verdict::Affirming)];
    expected.sort_by_key(|(node, _)| *node);
    assert_eq!(turned, expected);
}

/// A node of software keys with logs.
struct Node {
    simulated: Simulated,
    boot: BootLog,
    ima: ImaList,
}

impl Node {
    /// Boots this kernel, runs these programs, and shows it.
    async fn started(world: &World, kernel: &str, programs: &[&str]) -> Self {
        let mut tpm = SoftwareTpm::booted(&[BANK]);
        let mut boot = BootLog::of_boot(0);
        boot.separators(&mut tpm);
        boot.application(&mut tpm, kernel.as_bytes());
        let values = tpm.values(&PcrSelection::of_bank(BANK, pcrs(0..10)));
        let mut ima = ImaList::begin(&mut tpm, &values);
        for path in programs {
            ima.run(&mut tpm, path, path.as_bytes());
        }
        let mut node = Self { simulated: world.simulated(tpm).await, boot, ima };
        node.attest().await;
        node
    }

    async fn attest(&mut self) {
        let challenge = self.simulated.challenge().await.unwrap();
        self.simulated.tpm.clock.clock += 1;
        let evidence = EvidenceRequest {
            boot_log: Some(BootLogPart::Present { zstd: frame(self.boot.bytes()) }),
            ima: Some(ImaPart::Present { from: 0, zstd: frame(&self.ima.bytes(0)), more: false }),
            ..self.simulated.answer(&challenge)
        };
        self.simulated.submit(evidence).await.unwrap();
    }

    fn id(&self) -> NodeId {
        self.simulated.node
    }
}

fn frame<const MAX: usize>(bytes: &[u8]) -> Blob<MAX> {
    Blob::new(zstd::encode_all(bytes, 1).unwrap()).unwrap()
}

/// Logs are kept, and judged by nobody; PCR 4 is not pinned.
fn collect(body: &mut ProfileBody) {
    body.pcrs = PcrSelection::of_bank(BANK, pcrs((0..=10).chain([14])));
    body.collect = vec![LogKind::BootLog, LogKind::Ima];
    body.ignored = pcrs([4, 10]);
}

/// What runs is judged by the digest set `default`.
fn judge_runtime(body: &mut ProfileBody) {
    body.runtime = Some(RuntimeRules { digest_sets: vec![name("default")], ..RuntimeRules::default() });
    body.ignored = pcrs([4]);
}

fn line(path: &str) -> String {
    format!("sha256:{}  {path}\n", hash(BANK, &[path.as_bytes()]))
}

fn text(paths: &[&str]) -> String {
    paths.iter().map(|path| line(path)).collect()
}

async fn put_digests(world: &World, set: &str, text: &str) {
    let frame = zstd::encode_all(text.as_bytes(), 1).unwrap();
    world.verifier.put_digest_set(name(set), &frame, &operator()).await.unwrap();
}

fn digests(set: &str, text: &str) -> Proposal {
    Proposal::DigestText(name(set), zstd::encode_all(text.as_bytes(), 1).unwrap())
}

/// Two nodes, of which the first runs what is accepted, and the second something else; a third has shown nothing.
async fn fleet() -> (World, Node, Node, NodeId) {
    let world = World::new(&[]).await;
    world.change_profile(collect).await;
    let old = Node::started(&world, "kernel", &["/usr/bin/init", "/usr/bin/old"]).await;
    let new = Node::started(&world, "kernel", &["/usr/bin/init", "/usr/bin/new"]).await;
    let silent = world.simulated(SoftwareTpm::booted(&[BANK])).await.node;
    world.capture(old.id()).await;
    put_digests(&world, "default", &text(&["/usr/bin/init", "/usr/bin/old"])).await;
    world.change_profile(judge_runtime).await;
    assert_eq!(world.status(old.id()), PostureStatus::Affirming, "{:?}", world.deviations(old.id()));
    assert_eq!(world.deviations(new.id()), ["runtime_unknown_file"]);
    (world, old, new, silent)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_turn_as_a_dry_run_of_digests_said_and_not_before() {
    let (world, old, new, silent) = fleet().await;
    let nodes = [old.id(), new.id(), silent];
    let gone = vec![(new.id(), now_of(&world, new.id()).1)];
    let before = state(&world, &nodes).await;
    let proposed = text(&["/usr/bin/init", "/usr/bin/new"]);
    let page = dry_run(&world.verifier, vec![digests("default", &proposed)]).await;
    assert_eq!(state(&world, &nodes).await, before, "nothing has changed");
    let summary = &page.summary;
    assert_eq!((summary.nodes, summary.to_contraindicated, summary.to_affirming), (3, 1, 1));
    assert_eq!((summary.without_evidence, summary.moved), (1, 0));
    assert_eq!(summary.arising[0].code, "runtime_unknown_file");
    assert_eq!(summary.changes, ["digest set default"]);

    put_digests(&world, "default", &proposed).await;
    assert_came_true(&world, &page, &gone);
    assert_eq!(world.status(new.id()), PostureStatus::Affirming);
    assert_eq!(world.deviations(old.id()), ["runtime_unknown_file"]);
    let again = dry_run(&world.verifier, vec![digests("default", &proposed)]).await.summary;
    assert_eq!((again.still_affirming, again.still_contraindicated), (1, 1), "the same again turns nobody");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_are_supposed_together_and_a_profile_may_ask_for_boot_rules() {
    let (world, old, new, _) = fleet().await;
    let mut rules = world.verifier.show_boot(old.id()).await.unwrap().rules;
    assert!(rules.explained.contains(PcrIndex::new(4).unwrap()));
    let other = Node::started(&world, "another kernel", &["/usr/bin/init"]).await;
    assert_eq!(world.status(other.id()), PostureStatus::Affirming, "PCR 4 is not judged");
    rules.firmware = None;
    rules.secure_boot = None;
    rules.drivers = Vec::new();
    rules.explained = pcrs([4]);
    rules.events.retain(|event| event.pcr.get() == 4);
    rules.initrds = Vec::new();
    rules.command_line = None;
    let profiles = world.verifier.store().profiles().await.unwrap();
    let mut body = profiles.last().unwrap().body().clone();
    body.boot = Some(rules);
    body.ignored = PcrSet::EMPTY;
    let proposals = || {
        vec![
            Proposal::Change(ReferenceChange::Profile(name("default"), Box::new(body.clone()))),
            digests("default", &text(&["/usr/bin/init", "/usr/bin/old", "/usr/bin/new"])),
        ]
    };
    let page = dry_run(&world.verifier, proposals()).await;
    let turned: Vec<_> = page.changed.iter().map(|changed| (changed.node, changed.would_be)).collect();
    let mut expected = [(new.id(), Verdict::Affirming), (other.id(), Verdict::Contraindicated)];
    expected.sort_by_key(|(node, _)| *node);
    assert_eq!(turned, expected, "{page:?}");
    let codes: Vec<_> = page.summary.arising.iter().map(|count| count.code.as_str()).collect();
    assert_eq!(codes, ["boot_application"], "what the firmware started first is accepted");

    world.change_profile(|now| *now = body.clone()).await;
    put_digests(&world, "default", &text(&["/usr/bin/init", "/usr/bin/old", "/usr/bin/new"])).await;
    let gone = vec![(new.id(), page.changed.iter().find(|c| c.node == new.id()).unwrap().deviations.clone())];
    assert_came_true(&world, &page, &gone);
    let kernel =
        explained(&world.verifier.why(other.id(), 50).await.unwrap(), GroupKind::Boot, "boot_application");
    assert_eq!(kernel.nearest.len(), 2, "of the two that were started: {kernel:?}");
    assert!(kernel.nearest[0].place.starts_with("boot_applications of profile default@"), "{kernel:?}");
    let withdrawn = vec![Proposal::Change(ReferenceChange::Withdraw(None, name("nothing")))];
    let refused = world.verifier.dry_run(withdrawn, &operator()).await.unwrap_err();
    assert_eq!(refused.code(), "no_set_to_withdraw");
    let last = world.verifier.dry_run_progress(page.summary.id).unwrap_err();
    assert!(matches!(last, SurveyError::NoSuchRun), "another came after it: {last}");
}

/// The one deviation with this code.
fn explained(why: &Why, kind: GroupKind, code: &str) -> Explained {
    let group = why.groups.iter().find(|group| group.kind == kind && group.code == code);
    let group = group.unwrap_or_else(|| panic!("no {code}: {why:?}"));
    assert_eq!(group.deviations.len(), 1, "{group:?}");
    group.deviations[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn why_a_node_deviates_is_told_with_what_comes_nearest() {
    let (world, old, new, silent) = fleet().await;
    let why = world.verifier.why(new.id(), 50).await.unwrap();
    assert_eq!((why.verdict, why.deviations, why.more), (Verdict::Contraindicated, 1, 0));
    let unknown = explained(&why, GroupKind::Runtime, "runtime_unknown_file");
    assert_eq!((unknown.nearest.len(), &unknown.explanation), (0, &None));
    assert_eq!(why.groups[0].of.as_deref(), Some("/usr/bin"), "by folder, where no set knows it");
    let affirming = world.verifier.why(old.id(), 50).await.unwrap();
    assert_eq!((affirming.verdict, affirming.groups.len()), (Verdict::Affirming, 0));

    // A set that the profile does not name has another version of it, from a package.
    let packages = [
        "# source: package base 1.0\n".to_owned(),
        line("/usr/bin/init"),
        "# source: package tools 2.0\n".to_owned(),
        format!("sha256:{}  /usr/bin/new\n", "ab".repeat(32)),
    ];
    put_digests(&world, "packages", &packages.concat()).await;
    let why = world.verifier.why(new.id(), 50).await.unwrap();
    let other_version = explained(&why, GroupKind::Runtime, "runtime_unknown_file");
    assert_eq!(why.groups[0].of.as_deref(), Some("package tools 2.0"));
    assert_eq!(other_version.nearest[0].source.as_deref(), Some("package tools 2.0"));
    assert_eq!(other_version.nearest[0].label, "/usr/bin/new");
    assert!(other_version.explanation.unwrap().contains("another version of it ran"));

    // The same file elsewhere, and then the file itself.
    let moved = format!("sha256:{}  /opt/new\n", hash(BANK, &[b"/usr/bin/new"]));
    put_digests(&world, "packages", &moved).await;
    let why = world.verifier.why(new.id(), 50).await.unwrap();
    let elsewhere = explained(&why, GroupKind::Runtime, "runtime_unknown_file");
    assert!(elsewhere.explanation.unwrap().contains("known at `/opt/new`"));
    put_digests(&world, "packages", &line("/usr/bin/new")).await;
    let why = world.verifier.why(new.id(), 50).await.unwrap();
    let named = explained(&why, GroupKind::Runtime, "runtime_unknown_file").explanation.unwrap();
    assert!(named.contains("packages@3") && named.contains("does not accept it by that set"), "{named}");
    world.verifier.remove_digest_set(&name("packages"), &operator()).await.unwrap();
    let why = world.verifier.why(new.id(), 50).await.unwrap();
    let withdrawn = explained(&why, GroupKind::Runtime, "runtime_unknown_file").explanation.unwrap();
    assert!(withdrawn.contains("withdrawn"), "{withdrawn}");

    // A PCR value that an older version accepts.
    let (quote, bank) = (world.verifier.store().last_quote(old.id()).await.unwrap().unwrap(), BANK);
    let mut values: Vec<_> = quote.pcrs.iter().map(|(_, pcr, value)| (pcr, *value)).collect();
    values.retain(|(pcr, _)| pcr.get() != 0);
    values.push((PcrIndex::new(0).unwrap(), hash(bank, &[b"firmware to come"])));
    let accepted = AcceptedPcrs::new(values).unwrap();
    world.verifier.put_reference_set(name("default"), accepted, &operator()).await.unwrap();
    let why = world.verifier.why(old.id(), 50).await.unwrap();
    let mismatch = explained(&why, GroupKind::Pcr, "pcr_mismatch");
    assert_eq!(mismatch.nearest.len(), 1);
    assert!(mismatch.explanation.unwrap().contains("default@1 accepts it, which is not the newest version"));
    let none = world.verifier.why(silent, 50).await.unwrap_err();
    assert_eq!(none.code(), "no_evidence");
    let two = world.verifier.why(new.id(), 1).await.unwrap();
    assert_eq!((two.deviations, two.more), (2, 1), "bounded");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nodes_share_is_captured_and_the_rest_is_named() {
    let (world, old, new, silent) = fleet().await;
    let other = Node::started(&world, "another kernel", &["/usr/bin/init"]).await;
    let both = vec![new.id(), old.id(), new.id()];
    let shared =
        world.verifier.capture_shared(both, Labels::default(), Some(WhichFiles::Shared)).await.unwrap();
    let mut ids = vec![old.id(), new.id()];
    ids.sort();
    assert_eq!(shared.nodes, ids, "each once");
    let accepted = shared.accepted.unwrap();
    assert_eq!(accepted.iter().count(), 11, "PCRs 0 to 9 and 14");
    assert!(shared.left_out.iter().any(|line| line.starts_with("sha256 PCR 10: 2 values on 2 nodes")));
    let files = shared.files.unwrap();
    assert_eq!((files.digests, files.on_all, files.on_some, files.differing_paths), (1, 1, 2, 0));
    let expected = format!("# source: ran on every one of 2 nodes\n{}", line("/usr/bin/init"));
    assert_eq!(files.text, expected);
    assert_eq!(DigestSet::parse(files.text.as_bytes()).unwrap().len(), 1);
    let rules = shared.boot.unwrap();
    assert!(rules.explained.contains(PcrIndex::new(4).unwrap()), "one kernel");

    let all = vec![old.id(), new.id(), other.id()];
    let shared = world.verifier.capture_shared(all, Labels::default(), Some(WhichFiles::All)).await.unwrap();
    let rules = shared.boot.unwrap();
    assert!(!rules.explained.contains(PcrIndex::new(4).unwrap()), "two kernels");
    let kernels = shared.left_out.iter().filter(|line| line.starts_with("PCR 4 differs")).count();
    assert_eq!(kernels, 2, "{:?}", shared.left_out);
    assert_eq!(shared.files.unwrap().digests, 3);
    let explained: Vec<_> = rules.explained.iter().collect();
    assert!(!explained.is_empty(), "{:?}", shared.left_out);
    world
        .change_profile(|body| {
            body.boot = Some(rules);
            body.ignored = pcrs([4]);
        })
        .await;
    assert_eq!(world.deviations(old.id()), [""; 0], "the rules accept each of them");
    assert_eq!(world.deviations(other.id()), [""; 0]);

    world.verifier.label(old.id(), vec![(name("env"), Some(name("prod")))], &operator()).await.unwrap();
    world.verifier.label(silent, vec![(name("env"), Some(name("prod")))], &operator()).await.unwrap();
    let mut prod = Labels::default();
    prod.set(name("env"), Some(name("prod"))).unwrap();
    let labelled = world.verifier.capture_shared(Vec::new(), prod, None).await.unwrap();
    assert_eq!((labelled.nodes, labelled.files), (vec![old.id()], None));
    assert!(labelled.left_out.iter().any(|line| line.contains("no evidence")), "{:?}", labelled.left_out);

    let none = world.verifier.capture_shared(vec![silent], Labels::default(), None).await.unwrap_err();
    assert_eq!(none.code(), "no_evidence");
    let nobody = world.verifier.capture_shared(Vec::new(), Labels::default(), None).await.unwrap_err();
    assert_eq!(nobody.code(), "no_nodes_named");
    let many = (0..65u8).map(|number| NodeId::from_bytes([number; 32])).collect();
    let many = world.verifier.capture_shared(many, Labels::default(), None).await.unwrap_err();
    assert_eq!(many.code(), "too_many_nodes");
}

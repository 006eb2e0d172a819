//! Machines that are judged by what they booted and what they run: the real attester reads their logs, a real TPM quotes
//! what was measured.

use std::path::PathBuf;
use std::time::Duration;

use rootbound_common::blob::Blob;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, PcrIndex, PcrSelection, PcrSet};
use rootbound_common::wire::v1::{
    BootLogPart, Challenge, EvidenceRequest, EvidenceResponse, ImaPart, PostureStatus,
};
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::measured_logs::{BootLog, ImaList};
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Machine, Simulated, World, operator};
use rootbound_verifier::appraisal::runtime::RuntimeRules;
use rootbound_verifier::node::Name;
use rootbound_verifier::reference::{LogKind, ProfileBody};

const BANK: HashAlgorithm = HashAlgorithm::Sha256;

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn pcrs(indices: impl IntoIterator<Item = u8>) -> PcrSet {
    indices.into_iter().filter_map(PcrIndex::new).collect()
}

/// PCR 10 is quoted too; logs are kept, and judged by nobody yet.
fn collect(body: &mut ProfileBody) {
    body.pcrs = PcrSelection::of_bank(BANK, pcrs((0..=10).chain([14])));
    body.collect = vec![LogKind::BootLog, LogKind::Ima];
    body.ignored = pcrs([10]);
}

/// Runs are judged by the digest set `default`.
fn judge_runtime(body: &mut ProfileBody) {
    body.runtime = Some(RuntimeRules { digest_sets: vec![name("default")], ..RuntimeRules::default() });
    body.ignored = PcrSet::EMPTY;
}

/// A machine with logs.
struct Logged {
    machine: Machine,
    boot: BootLog,
    ima: ImaList,
}

impl Logged {
    async fn start(world: &World, swtpm: Swtpm) -> (Self, NodeId) {
        let machine = world.admitted(swtpm).await;
        let node = machine.node().await;
        let mut logged = Self { machine, boot: BootLog::new(), ima: ImaList::default() };
        logged.boot(0).await;
        (logged, node)
    }

    /// What the firmware and the kernel write down of the boot that the TPM has just measured.
    async fn boot(&mut self, seed: u64) {
        self.boot = BootLog::of_boot(seed);
        self.boot.separators(&self.machine.swtpm);
        let all = PcrSelection::of_bank(BANK, pcrs(0..10));
        let values = self.machine.tpm.read_pcrs(&all).await.unwrap();
        self.ima = ImaList::begin(&self.machine.swtpm, &values);
        self.ima.run(&self.machine.swtpm, "/usr/bin/init", b"init");
        self.show();
    }

    fn run(&mut self, path: &str) {
        self.ima.run(&self.machine.swtpm, path, path.as_bytes());
        self.show();
    }

    /// Writes the logs where the attester finds them.
    fn show(&self) {
        std::fs::write(self.path("boot-log"), self.boot.bytes()).unwrap();
        std::fs::write(self.path("ima"), self.ima.bytes(0)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.machine.dir().join(name)
    }

    async fn attest(&mut self) -> Duration {
        self.machine.attest_anew().await.unwrap()
    }
}

/// A world in which one machine is affirming by its PCRs, its boot log and its IMA list.
async fn judged() -> (World, Logged, NodeId) {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    world.change_profile(collect).await;
    let (mut logged, node) = Logged::start(&world, swtpm).await;
    logged.attest().await;
    world.capture(node).await;
    assert_eq!(world.status(node), PostureStatus::Affirming, "logs that are only kept change nothing");

    let captured = world.verifier.capture_digests(node, name("default"), &operator()).await.unwrap();
    assert_eq!((captured.set.digests.len(), captured.left_out), (1, 0), "init");
    let boot = world.verifier.show_boot(node).await.unwrap();
    assert!(boot.rules.explained.contains(PcrIndex::new(4).unwrap()), "{:?}", boot.left_out);
    world
        .change_profile(|body| {
            judge_runtime(body);
            body.boot = Some(boot.rules);
        })
        .await;
    assert_eq!(
        world.status(node),
        PostureStatus::Affirming,
        "by what was kept: {:?}",
        world.deviations(node)
    );
    logged.attest().await;
    assert_eq!(world.status(node), PostureStatus::Affirming, "{:?}", world.deviations(node));
    (world, logged, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn program_that_nobody_knows_is_named_within_one_attestation_and_accepted_once_it_is_listed() {
    let (world, mut logged, node) = judged().await;
    logged.run("/usr/bin/odd");
    logged.attest().await;
    assert_eq!(world.deviations(node), ["runtime_unknown_file"]);
    let live = world.verifier.fleet().node(node).unwrap();
    let detail = &live.posture.as_ref().unwrap().deviations[0].detail;
    assert!(detail.contains("/usr/bin/odd"), "{detail}");
    logged.run("/usr/bin/init");
    logged.attest().await;
    assert!(world.deviations(node).contains(&"runtime_unknown_file".to_owned()), "what ran has run");

    world.verifier.capture_digests(node, name("default"), &operator()).await.unwrap();
    assert_eq!(
        world.status(node),
        PostureStatus::Affirming,
        "every entry is judged again: {:?}",
        world.deviations(node)
    );
    logged.attest().await;
    assert_eq!(world.status(node), PostureStatus::Affirming);
    world.verifier.remove_digest_set(&name("default"), &operator()).await.unwrap();
    assert_eq!(world.status(node), PostureStatus::Contraindicated, "and nothing is accepted without a set");
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_stays_affirming_over_a_reboot_and_sends_each_log_once() {
    let (world, mut logged, node) = judged().await;
    let kept = world.verifier.store().logs(node).await.unwrap().unwrap();
    logged.attest().await;
    let again = world.verifier.store().logs(node).await.unwrap().unwrap();
    assert_eq!(again.boot_log, kept.boot_log);
    logged.machine.swtpm.reboot();
    logged.boot(0).await;
    logged.machine.restart(&world);
    logged.attest().await;
    assert_eq!(world.status(node), PostureStatus::Affirming, "{:?}", world.deviations(node));
    let anew = world.verifier.store().logs(node).await.unwrap().unwrap();
    assert!(anew.reset_count > kept.reset_count, "{anew:?}");

    logged.machine.swtpm.reboot_into(7);
    logged.boot(7).await;
    logged.machine.restart(&world);
    logged.attest().await;
    let codes = world.deviations(node);
    assert!(codes.contains(&"boot_application".to_owned()), "{codes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn entry_that_is_hidden_ends_trust_and_is_found_when_it_comes_back() {
    let (world, mut logged, node) = judged().await;
    let whole = logged.ima.clone();
    logged.run("/usr/bin/odd");
    let with_odd = logged.ima.clone();
    logged.ima = whole;
    logged.show();
    let pause = logged.attest().await;
    assert_eq!(world.deviations(node), ["ima_quoted_value_not_reached"]);
    assert_eq!(pause, Duration::ZERO, "the whole list is asked for at once");
    let pause = logged.attest().await;
    assert_eq!(world.deviations(node), ["ima_quoted_value_not_reached"]);
    assert_eq!(pause, Duration::from_secs(60), "but not for ever");
    logged.ima = with_odd;
    logged.show();
    logged.attest().await;
    assert_eq!(world.deviations(node), ["runtime_unknown_file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn violation_is_a_deviation_and_the_kernel_may_drop_the_front_of_its_list() {
    let (world, mut logged, node) = judged().await;
    logged.ima.trim(2);
    logged.run("/usr/bin/odd");
    logged.attest().await;
    assert_eq!(world.deviations(node), ["runtime_unknown_file"], "the list went on from what was verified");
    logged.ima.violation(&logged.machine.swtpm, "/var/log/wtmp");
    logged.show();
    logged.attest().await;
    assert!(world.deviations(node).contains(&"runtime_violation".to_owned()), "{:?}", world.deviations(node));
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_that_are_not_there_are_deviations_of_their_own() {
    let (world, mut logged, node) = judged().await;
    logged.machine.swtpm.reboot();
    logged.boot(0).await;
    logged.machine.restart(&world);
    for log in ["boot-log", "ima"] {
        std::fs::remove_file(logged.path(log)).unwrap();
    }
    logged.attest().await;
    assert_eq!(world.deviations(node), ["boot_log_absent", "ima_list_absent"]);
    logged.show();
    logged.attest().await;
    assert_eq!(world.status(node), PostureStatus::Affirming, "{:?}", world.deviations(node));
}

#[tokio::test(flavor = "multi_thread")]
async fn operator_is_told_what_a_node_did_not_send_and_what_is_no_digest_set() {
    let world = World::new(&[]).await;
    let mut node = Composed::enrolled(&world).await;
    let id = node.node.node;
    let challenge = node.challenge().await;
    node.node.submit(node.node.answer(&challenge)).await.unwrap();
    let none = world.verifier.show_boot(id).await.unwrap_err();
    assert_eq!(none.code(), "no_log");
    let none = world.verifier.capture_digests(id, name("base"), &operator()).await.unwrap_err();
    assert_eq!(none.code(), "no_log");
    node.boot = BootLog::new();
    node.send(0, node.ima.bytes(0), false).await;
    let silent = world.verifier.show_boot(id).await.unwrap_err();
    assert_eq!(silent.code(), "boot_log_refused", "{silent}");
    for text in [&b""[..], b"sha256:00  /bin/a\n", b"/bin/a\n"] {
        let frame = zstd::encode_all(text, 1).unwrap();
        let refused = world.verifier.put_digest_set(name("base"), &frame, &operator()).await.unwrap_err();
        assert_eq!(refused.code(), "digest_set_refused", "{refused}");
    }
    let damaged = world.verifier.put_digest_set(name("base"), b"no frame", &operator()).await.unwrap_err();
    assert_eq!(damaged.code(), "digest_set_refused");
    let gone = world.verifier.remove_digest_set(&name("base"), &operator()).await.unwrap_err();
    assert_eq!(gone.code(), "not_found");
}

/// A node of software keys whose messages the test composes.
struct Composed {
    node: Simulated,
    boot: BootLog,
    ima: ImaList,
}

impl Composed {
    /// Affirming by a digest set; only the IMA list is judged.
    async fn start(world: &World) -> Self {
        let mut composed = Self::enrolled(world).await;
        composed.send(0, composed.ima.bytes(0), false).await;
        world.capture(composed.node.node).await;
        world.verifier.capture_digests(composed.node.node, name("default"), &operator()).await.unwrap();
        world.change_profile(judge_runtime).await;
        assert_eq!(world.status(composed.node.node), PostureStatus::Affirming);
        composed
    }

    /// It has shown nothing yet; its logs are asked for, and judged by nobody.
    async fn enrolled(world: &World) -> Self {
        world.change_profile(collect).await;
        let mut tpm = SoftwareTpm::booted(&[BANK]);
        let mut boot = BootLog::of_boot(0);
        boot.separators(&mut tpm);
        let values = tpm.values(&PcrSelection::of_bank(BANK, pcrs(0..10)));
        let mut ima = ImaList::begin(&mut tpm, &values);
        ima.run(&mut tpm, "/usr/bin/init", b"init");
        Self { node: world.simulated(tpm).await, boot, ima }
    }

    fn run(&mut self, path: &str, content: &[u8]) {
        self.ima.run(&mut self.node.tpm, path, content);
    }

    async fn challenge(&self) -> Challenge {
        self.node.challenge().await.unwrap()
    }

    fn answer(&mut self, challenge: &Challenge) -> EvidenceRequest {
        self.node.tpm.clock.clock += 1;
        let boot_log = BootLogPart::Present { zstd: frame(self.boot.bytes()) };
        EvidenceRequest { boot_log: Some(boot_log), ..self.node.answer(challenge) }
    }

    async fn send(&mut self, from: u64, entries: Vec<u8>, more: bool) -> EvidenceResponse {
        let challenge = self.challenge().await;
        let ima = ImaPart::Present { from, zstd: frame(&entries), more };
        let evidence = EvidenceRequest { ima: Some(ima), ..self.answer(&challenge) };
        self.node.submit(evidence).await.unwrap()
    }
}

fn frame<const MAX: usize>(bytes: &[u8]) -> Blob<MAX> {
    Blob::new(zstd::encode_all(bytes, 1).unwrap()).unwrap()
}

fn codes(response: &EvidenceResponse) -> Vec<&str> {
    response.posture.deviations.iter().map(|deviation| deviation.code.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn list_that_comes_in_several_messages_counts_once_a_quote_covers_it() {
    let world = World::new(&[]).await;
    let mut node = Composed::start(&world).await;
    let id = node.node.node;
    for _ in 0..30 {
        node.run("/usr/bin/init", b"init");
    }
    let third = node.ima.bytes(2).len() / 30 * 10;
    let first = node.send(2, node.ima.bytes(2)[..third].to_vec(), true).await;
    assert_eq!(codes(&first), ["ima_list_incomplete"]);
    assert_eq!((first.next.attest_in, first.next.logs.known.unwrap().ima_entries), (0, 12));
    world.change_profile(|body| body.stale_after = 50).await;
    assert_eq!(world.deviations(id), ["ima_list_incomplete"], "it is on its way, whoever asks");
    let second = node.send(12, node.ima.bytes(12)[..third].to_vec(), true).await;
    assert_eq!(codes(&second), ["ima_list_incomplete"]);
    assert_eq!(world.status(id), PostureStatus::Contraindicated, "nothing covers it yet");
    let last = node.send(22, node.ima.bytes(22), false).await;
    assert_eq!(codes(&last), [""; 0]);
    assert_eq!(last.next.logs.known.unwrap().ima_entries, 32);
    // Whatever is judged again is judged from the first entry.
    world.verifier.remove_digest_set(&name("default"), &operator()).await.unwrap();
    assert_eq!(world.deviations(id).len(), 1, "one file, however often it ran: {:?}", world.deviations(id));
}

#[tokio::test(flavor = "multi_thread")]
async fn list_of_several_messages_that_does_not_come_to_its_quote_is_asked_for_at_once_only_once() {
    let world = World::new(&[]).await;
    let mut node = Composed::start(&world).await;
    for _ in 0..4 {
        node.run("/usr/bin/init", b"init");
    }
    let mut hidden = node.ima.clone();
    hidden.hide(4);
    let mut pauses = Vec::new();
    let mut from = 2;
    for _ in 0..3 {
        let part = hidden.bytes(from)[..hidden.bytes(from).len() - hidden.bytes(4).len()].to_vec();
        let part = node.send(u64::try_from(from).unwrap(), part, true).await;
        assert_eq!(codes(&part), ["ima_list_incomplete"]);
        let last = node.send(4, hidden.bytes(4), false).await;
        assert_eq!(codes(&last), ["ima_quoted_value_not_reached"]);
        assert_eq!(last.next.logs.known.unwrap().ima_entries, 0);
        pauses.push(last.next.attest_in);
        from = 0;
    }
    assert_eq!(pauses, [0, 60, 60]);
    let whole = node.send(0, node.ima.bytes(0), false).await;
    assert_eq!(codes(&whole), [""; 0]);
    let empty = node.send(6, Vec::new(), true).await;
    assert_eq!(codes(&empty), ["ima_list_part_empty"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn entries_after_the_quote_are_judged_whenever_rules_change_and_the_next_quote_has_to_cover_them() {
    let mut world = World::new(&[]).await;
    let mut node = Composed::start(&world).await;
    let id = node.node.node;
    for (path, content, expected) in
        [("/usr/bin/init", &b"init"[..], vec![]), ("/usr/bin/late", b"late", vec!["runtime_unknown_file"])]
    {
        let from = node.ima.len();
        let challenge = node.challenge().await;
        let evidence = node.answer(&challenge);
        node.run(path, content);
        let entries = frame(&node.ima.bytes(from));
        let from = u64::try_from(from).unwrap();
        let ima = ImaPart::Present { from, zstd: entries, more: false };
        let response = node.node.submit(EvidenceRequest { ima: Some(ima), ..evidence }).await.unwrap();
        assert_eq!(codes(&response), expected, "not covered yet, and judged all the same");
        let marked = response.posture.deviations.iter().all(|one| one.detail.contains("after the quote"));
        assert!(marked, "{:?}", response.posture.deviations);
        assert_eq!(response.next.logs.known.unwrap().ima_entries, from + 1);
        world.change_profile(|body| body.stale_after += 1).await;
        assert_eq!(world.deviations(id), expected, "judged again");
        world.restart().await;
        node.node.client = world.client();
        assert_eq!(world.deviations(id), expected, "and after a restart");
        let covered = node.send(from + 1, Vec::new(), false).await;
        assert_eq!(codes(&covered), expected);
    }
    let challenge = node.challenge().await;
    let mut evidence = node.answer(&challenge);
    let mut forged = ImaList::default();
    forged.run(&mut SoftwareTpm::new(), "/usr/bin/init", b"init");
    evidence.ima = Some(ImaPart::Present { from: 4, zstd: frame(&forged.bytes(0)), more: false });
    node.node.submit(evidence).await.unwrap();
    let uncovered = node.send(5, Vec::new(), false).await;
    assert!(codes(&uncovered).contains(&"ima_tail_not_covered"), "{:?}", codes(&uncovered));
    let whole = node.send(0, node.ima.bytes(0), false).await;
    assert_eq!(codes(&whole), ["runtime_unknown_file"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn boot_log_that_does_not_fit_is_asked_for_once_more_at_once() {
    let (world, mut logged, node) = judged().await;
    logged.machine.swtpm.reboot();
    logged.boot(0).await;
    logged.machine.restart(&world);
    let right = logged.boot.clone();
    logged.boot = BootLog::of_boot(0);
    logged.show();
    assert_eq!(logged.attest().await, Duration::ZERO);
    assert_eq!(world.deviations(node), ["boot_log_replay_mismatch"]);
    assert_eq!(logged.attest().await, Duration::from_secs(60));
    logged.boot = right;
    logged.show();
    logged.attest().await;
    assert_eq!(world.status(node), PostureStatus::Affirming, "{:?}", world.deviations(node));
}

/// The code of what is wrong, and what is sent instead of the list: from which entry on, and the bytes.
type Oddity = (&'static str, fn(&ImaList) -> (usize, Vec<u8>));

#[tokio::test(flavor = "multi_thread")]
async fn each_way_to_send_a_list_wrongly_is_refused_by_name_and_the_right_list_puts_it_right() {
    let world = World::new(&[]).await;
    let mut node = Composed::start(&world).await;
    let odd: [Oddity; 8] = [
        ("ima_list_out_of_step", |list| (list.len() + 5, list.bytes(0))),
        ("ima_list_out_of_step", |list| (1, list.bytes(1))),
        ("ima_quoted_value_not_reached", |list| {
            let mut hidden = list.clone();
            hidden.hide(1);
            (0, hidden.bytes(0))
        }),
        ("ima_quoted_value_not_reached", |list| (list.len() - 2, list.bytes(list.len() - 1))),
        ("ima_quoted_value_not_reached", |list| (list.len() - 2, Vec::new())),
        ("ima_quoted_value_not_reached", |list| {
            let mut edited = list.bytes(0);
            let at = edited.len() - 3;
            edited[at] ^= 1;
            (0, edited)
        }),
        ("ima_truncated", |list| {
            let mut cut = list.bytes(0);
            cut.pop();
            (0, cut)
        }),
        ("ima_other_pcr", |_| (0, b"no list at all, and long enough to be one".to_vec())),
    ];
    for (code, make) in odd {
        node.run("/usr/bin/init", b"init");
        node.run("/usr/bin/init", b"init");
        let (from, entries) = make(&node.ima);
        let response = node.send(u64::try_from(from).unwrap(), entries, false).await;
        assert_eq!(codes(&response), [code]);
        assert_eq!(world.status(node.node.node), PostureStatus::Contraindicated);
        let right = node.send(0, node.ima.bytes(0), false).await;
        assert_eq!(codes(&right), [""; 0], "after {code}");
        let steady = node.send(u64::try_from(node.ima.len()).unwrap(), Vec::new(), false).await;
        assert_eq!(codes(&steady), [""; 0], "after {code}");
    }
    let challenge = node.challenge().await;
    let bomb = ImaPart::Present { from: 18, zstd: frame(&vec![0; ImaPart::MAX + 1]), more: false };
    let evidence = EvidenceRequest { ima: Some(bomb), ..node.answer(&challenge) };
    assert_eq!(codes(&node.node.submit(evidence).await.unwrap()), ["ima_list_damaged"]);
    let challenge = node.challenge().await;
    let evidence = EvidenceRequest { ima: None, ..node.answer(&challenge) };
    assert_eq!(
        codes(&node.node.submit(evidence).await.unwrap()),
        [""; 0],
        "nothing new, and the quote agrees"
    );
}

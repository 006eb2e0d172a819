//! What the verifier wishes of a node, and what is said against it: real swtpm, the real attester as a process, real HTTP.

use std::num::NonZeroU32;
use std::time::Duration;

use rootbound_attester::client::ClientIdentity;
use rootbound_common::clock::Clock as _;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_common::wire::v1::{PostureStatus, SignalResponse};
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::daemon::{AttesterSite, Daemon, until, until_within};
use rootbound_swtpm_tests::https::{Https, Reply};
use rootbound_swtpm_tests::openssl::Openssl;
use rootbound_swtpm_tests::policies::{nothing, put_in_force};
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Machine, Simulated, World, operator, refused};
use rootbound_verifier::flows::operate::OperateError;
use rootbound_verifier::flows::policies::WhichBundle;
use rootbound_verifier::hold::HoldKind;
use rootbound_verifier::http::{Limits, Rate};
use rootbound_verifier::relying_party::{MaySignal, RelyingPartySection};
use serde_json::{Value, json};

const ATTESTER: &str = env!("CARGO_BIN_EXE_attester-under-test");
const SCANNER: &str = "spiffe://partner.example/scanner";
/// How long a wish may take to be done, on a machine with other work to do.
const SOON: Duration = Duration::from_secs(60);

/// When a node's last evidence was made.
fn evidence_at(world: &World, node: NodeId) -> i64 {
    let live = world.verifier.fleet().node(node).unwrap();
    live.posture.as_ref().map_or(0, |posture| posture.evidence_at.as_millis())
}

/// A machine whose attester is a process, affirming and with a stream, where it is to hold one.
struct Site {
    world: World,
    site: AttesterSite,
    daemon: Daemon,
    node: NodeId,
    _swtpm: Swtpm,
}

impl Site {
    async fn start(swtpm: Swtpm, world: World, config: &str) -> Self {
        // So long that what happens within a test is not the interval's doing.
        world.change_profile(|body| body.interval = Duration::from_secs(600)).await;
        let site = AttesterSite::new(ATTESTER, &swtpm.tcti(), &world.url(), &world.bundle());
        site.configure(config);
        let printed = String::from_utf8(site.run("identify").stdout).unwrap();
        let line = printed.lines().find_map(|line| line.strip_prefix("EK hash")).unwrap();
        let node: NodeId = line.trim().parse().unwrap();
        world.verifier.add_inventory(node, false, Default::default(), &operator()).await.unwrap();
        let daemon = site.spawn();
        until("evidence", async || {
            world.verifier.fleet().node(node).is_some_and(|live| live.posture.is_some())
        })
        .await;
        world.capture(node).await;
        Self { world, site, daemon, node, _swtpm: swtpm }
    }

    async fn with_credential(config: &str) -> Self {
        let swtpm = Swtpm::manufacture();
        let world = World::new(&[swtpm.manufacturer()]).await;
        Self::credited(swtpm, world, config).await
    }

    /// The attester is started anew, as its first credential came to nothing before its values were accepted.
    async fn credited(swtpm: Swtpm, world: World, config: &str) -> Self {
        let mut this = Self::start(swtpm, world, config).await;
        this.daemon = {
            this.daemon.kill();
            this.site.spawn()
        };
        let (world, node) = (&this.world, this.node);
        until("a credential", async || {
            world.verifier.fleet().node(node).is_some_and(|live| !live.credentials.is_empty())
        })
        .await;
        this
    }

    async fn holding_a_stream() -> Self {
        let this = Self::with_credential("").await;
        until("a stream", async || this.world.verifier.listens(this.node)).await;
        this
    }

    fn status(&self) -> PostureStatus {
        self.world.status(self.node)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attest_now_brings_new_evidence_and_renew_another_certificate() {
    let site = Site::holding_a_stream().await;
    let (world, node) = (&site.world, site.node);
    for _ in 0..3 {
        let before = evidence_at(world, node);
        assert!(world.verifier.attest_now(node, false, &operator()).await.unwrap(), "it listens");
        until_within(SOON, "new evidence", async || evidence_at(world, node) > before).await;
        assert_eq!(site.status(), PostureStatus::Affirming);
    }
    assert_eq!(world.last_decision(node).await.1, "affirming");
    let credentials = || world.verifier.fleet().node(node).unwrap().credentials.len();
    let before = credentials();
    world.verifier.attest_now(node, true, &operator()).await.unwrap();
    until_within(SOON, "another certificate", async || credentials() > before).await;
    until("a stream with it", async || world.verifier.listens(node)).await;
    let status = String::from_utf8(site.site.run("status").stdout).unwrap();
    assert!(status.contains("control") && status.contains("held"), "{status}");
    site.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quarantine_refuses_the_next_call_and_release_restores_only_after_new_evidence() {
    let swtpm = Swtpm::manufacture();
    let mut world = World::new(&[swtpm.manufacturer()]).await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    machine.is_well(&world).await;
    let who = machine.whoami(&world).await.unwrap();
    assert_eq!(who.certificate_epoch, Some(who.epoch), "that of the evidence it was issued on");
    let epoch = |world: &World| world.verifier.fleet().node(node).unwrap().epoch;
    let first = epoch(&world);
    let (_, hold) = world.verifier.quarantine(node, HoldKind::Block, None, &operator()).await.unwrap();
    assert_eq!(refused(machine.whoami(&world).await), "node_blocked");
    assert!(epoch(&world) > first);
    // It attests on, and gets no credential; a restart changes nothing.
    machine.attest_anew().await.expect("evidence");
    assert_eq!(refused(machine.whoami(&world).await), "node_blocked");
    world.restart().await;
    machine.restart(&world);
    machine.attester.attest().await.expect("evidence");
    assert_eq!(refused(machine.whoami(&world).await), "node_blocked");
    assert!(epoch(&world) > first);

    let wrong = "0".repeat(32).parse().unwrap();
    let missing = world.verifier.release(node, Some(wrong), &operator()).await;
    assert!(matches!(missing, Err(OperateError::NoSuch { what: "hold", .. })));
    world.verifier.release(node, Some(hold.id), &operator()).await.unwrap();
    assert_eq!(
        refused(machine.whoami(&world).await),
        "posture_stale",
        "what it showed before counts no more"
    );
    assert!(matches!(world.verifier.release(node, None, &operator()).await, Err(OperateError::Already(_))));
    machine.is_well(&world).await;
    let later = machine.whoami(&world).await.unwrap();
    assert_eq!((later.serial, later.certificate_epoch), (who.serial, who.certificate_epoch));
    assert!(later.epoch > who.epoch, "whoever compares sees that it is of before");
    let history = world.verifier.holds_of(node, 10).await.unwrap();
    assert_eq!((history.len(), history[0].hold.id, history[0].end.is_some()), (1, hold.id, true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lowered_node_is_a_warning_until_its_hold_ends_and_it_attests_anew() {
    let swtpm = Swtpm::manufacture();
    let world = World::new(&[swtpm.manufacturer()]).await;
    let mut machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    let minute = Some(Duration::from_secs(60));
    world.verifier.quarantine(node, HoldKind::Lower, minute, &operator()).await.unwrap();
    assert_eq!(refused(machine.whoami(&world).await), "posture_warning");
    machine.attest_anew().await.expect("evidence");
    assert_eq!(world.status(node), PostureStatus::Warning);
    world.advance(Duration::from_secs(61));
    assert_eq!(refused(machine.whoami(&world).await), "posture_stale");
    machine.is_well(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_told_what_cannot_be_held_or_asked() {
    let world = World::new(&[]).await;
    let node = world.simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await.node;
    let (verifier, who) = (&world.verifier, operator());
    for _ in 0..16 {
        verifier.quarantine(node, HoldKind::Block, None, &who).await.unwrap();
    }
    let more = verifier.quarantine(node, HoldKind::Block, None, &who).await.unwrap_err();
    assert_eq!(more.code(), "too_many_holds");
    let loud = rootbound_verifier::flows::operate::Operator { reason: "a\nb".to_owned(), ..operator() };
    let unreadable = verifier.quarantine(node, HoldKind::Block, None, &loud).await.unwrap_err();
    assert_eq!(unreadable.code(), "reason_refused");
    verifier.retire(node, &who).await.unwrap();
    assert_eq!(verifier.attest_now(node, false, &who).await.unwrap_err().code(), "not_admitted");
    let stranger = NodeId::from_bytes([1; 32]);
    assert_eq!(verifier.attest_now(stranger, false, &who).await.unwrap_err().code(), "unknown_node");
    assert_eq!(verifier.release(stranger, None, &who).await.unwrap_err().code(), "unknown_node");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attester_that_is_blocked_hears_it_attests_on_and_comes_back_by_itself_after_the_release() {
    let site = Site::holding_a_stream().await;
    let (world, node) = (&site.world, site.node);
    world.verifier.quarantine(node, HoldKind::Block, None, &operator()).await.unwrap();
    site.daemon.says("the verifier blocks this machine").await;
    assert_eq!(site.status(), PostureStatus::Blocked);
    let told = async || String::from_utf8(site.site.run("status").stdout).unwrap().contains("node_blocked");
    until_within(SOON, "status says so", told).await;
    assert!(world.verifier.listens(node), "the stream stays, to hear of the release");
    world.verifier.release(node, None, &operator()).await.unwrap();
    until_within(SOON, "it is back", async || site.status() == PostureStatus::Affirming).await;
    site.daemon.says("does not block this machine any more").await;
    site.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attester_without_a_stream_asks_from_time_to_time() {
    let site = Site::with_credential("[control]\nstream = false\npoll_every = \"1s\"\n").await;
    let (world, node) = (&site.world, site.node);
    let before = evidence_at(world, node);
    world.verifier.attest_now(node, false, &operator()).await.unwrap();
    until_within(SOON, "new evidence", async || evidence_at(world, node) > before).await;
    assert!(!world.verifier.listens(node));
    let told = async || {
        String::from_utf8(site.site.run("status").stdout).unwrap().contains("asked from time to time")
    };
    until_within(SOON, "status says so", told).await;

    // A certificate that is asked for is made once, although it is not asked with the one that it follows.
    let credentials = async || world.verifier.store().certificates(node, 100).await.unwrap().len();
    let before = credentials().await;
    world.verifier.attest_now(node, true, &operator()).await.unwrap();
    until_within(SOON, "another certificate", async || credentials().await > before).await;
    for _ in 0..2 {
        let made = evidence_at(world, node);
        world.verifier.attest_now(node, false, &operator()).await.unwrap();
        until_within(SOON, "new evidence", async || evidence_at(world, node) > made).await;
    }
    assert_eq!(credentials().await, before + 1);
    site.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attester_whose_stream_is_refused_asks_instead() {
    let swtpm = Swtpm::manufacture();
    let plenty = Rate::new(1_000_000, 1_000_000);
    let limits = Limits {
        max_control_streams: NonZeroU32::new(1).unwrap(),
        attestations: plenty,
        queries: plenty,
        ..Limits::default()
    };
    let world = World::builder().manufacturers(&[swtpm.manufacturer()]).http_limits(limits).start().await;
    let other = world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
    let client = with_certificate(&other).await;
    let held = tokio::task::spawn_blocking(move || client.hold("/v1/control").unwrap()).await.unwrap();
    let site = Site::credited(swtpm, world, "[control]\npoll_every = \"1s\"\n").await;
    site.daemon.says("the verifier is asked from time to time").await;
    let before = evidence_at(&site.world, site.node);
    site.world.verifier.attest_now(site.node, false, &operator()).await.unwrap();
    until_within(SOON, "new evidence", async || evidence_at(&site.world, site.node) > before).await;
    assert!(!site.world.verifier.listens(site.node) && site.world.verifier.listens(other.node));
    drop(held);
    site.daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attester_whose_ima_list_grows_attests_before_the_time() {
    let folder = tempfile::tempdir().unwrap();
    let count = folder.path().join("count");
    std::fs::write(&count, "1000\n").unwrap();
    let site = Site::with_credential(&format!("[collect]\nima_count = {count:?}\n")).await;
    let (world, node) = (&site.world, site.node);
    let before = evidence_at(world, node);
    let mut entries = 1000;
    // Until the attester has looked twice: what it saw first is nothing new.
    until("new evidence", async || {
        entries += 64;
        std::fs::write(&count, format!("{entries}\n")).unwrap();
        evidence_at(world, node) > before
    })
    .await;
    site.daemon.stop().await;
}

/// Relying parties with a CA of their own.
struct Parties(Openssl);

impl Parties {
    fn new() -> Self {
        let openssl = Openssl::new();
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let ca = format!(
            "req -x509 {key} -keyout ca.key -out ca.pem -days 30 -subj /CN=partners \
             -addext keyUsage=critical,keyCertSign"
        );
        let _ = openssl.run(&ca);
        Self(openssl)
    }

    fn section(&self, name: &str, labels: &[(&str, &str)], may_signal: &[MaySignal]) -> RelyingPartySection {
        let mut match_labels = rootbound_verifier::node::Labels::default();
        for (key, value) in labels {
            match_labels.set(key.parse().unwrap(), Some(value.parse().unwrap())).unwrap();
        }
        RelyingPartySection {
            name: name.parse().unwrap(),
            ca: Some(self.0.path("ca.pem")),
            accepted_names: vec![format!("spiffe://partner.example/{name}").try_into().unwrap()],
            match_labels,
            may_signal: may_signal.to_vec(),
            audiences: Vec::new(),
            token_sha256: Vec::new(),
        }
    }

    /// A client with a certificate of this relying party.
    fn client(&self, world: &World, uri: &str) -> Https {
        let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
        let _ = self.0.run(&format!("req {key} -keyout leaf.key -out leaf.csr -subj /CN=party"));
        self.0.write("leaf.ext", format!("subjectAltName=URI:{uri}\nextendedKeyUsage=clientAuth\n"));
        let _ = self
            .0
            .run("x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -out leaf.pem -days 20 -extfile leaf.ext");
        Https::to(&world.client()).as_relying_party(&self.0.read("leaf.pem"), &self.0.read("leaf.key"))
    }
}

fn code(reply: &Reply) -> String {
    let problem: Value = serde_json::from_slice(&reply.body).unwrap();
    assert_eq!(problem["status"], reply.status);
    problem["code"].as_str().unwrap().to_owned()
}

async fn signal(client: &Https, body: &Value) -> Reply {
    client.post("/v1/signals", body).await
}

async fn taken(client: &Https, body: &Value) -> SignalResponse {
    let reply = signal(client, body).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    serde_json::from_slice(&reply.body).unwrap()
}

/// A world that a scanner, an auditor that may say nothing, and a scanner of other nodes are told of.
async fn scanned(parties: &Parties) -> (World, Machine, NodeId) {
    let all = [MaySignal::Block, MaySignal::Reattest, MaySignal::Lower];
    let swtpm = Swtpm::manufacture();
    let world = World::builder()
        .manufacturers(&[swtpm.manufacturer()])
        .relying_parties(vec![
            parties.section("scanner", &[], &all),
            parties.section("auditor", &[], &[]),
            parties.section("elsewhere", &[("env", "test")], &all),
        ])
        .start()
        .await;
    let machine = world.affirming(swtpm).await;
    let node = machine.node().await;
    (world, machine, node)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_scanners_signal_blocks_at_the_next_call_and_its_repetition_changes_nothing() {
    let parties = Parties::new();
    let (world, mut machine, node) = scanned(&parties).await;
    let scanner = parties.client(&world, SCANNER);
    let block = json!({ "id": "finding-7", "node": node, "kind": "block", "reason": "CVE-2026-1" });
    let first = taken(&scanner, &block).await;
    assert_eq!(refused(machine.whoami(&world).await), "node_blocked");
    let decision = world.verifier.store().decisions(Some(node), 1).await.unwrap().remove(0);
    assert_eq!((decision.granted, decision.code.as_str()), (true, "signal_block"));
    assert!(decision.detail.contains("scanner") && decision.detail.contains("CVE-2026-1"));

    assert_eq!(taken(&scanner, &block).await, first);
    assert_eq!(world.verifier.holds_of(node, 10).await.unwrap().len(), 1);
    let other = json!({ "id": "finding-7", "node": node, "kind": "lower", "reason": "CVE-2026-1" });
    let reply = signal(&scanner, &other).await;
    assert_eq!((reply.status, code(&reply).as_str()), (409, "signal_id_reused"));

    // It lifts what it set; trust comes back with the next quote, and the first signal stays done.
    let clear =
        json!({ "id": "fixed-7", "node": node, "kind": "clear", "reason": "patched", "hold": first.hold });
    taken(&scanner, &clear).await;
    assert_eq!(refused(machine.whoami(&world).await), "posture_stale");
    assert_eq!(taken(&scanner, &block).await, first);
    machine.is_well(&world).await;

    let again = json!({ "id": "audit-1", "node": node, "kind": "reattest", "reason": "" });
    taken(&scanner, &again).await;
    assert_eq!(refused(machine.whoami(&world).await), "posture_stale");
    machine.is_well(&world).await;
    let lower =
        json!({ "id": "late-1", "node": node, "kind": "lower", "reason": "patches due", "expires_in": 3600 });
    let lowered = taken(&scanner, &lower).await;
    assert_eq!(lowered.expires_at, Some(lowered.at.plus(Duration::from_secs(3600))));
    assert_eq!(refused(machine.whoami(&world).await), "posture_warning");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_the_policies_do_not_permit_is_refused_and_changes_nothing() {
    let parties = Parties::new();
    let (world, machine, node) = scanned(&parties).await;
    let scanner = parties.client(&world, SCANNER);
    put_in_force(&world.verifier, "nothing", nothing()).await;
    let block = json!({ "id": "1", "node": node, "kind": "block", "reason": "r" });
    let reply = signal(&scanner, &block).await;
    assert_eq!((reply.status, code(&reply).as_str()), (403, "signal_denied_by_policy"));
    assert_eq!(world.verifier.holds_of(node, 10).await.unwrap(), []);
    machine.whoami(&world).await.unwrap();
    world.verifier.activate_policy(&WhichBundle::Builtin, None, &operator()).await.unwrap();
    taken(&scanner, &block).await;
    assert_eq!(refused(machine.whoami(&world).await), "node_blocked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signal_that_may_not_be_is_refused_and_changes_nothing() {
    let parties = Parties::new();
    let (world, mut machine, node) = scanned(&parties).await;
    let scanner = parties.client(&world, SCANNER);
    let auditor = parties.client(&world, "spiffe://partner.example/auditor");
    let elsewhere = parties.client(&world, "spiffe://partner.example/elsewhere");
    let (_, ours) = world.verifier.quarantine(node, HoldKind::Lower, None, &operator()).await.unwrap();
    let block = json!({ "id": "1", "node": node, "kind": "block", "reason": "r" });
    let with = |key: &str, value: Value| {
        let mut body = block.clone();
        body[key] = value;
        body
    };
    let clear =
        |hold: Value| json!({ "id": "1", "node": node, "kind": "clear", "reason": "r", "hold": hold });
    let stranger = NodeId::from_bytes([1; 32]);
    for (client, body, status, expected) in [
        (&auditor, block.clone(), 403, "signal_not_allowed"),
        (&auditor, clear(json!(ours.id)), 403, "signal_not_allowed"),
        (&elsewhere, block.clone(), 404, "unknown_node"),
        (&scanner, with("node", json!(stranger)), 404, "unknown_node"),
        (&scanner, with("id", json!("")), 400, "signal_id"),
        (&scanner, with("id", json!("a b")), 400, "signal_id"),
        (&scanner, with("id", json!("x".repeat(65))), 400, "signal_id"),
        (&scanner, with("reason", json!("a\nb")), 400, "signal_reason"),
        (&scanner, with("reason", json!("x".repeat(513))), 400, "signal_reason"),
        (&scanner, with("expires_in", json!(0)), 400, "signal_members"),
        (&scanner, with("expires_in", json!(u64::MAX)), 400, "signal_members"),
        (&scanner, with("hold", json!(ours.id)), 400, "signal_members"),
        (&scanner, clear(json!("x")), 400, "signal_hold"),
        (&scanner, clear(json!(ours.id)), 404, "unknown_hold"),
        (&scanner, with("kind", json!("praise")), 400, "body_malformed"),
        (&scanner, with("more", json!(1)), 400, "body_malformed"),
    ] {
        let reply = signal(client, &body).await;
        assert_eq!((reply.status, code(&reply).as_str()), (status, expected), "{body}");
    }
    let twice =
        format!("{{\"id\":\"1\",\"id\":\"2\",\"node\":\"{node}\",\"kind\":\"block\",\"reason\":\"r\"}}");
    let twice = scanner.post_bytes("/v1/signals", twice.as_bytes()).await;
    assert_eq!(code(&twice), "body_malformed", "a member that stands twice");
    assert_eq!(world.status(node), PostureStatus::Warning);
    let identity = ClientIdentity::new(machine.tpm.clone(), machine.attester.credential().unwrap()).unwrap();
    let as_node = signal(&Https::to(&world.client()).as_machine(identity), &block).await;
    assert_eq!((as_node.status, code(&as_node).as_str()), (403, "not_a_relying_party"));
    let nobody = signal(&Https::to(&world.client()), &block).await;
    assert_eq!((nobody.status, code(&nobody).as_str()), (401, "certificate_required"));
    for number in 0..8 {
        taken(&scanner, &with("id", json!(format!("n{number}")))).await;
    }
    let more = signal(&scanner, &with("id", json!("n8"))).await;
    assert_eq!((more.status, code(&more).as_str()), (409, "too_many_holds"));
    world.verifier.release(node, None, &operator()).await.unwrap();
    machine.is_well(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_says_nothing_of_another_node() {
    let world = World::new(&[]).await;
    let first = world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
    let second = world.simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
    let mut clients = Vec::new();
    for node in [&first, &second] {
        clients.push(with_certificate(node).await);
    }
    world.verifier.quarantine(first.node, HoldKind::Block, None, &operator()).await.unwrap();
    world.verifier.attest_now(first.node, true, &operator()).await.unwrap();
    let state = |reply: Reply| serde_json::from_slice::<Value>(&reply.body).unwrap();
    let blocked = json!({ "attest": true, "renew": true, "blocked": ["node_blocked"] });
    assert_eq!(state(clients[0].get("/v1/control").await), blocked);
    let nothing = json!({ "attest": false, "renew": false, "blocked": [] });
    assert_eq!(state(clients[1].get("/v1/control").await), nothing);
    // What is asked for is done by evidence that is younger, and by a later certificate.
    world.advance(Duration::from_secs(5));
    let challenge = first.challenge().await.unwrap();
    first.submit(first.answer(&challenge)).await.unwrap();
    let left = json!({ "attest": false, "renew": true, "blocked": ["node_blocked"] });
    assert_eq!(state(clients[0].get("/v1/control").await), left);
    assert!(world.clock.now().as_millis() > 0);
}

/// A client with a credential of a simulated node.
async fn with_certificate(node: &Simulated) -> Https {
    let challenge = node.challenge().await.unwrap();
    let (evidence, key) = node.answer_with_request(&challenge);
    let answer = node.submit(evidence).await.unwrap();
    let Some(rootbound_common::wire::v1::CredentialOutcome::Issued { certificate_chain, .. }) =
        answer.credential
    else {
        panic!("no credential: {:?}", answer.posture)
    };
    Https::to(&node.client).as_simulated(&certificate_chain, key)
}

//! Decisions at the moment of use: real software TPMs, the real attester, and whoever asks before it acts.

use std::time::Duration;

use rootbound_attester::client::ClientIdentity;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::HashAlgorithm;
use rootbound_common::wire::v1::{Challenge, CredentialOutcome, PostureStatus};
use rootbound_swtpm_tests::Swtpm;
use rootbound_swtpm_tests::gateway::Gateway;
use rootbound_swtpm_tests::https::{Https, Reply};
use rootbound_swtpm_tests::policies;
use rootbound_swtpm_tests::software_tpm::SoftwareTpm;
use rootbound_swtpm_tests::world::{Machine, World, operator};
use rootbound_verifier::audit::{Actor, Outcome, RecordKind};
use rootbound_verifier::store::RecordFilter;
use serde_json::{Value, json};

/// A verifier with policies about databases, and a service that may read of nodes in production.
struct Scene {
    world: World,
    service: Https,
}

impl Scene {
    async fn new(swtpm: &Swtpm) -> Self {
        let gateway = Gateway::new();
        let world = World::builder()
            .manufacturers(&[swtpm.manufacturer()])
            .relying_party(gateway.section("orders", &[("tier", "gold")]))
            .start()
            .await;
        policies::put_in_force(&world.verifier, "databases", policies::databases()).await;
        let service = Https::to(&world.client()).as_gateway(&gateway);
        Self { world, service }
    }

    async fn label(&self, node: NodeId, labels: &[(&str, &str)]) {
        let change = |(key, value): &(&str, &str)| (key.parse().unwrap(), Some(value.parse().unwrap()));
        let changes = labels.iter().map(change).collect();
        self.world.verifier.label(node, changes, &operator()).await.unwrap();
    }

    /// An affirming machine with labels.
    async fn machine(&self, swtpm: Swtpm, labels: &[(&str, &str)]) -> Machine {
        let mut machine = self.world.affirming(swtpm).await;
        self.label(machine.node().await, labels).await;
        machine.attest_anew().await.unwrap();
        machine
    }

    /// What the service hears of a node.
    async fn ask(&self, node: NodeId, action: &str) -> Heard {
        Heard::of(self.service.post(EVALUATION, &question(node, action)).await)
    }
}

const EVALUATION: &str = "/access/v1/evaluation";

fn question(node: NodeId, action: &str) -> Value {
    json!({
        "subject": { "type": "node", "id": node.to_string() },
        "action": { "name": action },
        "resource": { "type": "database", "id": "orders" },
    })
}

/// An answer.
struct Heard(Value);

impl Heard {
    fn of(reply: Reply) -> Self {
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        Self(serde_json::from_slice(&reply.body).unwrap())
    }

    fn allowed(&self) -> bool {
        self.0["decision"].as_bool().unwrap()
    }

    fn code(&self) -> &str {
        self.0["context"]["code"].as_str().unwrap()
    }

    fn refused_with(&self, code: &str) {
        assert_eq!((self.allowed(), self.code()), (false, code), "{}", self.0);
    }

    fn step_up(&self) -> &Value {
        let [obligation] = &self.0["context"]["obligations"].as_array().unwrap()[..] else {
            panic!("{}", self.0)
        };
        assert_eq!(
            (&obligation["type"], &obligation["properties"]["max_age_seconds"]),
            (&json!("step-up"), &json!(30))
        );
        assert_eq!(obligation["acr_value"], "urn:rootbound:acr:fresh-evidence");
        assert!(obligation["id"].is_string());
        &obligation["properties"]
    }

    /// Without what differs between two answers to the same question.
    fn anonymous(mut self) -> Value {
        for name in ["id", "evaluated_at"] {
            self.0["context"].as_object_mut().unwrap().remove(name).unwrap();
        }
        self.0
    }
}

/// What a machine hears, over mTLS by the key in its TPM.
async fn as_machine(world: &World, machine: &Machine, body: &Value) -> Heard {
    let credential = machine.attester.credential().expect("a credential");
    let identity = ClientIdentity::new(machine.tpm.clone(), credential).expect("an identity");
    Heard::of(Https::to(&world.client()).as_machine(identity).post(EVALUATION, body).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_asks_before_a_write_and_is_refused_one_call_after_its_node_drifted() {
    let swtpm = Swtpm::manufacture();
    let scene = Scene::new(&swtpm).await;
    let mut machine = scene.machine(swtpm, &[("env", "prod"), ("tier", "gold")]).await;
    let node = machine.node().await;
    let allowed = scene.ask(node, "db:write").await;
    assert!(allowed.allowed(), "{}", allowed.0);
    assert_eq!(allowed.0["context"]["policy"], "databases@1");

    machine.swtpm.extend(4, b"another boot loader");
    assert!(scene.ask(node, "db:write").await.allowed(), "nobody has seen it yet");
    machine.attest_anew().await.unwrap();
    scene.ask(node, "db:write").await.refused_with("posture_contraindicated");

    // What was answered is on record, under the id that was given with it, the latest first.
    let last = scene.ask(node, "db:write").await;
    let store = scene.world.verifier.store();
    let filter =
        RecordFilter { node: Some(node), kinds: vec![RecordKind::Decision], ..RecordFilter::default() };
    let records: Vec<_> = store
        .records(&filter, None, 20)
        .await
        .unwrap()
        .records
        .into_iter()
        .map(|found| found.record)
        .collect();
    let record = &records[0];
    assert_eq!(last.0["context"]["id"], record.id.to_string());
    assert_eq!((record.outcome, record.code.as_str()), (Outcome::Refused, "posture_contraindicated"));
    assert_eq!(record.actor, Actor::RelyingParty("orders".into()));
    let first = records.iter().find(|record| allowed.0["context"]["id"] == record.id.to_string());
    let first = first.expect("the first");
    assert_eq!((first.outcome, first.action.as_str()), (Outcome::Granted, "db:write"));
    assert_eq!(first.object.as_ref().map(|object| object.name.as_str()), Some("orders"));
    assert_eq!(first.versions[0].as_str(), "databases@1");

    // It can be explained afterwards, by what was attested at that moment, and what would have allowed it.
    let explained = scene.world.verifier.explain(record.id).await.unwrap();
    assert_eq!((explained.bundle.as_str(), explained.record.record.id), ("databases@1", record.id));
    let says = |line: &str| explained.words.iter().any(|word| word.contains(line));
    assert!(says(r#"attested.posture = "contraindicated""#), "{:?}", explained.words);
    assert!(says("would permit with: posture affirming"), "{:?}", explained.words);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_without_the_label_is_refused_what_its_credential_would_allow() {
    let swtpm = Swtpm::manufacture();
    let scene = Scene::new(&swtpm).await;
    let machine = scene.machine(swtpm, &[("env", "test"), ("tier", "gold")]).await;
    let node = machine.node().await;
    machine.whoami(&scene.world).await.expect("a credential that counts");
    assert!(scene.ask(node, "db:read").await.allowed());
    scene.ask(node, "db:write").await.refused_with("no_policy_permits");
    scene.ask(node, "db:rename").await.refused_with("unknown_action");
    scene.label(node, &[("env", "prod")]).await;
    assert!(scene.ask(node, "db:write").await.allowed(), "by the next call");
    let mut archive = question(node, "db:write");
    archive["resource"]["id"] = json!("archive");
    Heard::of(scene.service.post(EVALUATION, &archive).await).refused_with("forbidden_by_policy");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_asks_about_itself_and_about_no_other() {
    let swtpm = Swtpm::manufacture();
    let scene = Scene::new(&swtpm).await;
    let machine = scene.machine(swtpm, &[("env", "prod")]).await;
    let node = machine.node().await;
    let own = as_machine(&scene.world, &machine, &question(node, "db:write")).await;
    assert!(own.allowed(), "{}", own.0);
    assert!(own.0["context"].get("policy").is_none(), "which policies there are is not for nodes");

    let other = scene.world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
    let heard = as_machine(&scene.world, &machine, &question(other.node, "db:read")).await;
    heard.refused_with("unknown_subject");
    let nobody = NodeId::of_endorsement_key(b"nobody");
    let of_none = as_machine(&scene.world, &machine, &question(nobody, "db:read")).await;
    assert_eq!(heard.anonymous(), of_none.anonymous(), "whether there is one, it does not hear");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_hears_of_a_node_that_it_may_not_read_what_it_hears_of_none() {
    let swtpm = Swtpm::manufacture();
    let scene = Scene::new(&swtpm).await;
    let mut machine = scene.machine(swtpm, &[("env", "prod")]).await;
    let node = machine.node().await;
    let nobody = NodeId::of_endorsement_key(b"nobody");
    let of_none = scene.ask(nobody, "db:write").await.anonymous();
    assert_eq!(scene.ask(node, "db:write").await.anonymous(), of_none);
    machine.swtpm.extend(4, b"another boot loader");
    machine.attest_anew().await.unwrap();
    let heard = scene.ask(node, "db:write").await;
    heard.refused_with("unknown_subject");
    assert_eq!(heard.anonymous(), of_none, "its posture shows through nothing");
    scene.label(node, &[("tier", "gold")]).await;
    scene.ask(node, "db:write").await.refused_with("posture_contraindicated");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensitive_action_wants_fresh_evidence_and_passes_with_it() {
    let swtpm = Swtpm::manufacture();
    let scene = Scene::new(&swtpm).await;
    let mut machine = scene.machine(swtpm, &[("env", "prod"), ("tier", "gold")]).await;
    let node = machine.node().await;
    assert!(scene.ask(node, "db:drop").await.allowed(), "it has just attested");
    scene.world.advance(Duration::from_secs(60));
    assert_eq!(scene.world.status(node), PostureStatus::Affirming);
    assert!(scene.ask(node, "db:write").await.allowed(), "an action that is not sensitive goes on");

    let heard = scene.ask(node, "db:drop").await;
    heard.refused_with("evidence_too_old");
    assert!(heard.step_up().get("challenge").is_none(), "a challenge is the node's to answer");
    let own = as_machine(&scene.world, &machine, &question(node, "db:drop")).await;
    own.refused_with("evidence_too_old");
    let challenge: Challenge = serde_json::from_value(own.step_up()["challenge"].clone()).unwrap();
    assert_eq!(challenge.attest_in, 0, "at once");

    // While the attester is silent, nothing changes.
    scene.ask(node, "db:drop").await.refused_with("evidence_too_old");
    machine.attest_anew().await.unwrap();
    assert!(scene.ask(node, "db:drop").await.allowed());
    assert!(as_machine(&scene.world, &machine, &question(node, "db:drop")).await.allowed());
    scene.world.advance(Duration::from_secs(31));
    scene.ask(node, "db:drop").await.refused_with("evidence_too_old");
}

/// The challenge that comes with the obligation is one as any other: its answer counts, once.
#[tokio::test(flavor = "multi_thread")]
async fn the_challenge_of_a_step_up_is_answered_by_the_node_that_it_is_for() {
    let world = World::new(&[]).await;
    policies::put_in_force(&world.verifier, "databases", policies::databases()).await;
    let node = world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await;
    let env = (("env").parse().unwrap(), Some("prod".parse().unwrap()));
    world.verifier.label(node.node, vec![env], &operator()).await.unwrap();
    let (request, key) = node.answer_with_request(&node.challenge().await.unwrap());
    let Some(CredentialOutcome::Issued { certificate_chain, .. }) =
        node.submit(request).await.unwrap().credential
    else {
        panic!("a credential")
    };
    let client = Https::to(&world.client()).as_simulated(&certificate_chain, key);
    world.advance(Duration::from_secs(60));
    let heard = Heard::of(client.post(EVALUATION, &question(node.node, "db:drop")).await);
    heard.refused_with("evidence_too_old");
    let challenge: Challenge = serde_json::from_value(heard.step_up()["challenge"].clone()).unwrap();
    node.submit(node.answer(&challenge)).await.unwrap();
    assert!(Heard::of(client.post(EVALUATION, &question(node.node, "db:drop")).await).allowed());
    let again = node.submit(node.answer(&challenge)).await;
    assert_eq!(rootbound_swtpm_tests::world::refused(again), "challenge_spent");

    // In a batch it is one challenge for all.
    world.advance(Duration::from_secs(60));
    let mut batch = question(node.node, "db:drop");
    batch["evaluations"] = json!([{}, {}, { "action": { "name": "db:read" } }]);
    let heard = Heard::of(client.post("/access/v1/evaluations", &batch).await).0;
    let challenge = |item: usize| {
        heard["evaluations"][item]["context"]["obligations"][0]["properties"]["challenge"]["token"].clone()
    };
    assert!(challenge(0).is_string());
    assert_eq!(challenge(0), challenge(1));
    assert_eq!(heard["evaluations"][2]["decision"], true);
}

/// A search goes through the fleet page by page, and past what its caller may not read.
#[tokio::test(flavor = "multi_thread")]
async fn a_search_finds_the_nodes_that_may_and_that_may_be_read() {
    let gateway = Gateway::new();
    let section = gateway.section("orders", &[("tier", "gold")]);
    let world = World::builder().relying_party(section).start().await;
    policies::put_in_force(&world.verifier, "databases", policies::databases()).await;
    let service = Https::to(&world.client()).as_gateway(&gateway);
    let mut expected = Vec::new();
    for labels in [
        &[("tier", "gold"), ("env", "prod")][..],
        &[("tier", "gold")],
        &[("env", "prod")],
        &[("tier", "gold"), ("env", "prod")],
    ] {
        let node = world.affirming_simulated(SoftwareTpm::booted(&[HashAlgorithm::Sha256])).await.node;
        let change = |(key, value): &(&str, &str)| (key.parse().unwrap(), Some(value.parse().unwrap()));
        world.verifier.label(node, labels.iter().map(change).collect(), &operator()).await.unwrap();
        if labels.len() == 2 {
            expected.push(node.to_string());
        }
    }
    expected.sort_unstable();

    let mut found = Vec::new();
    let mut token = String::new();
    loop {
        let mut search = question(NodeId::of_endorsement_key(b"ignored"), "db:write");
        search["page"] = json!({ "limit": 1, "token": token });
        let reply = service.post("/access/v1/search/subject", &search).await;
        assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
        let page: Value = serde_json::from_slice(&reply.body).unwrap();
        for result in page["results"].as_array().unwrap() {
            assert_eq!(result["type"], "node");
            found.push(result["id"].as_str().unwrap().to_owned());
        }
        page["page"]["next_token"].as_str().unwrap().clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(found, expected);
}

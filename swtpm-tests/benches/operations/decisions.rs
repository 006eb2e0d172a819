//! Decisions: a question about a random node of many, by policies.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use cedar_policy::{
    Authorizer, Context, Decision, Entities, EntityUid, PolicySet, Request, RestrictedExpression,
};
use rootbound_common::clock::Timestamp;
use rootbound_common::crypto::sha256;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, Name};
use rootbound_swtpm_tests::measured::Row;
use rootbound_verifier::appraisal::Verdict;
use rootbound_verifier::appraisal::boot::Booted;
use rootbound_verifier::appraisal::trust_vector::{Configuration, Executables, TrustVector};
use rootbound_verifier::credential::serial::SerialNumber;
use rootbound_verifier::node::{AdmittedBy, EndorsedBy, Labels, Standing};
use rootbound_verifier::policy::{Attested, Bundle, BundleSource, Properties, Question, SubjectFacts};
use rootbound_verifier::posture::{Fleet, LiveCredential, LiveNode, Posture};
use rootbound_verifier::reference::Versioned;

use crate::paired::Bench;

const NODES: usize = 100_000;
const NOW: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const SECOND: Duration = Duration::from_secs(1);

const SCHEMA: &str = "
    entity Db in [Db];
    type Write = { attested: Rootbound::Attested, request: { action: { amount: Long }, context: { path?: String } } };
    action write appliesTo { principal: [Rootbound::Node], resource: [Db], context: Write };
    action read appliesTo { principal: [Rootbound::Node], resource: [Db], context: Write };
";

/// What most fleets would have: labels, fresh evidence, and a stop for machines of another boot.
const GENERIC: &str = r#"
    @id("prod-writes") permit (principal is Rootbound::Node, action == Action::"write", resource is Db)
    when { context.attested.labels.contains("env=prod") };
    @id("large-writes") @fresh("60") permit (principal is Rootbound::Node, action == Action::"write", resource is Db)
    when { context.attested.posture == "affirming" && context.request.action.amount > 1000 };
    @id("secure-boot-only") forbid (principal is Rootbound::Node, action == Action::"write", resource is Db)
    when { context.attested has secure_boot && !context.attested.secure_boot };
"#;

fn bundle(policies: String) -> Bundle {
    let source = BundleSource {
        policies: BTreeMap::from([("a.cedar".parse().expect("a name"), policies)]),
        schema: Some(SCHEMA.to_owned()),
        ..BundleSource::default()
    };
    let id = Versioned { name: "bench".parse().expect("a name"), version: 1 };
    Bundle::compile(id, source).expect("a bundle")
}

fn node_id(index: usize) -> NodeId {
    NodeId::from_bytes(sha256(&[&index.to_be_bytes()]))
}

fn live() -> LiveNode {
    let mut labels = Labels::default();
    for (key, value) in [("env", "prod"), ("rack", "b7"), ("team", "payments")] {
        labels.set(key.parse().expect("a key"), Some(value.parse().expect("a value"))).expect("a label");
    }
    LiveNode {
        epoch: 1,
        holds: Vec::new(),
        attested_after: None,
        revision: 1,
        standing: Standing::Admitted { by: AdmittedBy::Approval },
        labels,
        attestation_key: Name::of_public_area(HashAlgorithm::Sha256, b"AK"),
        endorsed_by: EndorsedBy::Manufacturer,
        posture: Some(Posture {
            verdict: Verdict::Affirming,
            evidence_at: NOW.minus(30 * SECOND),
            fresh_for: 180 * SECOND,
            profile: Some("default@3".to_owned()),
            references: vec!["fleet@7".to_owned(), "lab@1".to_owned()],
            deviations: Vec::new(),
            claims: TrustVector {
                executables: Executables::ApprovedRuntime,
                configuration: Configuration::Approved,
                ..TrustVector::NONE
            },
            booted: Booted {
                boot: Some("41.0".to_owned()),
                secure_boot: Some(true),
                kernel: Some("ab".repeat(32)),
                firmware: Some("1.2.3".to_owned()),
            },
            observed: None,
        }),
        credentials: vec![LiveCredential {
            serial: SerialNumber::from_slice(&[0x41; 16]).expect("a serial number"),
            not_before: NOW.minus(60 * SECOND),
            not_after: NOW.plus(600 * SECOND),
        }],
    }
}

fn question(node: NodeId) -> Question {
    let none = Properties::new;
    let amount = Properties::from_iter([("amount".to_owned(), 5_000.into())]);
    Question::new("node", node.to_string(), none(), "write", amount, "Db", "orders", none(), none())
        .expect("a question")
}

/// Nodes in no order that a cache could know.
struct Random(u64);

impl Random {
    fn question(&mut self) -> (NodeId, Question) {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let index = usize::try_from(self.0 >> 33).expect("31 bits") % NODES;
        (node_id(index), question(node_id(index)))
    }
}

fn decide(bundle: &Bundle, fleet: &Fleet, id: NodeId, question: &Question) {
    let live = fleet.node(id).expect("a node");
    let outcome = bundle.decide(question, &SubjectFacts::Node(Attested::of(id, &live, NOW)));
    assert!(black_box(outcome).into_permit().is_ok());
}

pub(crate) fn run(bench: &mut Bench<'_>) {
    let template = live();
    let fleet = Fleet::new((0..NODES).map(|index| (node_id(index), template.clone())));
    let mut random = Random(1);
    let three = bundle(GENERIC.to_owned());
    let bare = Bare::new();

    let target = Duration::from_micros(10);
    let name = "decide: 3 policies, a random node of 100,000";
    let time = bench.time_of(
        name,
        |count| (0..count).map(|_| random.question()).collect(),
        |(id, question)| {
            decide(&three, &fleet, id, &question);
        },
    );
    let row = bench.beside(
        &format!("{name}, all of it"),
        "Cedar's authorizer alone",
        |count| (0..count).map(|_| ((), random.question())).collect(),
        |()| bare.decide(),
        |(id, question)| decide(&three, &fleet, id, &question),
    );
    row.iter().for_each(Row::publish);
    let row = time.map(|time| Row::time(name, time).time_at_most(time, target));
    row.iter().for_each(Row::publish);

    let every_fact = format!(
        "{GENERIC} @id(\"all\") forbid (principal is Rootbound::Node, action == Action::\"write\", resource is Db)
         when {{ context.attested == context.attested && context.attested.posture == \"never\" }};"
    );
    let every_fact = bundle(every_fact);
    let name = "decide: the same, with a policy that looks at every fact";
    let time = bench.time_of(
        name,
        |count| (0..count).map(|_| random.question()).collect(),
        |(id, question)| {
            decide(&every_fact, &fleet, id, &question);
        },
    );
    let row = time.map(|time| Row::time(name, time).time_at_most(time, 2 * target));
    row.iter().for_each(Row::publish);

    let mut many = GENERIC.to_owned();
    for index in 3..2_000 {
        let _ = write!(
            many,
            "@id(\"p{index}\") permit (principal is Rootbound::Node, action == Action::\"read\", resource == \
             Db::\"{index}\");"
        );
    }
    let many = bundle(many);
    let row = bench.beside(
        "decide: 3 policies of 2,000",
        "of a bundle of 3",
        |count| (0..count).map(|_| random.question()).map(|question| (question.clone(), question)).collect(),
        |(id, question)| decide(&three, &fleet, *id, question),
        |(id, question)| decide(&many, &fleet, id, &question),
    );
    let row = row.map(|row| row.ratio_at_most(1.15));
    row.iter().for_each(Row::publish);

    slowest(bench, &fleet);
    ways(bench, &bare);
}

/// The slowest that a bundle may be: wildcards in patterns of the longest, over a text of the longest.
fn slowest(bench: &mut Bench<'_>, fleet: &Fleet) {
    let pattern = format!("*{}b*", "a".repeat(1_200));
    let mut policies = String::new();
    for index in 0..2 {
        let _ = write!(
            policies,
            "@id(\"p{index}\") permit (principal is Rootbound::Node, action == Action::\"write\", resource is Db) \
             when {{ context.request.context has path && context.request.context.path like \"{pattern}\" }};"
        );
    }
    let bundle = bundle(policies);
    let none = Properties::new;
    let path = Properties::from_iter([("path".to_owned(), "a".repeat(4_096).into())]);
    let amount = Properties::from_iter([("amount".to_owned(), 5.into())]);
    let id = node_id(1);
    let slow = Question::new("node", id.to_string(), none(), "write", amount, "Db", "orders", none(), path)
        .expect("a question");
    let live = fleet.node(id).expect("a node");
    let name = "decide: the slowest bundle that compiles, the slowest request";
    let time = bench.time(name, || {
        let outcome = bundle.decide(&slow, &SubjectFacts::Node(Attested::of(id, &live, NOW)));
        assert_eq!(outcome.code(), "no_policy_permits");
    });
    let row = time.map(|time| Row::time(name, time).time_at_most(time, Duration::from_millis(50)));
    row.iter().for_each(Row::publish);
}

/// Ways to hand facts to Cedar, without the rest of a decision.
fn ways(bench: &mut Bench<'_>, bare: &Bare) {
    let text = |text: &str| RestrictedExpression::new_string(text.to_owned());
    let few = || {
        [
            ("posture".to_owned(), text("affirming")),
            ("secure_boot".to_owned(), RestrictedExpression::new_bool(true)),
            (
                "labels".to_owned(),
                RestrictedExpression::new_set(["env=prod", "rack=b7", "team=payments"].map(text)),
            ),
        ]
    };
    let rest = || {
        let claims = ["a", "b", "c", "d", "e", "f", "g", "h"];
        let claims = claims.map(|claim| (claim.to_owned(), RestrictedExpression::new_long(2)));
        let mut rest = vec![
            ("trust".to_owned(), RestrictedExpression::new_record(claims).expect("distinct names")),
            ("references".to_owned(), RestrictedExpression::new_set(["fleet@7", "lab@1"].map(text))),
        ];
        for name in ["node", "profile", "boot", "standing", "endorsed_by", "kernel", "firmware"] {
            rest.push((name.to_owned(), text("a text of some length, as digests are")));
        }
        for name in ["evidence_age", "credential_age"] {
            rest.push((name.to_owned(), RestrictedExpression::new_long(30)));
        }
        rest
    };
    let context = |facts: Vec<(String, RestrictedExpression)>| {
        let attested = RestrictedExpression::new_record(facts).expect("distinct names");
        Context::from_pairs([("attested".to_owned(), attested)]).expect("a context")
    };
    let all = || few().into_iter().chain(rest()).collect::<Vec<_>>();
    let cached = context(all());
    let ready = RestrictedExpression::new_record(all()).expect("distinct names");
    let ways: [(&str, &dyn Fn() -> Context); 4] = [
        ("decide: hand over the facts that are looked at", &|| context(few().into())),
        ("decide: hand over all facts", &|| context(all())),
        ("decide: hand over all facts, an expression kept per node", &|| {
            Context::from_pairs([("attested".to_owned(), ready.clone())]).expect("a context")
        }),
        ("decide: hand over all facts, a context kept per node and merged", &|| {
            let request = RestrictedExpression::new_record([]).expect("distinct names");
            cached.clone().merge([("request".to_owned(), request)]).expect("distinct names")
        }),
    ];
    for (name, way) in ways {
        let row = bench.alone(name, || bare.decide_in(way()));
        row.iter().for_each(Row::publish);
    }
}

/// Cedar as it comes, with the same policies.
struct Bare {
    authorizer: Authorizer,
    policies: PolicySet,
    entities: Entities,
    uids: [EntityUid; 3],
    request: Request,
}

impl Bare {
    fn new() -> Self {
        let policies = GENERIC.parse().expect("policies");
        let uids = ["Rootbound::Node::\"a\"", "Action::\"write\"", "Db::\"orders\""];
        let uids = uids.map(|uid| uid.parse::<EntityUid>().expect("an id"));
        let labels = ["env=prod", "rack=b7", "team=payments"];
        let labels =
            RestrictedExpression::new_set(labels.map(|l| RestrictedExpression::new_string(l.into())));
        let attested = RestrictedExpression::new_record([
            ("posture".to_owned(), RestrictedExpression::new_string("affirming".to_owned())),
            ("secure_boot".to_owned(), RestrictedExpression::new_bool(true)),
            ("labels".to_owned(), labels),
        ]);
        let action =
            RestrictedExpression::new_record([("amount".to_owned(), RestrictedExpression::new_long(5_000))]);
        let request =
            RestrictedExpression::new_record([("action".to_owned(), action.expect("distinct names"))]);
        let context = Context::from_pairs([
            ("attested".to_owned(), attested.expect("distinct names")),
            ("request".to_owned(), request.expect("distinct names")),
        ]);
        let [principal, action, resource] = uids.clone();
        let request = Request::new(principal, action, resource, context.expect("a context"), None);
        Self {
            authorizer: Authorizer::new(),
            policies,
            entities: Entities::empty(),
            uids,
            request: request.expect("a request"),
        }
    }

    fn decide(&self) {
        let response = self.authorizer.is_authorized(&self.request, &self.policies, &self.entities);
        assert_eq!(black_box(response).decision(), Decision::Allow);
    }

    fn decide_in(&self, context: Context) {
        let [principal, action, resource] = self.uids.clone();
        let request = Request::new(principal, action, resource, context, None).expect("a request");
        let response = self.authorizer.is_authorized(&request, &self.policies, &self.entities);
        assert_eq!(black_box(response).decision(), Decision::Allow);
    }
}

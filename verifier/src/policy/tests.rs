//! The engine, refusal by refusal.

use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use rootbound_common::clock::Timestamp;
use rootbound_common::id::NodeId;
use rootbound_common::tpm::{HashAlgorithm, Name};
use serde_json::{Value, json};

use super::*;
use crate::appraisal::Verdict;
use crate::appraisal::boot::Booted;
use crate::appraisal::trust_vector::{Executables, TrustVector};
use crate::credential::serial::SerialNumber;
use crate::hold::{HeldBy, Hold, HoldKind};
use crate::node::{AdmittedBy, EndorsedBy, Labels, Standing};
use crate::posture::{LiveCredential, LiveNode, Posture};
use crate::reference::Versioned;

const NOW: Timestamp = Timestamp::from_millis(1_000_000_000);
const NODE: NodeId = NodeId::from_bytes([1; 32]);
const SECOND: Duration = Duration::from_secs(1);

const SCHEMA: &str = r#"
    entity user;
    entity Team;
    entity Db in [Db] = { owner?: Team, level: Long };
    type Write = { attested: Rootbound::Attested, request: {
        subject: { team?: String },
        action: { amount: Long },
        resource: { path?: String },
        context: { ip?: ipaddr, who?: Team, tags?: Set<String>, deep?: { flag: Bool }, price?: decimal },
    } };
    action write appliesTo { principal: [Rootbound::Node, user], resource: [Db], context: Write };
    action read appliesTo {
        principal: [Rootbound::Node, user], resource: [Db], context: { attested: Rootbound::Attested },
    };
"#;

fn id() -> Versioned {
    Versioned { name: "test".parse().unwrap(), version: 1 }
}

fn source(policies: &str) -> BundleSource {
    BundleSource {
        policies: BTreeMap::from([("a.cedar".parse().unwrap(), policies.to_owned())]),
        schema: Some(SCHEMA.to_owned()),
        entities: Some(
            json!([
                { "uid": { "type": "Db", "id": "orders" }, "attrs": { "level": 3 },
                  "parents": [{ "type": "Db", "id": "all" }] },
                { "uid": { "type": "Db", "id": "all" }, "attrs": { "level": 9 }, "parents": [] },
            ])
            .to_string(),
        ),
        cases: BTreeMap::new(),
        routes: None,
    }
}

fn compile(policies: &str) -> Bundle {
    Bundle::compile(id(), source(policies)).unwrap()
}

fn refused(source: BundleSource) -> BundleError {
    let error = Bundle::compile(id(), source).unwrap_err();
    assert!(!error.to_string().is_empty());
    error
}

fn live(change: impl FnOnce(&mut LiveNode)) -> LiveNode {
    let mut labels = Labels::default();
    labels.set("env".parse().unwrap(), Some("prod".parse().unwrap())).unwrap();
    let mut node = LiveNode {
        revision: 1,
        epoch: 1,
        holds: Vec::new(),
        attested_after: None,
        standing: Standing::Admitted { by: AdmittedBy::Approval },
        labels,
        attestation_key: Name::of_public_area(HashAlgorithm::Sha256, b"AK"),
        endorsed_by: EndorsedBy::Manufacturer,
        posture: Some(Posture {
            verdict: Verdict::Affirming,
            evidence_at: NOW.minus(60 * SECOND),
            fresh_for: 180 * SECOND,
            profile: Some("default@3".into()),
            references: vec!["fleet@7".into()],
            deviations: Vec::new(),
            claims: TrustVector { executables: Executables::ApprovedRuntime, ..TrustVector::NONE },
            booted: Booted {
                boot: Some("41.2".into()),
                secure_boot: Some(true),
                kernel: Some("ab".repeat(32)),
                firmware: None,
            },
            observed: None,
        }),
        credentials: vec![LiveCredential {
            serial: SerialNumber::from_slice(&[0x41; 16]).unwrap(),
            not_before: NOW.minus(100 * SECOND),
            not_after: NOW.plus(600 * SECOND),
        }],
    };
    change(&mut node);
    node
}

fn posture(node: &mut LiveNode) -> &mut Posture {
    node.posture.as_mut().unwrap()
}

/// A node that stands so, by facts of its own.
fn standing(status: Status) -> RecordedFacts {
    RecordedFacts::Node(Box::new(NodeFacts { posture: status, ..facts(&live(|_| {})) }))
}

fn facts(node: &LiveNode) -> NodeFacts<'static> {
    Attested::of(NODE, node, NOW).facts().clone().into_owned()
}

fn question(action: &str, rest: Value) -> Question {
    let mut question = json!({
        "subject": { "type": "node", "id": NODE.to_string() },
        "action": { "name": action, "properties": { "amount": 5 } },
        "resource": { "type": "Db", "id": "orders" },
    });
    for (key, value) in rest.as_object().unwrap() {
        question[key] = value.clone();
    }
    serde_json::from_value(question).unwrap()
}

fn write() -> Question {
    question("write", json!({}))
}

fn outcome(bundle: &Bundle, question: &Question, node: &LiveNode) -> Outcome {
    bundle.decide(question, &SubjectFacts::Node(Attested::of(NODE, node, NOW)))
}

fn code(bundle: &Bundle, question: &Question, node: &LiveNode) -> &'static str {
    outcome(bundle, question, node).code()
}

/// A permit for everything that is written, with a condition.
fn permit(id: &str, annotations: &str, condition: &str) -> String {
    format!(
        r#"@id("{id}") {annotations} permit (principal, action == Action::"write", resource) {condition};"#
    )
}

// ---- What is refused ----

#[test]
fn each_policy_has_a_name_of_its_own_and_annotations_that_are_known() {
    let code = |policies: &str| refused(source(policies)).code();
    let all = "permit (principal, action, resource);";
    assert_eq!(code(all), "policy_id_missing");
    assert_eq!(code(&format!(r#"@id("a b") {all}"#)), "policy_id_invalid");
    assert_eq!(code(&format!(r#"@id("a") {all} @id("a") {all}"#)), "policy_id_twice");
    assert_eq!(code(&format!(r#"@id("a") @accept("stale") {all}"#)), "annotation_unknown");
    let mut two_files = source(&format!(r#"@id("a") {all}"#));
    two_files.policies.insert("b.cedar".parse().unwrap(), format!(r#"@id("a") {all}"#));
    assert_eq!(refused(two_files), BundleError::SameId { id: "a".into() });
    for accepts in ["", "fine", "affirming", "stale,,warning", "stale;warning", "Stale"] {
        assert_eq!(code(&format!(r#"@id("a") @accepts("{accepts}") {all}"#)), "annotation_accepts_invalid");
    }
    for fresh in ["", "0", "-1", "+1", " 1", "1.5", "86401", "99999999999999999999", "1m"] {
        assert_eq!(
            code(&format!(r#"@id("a") @fresh("{fresh}") {all}"#)),
            "annotation_fresh_invalid",
            "{fresh}"
        );
    }
    let long = "x".repeat(Bundle::MAX_DOC + 1);
    assert_eq!(code(&format!(r#"@id("a") @doc("{long}") {all}"#)), "annotation_doc_too_long");
    for annotation in [r#"@fresh("3")"#, r#"@accepts("stale")"#] {
        let forbid = format!(r#"@id("a") {annotation} forbid (principal, action, resource);"#);
        assert_eq!(code(&forbid), "annotation_on_forbid");
    }
    compile(&format!(r#"@id("a") @doc("why") @fresh("86400") @accepts("stale, warning") {all}"#));
}

#[test]
fn policies_that_are_none_or_do_not_fit_the_schema_are_refused() {
    let code = |policies: &str| refused(source(policies)).code();
    assert_eq!(code("permit"), "policy_unparsable");
    assert_eq!(code("// nothing"), "bundle_without_policy");
    assert_eq!(code(r#"@id("a") permit (principal == ?principal, action, resource);"#), "policy_template");
    for condition in [
        "when { context.attested.evidence_age < 3 }", // may be absent, and no `has`
        "when { context.attested.postures == \"affirming\" }",
        "when { context.request.context.ip.isIpv4() }",
        "when { context.request.posture == \"affirming\" }",
        "when { context.posture == \"affirming\" }",
        "when { context.request.action.amount == \"5\" }",
        "when { principal.posture == \"affirming\" }",
        "when { resource.level > \"3\" }",
        "when { resource in Nobody::\"x\" }",
    ] {
        let condition = condition.replace('\\', "");
        assert_eq!(code(&permit("a", "", &condition)), "policy_invalid", "{condition}");
    }
    let unknown_action = r#"@id("a") permit (principal, action == Action::"erase", resource);"#;
    assert_eq!(code(unknown_action), "policy_invalid");
}

#[test]
fn what_is_too_large_or_too_deep_is_refused() {
    let one = permit("a", "", "");
    let mut large = source(&one);
    large.entities = Some(" ".repeat(BundleSource::MAX_BYTES));
    assert_eq!(refused(large).code(), "bundle_too_large");
    let mut files = source(&one);
    for index in 0..BundleSource::MAX_FILES {
        files.cases.insert(format!("{index}.json").parse().unwrap(), "[]".into());
    }
    assert_eq!(refused(files).code(), "bundle_too_many_files");
    let text = |length: usize| permit("a", "", &format!("when {{ \"{}\" == \"\" }}", "x".repeat(length)));
    assert_eq!(refused(source(&text(Bundle::MAX_POLICY))).code(), "policy_too_large");
    let many: String = (0..=Bundle::MAX_POLICIES).map(|index| permit(&format!("p{index}"), "", "")).collect();
    assert_eq!(refused(source(&many)).code(), "bundle_too_many_policies");
    let deep = format!("when {{ {}true{} }}", "(".repeat(5_000), ")".repeat(5_000));
    assert_eq!(refused(source(&permit("a", "", &deep))).code(), "bundle_nested_too_deeply");
    let chain = format!("when {{ 1{} == 1 }}", " + 1".repeat(3_500));
    assert_eq!(refused(source(&permit("a", "", &chain))).code(), "policy_too_deep");
    let mut schema = source(&one);
    schema.schema = Some(format!("type T = {}Long{};", "Set<".repeat(5_000), ">".repeat(5_000)));
    assert!(matches!(refused(schema), BundleError::Nested { line: 1, .. }));
}

#[test]
fn what_is_as_deep_as_it_may_be_takes_no_stack() {
    let nested = format!("when {{ {}true{} }}", "(".repeat(22), ")".repeat(22));
    let chains = [
        format!("when {{ 0{} == 30 }}", " + 1".repeat(30)),
        format!("when {{ true{} }}", " && true".repeat(31)),
        format!("when {{ {}true{} }}", "if true then ".repeat(20), " else false".repeat(20)),
        nested,
    ];
    for (index, chain) in chains.iter().enumerate() {
        let bundle = compile(&permit("a", "", chain));
        assert_eq!(code(&bundle, &write(), &live(|_| {})), "permitted", "{index}");
        assert_eq!(bundle.explain(&write(), &standing(Status::Affirming)).policies.len(), 1);
    }
}

#[test]
fn a_bundle_that_is_valid_and_slow_is_refused() {
    let pattern = "*a".repeat(500);
    let like = format!(
        "when {{ context.request.resource has path && context.request.resource.path like \"{pattern}\" }}"
    );
    let policies =
        |count: usize| -> String { (0..count).map(|n| permit(&format!("p{n}"), "", &like)).collect() };
    compile(&policies(2));
    let error = refused(source(&policies(3)));
    assert!(matches!(&error, BundleError::TooSlow { action, .. } if action == "write"), "{error}");
    // Elsewhere the same policies are paid by whoever asks there.
    let other = |n: usize| permit(&format!("p{n}"), "", "").replace("\"write\"", "\"read\"");
    compile(&(0..500).map(other).collect::<String>());
}

#[test]
fn a_schema_stays_out_of_what_is_ours() {
    let with = |schema: &str| {
        let mut source = source(r#"@id("a") permit (principal, action, resource);"#);
        source.entities = None;
        source.schema = Some(schema.to_owned());
        source
    };
    let code = |schema: &str| refused(with(schema)).code();
    assert_eq!(code("entity"), "schema_invalid");
    assert_eq!(code("entity A in [B];"), "schema_invalid");
    assert_eq!(code("namespace Rootbound { entity Other; }"), "schema_touches_rootbound");
    assert_eq!(code("namespace Rootbound::Mine { entity Other; }"), "schema_touches_rootbound");
    assert_eq!(code("entity node;"), "schema_type_reserved");
    let action =
        |context: &str| format!("entity A; action act appliesTo {{ principal: A, resource: A{context} }};");
    assert!(Bundle::compile(id(), with(&action(", context: { attested: Rootbound::Attested }"))).is_ok());
    for context in [
        "",
        ", context: {}",
        ", context: { attested?: Rootbound::Attested }",
        ", context: { attested: String }",
        ", context: { attested: Rootbound::TrustVector }",
        ", context: { attested: Rootbound::Attested, more: String }",
        ", context: { attested: Rootbound::Attested, request?: {} }",
        ", context: { attested: Rootbound::Attested, request: { other: {} } }",
        ", context: { attested: Rootbound::Attested, request: { subject: String } }",
        ", context: { attested: Rootbound::Attested, request: { subject?: {} } }",
        ", context: { attested: Rootbound::Attested, request: String }",
    ] {
        assert_eq!(code(&action(context)), "schema_context_invalid", "{context}");
    }
    for request in [
        "{ posture: String }",
        "{ attested: Rootbound::Attested }",
        "{ subject: { posture: String } }",
        "{ context: { deep: { deeper: Set<{ labels?: Set<String> }> } } }",
        "{ resource: { attested: Bool } }",
    ] {
        let context = format!(", context: {{ attested: Rootbound::Attested, request: {request} }}");
        assert_eq!(code(&action(&context)), "request_declares_attested", "{request}");
    }
    let twice = "namespace B { entity A; action Act appliesTo \
        { principal: A, resource: A, context: { attested: Rootbound::Attested } }; }";
    assert_eq!(code(twice), "schema_action_twice");
    let square = |side: usize| {
        let types: Vec<_> = (0..side).map(|index| format!("T{index}")).collect();
        format!(
            "entity {0}; action act appliesTo {{ principal: [{0}], resource: [{0}], context: {{ attested: \
             Rootbound::Attested }} }};",
            types.join(", ")
        )
    };
    assert_eq!(code(&square(64)), "schema_too_many_combinations");
    let mut many = with(&square(60));
    many.policies.insert(
        "b.cedar".parse().unwrap(),
        (0..100).map(|n| format!(r#"@id("p{n}") permit (principal, action, resource);"#)).collect(),
    );
    assert_eq!(refused(many).code(), "bundle_too_many_checks");
}

#[test]
fn entities_fit_the_schema_and_are_no_machines() {
    let with = |entities: Value| {
        let mut source = source(&permit("a", "", ""));
        source.entities = Some(entities.to_string());
        source
    };
    let code = |entities: Value| refused(with(entities)).code();
    let entity = |kind: &str, id: &str, attrs: Value| json!({ "uid": { "type": kind, "id": id }, "attrs": attrs, "parents": [] });
    assert_eq!(code(json!({})), "entities_invalid");
    assert_eq!(code(json!([entity("Db", "a", json!({}))])), "entities_invalid");
    assert_eq!(code(json!([entity("Nobody", "a", json!({}))])), "entities_invalid");
    for kind in ["Node", "Workload", "Session", "Service", "Credential", "Subject"] {
        let name = format!("Rootbound::{kind}");
        assert_eq!(code(json!([entity(&name, "a", json!({}))])), "entity_reserved", "{kind}");
    }
    assert!(Bundle::compile(id(), with(json!([entity("Rootbound::Resource", "a", json!({}))]))).is_ok());
    let chain: Vec<_> = (0..700)
        .map(|index: u32| {
            let uid = |index: u32| json!({ "type": "Db", "id": index.to_string() });
            json!({ "uid": uid(index), "attrs": { "level": 1 }, "parents": [uid(index + 1)] })
        })
        .collect();
    assert_eq!(code(json!(chain)), "entities_too_related");
}

#[test]
fn cases_are_bounded_and_run() {
    let mut bundle = source(&permit("writes", r#"@fresh("30")"#, ""));
    let case = |expect: Value| {
        json!({
            "name": "a write",
            "question": write(),
            "facts": { "node": { "node": NODE, "posture": "affirming", "evidence_age": 31 } },
            "expect": expect,
        })
    };
    let too_old =
        json!({ "decision": false, "code": "evidence_too_old", "policies": ["writes"], "step_up": 30 });
    let allowed = json!({ "decision": true, "code": "permitted", "policies": ["writes"] });
    let file = |cases: Value| BTreeMap::from([("c.json".parse().unwrap(), cases.to_string())]);
    bundle.cases = file(json!([case(too_old), case(allowed)]));
    let reports = Bundle::compile(id(), bundle.clone()).unwrap().run_cases();
    assert_eq!(reports.iter().map(CaseReport::passed).collect::<Vec<_>>(), [true, false]);
    assert_eq!(reports[1].found.code, "evidence_too_old");
    bundle.cases = file(json!([{ "name": "no question" }]));
    assert_eq!(refused(bundle.clone()).code(), "case_invalid");
    let mut misspelt = case(json!({ "decision": true, "code": "permitted" }));
    misspelt["facts"]["node"]["kernle"] = json!("ab");
    bundle.cases = file(json!([misspelt]));
    assert_eq!(refused(bundle.clone()).code(), "case_invalid", "a fact that there is not");
    let plain = json!({
        "name": "x", "question": write(), "facts": "unattested", "expect": { "decision": false, "code": "x" },
    });
    bundle.cases = file(json!(vec![plain; Case::MAX + 1]));
    assert_eq!(refused(bundle).code(), "bundle_too_many_cases");
}

#[test]
fn files_have_names_that_stay_in_their_folder() {
    for bad in ["", ".", "..", ".a", "a/b", "a\\b", "a b", &"a".repeat(101)] {
        assert!(bad.parse::<FileName>().is_err(), "{bad}");
    }
    assert!("10-basics.cedar".parse::<FileName>().is_ok());
    let (one, mut other) = (source("x"), source("x"));
    assert_eq!(one.digest(), other.digest());
    other.cases = std::mem::take(&mut other.policies);
    assert_ne!(one.digest(), other.digest(), "a text counts with its place");
}

// ---- What is decided ----

#[test]
fn only_an_affirming_node_is_permitted_unless_a_policy_names_its_status() {
    let plain = compile(&permit("a", "", ""));
    for status in Status::ALL.into_iter().filter(|status| *status != Status::Unattested) {
        let judged = plain.rehearse(&write(), &standing(status));
        let expected = match status {
            Status::Affirming => "permitted",
            Status::Warning => "posture_warning",
            Status::Stale => "posture_stale",
            Status::Unknown => "posture_unknown",
            Status::Contraindicated => "posture_contraindicated",
            Status::Blocked => "posture_blocked",
            Status::Unattested => "posture_unattested",
        };
        assert_eq!((judged.code(), judged.allowed()), (expected, status == Status::Affirming));
        assert_eq!(judged.determining()[0].as_str(), "a", "what would have permitted it");
        if status != Status::Affirming {
            let named = compile(&permit("a", &format!("@accepts(\"{}\")", status.as_str()), ""));
            assert!(named.rehearse(&write(), &standing(status)).allowed());
            assert!(named.rehearse(&write(), &standing(Status::Affirming)).allowed());
            for other in Status::ALL
                .into_iter()
                .filter(|other| ![status, Status::Affirming, Status::Unattested].contains(other))
            {
                assert!(!named.rehearse(&write(), &standing(other)).allowed());
            }
        }
    }
    let user = question("write", json!({ "subject": { "type": "user", "id": "alice" } }));
    let ask = |bundle: &Bundle| bundle.decide(&user, &SubjectFacts::Unattested);
    assert_eq!(ask(&plain).code(), "posture_unattested");
    assert!(ask(&compile(&permit("a", r#"@accepts("unattested")"#, ""))).allowed());
}

#[test]
fn evidence_that_is_too_old_asks_for_newer() {
    let bundle = compile(&format!(
        "{}{}{}",
        permit("thirty", r#"@fresh("30")"#, ""),
        permit("ten", r#"@fresh("10")"#, ""),
        permit("for-stale", r#"@fresh("5") @accepts("stale")"#, "")
    ));
    let aged = |seconds: u64, millis: u64| {
        live(|node| posture(node).evidence_at = NOW.minus(Duration::from_millis(seconds * 1_000 + millis)))
    };
    let fresh = outcome(&bundle, &write(), &aged(8, 0));
    assert!(fresh.allowed() && fresh.step_up().is_none());
    assert_eq!(names(fresh.judgement()), ["ten", "thirty"]);
    assert_eq!(code(&bundle, &write(), &aged(30, 0)), "permitted");
    let old = outcome(&bundle, &write(), &aged(30, 1));
    assert_eq!((old.code(), old.step_up()), ("evidence_too_old", Some(30 * SECOND)));
    assert_eq!(old.obligations(), [Obligation::StepUp { within: 30 }]);
    assert_eq!(names(old.judgement()), ["for-stale", "ten", "thirty"]);
    let stale = outcome(&bundle, &write(), &aged(181, 0));
    assert_eq!((stale.code(), stale.step_up()), ("evidence_too_old", Some(5 * SECOND)));
    let denied = stale.into_permit().unwrap_err();
    assert_eq!(denied.judgement().code(), "evidence_too_old");
    // Who is no machine cannot quote.
    let user = question("write", json!({ "subject": { "type": "user", "id": "alice" } }));
    let both = compile(&permit("a", r#"@fresh("30") @accepts("unattested,unknown")"#, ""));
    let judged = both.decide(&user, &SubjectFacts::Unattested);
    assert_eq!((judged.code(), judged.step_up()), ("evidence_too_old", None));
    let never = outcome(&both, &write(), &live(|node| node.posture = None));
    assert_eq!((never.code(), never.step_up()), ("evidence_too_old", Some(30 * SECOND)));
}

fn names(judgement: &Judgement) -> Vec<&str> {
    judgement.determining().iter().map(PolicyName::as_str).collect()
}

#[test]
fn a_forbid_overrides_and_an_error_never_allows() {
    let forbid = r#"@id("never") forbid (principal, action == Action::"write", resource) when { resource.level > 2 };"#;
    let bundle = compile(&format!("{}{forbid}", permit("a", "", "")));
    let forbidden = outcome(&bundle, &write(), &live(|_| {}));
    assert_eq!((forbidden.code(), names(forbidden.judgement())), ("forbidden_by_policy", vec!["never"]));
    // A resource of which nothing is known has no level.
    let elsewhere = question("write", json!({ "resource": { "type": "Db", "id": "new" } }));
    let failed = outcome(&bundle, &elsewhere, &live(|_| {}));
    assert_eq!((failed.code(), failed.determining().len()), ("policy_error", 0));
    assert_eq!(failed.errors()[0].policy.as_str(), "never");
    assert!(failed.into_permit().is_err());
    let overflow = permit("a", "", "when { context.request.action.amount + 1 > 0 }");
    let most = |action: &str| {
        question(action, json!({ "action": { "name": action, "properties": { "amount": i64::MAX } } }))
    };
    let judged = outcome(&compile(&overflow), &most("write"), &live(|_| {}));
    assert_eq!((judged.code(), judged.errors().len()), ("no_policy_permits", 1));
    let both = compile(&format!("{overflow}{}", permit("b", "", "")));
    let judged = outcome(&both, &most("write"), &live(|_| {}));
    assert_eq!(
        (judged.code(), names(judged.judgement())),
        ("permitted", vec!["b"]),
        "the other permit stands"
    );
}

#[test]
fn facts_belong_to_the_subject_of_the_question() {
    let bundle = compile(&permit("a", r#"@accepts("unattested")"#, ""));
    let node = live(|_| {});
    let other = NodeId::from_bytes([2; 32]);
    let of_other = SubjectFacts::Node(Attested::of(other, &node, NOW));
    let user = question("write", json!({ "subject": { "type": "user", "id": NODE.to_string() } }));
    for (question, facts) in [
        (write(), of_other),
        (write(), SubjectFacts::Unattested),
        (write(), SubjectFacts::UnknownNode),
        (write(), SubjectFacts::Service(ServiceFacts { may_read: true, may_signal: true })),
        (user, SubjectFacts::Node(Attested::of(NODE, &node, NOW))),
        (
            question("write", json!({ "subject": { "type": "node", "id": "none" } })),
            SubjectFacts::UnknownNode,
        ),
    ] {
        assert_eq!(bundle.decide(&question, &facts).code(), "unknown_subject");
    }
    assert_eq!(code(&bundle, &write(), &live(|node| node.standing = Standing::Pending)), "admission_pending");
    assert_eq!(code(&bundle, &write(), &live(|node| node.standing = Standing::Retired)), "node_retired");
    assert_eq!(code(&bundle, &write(), &node), "permitted");
    let by_name =
        question("write", json!({ "subject": { "type": "Rootbound::Node", "id": NODE.to_string() } }));
    assert_eq!(code(&bundle, &by_name, &node), "permitted");
}

#[test]
fn what_does_not_fit_the_schema_is_denied() {
    let bundle = compile(&permit("a", "", ""));
    let node = live(|_| {});
    let misfit = |rest: Value| {
        let outcome = outcome(&bundle, &question("write", rest), &node);
        assert_eq!(outcome.code(), "request_does_not_fit_schema");
        outcome.judgement().misfit().unwrap().at.clone()
    };
    assert_eq!(code(&bundle, &question("erase", json!({})), &node), "unknown_action");
    assert_eq!(misfit(json!({ "resource": { "type": "Table", "id": "x" } })), "resource type");
    assert_eq!(misfit(json!({ "resource": { "type": "user", "id": "x" } })), "subject and resource type");
    assert_eq!(misfit(json!({ "action": { "name": "write" } })), "request.action.amount");
    for amount in [json!("5"), json!(1.5), json!(18_446_744_073_709_551_615_u64), json!(null), json!([5])] {
        let action = json!({ "name": "write", "properties": { "amount": amount } });
        assert_eq!(misfit(json!({ "action": action })), "request.action.amount");
    }
    for (context, at) in [
        (json!({ "ip": "nowhere" }), "request"),
        (json!({ "ip": 4 }), "request.context.ip"),
        (json!({ "price": "1.23456" }), "request"),
        (json!({ "who": { "__entity": { "type": "Team", "id": "a" } } }), "request.context.who"),
        (json!({ "tags": ["a", 1] }), "request.context.tags"),
        (json!({ "tags": "a" }), "request.context.tags"),
        (json!({ "deep": { "flag": "yes" } }), "request.context.deep.flag"),
        (json!({ "deep": {} }), "request.context.deep.flag"),
        (json!({ "deep": true }), "request.context.deep"),
    ] {
        assert_eq!(misfit(json!({ "context": context })), at, "{context}");
    }
    let path = |length: usize| json!({ "resource": { "type": "Db", "id": "orders", "properties": { "path": "x".repeat(length) } } });
    assert_eq!(misfit(path(4_097)), "request.resource.path");
    assert_eq!(code(&bundle, &question("write", path(4_096)), &node), "permitted");
    let user = question("write", json!({ "subject": { "type": "nobody", "id": "x" } }));
    assert_eq!(bundle.decide(&user, &SubjectFacts::Unattested).code(), "request_does_not_fit_schema");
}

#[test]
fn what_the_caller_says_is_read_by_its_declared_types() {
    let bundle = compile(&permit(
        "a",
        "",
        r#"when {
            context.request.subject has team && context.request.subject.team == "red"
            && context.request.action.amount == 5
            && context.request.context has ip && context.request.context.ip.isInRange(ip("10.0.0.0/8"))
            && context.request.context has who && context.request.context.who == Team::"ops"
            && context.request.context has tags && context.request.context.tags.contains("b")
            && context.request.context has deep && context.request.context.deep.flag
            && context.request.context has price && context.request.context.price.lessThan(decimal("2.0"))
            && !(context.request.resource has path)
        }"#,
    ));
    let full = json!({
        "subject": { "type": "node", "id": NODE.to_string(), "properties": { "team": "red", "other": [1] } },
        "resource": { "type": "Db", "id": "orders", "properties": { "path": null } },
        "context": { "ip": "10.1.2.3", "who": "ops", "tags": ["a", "b"], "deep": { "flag": true, "more": 1 },
                     "price": "1.5", "undeclared": { "deep": {} } },
    });
    let outcome = outcome(&bundle, &question("write", full), &live(|_| {}));
    assert_eq!((outcome.code(), outcome.errors()), ("permitted", &[][..]));
}

#[test]
fn each_attested_fact_is_there_under_its_name() {
    let facts = r#"when {
        context.attested.posture == "affirming" && context.attested.trust.executables == 2
        && context.attested.trust.hardware == 0 && context.attested.labels.contains("env=prod")
        && context.attested.references == ["fleet@7"]
        && context.attested has node && context.attested.node like "0101*"
        && context.attested has evidence_age && context.attested.evidence_age == 60
        && context.attested has profile && context.attested.profile == "default@3"
        && context.attested has boot && context.attested.boot == "41.2"
        && context.attested has credential_age && context.attested.credential_age == 100
        && context.attested has standing && context.attested.standing == "admitted"
        && context.attested has endorsed_by && context.attested.endorsed_by == "manufacturer"
        && context.attested has secure_boot && context.attested.secure_boot
        && context.attested has kernel && context.attested.kernel like "abab*"
        && !(context.attested has firmware) && !(context.attested has may_read) && !(context.attested has may_signal)
    } when {
        context.attested.holds.isEmpty() && context.attested has epoch && context.attested.epoch == 1
        && context.attested has observed && !context.attested.observed
    }"#;
    let bundle = compile(&permit("a", "", facts));
    let outcome = outcome(&bundle, &write(), &live(|_| {}));
    assert_eq!((outcome.code(), outcome.errors()), ("permitted", &[][..]));
    let explained = bundle.explain(&write(), &standing(Status::Affirming));
    let every: Vec<_> = Fact::ALL.into_iter().map(Fact::name).collect();
    assert_eq!(explained.looked_at, every);
    let user = question("write", json!({ "subject": { "type": "user", "id": "alice" } }));
    let none = compile(&permit(
        "a",
        r#"@accepts("unattested")"#,
        r#"when { context.attested.posture == "unattested" && context.attested.labels.isEmpty()
                  && !(context.attested has node) && context.attested.trust.hardware == 0 }"#,
    ));
    assert!(none.decide(&user, &SubjectFacts::Unattested).allowed());
}

/// As docs/POLICY.md has it of `epoch`.
#[test]
fn a_policy_compares_the_epoch_that_a_caller_read_in_a_certificate_with_the_nodes() {
    let when = r#"when { context.attested has epoch && context.attested.epoch == context.request.context.credential_epoch }"#;
    let mut of_epochs = source(&permit("same", "", when));
    of_epochs.schema =
        Some(SCHEMA.replace("context: { ip?: ipaddr,", "context: { credential_epoch: Long, ip?: ipaddr,"));
    let bundle = Bundle::compile(id(), of_epochs).unwrap();
    let node = live(|node| node.epoch = 7);
    for (read, expected) in [(7, "permitted"), (6, "no_policy_permits"), (8, "no_policy_permits")] {
        let question = question("write", json!({ "context": { "credential_epoch": read } }));
        assert_eq!(code(&bundle, &question, &node), expected);
    }
    assert_eq!(code(&bundle, &write(), &node), "request_does_not_fit_schema", "it is not left out");
}

#[test]
fn a_policy_sees_who_holds_a_node_and_only_while_it_does() {
    let when = r#"when { context.attested.holds == ["block:operator", "lower:relying_party:scanner"] }"#;
    let bundle = compile(&permit("held", r#"@accepts("blocked")"#, when));
    let hold = |kind, by, expires_at| Hold {
        id: "00112233445566778899aabbccddeeff".parse().unwrap(),
        kind,
        by,
        reason: "found something".to_owned().try_into().unwrap(),
        since: NOW.minus(SECOND),
        expires_at,
    };
    let scanner = || HeldBy::RelyingParty("scanner".parse().unwrap());
    let held = live(|node| {
        node.holds = vec![
            hold(HoldKind::Lower, scanner(), None),
            hold(HoldKind::Block, HeldBy::Operator("uid 0".to_owned()), None),
            hold(HoldKind::Block, scanner(), Some(NOW.minus(SECOND))),
        ];
    });
    let outcome = outcome(&bundle, &write(), &held);
    assert_eq!((outcome.code(), outcome.errors()), ("permitted", &[][..]));
}

#[test]
fn a_credential_that_has_expired_has_no_age() {
    let when = "when { context.attested has credential_age && context.attested.credential_age <= 3600 }";
    let bundle = compile(&permit("a", "", when));
    let until =
        |not_after| live(|node| node.credentials.iter_mut().for_each(|one| one.not_after = not_after));
    assert!(outcome(&bundle, &write(), &until(NOW)).allowed(), "to its last millisecond");
    let expired = until(NOW.minus(Duration::from_millis(1)));
    assert_eq!(outcome(&bundle, &write(), &expired).code(), "no_policy_permits");
}

#[test]
fn entities_have_no_longer_values_than_requests() {
    let schema = "entity Note = { text: String, tags: Set<Long> };\n".to_owned() + SCHEMA;
    let with = |text: usize, tags: usize| {
        let uid = json!({ "type": "Note", "id": "n" });
        let attrs = json!({ "text": "x".repeat(text), "tags": (0..tags).collect::<Vec<_>>() });
        let entities = json!([{ "uid": uid, "attrs": attrs, "parents": [] }]).to_string();
        let source = BundleSource {
            schema: Some(schema.clone()),
            entities: Some(entities),
            ..source(&permit("a", "", ""))
        };
        Bundle::compile(id(), source).map(drop)
    };
    assert!(with(4096, 1000).is_ok());
    for (text, tags) in [(4097, 1), (1, 1001)] {
        let refused = with(text, tags).unwrap_err();
        assert!(matches!(refused, BundleError::EntityTooLarge { .. }), "{refused}");
        assert_eq!(refused.code(), "entity_too_large");
    }
}

#[test]
fn of_a_question_what_the_schema_declares_is_kept_and_no_more() {
    let schema = r#"
        entity Db;
        type Inner = { a: Long };
        action write appliesTo {
            principal: [Rootbound::Node],
            resource: [Db],
            context: {
                attested: Rootbound::Attested,
                request: { subject: { team?: String }, context: { inner?: Inner, many?: Set<Inner> } },
            },
        };
    "#;
    let source = BundleSource {
        schema: Some(schema.to_owned()),
        entities: None,
        ..source(r#"@id("a") permit (principal, action, resource);"#)
    };
    let bundle = Bundle::compile(id(), source).unwrap();
    let ask = |name: &str| -> Question {
        serde_json::from_value(json!({
            "subject": { "type": "node", "id": "n", "properties": { "team": { "token": "t" }, "token": "t" } },
            "action": { "name": name, "properties": { "token": "t" } },
            "resource": { "type": "Db", "id": "orders", "properties": { "token": "t" } },
            "context": { "inner": { "a": 1, "token": "t" }, "many": [{ "a": 2, "token": "t" }, "t"], "token": "t" },
        }))
        .unwrap()
    };
    let kept = serde_json::to_value(bundle.declared(&ask("write"))).unwrap();
    assert_eq!(kept["subject"], json!({ "type": "node", "id": "n", "properties": { "team": {} } }));
    assert_eq!(kept["action"], json!({ "name": "write" }));
    assert_eq!(kept["resource"], json!({ "type": "Db", "id": "orders" }));
    assert_eq!(kept["context"], json!({ "inner": { "a": 1 }, "many": [{ "a": 2 }, null] }));
    let unknown = serde_json::to_value(bundle.declared(&ask("other"))).unwrap();
    assert!(!unknown.to_string().contains("\"t\""), "of an action that there is not, nothing: {unknown}");
}

#[test]
fn every_attested_record_fits_the_schema() {
    let bundle = compile(&permit("a", "", ""));
    let firmware = |node: &mut LiveNode| posture(node).booted.firmware = Some("1.0".into());
    let nodes = [
        live(|_| {}),
        live(firmware),
        live(|node| node.posture = None),
        live(|node| node.credentials.clear()),
    ];
    let user = question("write", json!({ "subject": { "type": "user", "id": "alice" } }));
    let mut all: Vec<_> =
        nodes.iter().map(|node| (write(), RecordedFacts::Node(Box::new(facts(node))))).collect();
    all.push((user, RecordedFacts::Unattested));
    let service = ServiceFacts { may_read: true, may_signal: false };
    all.push((Question::signal("scanner".into(), NODE), RecordedFacts::Service(service)));
    for (question, facts) in all {
        let prepared = bundle.prepare(&question, facts.seen(), Some(FactSet::ALL)).ok().unwrap();
        let context = prepared.request.context().unwrap();
        context.validate(&bundle.schema.schema, prepared.request.action().unwrap()).unwrap();
    }
}

#[test]
fn a_permit_is_for_what_was_asked() {
    let bundle = Bundle::builtin().unwrap();
    let issue = Question::issue_credential(NODE, CredentialKind::X509Svid);
    let permit = outcome(&bundle, &issue, &live(|_| {})).into_permit().unwrap();
    assert!(permit.is_to_issue(NODE, CredentialKind::X509Svid));
    assert!(!permit.is_to_issue(NodeId::from_bytes([2; 32]), CredentialKind::X509Svid));
    assert_eq!(permit.bundle().to_string(), "builtin@1");
    assert_eq!(permit.determining()[0].as_str(), "issue-to-affirming-nodes");
    let ask = outcome(&bundle, &Question::ask(("node", NODE.to_string()), &issue), &live(|_| {}));
    assert!(!ask.into_permit().unwrap().is_to_issue(NODE, CredentialKind::X509Svid));
}

#[test]
fn a_bundle_that_issues_nothing_says_so() {
    let warns = |bundle: &Bundle| bundle.warnings().iter().any(|warning| warning.contains("IssueCredential"));
    assert!(warns(&compile(&permit("a", "", ""))));
    assert!(!warns(&Bundle::builtin().unwrap()));
}

#[test]
fn the_built_in_bundle_passes_its_cases() {
    let bundle = Bundle::builtin().unwrap();
    let reports = bundle.run_cases();
    assert!(reports.len() >= 10, "{}", reports.len());
    for report in reports {
        assert!(report.passed(), "{report:#?}");
    }
    assert_eq!(bundle.warnings(), [""; 0]);
}

#[test]
fn an_explanation_says_what_is_missing() {
    let bundle = compile(&format!(
        r#"{}{}
        @id("never") @doc("not there") forbid (principal, action == Action::"write", resource == Db::"all");"#,
        permit(
            "prod",
            r#"@fresh("30")"#,
            r#"when { context.attested.labels.contains("env=lab") && context.request.action.amount < 9 }
               unless { resource.level > 3 || context.request.action.amount == 5 }"#
        ),
        permit("kernel", "", r#"when { resource has owner && resource.owner == Team::"red" }"#),
    ));
    let explained = bundle.explain(&write(), &standing(Status::Stale));
    assert_eq!(explained.judgement.code(), "no_policy_permits");
    assert_eq!(explained.looked_at, ["labels"]);
    let [kernel, never, prod] = &explained.policies[..] else { panic!("{explained:#?}") };
    assert_eq!(kernel.conditions.iter().map(|one| one.met).collect::<Vec<_>>(), [Met::No, Met::NotReached]);
    assert!(!never.in_scope && never.forbids && never.missing().is_empty());
    assert_eq!(never.doc.as_deref(), Some("not there"));
    let met: Vec<_> = prod.conditions.iter().map(|one| one.met).collect();
    assert_eq!(met, [Met::No, Met::NotReached, Met::NotReached, Met::NotReached]);
    assert_eq!(
        prod.missing(),
        [
            r#"context.attested.labels.contains("env=lab")"#,
            "posture affirming",
            "evidence that is at most 30 seconds old",
        ]
    );
    let lab = live(|node| {
        node.labels.set("env".parse().unwrap(), Some("lab".parse().unwrap())).unwrap();
    });
    let explained = bundle.explain(&write(), &RecordedFacts::Node(Box::new(facts(&lab))));
    let prod = &explained.policies[2];
    assert_eq!(
        prod.conditions.iter().map(|one| one.met).collect::<Vec<_>>(),
        [Met::Yes, Met::Yes, Met::Yes, Met::No]
    );
    assert!(prod.conditions[3].text.starts_with("not ("), "{}", prod.conditions[3].text);
    let all = question("write", json!({ "resource": { "type": "Db", "id": "all" } }));
    let explained = bundle.explain(&all, &standing(Status::Affirming));
    assert_eq!(explained.judgement.code(), "forbidden_by_policy");
    assert!(explained.policies[1].applies());
    serde_json::to_string(&explained).unwrap();
    assert!(bundle.explain(&question("erase", json!({})), &standing(Status::Stale)).policies.is_empty());
}

// ---- What holds of all bundles ----

/// Conditions that are valid for `write`, and look at this and that.
const CONDITIONS: [&str; 12] = [
    "",
    "when { true }",
    "when { context.attested.posture == \"stale\" }",
    "when { context.attested has evidence_age && context.attested.evidence_age < 100 }",
    "when { context.attested.labels.contains(\"env=prod\") }",
    "when { context.attested == context.attested }",
    "when { context.request.action.amount > 5 }",
    "when { context.request.action.amount + 9223372036854775807 > 5 }",
    "when { resource.level < 5 }",
    "when { resource in Db::\"all\" } unless { context.attested has kernel }",
    "when { principal is user }",
    "when { context has request && context.request.context has ip && context.request.context.ip.isIpv4() }",
];
const SCOPES: [&str; 6] = [
    "principal, action, resource",
    "principal, action == Action::\"write\", resource",
    "principal is Rootbound::Node, action == Action::\"write\", resource == Db::\"orders\"",
    "principal is user, action == Action::\"write\", resource",
    "principal, action == Action::\"write\", resource in Db::\"all\"",
    "principal is Rootbound::Node, action == Action::\"write\", resource is Db",
];
const ACCEPTS: [&str; 4] =
    ["", "@accepts(\"stale\")", "@accepts(\"contraindicated,unattested\")", "@fresh(\"30\")"];

#[derive(Debug, Clone)]
struct Written {
    forbids: bool,
    scope: usize,
    condition: usize,
    accepts: usize,
}

fn written() -> impl Strategy<Value = Written> {
    (any::<bool>(), 0..SCOPES.len(), 0..CONDITIONS.len(), 0..ACCEPTS.len())
        .prop_map(|(forbids, scope, condition, accepts)| Written { forbids, scope, condition, accepts })
}

fn text(policies: &[Written]) -> String {
    let one = |(index, written): (usize, &Written)| {
        // The condition on the amount is valid for `write` alone.
        let condition = CONDITIONS[written.condition];
        let scope = if condition.contains("request") && written.scope == 0 {
            SCOPES[1]
        } else {
            SCOPES[written.scope]
        };
        let (effect, accepts) =
            if written.forbids { ("forbid", "") } else { ("permit", ACCEPTS[written.accepts]) };
        let condition = if scope == SCOPES[0] && condition.contains("resource") { "" } else { condition };
        format!("@id(\"p{index}\") {accepts} {effect} ({scope}) {condition};\n")
    };
    policies.iter().enumerate().map(one).collect()
}

fn subject() -> impl Strategy<Value = (Question, RecordedFacts)> {
    let node = (0..Status::ALL.len() - 1, proptest::option::of(0_u64..200), any::<bool>(), -3_i64..10)
        .prop_map(|(status, evidence_age, kernel, amount)| {
            let base = facts(&live(|_| {}));
            let kernel = base.kernel.clone().filter(|_| kernel);
            let node = NodeFacts { posture: Status::ALL[status], evidence_age, kernel, ..base };
            let action = json!({ "name": "write", "properties": { "amount": amount } });
            (question("write", json!({ "action": action })), RecordedFacts::Node(Box::new(node)))
        });
    let user = (any::<bool>()).prop_map(|known| {
        let resource = json!({ "type": "Db", "id": if known { "orders" } else { "new" } });
        let subject = json!({ "type": "user", "id": "alice" });
        (question("write", json!({ "subject": subject, "resource": resource })), RecordedFacts::Unattested)
    });
    prop_oneof![3 => node, 1 => user]
}

fn properties() -> impl Strategy<Value = Value> {
    let name = prop_oneof![
        Just("attested".to_owned()),
        Just("posture".to_owned()),
        Just("labels".to_owned()),
        Just("context".to_owned()),
        Just("request".to_owned()),
        Just("__entity".to_owned()),
        Just("__extn".to_owned()),
        "[a-z.]{1,8}",
    ];
    let leaf = prop_oneof![
        Just(json!("affirming")),
        Just(json!(0)),
        Just(json!(true)),
        Just(json!(["env=prod"])),
        Just(Value::Null),
    ];
    let inner = leaf.prop_recursive(3, 16, 4, move |inner| {
        proptest::collection::hash_map("[a-z_]{1,8}|attested|posture|labels", inner, 0..4)
            .prop_map(|members| json!(members))
    });
    proptest::collection::hash_map(name, inner, 0..6).prop_map(|members| json!(members))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(24) })]

    #[test]
    fn adding_a_forbid_never_allows(
        policies in proptest::collection::vec(written(), 1..5),
        forbid in written(),
        (question, facts) in subject(),
    ) {
        let before = compile(&text(&policies)).rehearse(&question, &facts);
        let mut more = policies;
        more.push(Written { forbids: true, ..forbid });
        let after = compile(&text(&more)).rehearse(&question, &facts);
        prop_assert!(before.allowed() || !after.allowed(), "{before:?} → {after:?}");
    }

    #[test]
    fn who_is_not_affirming_is_never_allowed_unless_a_policy_says_so(
        policies in proptest::collection::vec(written(), 1..5),
        (question, facts) in subject(),
    ) {
        let policies: Vec<_> = policies.into_iter().map(|one| Written { accepts: 0, ..one }).collect();
        let judged = compile(&text(&policies)).rehearse(&question, &facts);
        prop_assert!(!judged.allowed() || facts.seen().status() == Status::Affirming, "{judged:?}");
    }

    #[test]
    fn a_slice_says_what_all_policies_say(
        policies in proptest::collection::vec(written(), 1..8),
        (question, facts) in subject(),
    ) {
        let bundle = compile(&text(&policies));
        let sliced = bundle.rehearse(&question, &facts);
        let prepared = bundle.prepare(&question, facts.seen(), Some(FactSet::ALL)).ok().unwrap();
        let response = bundle.authorizer.is_authorized(&prepared.request, &bundle.whole(), &bundle.entities);
        let whole = decide::conclude(&response, &bundle.all_rules(), facts.seen());
        prop_assert_eq!(sliced, whole);
    }

    #[test]
    fn what_the_caller_says_never_changes_what_is_attested(
        (subject_says, resource_says, context) in (properties(), properties(), properties()),
        status in 0..Status::ALL.len() - 1,
    ) {
        let bundle = compile(&permit("a", "", "when { context.attested == context.attested }"));
        let facts = standing(Status::ALL[status]);
        let question = question("write", json!({
            "subject": { "type": "node", "id": NODE.to_string(), "properties": subject_says },
            "resource": { "type": "Db", "id": "orders", "properties": resource_says },
            "context": context,
        }));
        let attested = |question: &Question| {
            let prepared = bundle.prepare(question, facts.seen(), None).ok()?;
            prepared.request.context().unwrap().get("attested")
        };
        // Where a declared name has a wrong type, nothing is decided at all.
        if let Some(found) = attested(&question) {
            prop_assert_eq!(Some(found), attested(&write()));
            let allowed = bundle.rehearse(&question, &facts).allowed();
            prop_assert_eq!(allowed, Status::ALL[status] == Status::Affirming);
        }
    }
}

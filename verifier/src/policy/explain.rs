//! Why a bundle says what it says: each policy of the slice, condition by condition, and what would have allowed it.

use cedar_policy::{Authorizer, Decision, Entities, Policy, PolicySet, Request};
use serde::Serialize;
use serde_json::{Value, json};

use super::bundle::{Bundle, PolicyName, Rule};
use super::decide::{Judgement, is_fresh};
use super::facts::{Fact, FactSet, RecordedFacts, Seen, Status};
use super::question::Question;
use super::stack::{FOR_BOUNDED_POLICIES, on_stack_of};

/// Conditions of one policy that are shown.
const MAX_CONDITIONS: usize = 64;
/// Bytes of a condition's text that are shown.
const MAX_SHOWN: usize = 400;

/// An explanation, for the operator: it has the facts, which the one who asked may not see.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// What the bundle says.
    pub judgement: Judgement,
    /// What is attested.
    pub facts: RecordedFacts,
    /// The attested facts that the policies for such a question look at.
    pub looked_at: Vec<&'static str>,
    /// The policies for such a question, by name. None where the question does not get that far.
    pub policies: Vec<PolicyExplained>,
}

/// One policy, and what it makes of the question.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PolicyExplained {
    /// Which.
    pub name: PolicyName,
    /// Whether it forbids.
    pub forbids: bool,
    /// Its `@doc`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
    /// Whether subject, action and resource are those that it is about.
    pub in_scope: bool,
    /// Its conditions, in their order.
    pub conditions: Vec<ConditionExplained>,
    /// Of a permit: the statuses that it accepts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accepts: Vec<Status>,
    /// Of a permit: whether the subject's status is one of them.
    pub accepted: bool,
    /// Of a permit: how old the evidence may be, in seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fresh: Option<u64>,
    /// Of a permit: whether it is no older.
    pub is_fresh: bool,
}

/// A condition, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ConditionExplained {
    /// Its text; behind `unless`, with a `not` before it.
    pub text: String,
    /// What came of it.
    pub met: Met,
}

/// What came of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Met {
    /// It is met.
    Yes,
    /// It is not.
    No,
    /// It could not be evaluated: a fact or an attribute is missing.
    Failed,
    /// One before it was not met.
    NotReached,
}

impl PolicyExplained {
    /// Whether scope and conditions hold, whatever the posture.
    #[must_use]
    pub fn applies(&self) -> bool {
        self.in_scope && self.conditions.iter().all(|condition| condition.met == Met::Yes)
    }

    /// What would have to be otherwise for this permit to count, in words; of a forbid, for it not to.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        if self.forbids {
            let words = |condition: &ConditionExplained| format!("not: {}", condition.text);
            return if self.applies() { self.conditions.iter().map(words).collect() } else { Vec::new() };
        }
        let mut missing = Vec::new();
        if !self.in_scope {
            missing.push("another subject, action or resource".to_owned());
        }
        let unmet = self.conditions.iter().filter(|condition| matches!(condition.met, Met::No | Met::Failed));
        missing.extend(unmet.map(|condition| condition.text.clone()));
        if !self.accepted {
            let words: Vec<_> = self.accepts.iter().map(|status| status.as_str()).collect();
            missing.push(format!("posture {}", words.join(" or ")));
        }
        if let Some(seconds) = self.fresh.filter(|_| !self.is_fresh) {
            missing.push(format!("evidence that is at most {seconds} seconds old"));
        }
        missing
    }
}

impl Bundle {
    /// Explains what the bundle says to a question on these facts.
    #[must_use]
    pub fn explain(&self, question: &Question, facts: &RecordedFacts) -> Explanation {
        let mut explanation = Explanation {
            judgement: self.rehearse(question, facts),
            facts: facts.clone(),
            looked_at: Vec::new(),
            policies: Vec::new(),
        };
        let Ok(prepared) = self.prepare(question, facts.seen(), Some(FactSet::ALL)) else {
            return explanation;
        };
        let looked_at = Fact::ALL.into_iter().filter(|fact| prepared.slice.reads.contains(*fact));
        explanation.looked_at = looked_at.map(Fact::name).collect();
        let probe =
            Probe { authorizer: &self.authorizer, request: &prepared.request, entities: &self.entities };
        explanation.policies = on_stack_of(FOR_BOUNDED_POLICIES, || {
            prepared.slice.rules.values().map(|rule| explained(rule, facts.seen(), &probe)).collect()
        });
        explanation.policies.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        explanation
    }
}

fn explained(rule: &Rule, facts: Seen<'_>, probe: &Probe<'_>) -> PolicyExplained {
    let scope = |part: &str| rule.json.get(part).cloned().unwrap_or(Value::Null);
    let scope = [scope("principal"), scope("action"), scope("resource")];
    let in_scope = probe.holds(&scope, None).is_some_and(|(_, met)| met == Met::Yes);
    let mut conditions = Vec::new();
    let mut reached = in_scope;
    for (negated, body) in parts(&rule.json) {
        if conditions.len() >= MAX_CONDITIONS {
            break;
        }
        let Some((text, met)) = probe.holds(&anything(), Some((negated, body))) else { continue };
        let text = if negated { format!("not ({text})") } else { text };
        let met = if reached { met } else { Met::NotReached };
        reached &= met == Met::Yes;
        conditions.push(ConditionExplained { text, met });
    }
    let (accepts, accepted) = if rule.forbids {
        (Vec::new(), true)
    } else {
        (rule.accepts.iter().copied().collect(), rule.accepts.contains(&facts.status()))
    };
    PolicyExplained {
        name: rule.name.clone(),
        forbids: rule.forbids,
        doc: rule.doc.clone(),
        in_scope,
        conditions,
        accepts,
        accepted,
        fresh: rule.fresh,
        is_fresh: is_fresh(rule, facts),
    }
}

/// The conditions of a policy, taken apart where they are joined: `when` at its `&&`, `unless` at its `||`. The flag says
/// that the part must not hold.
fn parts(policy: &Value) -> Vec<(bool, &Value)> {
    let mut parts = Vec::new();
    for condition in policy.get("conditions").and_then(Value::as_array).into_iter().flatten() {
        let negated = condition.get("kind").and_then(Value::as_str) == Some("unless");
        let joined = if negated { "||" } else { "&&" };
        let Some(body) = condition.get("body") else { continue };
        let mut open = vec![body];
        while let Some(next) = open.pop() {
            let operands =
                next.get(joined).and_then(|operands| Some((operands.get("left")?, operands.get("right")?)));
            match operands {
                Some((left, right)) => open.extend([right, left]),
                None => parts.push((negated, next)),
            }
        }
    }
    parts
}

fn anything() -> [Value; 3] {
    let all = || json!({ "op": "All" });
    [all(), all(), all()]
}

/// Evaluates parts of policies on one request.
struct Probe<'a> {
    authorizer: &'a Authorizer,
    request: &'a Request,
    entities: &'a Entities,
}

impl Probe<'_> {
    /// The text of the condition, and whether a permit of this scope, with this condition alone, permits.
    fn holds(&self, scope: &[Value; 3], condition: Option<(bool, &Value)>) -> Option<(String, Met)> {
        let [principal, action, resource] = scope;
        let conditions: Vec<_> = (condition.into_iter())
            .map(|(negated, body)| json!({ "kind": if negated { "unless" } else { "when" }, "body": body }))
            .collect();
        let policy = json!({
            "effect": "permit",
            "principal": principal,
            "action": action,
            "resource": resource,
            "conditions": conditions,
        });
        let policy = Policy::from_json(None, policy).ok()?;
        let text = policy.to_cedar().unwrap_or_default();
        let set = PolicySet::from_policies([policy]).ok()?;
        let response = self.authorizer.is_authorized(self.request, &set, self.entities);
        let met = match response.decision() {
            Decision::Allow => Met::Yes,
            Decision::Deny if response.diagnostics().errors().next().is_some() => Met::Failed,
            Decision::Deny => Met::No,
        };
        Some((body_of(&text), met))
    }
}

/// What stands in the braces of a policy that has one condition, on one line and bounded.
fn body_of(policy: &str) -> String {
    let inside = policy.split_once('{').and_then(|(_, rest)| Some(rest.rsplit_once('}')?.0));
    let line = inside.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    if line.len() <= MAX_SHOWN {
        return line;
    }
    let end = (0..=MAX_SHOWN).rev().find(|end| line.is_char_boundary(*end)).unwrap_or_default();
    format!("{}…", line.get(..end).unwrap_or_default())
}

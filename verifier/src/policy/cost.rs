//! What a policy costs at the most, and what it looks at: read off its JSON form.

use serde_json::Value;

use super::facts::{Fact, FactSet};
use super::question::Question;
use super::schema::MAX_TEXT;

/// Steps of one evaluation at the most, in units of one operation of Cedar (some 50 ns).
///
/// Cedar has no loops: an operation costs one step, but for those that take time by what they are given. `like` compares
/// each part of its pattern with each character of a text at the worst; sets and records are compared member by member.
pub(super) fn cost(policy: &Value) -> u64 {
    let mut total: u64 = 0;
    let mut open = vec![policy];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                for (operator, operands) in members {
                    total = total.saturating_add(match operator.as_str() {
                        "like" => pattern(operands).saturating_mul(LIKE),
                        "==" | "!=" | "contains" | "containsAll" | "containsAny" => SET,
                        _ => 1,
                    });
                    open.push(operands);
                }
            }
            Value::Array(members) => open.extend(members),
            Value::String(text) => {
                total = total.saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX) / 64)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }
    total
}

/// How deep operators stand inside each other: an operator is an object in an object.
pub(super) fn depth(policy: &Value) -> usize {
    let mut deepest = 0;
    let mut open: Vec<_> =
        policy.get("conditions").map(|conditions| (0_usize, conditions)).into_iter().collect();
    while let Some((depth, value)) = open.pop() {
        deepest = deepest.max(depth);
        let below = depth.saturating_add(1);
        match value {
            Value::Object(members) => open.extend(members.values().map(|value| (below, value))),
            Value::Array(members) => open.extend(members.iter().map(|value| (below, value))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    deepest / 2
}

/// A part of a pattern over a text of the longest: a comparison takes a fiftieth of a step.
const LIKE: u64 = to_u64(MAX_TEXT) / 50;
/// A set or record of the largest, a member taking a fifth of a step.
const SET: u64 = to_u64(Question::MAX_MEMBERS) / 5;

#[expect(clippy::as_conversions, reason = "a usize fits, and `try_from` is not const")]
const fn to_u64(number: usize) -> u64 {
    number as u64
}

fn pattern(like: &Value) -> u64 {
    let parts = like.get("pattern").and_then(Value::as_array);
    let length =
        |part: &Value| part.get("Literal").and_then(Value::as_str).map_or(1, |text| text.chars().count());
    let length: usize = parts.map_or(usize::MAX, |parts| parts.iter().map(length).sum());
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The attested facts that a policy looks at. Where it is not plain which, all of them.
pub(super) fn reads(policy: &Value) -> FactSet {
    let mut facts = FactSet::NONE;
    let mut open: Vec<_> = policy.get("conditions").into_iter().collect();
    while let Some(value) = open.pop() {
        match value {
            Value::Object(members) => {
                if members.get("Var").and_then(Value::as_str) == Some("context") {
                    return FactSet::ALL;
                }
                for (operator, operands) in members {
                    match accessed(operator, operands) {
                        Accessed::Fact(fact) => facts = facts.with(fact),
                        Accessed::Request => {}
                        Accessed::Unclear => return FactSet::ALL,
                        Accessed::Other => open.push(operands),
                    }
                }
            }
            Value::Array(members) => open.extend(members),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    facts
}

enum Accessed {
    /// `context.attested.FACT`, or `has` of it.
    Fact(Fact),
    /// `context.request`.
    Request,
    /// `context.attested` as a whole.
    Unclear,
    /// Something else.
    Other,
}

fn accessed(operator: &str, operands: &Value) -> Accessed {
    if !matches!(operator, "." | "has") {
        return Accessed::Other;
    }
    let Some(left) = operands.get("left") else { return Accessed::Other };
    let attribute = match operands.get("attr") {
        Some(Value::String(attribute)) => attribute.as_str(),
        // `has a.b`
        Some(Value::Array(path)) => path.first().and_then(Value::as_str).unwrap_or_default(),
        _ => return Accessed::Other,
    };
    let is_context = |value: &Value| value.get("Var").and_then(Value::as_str) == Some("context");
    if is_context(left) {
        let whole = matches!(operands.get("attr"), Some(Value::String(_)));
        return if attribute == "request" && whole { Accessed::Request } else { Accessed::Unclear };
    }
    let of_attested = left.get(".").is_some_and(|inner| {
        inner.get("left").is_some_and(is_context)
            && inner.get("attr").and_then(Value::as_str) == Some("attested")
    });
    if !of_attested {
        return Accessed::Other;
    }
    match Fact::ALL.into_iter().find(|fact| fact.name() == attribute) {
        Some(fact) => Accessed::Fact(fact),
        None => Accessed::Unclear,
    }
}

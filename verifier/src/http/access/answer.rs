//! Decisions on their way out.
//!
//! The types that end in `Request`, and [`Evaluation`], are for the OpenAPI document alone; a test holds that what is
//! written is valid by them.

use std::collections::BTreeMap;

use rootbound_common::wire::v1::Challenge;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::flows::decide::{Decided, Obligation};
use crate::http::problem::Refusal;

/// The answer to one question.
#[derive(Serialize)]
pub(super) struct Evaluated<'a> {
    decision: bool,
    context: Context<'a>,
}

/// The answer to a batch.
#[derive(Serialize)]
pub(super) struct Answers<'a> {
    pub(super) evaluations: Vec<Evaluated<'a>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Context<'a> {
    Decided {
        id: String,
        code: &'static str,
        evaluated_at: String,
        reason_user: Words<'static>,
        #[serde(skip_serializing_if = "Option::is_none")]
        reason_admin: Option<Words<'a>>,
        #[serde(skip_serializing_if = "Vec::is_empty")]
        obligations: Vec<ObligationObject<'a>>,
        #[serde(skip_serializing_if = "Option::is_none")]
        policy: Option<&'a str>,
    },
    Failed {
        code: &'a str,
        error: Failure<'a>,
    },
}

/// Words by language.
#[derive(Serialize)]
struct Words<'a> {
    en: &'a str,
}

#[derive(Serialize)]
struct Failure<'a> {
    status: u16,
    message: &'a str,
}

/// An obligation object (Obligations profile, draft 1, 3). What its type needs stands beside `id` and `type`; what is ours
/// stands in `properties`.
#[derive(Serialize)]
struct ObligationObject<'a> {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    /// What the subject must reach.
    acr_value: &'static str,
    properties: StepUp<'a>,
}

#[derive(Serialize)]
struct StepUp<'a> {
    max_age_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge: Option<&'a Challenge>,
}

/// The level of assurance of a step-up: the subject's machine has shown evidence that is young enough.
const FRESH_EVIDENCE: &str = "urn:rootbound:acr:fresh-evidence";

impl<'a> Evaluated<'a> {
    pub(super) fn of(decided: &'a Decided) -> Self {
        let obligations = decided.obligations().iter().enumerate().map(|(position, obligation)| {
            let id = format!("{}-{position}", decided.id());
            match obligation {
                Obligation::StepUp { within, challenge } => ObligationObject {
                    id,
                    kind: "step-up",
                    acr_value: FRESH_EVIDENCE,
                    properties: StepUp { max_age_seconds: within.as_secs(), challenge: challenge.as_deref() },
                },
            }
        });
        let context = Context::Decided {
            id: decided.id().to_string(),
            code: decided.code(),
            evaluated_at: decided.at().to_string(),
            reason_user: Words { en: decided.reason_for_user() },
            reason_admin: decided.reason_for_admin().map(|en| Words { en }),
            obligations: obligations.collect(),
            policy: decided.policy(),
        };
        Self { decision: decided.allowed(), context }
    }

    /// Of an item of a batch that is no question.
    pub(super) fn failed(refusal: &'a Refusal) -> Self {
        let (status, code, message) = refusal.in_parts();
        let error = Failure { status: status.as_u16(), message };
        Self { decision: false, context: Context::Failed { code, error } }
    }
}

/// Who or what.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct EntityAsked {
    /// `node` for a machine; or a type of the active bundle's schema.
    #[serde(rename = "type")]
    kind: String,
    /// A node's id, or the operator's name for it.
    id: String,
    /// What the caller says of it: policies see it as `context.request.subject` and `context.request.resource`.
    #[schema(value_type = Option<Object>)]
    properties: Option<serde_json::Value>,
}

/// What is to be done.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct ActionAsked {
    /// Its name in the active bundle's schema.
    name: String,
    /// What the caller says of it: policies see it as `context.request.action`.
    #[schema(value_type = Option<Object>)]
    properties: Option<serde_json::Value>,
}

/// A question.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct EvaluationRequest {
    subject: EntityAsked,
    action: ActionAsked,
    resource: EntityAsked,
    /// What the caller says besides: policies see it as `context.request.context`.
    #[schema(value_type = Option<Object>)]
    context: Option<serde_json::Value>,
}

/// Questions, and what they have in common.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct EvaluationsRequest {
    subject: Option<EntityAsked>,
    action: Option<ActionAsked>,
    resource: Option<EntityAsked>,
    #[schema(value_type = Option<Object>)]
    context: Option<serde_json::Value>,
    /// At most 1,000; what an item lacks, it has from above.
    #[schema(value_type = Option<Vec<Object>>)]
    evaluations: Option<Vec<serde_json::Value>>,
    options: Option<EvaluationsOptions>,
}

/// How a batch is executed.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct EvaluationsOptions {
    /// `execute_all`, `deny_on_first_deny` or `permit_on_first_permit`.
    evaluations_semantic: Option<String>,
}

/// A decision.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, serde(deny_unknown_fields))]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct Evaluation {
    /// Whether it may be done.
    decision: bool,
    /// Why, and what has to be done for it.
    context: EvaluationContext,
}

/// The decisions of a batch.
#[derive(Deserialize, ToSchema)]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct Evaluations {
    /// One for each question, as far as the semantic went.
    evaluations: Vec<Evaluation>,
}

/// Why it was so decided.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, serde(deny_unknown_fields))]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct EvaluationContext {
    /// Names the decision in the audit trail.
    id: Option<String>,
    /// Stable, for machines.
    code: String,
    /// When, RFC 3339.
    evaluated_at: Option<String>,
    /// For whoever wanted to do it, by language.
    reason_user: Option<BTreeMap<String, String>>,
    /// For an administrator, by language; where the caller may know.
    reason_admin: Option<BTreeMap<String, String>>,
    /// What the caller has to do, or must treat as a refusal (Obligations profile, draft 1).
    obligations: Option<Vec<EvaluationObligation>>,
    /// The policy bundle that decided, as `name@version`; where the caller may know.
    policy: Option<String>,
    /// Of an item that is no question.
    error: Option<EvaluationError>,
}

/// What the caller has to do.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, serde(deny_unknown_fields))]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct EvaluationObligation {
    /// Unique in the answer.
    id: String,
    /// `step-up`.
    #[serde(rename = "type")]
    kind: String,
    /// `urn:rootbound:acr:fresh-evidence`.
    acr_value: String,
    /// `max_age_seconds`, and for the node itself a `challenge`.
    #[schema(value_type = Object)]
    properties: serde_json::Value,
}

/// What is wrong with an item.
#[derive(Deserialize, ToSchema)]
#[cfg_attr(test, serde(deny_unknown_fields))]
#[expect(dead_code, reason = "described, never read")]
pub(in crate::http) struct EvaluationError {
    /// As if it had come alone.
    status: u16,
    /// For people.
    message: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::StatusCode;
    use serde_json::{Value, json};

    use crate::flows::decide::DecideError;
    use crate::http::openapi::tests::document;

    fn written(evaluated: &Evaluated<'_>) -> Value {
        serde_json::to_value(evaluated).unwrap()
    }

    /// The names of the members that the document describes.
    fn described(schema: &str) -> Vec<String> {
        let document = document();
        let schema = &document["components"]["schemas"][schema]["properties"];
        let mut names: Vec<_> = schema.as_object().unwrap().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    fn names(value: &Value) -> Vec<String> {
        let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn what_is_written_is_what_the_document_describes() {
        let refusal = Refusal::from(DecideError::PageToken);
        let decided = Decided::for_tests(None);
        let (decided, failed) = (written(&Evaluated::of(&decided)), written(&Evaluated::failed(&refusal)));
        for one in [&decided, &failed] {
            serde_json::from_value::<Evaluation>(one.clone()).unwrap();
            assert_eq!(names(one), described("Evaluation"));
        }
        let mut members = names(&decided["context"]);
        members.extend(names(&failed["context"]));
        members.sort_unstable();
        members.dedup();
        assert_eq!(members, described("EvaluationContext"));
        assert_eq!(names(&decided["context"]["obligations"][0]), described("EvaluationObligation"));
        assert_eq!(names(&failed["context"]["error"]), described("EvaluationError"));
        let both = json!({ "evaluations": [decided, failed] });
        serde_json::from_value::<Evaluations>(both).unwrap();
    }

    #[test]
    fn a_step_up_says_what_the_profile_and_the_machine_need() {
        let decided = Decided::for_tests(None);
        let obligation = &written(&Evaluated::of(&decided))["context"]["obligations"][0];
        let expected = json!({
            "id": format!("{}-0", decided.id()),
            "type": "step-up",
            "acr_value": "urn:rootbound:acr:fresh-evidence",
            "properties": { "max_age_seconds": 30 },
        });
        assert_eq!(*obligation, expected);
    }

    #[test]
    fn what_is_wrong_with_an_item_is_said_as_if_it_had_come_alone() {
        let refusal = Refusal::from(DecideError::PageToken);
        let failed = written(&Evaluated::failed(&refusal));
        assert_eq!(failed["context"]["error"]["status"], StatusCode::BAD_REQUEST.as_u16());
        assert_eq!(failed["context"]["code"], "page_token_invalid");
        assert_eq!(failed["decision"], false);
    }
}

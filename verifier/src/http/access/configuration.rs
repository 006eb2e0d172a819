//! `GET /.well-known/authzen-configuration`: where the Authorization API is.

use axum::extract::{Request, State};
use axum::response::Response;
use axum::routing::get;
use http::Method;
use serde::Serialize;
use utoipa::ToSchema;

use super::{RequestId, answered, evaluation, evaluations, search};
use crate::http::problem::{EdgeRefusal, Refusal};
use crate::http::throttle::RateClass;
use crate::http::{Edge, Endpoint};

pub(in crate::http) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/.well-known/authzen-configuration",
    rate: RateClass::Query,
    body: None,
    handler: || get(configuration),
};

/// Metadata of the policy decision point (1.0, "Policy Decision Point Metadata"; Obligations profile, "PDP Metadata").
#[derive(Serialize, ToSchema)]
#[schema(as = PolicyDecisionPointMetadata)]
pub(in crate::http) struct Metadata {
    /// The URL under which clients reach the verifier.
    policy_decision_point: String,
    access_evaluation_endpoint: String,
    access_evaluations_endpoint: String,
    search_subject_endpoint: String,
    search_resource_endpoint: String,
    search_action_endpoint: String,
    /// Types of obligations that answers may have.
    obligations_supported: Vec<&'static str>,
}

/// Where the Authorization API is (AuthZEN 1.0).
///
/// Only where the operator has said under which URL clients reach the verifier: it is never made up of what a request
/// claims.
#[utoipa::path(
    get,
    path = "/.well-known/authzen-configuration",
    tag = "access",
    responses(
        (status = 200, description = "The metadata", body = Metadata),
        (status = 404, description = "The operator has not said under which URL", body = String, content_type = "application/json"),
    )
)]
pub(in crate::http) async fn configuration(State(edge): State<Edge>, request: Request) -> Response {
    RequestId::of(request.headers()).on(metadata(&edge))
}

fn metadata(edge: &Edge) -> Result<Response, Refusal> {
    let base = edge.verifier.public_url().ok_or(EdgeRefusal::NoPublicUrl)?;
    let at = |endpoint: Endpoint| format!("{base}{}", endpoint.path);
    answered(&Metadata {
        policy_decision_point: base.to_string(),
        access_evaluation_endpoint: at(evaluation::ENDPOINT),
        access_evaluations_endpoint: at(evaluations::ENDPOINT),
        search_subject_endpoint: at(search::SUBJECT),
        search_resource_endpoint: at(search::RESOURCE),
        search_action_endpoint: at(search::ACTION),
        obligations_supported: vec!["step-up"],
    })
}

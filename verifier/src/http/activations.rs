//! `POST /v1/enrollments/activate`: the secret that the TPM gave back. One attempt.

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use http::Method;
use rootbound_common::wire::v1::{ActivateRequest, ActivateResponse};

use super::body::Message;
use super::problem::Refusal;
use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/v1/enrollments/activate",
    rate: RateClass::Enrollment,
    body: Some(LIMIT),
    handler: || post(activate),
};

/// An id of 32 bytes and a secret of 64 at most.
const LIMIT: usize = 4 * 1024;

/// The secret that the TPM gave back.
///
/// One attempt: right or wrong, the enrolment is over.
#[utoipa::path(
    post,
    path = "/v1/enrollments/activate",
    tag = "enrollment",
    request_body = schema::ActivateRequest,
    responses(
        (status = 200, description = "The EK and the AK live in one TPM", body = schema::ActivateResponse),
        (status = 403, description = "Wrong, late, or not one of ours", body = schema::Problem, content_type = "application/problem+json"),
        (status = 409, description = "No such enrolment waits", body = schema::Problem, content_type = "application/problem+json"),
        (status = "default", description = "See `code`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn activate(
    State(edge): State<Edge>,
    Message(message): Message<ActivateRequest>,
) -> Result<Json<ActivateResponse>, Refusal> {
    Ok(Json(edge.verifier.activate(message).await?))
}

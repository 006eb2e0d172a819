//! `POST /v1/enrollments`: a machine shows its EK and asks for an AK to be bound to it.

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use http::Method;
use rootbound_common::wire::v1::{EnrollRequest, EnrollResponse};

use super::body::Message;
use super::problem::Refusal;
use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/v1/enrollments",
    rate: RateClass::Enrollment,
    body: Some(LIMIT),
    handler: || post(enroll),
};

/// Six certificates of 8192 bytes are 66 KB in base64url, but no TPM holds six of that size: the longest known EK
/// certificate has 2.2 KB, and a vendor chain under 12 KB.
const LIMIT: usize = 64 * 1024;

/// A machine shows its EK and asks for an AK to be bound to it.
///
/// The answer can only be opened by the TPM that holds both keys (TPM2_ActivateCredential).
#[utoipa::path(
    post,
    path = "/v1/enrollments",
    tag = "enrollment",
    request_body = schema::EnrollRequest,
    responses(
        (status = 200, description = "What only the TPM can open", body = schema::EnrollResponse),
        (status = 403, description = "The TPM or the key is refused", body = schema::Problem, content_type = "application/problem+json"),
        (status = "default", description = "See `code`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn enroll(
    State(edge): State<Edge>,
    Message(message): Message<EnrollRequest>,
) -> Result<Json<EnrollResponse>, Refusal> {
    Ok(Json(edge.verifier.enroll(message).await?))
}

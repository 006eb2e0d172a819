//! `POST /v1/evidence`: a quote with the values that it is over, and perhaps a request for a credential.

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use http::Method;
use rootbound_common::wire::v1::{EvidenceRequest, EvidenceResponse};

use super::body::Message;
use super::client::Caller;
use super::problem::Refusal;
use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/v1/evidence",
    rate: RateClass::Attestation,
    body: Some(LIMIT),
    handler: || post(attest),
};

/// The PCRs of four banks in hex are 15 KB, a certificate request 11 KB in base64url, the quote and the rest 3 KB; the boot
/// event log and a part of the IMA list, where they come along, have up to 0.7 and 4.2 MB.
const LIMIT: usize = 5 * 1024 * 1024;

/// A quote with the values that it is over, and perhaps a request for a credential.
///
/// Evidence that does not verify is refused. Evidence that verifies but deviates is answered with 200 and a posture that
/// says so. Who shows a client certificate must be the node that it names.
#[utoipa::path(
    post,
    path = "/v1/evidence",
    tag = "attestation",
    request_body = schema::EvidenceRequest,
    responses(
        (status = 200, description = "What the evidence means, and what comes next", body = schema::EvidenceResponse),
        (status = 403, description = "The evidence does not verify", body = schema::Problem, content_type = "application/problem+json"),
        (status = 409, description = "The challenge was answered before, or the node changed", body = schema::Problem, content_type = "application/problem+json"),
        (status = "default", description = "See `code`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn attest(
    State(edge): State<Edge>,
    Caller(caller): Caller,
    Message(message): Message<EvidenceRequest>,
) -> Result<Json<EvidenceResponse>, Refusal> {
    Ok(Json(edge.verifier.attest(message, caller).await?))
}

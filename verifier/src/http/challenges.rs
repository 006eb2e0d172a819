//! `POST /v1/challenges`: asks for a challenge outside of the steady state.

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use http::Method;
use rootbound_common::wire::v1::{Challenge, ChallengeRequest};

use super::body::Message;
use super::problem::Refusal;
use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/v1/challenges",
    rate: RateClass::Attestation,
    body: Some(LIMIT),
    handler: || post(challenge),
};

/// A node id.
const LIMIT: usize = 4 * 1024;

/// Asks for a challenge outside of the steady state.
///
/// In the steady state each accepted answer brings the next challenge.
#[utoipa::path(
    post,
    path = "/v1/challenges",
    tag = "attestation",
    request_body = schema::ChallengeRequest,
    responses(
        (status = 200, description = "What to quote, over which nonce, and how soon", body = schema::Challenge),
        (status = 403, description = "The node may not attest", body = schema::Problem, content_type = "application/problem+json"),
        (status = "default", description = "See `code`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn challenge(
    State(edge): State<Edge>,
    Message(message): Message<ChallengeRequest>,
) -> Result<Json<Challenge>, Refusal> {
    Ok(Json(edge.verifier.challenge(&message).await?))
}

//! `POST /v1/signals`: a relying party says something against a node, or takes it back.

use axum::Json;
use axum::extract::State;
use axum::routing::post;
use http::Method;
use rootbound_common::wire::v1::{SignalRequest, SignalResponse};

use super::body::Message;
use super::client::SignalSource;
use super::problem::Refusal;
use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::POST,
    path: "/v1/signals",
    rate: RateClass::Query,
    body: Some(LIMIT),
    handler: || post(signal),
};

/// A reason of 512 characters, each of them escaped, and some ids.
const LIMIT: usize = 8 * 1024;

/// Says something against a node, or takes it back.
///
/// For relying parties that may send signals of this kind about this node. Idempotent: the same signal again gets the same
/// answer, another under its `id` is refused.
#[utoipa::path(
    post,
    path = "/v1/signals",
    tag = "identity",
    security(("relying_party" = []), ("relying_party_token" = [])),
    request_body = schema::SignalRequest,
    responses(
        (status = 200, description = "It is in force, and on record", body = schema::SignalResponse),
        (status = 401, description = "No client certificate, and no token", body = schema::Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not a relying party, or one that may not", body = schema::Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such node, or none of this relying party's", body = schema::Problem, content_type = "application/problem+json"),
        (status = 409, description = "Another signal has this id", body = schema::Problem, content_type = "application/problem+json"),
        (status = "default", description = "See `code`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn signal(
    State(edge): State<Edge>,
    SignalSource(source): SignalSource,
    Message(message): Message<SignalRequest>,
) -> Result<Json<SignalResponse>, Refusal> {
    Ok(Json(edge.verifier.signal(&source, message).await?))
}

//! `GET /.well-known/jwks.json`: the key that verifies attestation results, for anyone.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/.well-known/jwks.json",
    rate: RateClass::Query,
    body: None,
    handler: || get(jwks),
};

/// The keys that verify attestation results (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "identity",
    responses((status = 200, description = "The keys", body = schema::JwkSet, content_type = "application/jwk-set+json"))
)]
pub(super) async fn jwks(State(edge): State<Edge>) -> Response {
    // The key changes only where an operator replaces it; results of before live no longer than this.
    let headers = [(CONTENT_TYPE, "application/jwk-set+json"), (CACHE_CONTROL, "max-age=300")];
    (headers, Json(edge.verifier.result_keys())).into_response()
}

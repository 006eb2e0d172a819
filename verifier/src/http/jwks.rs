//! `GET /.well-known/jwks.json`: the keys that verify attestation results and access tokens, and
//! `GET /.well-known/jwks-svid.json`: those that verify JWT-SVIDs, for anyone.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};
use crate::credential::result_key::JwkSet;
use crate::credential::token_keys::TokenKeys;

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/.well-known/jwks.json",
    rate: RateClass::Query,
    body: None,
    handler: || get(jwks),
};

pub(super) const SVID: Endpoint = Endpoint {
    method: Method::GET,
    path: "/.well-known/jwks-svid.json",
    rate: RateClass::Query,
    body: None,
    handler: || get(jwks_svid),
};

/// The keys that verify attestation results and access tokens (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    tag = "identity",
    responses((status = 200, description = "The keys", body = schema::JwkSet, content_type = "application/jwk-set+json"))
)]
pub(super) async fn jwks(State(edge): State<Edge>) -> Response {
    published(&edge.verifier.result_keys().and(edge.verifier.token_keys()))
}

/// The keys that verify JWT-SVIDs (RFC 7517), and nothing else.
#[utoipa::path(
    get,
    path = "/.well-known/jwks-svid.json",
    tag = "identity",
    responses((status = 200, description = "The keys", body = schema::JwkSet, content_type = "application/jwk-set+json"))
)]
pub(super) async fn jwks_svid(State(edge): State<Edge>) -> Response {
    published(&edge.verifier.svid_keys())
}

/// A key is there so long before it signs, and the result key changes only where an operator replaces it; results of before live no
/// longer than this.
fn published(keys: &JwkSet) -> Response {
    let age = format!("max-age={}", TokenKeys::PUBLISHED_FOR.as_secs());
    let headers = [(CONTENT_TYPE, "application/jwk-set+json".to_owned()), (CACHE_CONTROL, age)];
    (headers, Json(keys)).into_response()
}

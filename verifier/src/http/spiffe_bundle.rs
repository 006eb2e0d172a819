//! `GET /.well-known/spiffe-bundle`: what verifies our SVIDs, in the form of SPIFFE (SPIFFE Trust Domain and Bundle, 4).

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Method;
use http::header::CACHE_CONTROL;

use super::throttle::RateClass;
use super::{Edge, Endpoint};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/.well-known/spiffe-bundle",
    rate: RateClass::Query,
    body: None,
    handler: || get(spiffe_bundle),
};

/// The trust bundle: the CA that X.509-SVIDs lead to, and the keys that sign JWT-SVIDs.
#[utoipa::path(
    get,
    path = "/.well-known/spiffe-bundle",
    tag = "identity",
    responses((status = 200, description = "The bundle", body = Object, content_type = "application/json"))
)]
pub(super) async fn spiffe_bundle(State(edge): State<Edge>) -> Response {
    ([(CACHE_CONTROL, "max-age=300")], Json(edge.verifier.spiffe_bundle())).into_response()
}

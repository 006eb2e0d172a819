//! `GET /v1/nodes/{node}/ear`: how a node stands, signed, for the node itself and for relying parties.

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::Method;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};

use super::client::Reader;
use super::problem::{EdgeRefusal, Refusal};
use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};
use crate::credential::ear::{ClaimError, EatNonce};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/v1/nodes/{node}/ear",
    rate: RateClass::Query,
    body: None,
    handler: || get(ear),
};

/// How a node stands, as a signed EAT attestation result (EAR).
///
/// For the node itself, however it stands, and for relying parties of which the operator said that they may read it. A
/// relying party hears the same of a node that it may not read as of one that does not exist.
#[utoipa::path(
    get,
    path = "/v1/nodes/{node}/ear",
    tag = "identity",
    security(("x509_svid" = []), ("relying_party" = []), ("relying_party_token" = [])),
    params(
        ("node" = String, Path, description = "The node's id: 64 lower-case hex digits"),
        ("nonce" = Option<String>, Query, description = "To be found in the result as `eat_nonce`: 8 to 88 characters of base64url"),
    ),
    responses(
        (status = 200, description = "EAR as a JWT, signed with ES256 by a key of /.well-known/jwks.json", body = String, content_type = "application/eat+jwt"),
        (status = 401, description = "No client certificate, and no token", body = schema::Problem, content_type = "application/problem+json"),
        (status = 403, description = "Neither this node nor a relying party", body = schema::Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such node, for a relying party", body = schema::Problem, content_type = "application/problem+json"),
        (status = "default", description = "See `code`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn ear(
    State(edge): State<Edge>,
    Reader(reader): Reader,
    node: Result<Path<String>, PathRejection>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let nonce = nonce(query.as_deref())?;
    let node = node.ok().and_then(|Path(node)| node.parse().ok());
    let ear = edge.verifier.attestation_result(&reader, node, nonce.as_ref())?;
    let headers = [(CONTENT_TYPE, edge.verifier.result_media_type()), (CACHE_CONTROL, "no-store".to_owned())];
    Ok((headers, ear.into_string()).into_response())
}

/// A query is `nonce=…` and nothing else; none of its characters needs an escape.
fn nonce(query: Option<&str>) -> Result<Option<EatNonce>, Refusal> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(None) };
    let nonce = query.strip_prefix("nonce=").ok_or(EdgeRefusal::Query)?;
    nonce.parse().map(Some).map_err(|_: ClaimError| EdgeRefusal::Query.into())
}

//! `GET /v1/whoami`: what the verifier knows of the caller, at this moment.

use axum::Json;
use axum::routing::get;
use http::Method;
use rootbound_common::wire::v1::WhoamiResponse;

use super::client::Admitted;
use super::throttle::RateClass;
use super::{Endpoint, schema};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/v1/whoami",
    rate: RateClass::Query,
    body: None,
    handler: || get(whoami),
};

/// What the verifier knows of the caller, at this moment.
///
/// For nodes whose posture is affirming now: after drift, staleness, retirement or a new AK, a certificate that has not
/// expired is refused.
#[utoipa::path(
    get,
    path = "/v1/whoami",
    tag = "identity",
    security(("x509_svid" = [])),
    responses(
        (status = 200, description = "The caller", body = schema::WhoamiResponse),
        (status = 401, description = "No client certificate", body = schema::Problem, content_type = "application/problem+json"),
        (status = 403, description = "The node may not act now", body = schema::Problem, content_type = "application/problem+json"),
        (status = "default", description = "See `code`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn whoami(Admitted(caller): Admitted) -> Json<WhoamiResponse> {
    let certificate = caller.certificate();
    Json(WhoamiResponse {
        node: caller.id(),
        spiffe_id: certificate.spiffe_id.clone(),
        serial: certificate.serial.to_string(),
        not_after: certificate.not_after,
        certificate_epoch: certificate.epoch,
        epoch: caller.node().epoch,
        labels: caller
            .node()
            .labels
            .iter()
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .collect(),
        posture: caller.report().clone(),
    })
}

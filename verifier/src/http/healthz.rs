//! `GET /healthz`: whether the process answers. Nothing else: a database that is away is no reason to restart it.

use axum::Json;
use axum::routing::get;
use http::Method;
use serde::Serialize;

use super::throttle::RateClass;
use super::{Endpoint, schema};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/healthz",
    rate: RateClass::Free,
    body: None,
    handler: || get(healthz),
};

/// The answer.
#[derive(Debug, Serialize)]
pub(super) struct Healthy {
    pub(super) status: &'static str,
}

/// Whether the process answers.
#[utoipa::path(
    get,
    path = "/healthz",
    tag = "operation",
    responses((status = 200, description = "It does", body = schema::Healthy))
)]
pub(super) async fn healthz() -> Json<Healthy> {
    Json(Healthy { status: "ok" })
}

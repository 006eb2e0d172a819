//! `GET /readyz`: whether the verifier can do its work, and if not, what is missing.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::routing::get;
use http::Method;
use rootbound_common::id::NodeId;

use super::healthz::Healthy;
use super::problem::{EdgeRefusal, Refusal};
use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};
use crate::flows::Verifier;

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/readyz",
    rate: RateClass::Query,
    body: None,
    handler: || get(readyz),
};

/// What the verifier lacks. The words are fit for strangers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum NotReady {
    /// The store fails.
    #[error("the store does not answer")]
    Store,
    /// The store is slow.
    #[error("the store does not answer in time")]
    StoreSlow,
    /// The store can be read only.
    #[error("neither the store nor its audit trail can be written: is the disk full?")]
    StoreReadOnly,
    /// The CA is not valid yet.
    #[error("the CA is not valid yet; check the clock")]
    AuthorityNotYetValid,
    /// The CA is not valid any more.
    #[error("the CA has expired")]
    AuthorityExpired,
}

/// Looks for everything that is missing; nothing is when this returns an empty list.
pub(super) async fn missing(verifier: &Verifier) -> Vec<NotReady> {
    /// A lookup by key takes under a millisecond; a probe usually waits for a few seconds.
    const STORE: Duration = Duration::from_secs(2);
    let mut missing = Vec::new();
    let store = verifier.store();
    let probe = async {
        store.inventory_entry(NodeId::from_bytes([0; 32])).await.map_err(|error| (NotReady::Store, error))?;
        store.can_write().await.map_err(|error| (NotReady::StoreReadOnly, error))
    };
    match tokio::time::timeout(STORE, probe).await {
        Ok(Ok(())) => {}
        Ok(Err((what, error))) => {
            tracing::error!(%error, "{what}");
            missing.push(what);
        }
        Err(_) => missing.push(NotReady::StoreSlow),
    }
    let (authority, now) = (verifier.authority(), verifier.now());
    if now < authority.not_before() {
        missing.push(NotReady::AuthorityNotYetValid);
    }
    if now >= authority.not_after() {
        missing.push(NotReady::AuthorityExpired);
    }
    missing
}

/// Whether the verifier can do its work.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "operation",
    responses(
        (status = 200, description = "It can", body = schema::Healthy),
        (status = "default", description = "It cannot; `detail` says why", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn readyz(State(edge): State<Edge>) -> Result<Json<Healthy>, Refusal> {
    let missing = missing(&edge.verifier).await;
    if missing.is_empty() {
        return Ok(Json(Healthy { status: "ready" }));
    }
    let why = missing.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(EdgeRefusal::NotReady { why }.into())
}

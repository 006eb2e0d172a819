//! What surrounds every request: its client's rate, a place among the requests under way, and an end.

use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::Edge;
use super::connection::ClientAddress;
use super::problem::{EdgeRefusal, Refusal};
use super::throttle::RateClass;

/// Counts the request towards its client's rate.
pub(super) async fn throttle(
    State((edge, class)): State<(Edge, RateClass)>,
    request: Request,
    next: Next,
) -> Response {
    let Some(ClientAddress(address)) = request.extensions().get().copied() else {
        return Refusal::from(EdgeRefusal::Internal).into_response();
    };
    match edge.throttle.count(class, address) {
        Ok(()) => next.run(request).await,
        Err(refusal) => Refusal::from(refusal).into_response(),
    }
}

/// Gives the request a place, or sheds it; answers in time, and brings what was begun to its end all the same.
///
/// A caller who hangs up, or for whom we have no more time, must not stop a story between its write to the store and its
/// change to what decisions read: the request runs in a task of its own, which holds the place until it ends.
pub(super) async fn carry_through(State(edge): State<Edge>, request: Request, next: Next) -> Response {
    let Ok(place) = edge.places.clone().try_acquire_owned() else {
        return Refusal::from(EdgeRefusal::Overloaded).into_response();
    };
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let began = Instant::now();
    let story = edge.stories.spawn(async move {
        let response = next.run(request).await;
        drop(place);
        response
    });
    let response = match tokio::time::timeout(edge.limits.request_timeout, story).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            tracing::error!(%error, "a request ended in a panic");
            Refusal::from(EdgeRefusal::Internal).into_response()
        }
        Err(_) => Refusal::from(EdgeRefusal::TimedOut).into_response(),
    };
    tracing::debug!(path, status = response.status().as_u16(), took = ?began.elapsed(), "answered");
    response
}

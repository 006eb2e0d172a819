//! What surrounds every request: its client's rate, a place among the requests under way, and an end.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

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

/// Requests under way.
#[derive(Debug, Clone)]
pub(super) struct Stories {
    places: Arc<Semaphore>,
    /// Also those whose caller has gone.
    under_way: TaskTracker,
    patience: Duration,
}

impl Stories {
    /// Room for so many requests, each of whose callers hears something within `patience`.
    pub(super) fn new(most: NonZeroU32, patience: Duration) -> Self {
        let places = usize::try_from(most.get()).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(places)), under_way: TaskTracker::new(), patience }
    }

    /// Returns when every request that was begun has ended; there must come no more.
    pub(super) async fn end(&self) {
        self.under_way.close();
        self.under_way.wait().await;
    }
}

/// Gives the request a place, or sheds it; answers in time, and brings what was begun to its end all the same.
///
/// A caller who hangs up, or for whom we have no more time, must not stop a story between its write to the store and its
/// change to what decisions read: the request runs in a task of its own, which holds the place until it ends.
pub(super) async fn carry_through(State(stories): State<Stories>, request: Request, next: Next) -> Response {
    let Ok(place) = Arc::clone(&stories.places).try_acquire_owned() else {
        return Refusal::from(EdgeRefusal::Overloaded).into_response();
    };
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let began = Instant::now();
    let story = stories.under_way.spawn(async move {
        let response = next.run(request).await;
        drop(place);
        response
    });
    let response = match tokio::time::timeout(stories.patience, story).await {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::pin::pin;

    use axum::Router;
    use axum::body::Body;
    use axum::middleware::from_fn_with_state;
    use axum::routing::get;
    use http::StatusCode;
    use tokio::sync::Notify;
    use tower::ServiceExt;

    fn router(stories: &Stories, handler: axum::routing::MethodRouter) -> Router {
        Router::new().route("/", handler.layer(from_fn_with_state(stories.clone(), carry_through)))
    }

    fn request() -> Request {
        Request::new(Body::empty())
    }

    fn stories(most: u32, patience: Duration) -> Stories {
        Stories::new(NonZeroU32::new(most).unwrap(), patience)
    }

    #[tokio::test]
    async fn a_story_whose_caller_hangs_up_is_told_to_its_end() {
        let stories = stories(1, Duration::from_secs(60));
        let (begun, go_on, ended) =
            (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
        let handler = get({
            let (begun, go_on, ended) = (begun.clone(), go_on.clone(), ended.clone());
            async move || {
                begun.notify_one();
                go_on.notified().await;
                ended.notify_one();
            }
        });
        let router = router(&stories, handler);
        {
            let mut call = pin!(router.clone().oneshot(request()));
            tokio::select! {
                _ = call.as_mut() => panic!("answered too early"),
                () = begun.notified() => {}
            }
            let shed = router.clone().oneshot(request()).await.unwrap();
            assert_eq!(shed.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(shed.headers()["retry-after"], "1");
        }
        go_on.notify_one();
        ended.notified().await;
        stories.end().await;
        assert_eq!(stories.places.available_permits(), 1);
    }

    #[tokio::test]
    async fn a_caller_is_told_when_it_takes_too_long() {
        let stories = stories(1, Duration::from_millis(1));
        let router = router(&stories, get(std::future::pending::<()>));
        let late = router.oneshot(request()).await.unwrap();
        assert_eq!(late.status(), StatusCode::SERVICE_UNAVAILABLE);
    }

    #[tokio::test]
    async fn a_panic_is_an_answer_that_says_nothing() {
        let stories = stories(1, Duration::from_secs(60));
        let handler = get(async || {
            if stories_are_told() {
                panic!("secret")
            }
        });
        let response = router(&stories, handler).oneshot(request()).await.unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
        assert!(!String::from_utf8_lossy(&body).contains("secret"));
        assert_eq!(stories.places.available_permits(), 1);
    }

    fn stories_are_told() -> bool {
        true
    }
}

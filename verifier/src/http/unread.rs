//! The body of a request that is answered before all of it was received.
//!
//! HTTP/1.1 goes on after the rest of it alone. What is about to arrive is received and thrown away; where more is to come, the client
//! hears with the answer that the connection ends (RFC 9112, 9.3 and 9.6): otherwise it sends its next request into one that
//! is being closed.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::Bytes;
use http::HeaderMap;
use http::header::EXPECT;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A body that was sent with its head is there by then.
const SOON: Duration = Duration::from_millis(100);
/// Bytes that are thrown away: a body of most endpoints.
const MOST: usize = 64 * 1024;

/// A body on its way.
#[derive(Debug)]
pub(super) struct Watched {
    body: Option<Incoming>,
    fate: Arc<Fate>,
}

/// What became of a body.
#[derive(Debug)]
pub(super) struct Watch {
    fate: Arc<Fate>,
    /// The client sends it once it is asked to.
    expects: bool,
}

#[derive(Debug, Default)]
struct Fate {
    ended: AtomicBool,
    /// What nobody wanted.
    left: Mutex<Option<Incoming>>,
}

impl Watched {
    /// Watches a body of a request with this head.
    pub(super) fn new(body: Incoming, head: &HeaderMap) -> (Self, Watch) {
        let fate = Arc::new(Fate { ended: AtomicBool::new(body.is_end_stream()), left: Mutex::default() });
        let watch = Watch { fate: Arc::clone(&fate), expects: head.contains_key(EXPECT) };
        (Self { body: Some(body), fate }, watch)
    }
}

impl Watch {
    /// Whether all of it was received, or is within a moment.
    pub(super) async fn ends(self) -> bool {
        if self.fate.ended.load(Ordering::Relaxed) {
            return true;
        }
        let left = self.fate.left.lock().unwrap_or_else(PoisonError::into_inner).take();
        match left {
            Some(body) if !self.expects => {
                tokio::time::timeout(SOON, thrown_away(body)).await.unwrap_or(false)
            }
            Some(_) | None => false,
        }
    }
}

async fn thrown_away(mut body: Incoming) -> bool {
    let mut bytes: usize = 0;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        bytes = bytes.saturating_add(frame.data_ref().map_or(0, Bytes::len));
        if bytes > MOST {
            return false;
        }
    }
    true
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(&mut *body).poll_frame(context));
        if frame.is_none() || body.is_end_stream() {
            self.fate.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(Body::size_hint).unwrap_or_default()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        *self.fate.left.lock().unwrap_or_else(PoisonError::into_inner) = self.body.take();
    }
}

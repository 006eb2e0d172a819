//! Whether the body of a request was received to its end before the request was answered.
//!
//! Where it was not, HTTP/1.1 cannot go on over the connection, and the client has to hear so with the answer (RFC 9112, 9.3 and
//! 9.6): otherwise it sends its next request into a connection that is being closed.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Bytes;
use hyper::body::{Body, Frame, Incoming, SizeHint};

/// A body on its way.
#[derive(Debug)]
pub(super) struct Watched {
    body: Incoming,
    ended: Arc<AtomicBool>,
}

/// What became of a body.
#[derive(Debug)]
pub(super) struct Watch(Arc<AtomicBool>);

impl Watched {
    /// Watches a body.
    pub(super) fn new(body: Incoming) -> (Self, Watch) {
        let ended = Arc::new(AtomicBool::new(body.is_end_stream()));
        (Self { body, ended: Arc::clone(&ended) }, Watch(ended))
    }
}

impl Watch {
    /// Whether there is more of it than was received.
    pub(super) fn left_unread(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }
}

impl Body for Watched {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() || self.body.is_end_stream() {
            self.ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

//! `GET /v1/control`: what the verifier wishes of the caller, as a stream of events or as one answer.
//!
//! A stream takes no place among the requests under way. Over HTTP/1.1 it takes its connection over, whose slot it gives back:
//! there are `max_control_streams` of them, one for each node, and an idle one holds no buffer of HTTP. It says what is current when it is opened, then what changes, and a
//! comment each 25 s at most, so that both ends know that the other is there.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes, HttpBody};
use axum::extract::{Extension, RawQuery, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method, Version};
use hyper::body::Frame;
use rootbound_common::wire::v1::{ControlEvent, ControlState};
use serde_json::json;
use tokio::time::{Instant, sleep_until};

use super::client::Identified;
use super::connection::{OfConnection, UnderWay, jittered};
use super::problem::{EdgeRefusal, Refusal};
use super::throttle::RateClass;
use super::{Edge, Endpoint, schema};
use crate::flows::control::{Listener, Present, StreamEnd};

pub(super) const ENDPOINT: Endpoint = Endpoint {
    method: Method::GET,
    path: "/v1/control",
    rate: RateClass::Stream,
    body: None,
    handler: || get(control),
};

/// The longest pause between two events: shorter than what keeps a path through NATs and proxies open.
const KEEP_ALIVE: Duration = Duration::from_secs(25);
/// How long an answer may be waited for, where there is no stream.
const LONGEST_WAIT: u64 = 25;
const EVENT_STREAM: &str = "text/event-stream";
/// The head of a stream that takes its connection over: it ends with the connection (RFC 9112, 6.3).
pub(super) const HEAD: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-store\r\n\
    connection: close\r\n\r\n";

/// What the verifier wishes of the caller now.
///
/// For a node, however it stands. With `Accept: text/event-stream` a stream of the events `attest`, `renew`, `blocked`,
/// `released` and `end`; otherwise the present state, at once, or with `wait` as soon as there is something to do.
#[utoipa::path(
    get,
    path = "/v1/control",
    tag = "attestation",
    security(("x509_svid" = [])),
    params(("wait" = Option<u64>, Query, description = "Without a stream: for so many seconds at most, 0 to 25, until there is something to do")),
    responses(
        (status = 200, description = "What is wished; as a stream where that is accepted", body = schema::ControlState),
        (status = 401, description = "No client certificate", body = schema::Problem, content_type = "application/problem+json"),
        (status = 403, description = "Not a node", body = schema::Problem, content_type = "application/problem+json"),
        (status = 503, description = "As many streams as there may be", body = schema::Problem, content_type = "application/problem+json"),
        (status = "default", description = "See `code`", body = schema::Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn control(
    State(edge): State<Edge>,
    Extension(connection): Extension<OfConnection>,
    version: Version,
    method: Method,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
    Identified(caller): Identified,
) -> Result<Response, Refusal> {
    let wait = wait(query.as_deref())?;
    let most = usize::try_from(edge.limits.max_control_streams.get()).unwrap_or(usize::MAX);
    if !wants_stream(&headers) {
        let present = edge.verifier.wished_of(&caller);
        let state = if wait.is_zero() || is_something(&present.state) {
            present.state
        } else {
            match edge.verifier.listen(&caller, most) {
                Ok(listener) => something_to_do(listener, &connection, wait, present).await?,
                // There is no room to wait in.
                Err(_) => present.state,
            }
        };
        return Ok(([(CACHE_CONTROL, "no-store")], Json(state)).into_response());
    }
    let mut stream = Stream::new(edge.verifier.listen(&caller, most)?, connection.clone());
    if version == Version::HTTP_11 && method == Method::GET {
        connection.give_slot_back();
        stream = connection.take_over(stream).await;
    }
    let mut response = Response::new(Body::new(Events(Box::pin(stream.step()))));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let named = |value: &HeaderValue| value.to_str().is_ok_and(|value| value.contains(EVENT_STREAM));
    headers.get_all(ACCEPT).iter().any(named)
}

/// A query is `wait=…` and nothing else.
fn wait(query: Option<&str>) -> Result<Duration, EdgeRefusal> {
    let Some(query) = query.filter(|query| !query.is_empty()) else { return Ok(Duration::ZERO) };
    let seconds = query.strip_prefix("wait=").and_then(|seconds| seconds.parse::<u64>().ok());
    seconds.filter(|seconds| *seconds <= LONGEST_WAIT).map(Duration::from_secs).ok_or(EdgeRefusal::Wait)
}

fn is_something(state: &ControlState) -> bool {
    state.attest || state.renew
}

/// Waits until something is to be done, or the state is another, or time is up.
async fn something_to_do(
    listener: Listener,
    connection: &OfConnection,
    wait: Duration,
    mut present: Present,
) -> Result<ControlState, StreamEnd> {
    let (begin, deadline) = (present.state.clone(), Instant::now() + wait);
    while present.state == begin && Instant::now() < deadline {
        tokio::select! {
            () = listener.changed() => {}
            () = connection.ending() => break,
            () = sleep_until(deadline.min(Instant::now() + present.until)) => {}
        }
        match listener.present() {
            Ok(now) => present = now,
            // Whoever asked hears how it stood: it is served elsewhere.
            Err(StreamEnd::Replaced | StreamEnd::Reconnect | StreamEnd::TooMany) => break,
            Err(end @ StreamEnd::Refused(_)) => return Err(end),
        }
    }
    Ok(present.state)
}

/// The body of a stream: one step after the other, each made when it is asked for.
struct Events(Pin<Box<dyn Future<Output = (Option<Bytes>, Stream)> + Send>>);

/// A stream, with what it has told.
#[derive(Debug)]
pub(super) struct Stream {
    listener: Listener,
    connection: OfConnection,
    _under_way: UnderWay,
    told: Option<Present>,
    keep_alive: Instant,
    ended: bool,
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let (bytes, stream) = std::task::ready!(self.0.as_mut().poll(context));
        self.0 = Box::pin(stream.step());
        Poll::Ready(bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Stream {
    fn new(listener: Listener, connection: OfConnection) -> Self {
        let under_way = connection.begin();
        let keep_alive = Instant::now() + jittered(KEEP_ALIVE);
        Self { listener, connection, _under_way: under_way, told: None, keep_alive, ended: false }
    }

    /// What is to be sent next; nothing after the end.
    pub(super) async fn step(mut self) -> (Option<Bytes>, Self) {
        if self.ended {
            return (None, self);
        }
        loop {
            let present = match self.listener.present() {
                Ok(present) => present,
                Err(end) => return self.end(&end),
            };
            let text = news(self.told.as_ref(), &present);
            let until = present.until;
            self.told = Some(present);
            if !text.is_empty() {
                return (Some(text.into()), self);
            }
            let wake = self.keep_alive.min(Instant::now() + until);
            tokio::select! {
                () = self.listener.changed() => {}
                () = self.connection.ending() => return self.end(&StreamEnd::Reconnect),
                () = sleep_until(wake) => {
                    if wake == self.keep_alive {
                        self.keep_alive = Instant::now() + jittered(KEEP_ALIVE);
                        return (Some(Bytes::from_static(b": keep-alive\n\n")), self);
                    }
                }
            }
        }
    }

    fn end(mut self, end: &StreamEnd) -> (Option<Bytes>, Self) {
        self.ended = true;
        let data = json!({ "code": end.code() });
        (Some(event(ControlEvent::End, &data).into()), self)
    }
}

/// What is new, as events; at the beginning all of it, with a comment, so that the caller knows that the stream is held.
fn news(told: Option<&Present>, present: &Present) -> String {
    let mut text = if told.is_some() { String::new() } else { ": held\n\n".to_owned() };
    let before = told.map(|told| &told.state);
    if before.is_none_or(|before| before.blocked != present.state.blocked) {
        text += &if present.state.blocked.is_empty() {
            event(ControlEvent::Released, &json!({}))
        } else {
            event(ControlEvent::Blocked, &json!({ "codes": present.state.blocked }))
        };
    }
    if present.attest.is_some() && told.is_none_or(|told| told.attest != present.attest) {
        text += &event(ControlEvent::Attest, &json!({}));
    }
    if present.state.renew && before.is_none_or(|before| !before.renew) {
        text += &event(ControlEvent::Renew, &json!({}));
    }
    text
}

fn event(event: ControlEvent, data: &serde_json::Value) -> String {
    format!("event: {}\ndata: {data}\n\n", event.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rootbound_common::clock::Timestamp;

    fn present(attest: Option<i64>, renew: bool, blocked: &[&str]) -> Present {
        let blocked = blocked.iter().map(ToString::to_string).collect();
        Present {
            state: ControlState { attest: attest.is_some(), renew, blocked },
            attest: attest.map(Timestamp::from_millis),
            until: Duration::MAX,
        }
    }

    #[test]
    fn only_what_is_new_is_told() {
        let quiet = present(None, false, &[]);
        assert_eq!(news(None, &quiet), ": held\n\nevent: released\ndata: {}\n\n");
        assert_eq!(news(Some(&quiet), &quiet), "");
        let asked = present(Some(1), false, &[]);
        assert_eq!(news(Some(&quiet), &asked), "event: attest\ndata: {}\n\n");
        assert_eq!(news(Some(&asked), &asked), "");
        assert_eq!(news(Some(&asked), &present(Some(2), false, &[])), "event: attest\ndata: {}\n\n");
        assert_eq!(news(Some(&asked), &quiet), "", "what is done is not told");
        let blocked = present(None, true, &["node_blocked"]);
        assert_eq!(
            news(Some(&quiet), &blocked),
            "event: blocked\ndata: {\"codes\":[\"node_blocked\"]}\n\nevent: renew\ndata: {}\n\n"
        );
        assert_eq!(news(Some(&blocked), &quiet), "event: released\ndata: {}\n\n");
    }

    #[test]
    fn a_wait_is_bounded() {
        assert_eq!(wait(None), Ok(Duration::ZERO));
        assert_eq!(wait(Some("wait=25")), Ok(Duration::from_secs(25)));
        for bad in ["wait=26", "wait=", "wait=-1", "wait=1&wait=2", "nonce=abcdefgh"] {
            assert_eq!(wait(Some(bad)), Err(EdgeRefusal::Wait), "{bad}");
        }
    }
}

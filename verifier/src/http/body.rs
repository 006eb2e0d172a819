//! The body of a request: one JSON document, bounded in size, time and depth, of the endpoint's shape.
//!
//! It is received before the request takes a place among those under way, so that whoever sends only heads keeps none from
//! others; bodies that are on their way have a bound of their own, in all and by client.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequestParts, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use rootbound_common::text::only_shows;
use serde::de::DeserializeOwned;

use super::connection::ClientAddress;
use super::problem::{EdgeRefusal, Refusal};
use super::slots::Slots;

/// How the bodies of an endpoint are received.
#[derive(Debug, Clone)]
pub(super) struct Receiving {
    /// For bodies of up to [`SHORT`] bytes, to whichever endpoint.
    pub(super) short: Room,
    /// For bodies that declare more.
    pub(super) long: Room,
    /// The most bytes that the endpoint takes.
    pub(super) limit: usize,
}

/// Bodies on their way.
#[derive(Debug, Clone)]
pub(super) struct Room {
    /// How many there may be.
    pub(super) slots: Arc<Slots>,
    /// How long one may take to arrive.
    pub(super) within: Duration,
}

const JSON: &str = "application/json";
/// A form (RFC 6749, appendix B).
pub(super) const FORM: &str = "application/x-www-form-urlencoded";

/// What is longer says so beforehand, and takes a place of which there are few.
pub(super) const SHORT: usize = 64 * 1024;

/// A body that has arrived as a whole.
#[derive(Debug, Clone)]
struct Received(Bytes);

/// Receives the body of a request, for [`Message`].
///
/// Established when the next step begins, in this order: the content type is JSON, or what the endpoint takes · there is no content encoding · the
/// length, where it is declared, is within the limit · there was room for one more body of this length on its way · it has at
/// most `limit` bytes, and [`SHORT`] where it declared none · it arrived in time.
pub(super) async fn receive(State(receiving): State<Receiving>, request: Request, next: Next) -> Response {
    match receiving.receive(request).await {
        Ok(request) => next.run(request).await,
        Err(refusal) => Refusal::from(refusal).into_response(),
    }
}

impl Receiving {
    async fn receive(&self, request: Request) -> Result<Request, EdgeRefusal> {
        let (mut parts, body) = request.into_parts();
        let bytes = self.bytes(&parts, body).await?;
        parts.extensions.insert(Received(bytes));
        Ok(Request::from_parts(parts, Body::empty()))
    }

    /// What [`receive`] establishes of a body, and the body.
    pub(super) async fn bytes(&self, parts: &Parts, body: Body) -> Result<Bytes, EdgeRefusal> {
        self.bytes_of(parts, body, JSON).await
    }

    /// The same, of a body of another media type.
    pub(super) async fn bytes_of(
        &self,
        parts: &Parts,
        body: Body,
        media_type: &'static str,
    ) -> Result<Bytes, EdgeRefusal> {
        check_head(&parts.headers, media_type, self.limit)?;
        let ClientAddress(address) = parts.extensions.get().copied().ok_or(EdgeRefusal::Internal)?;
        let long = declared_length(&parts.headers).is_some_and(|length| length > SHORT);
        let (room, limit) =
            if long { (&self.long, self.limit) } else { (&self.short, self.limit.min(SHORT)) };
        let slot = room.slots.take(address).ok_or(EdgeRefusal::TooManyBodies)?;
        let bytes = collect(body, limit, room.within).await?;
        drop(slot);
        Ok(bytes)
    }
}

/// The message in a body that [`receive`] has received: one JSON document (128 levels deep at most, by serde_json) of this
/// shape.
#[derive(Debug)]
pub(super) struct Message<T>(pub(super) T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Message<T> {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let Some(Received(bytes)) = parts.extensions.remove() else {
            return Err(EdgeRefusal::Internal.into());
        };
        Ok(Self(parse(&bytes)?))
    }
}

/// Receives and reads a body at once, where nobody is a stranger. Established: as by [`receive`] but for the room, and by
/// [`Message`].
pub(super) async fn json<T: DeserializeOwned>(
    request: Request,
    limit: usize,
    within: Duration,
) -> Result<T, EdgeRefusal> {
    let (parts, body) = request.into_parts();
    check_head(&parts.headers, JSON, limit)?;
    parse(&collect(body, limit, within).await?)
}

fn check_head(headers: &HeaderMap, media_type: &'static str, limit: usize) -> Result<(), EdgeRefusal> {
    if !is(headers, media_type) {
        return Err(EdgeRefusal::ContentType { media_type });
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(EdgeRefusal::ContentEncoding);
    }
    if declared_length(headers).is_some_and(|length| length > limit) {
        return Err(EdgeRefusal::BodyTooLarge { limit });
    }
    Ok(())
}

async fn collect(body: Body, limit: usize, within: Duration) -> Result<Bytes, EdgeRefusal> {
    match tokio::time::timeout(within, Limited::new(body, limit).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(EdgeRefusal::BodyTooLarge { limit }),
        Ok(Err(_)) => Err(EdgeRefusal::BodyIncomplete),
        Err(_) => Err(EdgeRefusal::BodyTooSlow),
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, EdgeRefusal> {
    serde_json::from_slice(bytes)
        .map_err(|error| EdgeRefusal::MalformedBody { reason: printable(&error.to_string()) })
}

fn is(headers: &HeaderMap, wanted: &str) -> bool {
    let mut values = headers.get_all(CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return false };
    let Ok(value) = value.to_str() else { return false };
    let media_type = value.split(';').next().unwrap_or_default().trim();
    media_type.eq_ignore_ascii_case(wanted)
}

fn declared_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// What serde says may repeat a field name of the caller's: shortened, and without characters that do more than show.
pub(super) fn printable(text: &str) -> String {
    /// The longest message about a document of ours.
    const LONGEST: usize = 200;
    text.chars().take(LONGEST).map(|character| if only_shows(character) { character } else { '?' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn only_one_json_content_type_will_do() {
        let judge = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(CONTENT_TYPE, HeaderValue::from_static(value));
            }
            is(&headers, JSON)
        };
        for good in ["application/json", "Application/JSON; charset=utf-8"] {
            assert!(judge(&[good]), "{good}");
        }
        for bad in
            ["", "text/plain", "application/jsonx", "application/problem+json", "text/plain;application/json"]
        {
            assert!(!judge(&[bad]), "{bad}");
        }
        assert!(!judge(&[]));
        assert!(!judge(&["application/json", "text/plain"]));
    }

    #[test]
    fn what_is_said_of_a_body_is_short_and_printable() {
        assert_eq!(printable("unknown field `a\u{1b}[31m\n\u{202e}`"), "unknown field `a?[31m??`");
        assert_eq!(printable(&"x".repeat(1000)).len(), 200);
    }

    fn request(body: Body) -> Request {
        Request::builder().header(CONTENT_TYPE, "application/json").body(body).unwrap()
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_its_limit() {
        let read = async |text: &'static str, limit| {
            json::<Vec<u8>>(request(Body::from(text)), limit, Duration::from_secs(60)).await
        };
        assert_eq!(read("[1,2,3]", 7).await, Ok(vec![1, 2, 3]));
        assert_eq!(read("[1,2,3]", 6).await, Err(EdgeRefusal::BodyTooLarge { limit: 6 }));
        assert!(matches!(read("[1] [2]", 100).await, Err(EdgeRefusal::MalformedBody { .. })));
        let chunks = Body::new(http_body_util::Full::from("[1,2,3]").map_err(|never| match never {}));
        let read = json::<Vec<u8>>(request(chunks), 6, Duration::from_secs(60)).await;
        assert_eq!(read, Err(EdgeRefusal::BodyTooLarge { limit: 6 }));
    }
}

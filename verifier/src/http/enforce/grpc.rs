//! One call of gRPC with one message each way, over HTTP/2 (gRPC over HTTP2, "Requests" and "Responses").
//!
//! The one service that is offered has one unary method. tonic would bring a server, a router and a codec of its own beside axum's, and
//! limits to keep in step with ours; what is needed of it is a prefix of five bytes and two trailers.

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use http_body_util::{BodyExt, Full};
use prost::Message;

use crate::http::problem::Refusal;

/// The media type of requests and answers.
pub(super) const MEDIA_TYPE: &str = "application/grpc";

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

/// How a call ends, of what it can end as here (gRPC, "Status codes").
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    InvalidArgument,
    DeadlineExceeded,
    PermissionDenied,
    ResourceExhausted,
    Unimplemented,
    Internal,
    Unavailable,
    Unauthenticated,
}

impl Status {
    const fn number(self) -> &'static str {
        match self {
            Self::InvalidArgument => "3",
            Self::DeadlineExceeded => "4",
            Self::PermissionDenied => "7",
            Self::ResourceExhausted => "8",
            Self::Unimplemented => "12",
            Self::Internal => "13",
            Self::Unavailable => "14",
            Self::Unauthenticated => "16",
        }
    }

    fn of(status: StatusCode) -> Self {
        match status {
            StatusCode::BAD_REQUEST | StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::InvalidArgument,
            StatusCode::REQUEST_TIMEOUT => Self::DeadlineExceeded,
            StatusCode::UNAUTHORIZED => Self::Unauthenticated,
            StatusCode::FORBIDDEN => Self::PermissionDenied,
            StatusCode::PAYLOAD_TOO_LARGE | StatusCode::TOO_MANY_REQUESTS => Self::ResourceExhausted,
            StatusCode::SERVICE_UNAVAILABLE => Self::Unavailable,
            _ => Self::Internal,
        }
    }
}

/// A call that fails.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) status: Status,
    pub(super) message: String,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (status, code, detail) = refusal.in_parts();
        Self { status: Status::of(status), message: format!("{code}: {detail}") }
    }
}

/// Reads the one message of a call.
///
/// Established when this returns: the body is one message, whole and not compressed, and of its type.
pub(super) fn message<M: Message + Default>(body: &Bytes) -> Result<M, Failure> {
    let failure = |status, message: &str| Failure { status, message: message.to_owned() };
    let (prefix, message) = body
        .split_first_chunk::<5>()
        .ok_or_else(|| failure(Status::InvalidArgument, "there is no message"))?;
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(failure(Status::Unimplemented, "messages are not compressed here"));
    }
    if usize::try_from(u32::from_be_bytes(length)) != Ok(message.len()) {
        return Err(failure(Status::InvalidArgument, "a call has one message"));
    }
    M::decode(message).map_err(|_| failure(Status::InvalidArgument, "the message is malformed"))
}

/// An answer.
pub(super) fn answer(message: &impl Message) -> Response {
    let encoded = message.encode_to_vec();
    let Ok(length) = u32::try_from(encoded.len()) else {
        let message = "the answer is too long".to_owned();
        return failure(Failure { status: Status::Internal, message });
    };
    let mut frame = Vec::with_capacity(encoded.len().saturating_add(5));
    frame.push(0);
    frame.extend(length.to_be_bytes());
    frame.extend(encoded);
    let trailers = async {
        let mut trailers = HeaderMap::new();
        trailers.insert(GRPC_STATUS, HeaderValue::from_static("0"));
        Some(Ok(trailers))
    };
    of_grpc(Body::new(Full::new(Bytes::from(frame)).with_trailers(trailers)))
}

/// A call that fails: its trailers alone.
pub(super) fn failure(failure: Failure) -> Response {
    let mut response = of_grpc(Body::empty());
    let headers = response.headers_mut();
    headers.insert(GRPC_STATUS, HeaderValue::from_static(failure.status.number()));
    let message = percent_encoding::utf8_percent_encode(&failure.message, percent_encoding::CONTROLS);
    if let Ok(message) = HeaderValue::try_from(message.to_string()) {
        headers.insert(GRPC_MESSAGE, message);
    }
    response
}

fn of_grpc(body: Body) -> Response {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, Message)]
    struct Word {
        #[prost(string, tag = "1")]
        text: String,
    }

    fn read(body: &[u8]) -> Result<Word, Status> {
        message::<Word>(&Bytes::copy_from_slice(body)).map_err(|failure| failure.status)
    }

    #[tokio::test]
    async fn what_is_answered_can_be_read_and_ends_well() {
        let word = Word { text: "pass".to_owned() };
        let response = answer(&word);
        assert_eq!(response.headers()["content-type"], MEDIA_TYPE);
        let collected = response.into_body().collect().await.unwrap();
        assert_eq!(collected.trailers().unwrap()["grpc-status"], "0");
        assert_eq!(message::<Word>(&collected.to_bytes()), Ok(word));
    }

    #[test]
    fn a_body_is_one_message_and_no_more() {
        let good = [0, 0, 0, 0, 3, 0x0a, 1, b'x'];
        assert_eq!(read(&good).unwrap().text, "x");
        assert_eq!(read(&[0, 0, 0, 0, 0]).unwrap().text, "");
        for bad in [
            &[][..],
            &good[..4],
            &good[..7],
            &[&good[..], &[0]].concat(),
            &[&good[..], &good[..]].concat(),
            &[0, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 0, 3, 0x0a, 9, b'x'],
            &[0, 0, 0, 0, 3, 0x0a, 1, 0xff],
        ] {
            assert_eq!(read(bad), Err(Status::InvalidArgument), "{bad:?}");
        }
        assert_eq!(read(&[1, 0, 0, 0, 0]), Err(Status::Unimplemented));
    }

    #[test]
    fn a_failure_is_told_in_trailers_alone() {
        let response = failure(Failure { status: Status::Unavailable, message: "b\u{e4}\n".to_owned() });
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["grpc-status"], "14");
        assert_eq!(response.headers()["grpc-message"], "b%C3%A4%0A");
    }
}

//! The Authorization API 1.0 of AuthZEN, for callers that show a certificate, a node's X.509-SVID or a relying
//! party's, or a relying party's token.
//!
//! - `evaluation`, `evaluations`, `search`: one question, many, and what would be allowed; `configuration`: where
//!   the others are
//! - `message`: the standard's messages out of a document that `rootbound_token::json` read strictly; `answer`: the way back
//!
//! These endpoints are asked thousands of times a second, so that a request passes here what it passes elsewhere in layers
//! (see [`super`]), in this order: the rate of its client, by its certificate or token · the caller that the certificate names · a slot
//! for its body, the body, in time · that caller as it stands by now · a place among the decisions under way · the message ·
//! the rate again, for each further decision that it asks for. A caller that hangs up takes its question along: until it is recorded nothing has changed, and after that only the answer is
//! lost.
//!
//! Whatever goes wrong is told as the standard has it: a JSON string, and 400 for all that is wrong with a request's form.

pub(super) mod answer;
pub(super) mod configuration;
pub(super) mod evaluation;
pub(super) mod evaluations;
mod message;
pub(super) mod search;

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use rootbound_token::json;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::OwnedSemaphorePermit;

use super::Edge;
use super::body::{Receiving, Room, printable};
use super::client::{Reader, may_be_known};
use super::connection::ClientAddress;
use super::problem::{EdgeRefusal, Refusal};
use super::throttle::RateClass;
use crate::flows::caller::Caller;
use message::Malformed;

/// How large a request may be.
#[derive(Debug, Clone, Copy)]
struct Size {
    /// Bytes of the body.
    bytes: usize,
    /// JSON values in it.
    values: usize,
}

/// One question or search: what [`Question`](crate::policy::Question) may have, and some for what is ignored.
const ONE: Size = Size { bytes: 64 * 1024, values: 8 * 1024 };
/// A batch: some hundred bytes for each of a thousand questions.
const BATCH: Size = Size { bytes: 512 * 1024, values: 64 * 1024 };

/// A request that arrived.
struct Arrived {
    caller: Caller,
    address: IpAddr,
    body: Value,
    /// Given back when the answer is there.
    _place: OwnedSemaphorePermit,
}

impl Edge {
    /// Receives a request, in the order of the module's description.
    async fn arrived(&self, request: Request, size: Size) -> Result<Arrived, Refusal> {
        let (parts, body) = request.into_parts();
        let ClientAddress(address) = parts.extensions.get().copied().ok_or(EdgeRefusal::Internal)?;
        let class = if may_be_known(&parts, self)? { RateClass::Evaluation } else { RateClass::Query };
        self.throttle.count(class, address)?;
        // Nothing is read for whoever is refused: others need the place of its body.
        Reader::identify(&parts, self, RateClass::Query).await?;
        let receiving = Receiving {
            short: Room { slots: Arc::clone(&self.bodies), within: self.limits.body_timeout },
            long: Room { slots: Arc::clone(&self.long_evaluations), within: self.limits.long_body_timeout },
            limit: size.bytes,
        };
        let text = receiving.bytes(&parts, body).await?;
        // The body took its time, and the caller may stand otherwise since.
        let Reader(caller) = Reader::identify(&parts, self, RateClass::Query).await?;
        let place = self.place()?;
        let body = json::read(&text, size.values).map_err(|error| malformed(&error))?;
        Ok(Arrived { caller, address, body, _place: place })
    }

    /// Counts what a request asks for as so many decisions, of which the first has counted when it came.
    fn count_decisions(&self, address: IpAddr, decisions: usize) -> Result<(), EdgeRefusal> {
        let further = u32::try_from(decisions.saturating_sub(1)).unwrap_or(u32::MAX);
        match NonZeroU32::new(further) {
            Some(further) => self.throttle.count_all(RateClass::Evaluation, address, further),
            None => Ok(()),
        }
    }
}

fn malformed(error: &dyn std::error::Error) -> EdgeRefusal {
    EdgeRefusal::MalformedBody { reason: printable(&error.to_string()) }
}

impl From<Malformed> for Refusal {
    fn from(error: Malformed) -> Self {
        malformed(&error).into()
    }
}

/// An answer in JSON, before it has its request's id.
fn answered(body: &impl Serialize) -> Result<Response, Refusal> {
    let body = serde_json::to_vec(body).map_err(|_| EdgeRefusal::Internal)?;
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// What a caller calls its request, to be sent back with the answer (1.0, "Request Identification").
struct RequestId(Option<HeaderValue>);

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

impl RequestId {
    /// A UUID has 36 characters, a trace context of the W3C 55.
    const MAX: usize = 128;

    /// What is longer, stands twice or does not only show, is no id: it is not sent back.
    fn of(headers: &HeaderMap) -> Self {
        let mut values = headers.get_all(X_REQUEST_ID).iter();
        let (Some(value), None) = (values.next(), values.next()) else { return Self(None) };
        let bytes = value.as_bytes();
        let good = (1..=Self::MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic);
        Self(good.then(|| value.clone()))
    }

    /// The answer with the id, or the refusal in the standard's form.
    fn on(self, outcome: Result<Response, Refusal>) -> Response {
        let mut response = outcome.unwrap_or_else(Refusal::into_message);
        if let Some(value) = self.0 {
            response.headers_mut().insert(X_REQUEST_ID, value);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_shows_and_is_short_is_echoed() {
        let echoed = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(X_REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            }
            RequestId::of(&headers).0.map(|value| value.as_bytes().to_vec())
        };
        let longest = vec![b'a'; RequestId::MAX];
        for good in [&b"bfe9eb29-ab87-4ca3-be83-a1d5d8305716"[..], b"~", &longest] {
            assert_eq!(echoed(&[good]).as_deref(), Some(good));
        }
        let long = vec![b'a'; RequestId::MAX + 1];
        for bad in [&b""[..], b"a b", b"a\tb", b"\xc3\xa9", &long] {
            assert_eq!(echoed(&[bad]), None);
        }
        assert_eq!(echoed(&[]), None);
        assert_eq!(echoed(&[b"a", b"b"]), None);
    }
}

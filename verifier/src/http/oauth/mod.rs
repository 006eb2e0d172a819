//! OAuth 2.0: tokens for nodes and for those who act for them.
//!
//! - `metadata`: where everything is (RFC 8414, OpenID Connect Discovery)
//! - `token`: client credentials and token exchange (RFC 6749, 4.4; RFC 8693)
//! - `introspect`, `revoke`: RFC 7662 and RFC 7009
//! - `form`: the body of a request; `client`: who sends it
//!
//! A request passes, in this order: the rate of its client, by its certificate or token · a slot for its body, the body, in time ·
//! the form · a place among the decisions under way · the client · what is asked for. Whatever goes wrong is told as RFC 6749,
//! 5.2, has it, with a stable `code` beside it.

mod client;
mod form;
pub(super) mod introspect;
pub(super) mod metadata;
pub(super) mod revoke;
pub(super) mod token;

use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;

use self::form::{Form, FormError};
use super::Edge;
use super::body::FORM;
use super::client::may_be_known;
use super::connection::ClientAddress;
use super::problem::{EdgeRefusal, Refusal};
use super::throttle::RateClass;
use crate::store::StoreError;

/// The longest body: a token to exchange, an assertion, and some details.
pub(super) const MAX_BODY: usize = 32 * 1024;

const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// A refusal in the form of RFC 6749, 5.2.
#[derive(Debug)]
pub(super) struct OAuthRefusal {
    status: StatusCode,
    error: &'static str,
    code: Box<str>,
    description: Box<str>,
    retry_after: Option<u64>,
    challenge: Option<&'static str>,
    nonce: Option<Box<str>>,
}

impl OAuthRefusal {
    fn new(status: StatusCode, error: &'static str, code: &str, description: &str) -> Self {
        Self {
            status,
            error,
            code: code.into(),
            description: description_of(description).into(),
            retry_after: None,
            challenge: None,
            nonce: None,
        }
    }

    fn bad(error: &'static str, code: &str, description: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, error, code, description)
    }

    /// The client is not known, or not by what it shows (RFC 6749, 5.2).
    fn client(code: &str, description: &str) -> Self {
        let refusal = Self::new(StatusCode::UNAUTHORIZED, "invalid_client", code, description);
        Self { challenge: Some("Basic realm=\"rootbound\""), ..refusal }
    }

    fn with_nonce(self, nonce: String) -> Self {
        Self { nonce: Some(nonce.into()), ..self }
    }
}

/// Without what a description must not have (RFC 6749, 5.2): `"`, `\`, and what does not only show.
fn description_of(text: &str) -> String {
    let plain = |character: char| match character {
        '"' | '\\' => '\'',
        character if character.is_ascii_graphic() || character == ' ' => character,
        _ => '?',
    };
    text.chars().take(400).map(plain).collect()
}

impl From<FormError> for OAuthRefusal {
    fn from(error: FormError) -> Self {
        Self::bad("invalid_request", "form_malformed", &error.to_string())
    }
}

impl From<Refusal> for OAuthRefusal {
    fn from(refusal: Refusal) -> Self {
        let problem = refusal.problem();
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let error = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Self::client(&problem.code, &problem.detail);
            }
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => "temporarily_unavailable",
            StatusCode::INTERNAL_SERVER_ERROR => "server_error",
            _ => "invalid_request",
        };
        let status = match status {
            StatusCode::UNSUPPORTED_MEDIA_TYPE => StatusCode::BAD_REQUEST,
            status => status,
        };
        Self {
            retry_after: refusal.retry_after_seconds(),
            ..Self::new(status, error, &problem.code, &problem.detail)
        }
    }
}

impl From<EdgeRefusal> for OAuthRefusal {
    fn from(refusal: EdgeRefusal) -> Self {
        Refusal::from(refusal).into()
    }
}

impl From<StoreError> for OAuthRefusal {
    fn from(error: StoreError) -> Self {
        Refusal::from(error).into()
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    error_description: &'a str,
    code: &'a str,
}

impl IntoResponse for OAuthRefusal {
    fn into_response(self) -> Response {
        let body = ErrorBody { error: self.error, error_description: &self.description, code: &self.code };
        let mut response = answered(&body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Some(challenge) = self.challenge {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        add_nonce(&mut response, self.nonce.as_deref());
        response
    }
}

fn add_nonce(response: &mut Response, nonce: Option<&str>) {
    if let Some(nonce) = nonce.and_then(|nonce| HeaderValue::from_str(nonce).ok()) {
        response.headers_mut().insert(DPOP_NONCE, nonce);
    }
}

/// An answer in JSON that nobody keeps.
fn answered(body: &impl Serialize) -> Response {
    let Ok(body) = serde_json::to_vec(body) else {
        return Refusal::from(EdgeRefusal::Internal).into_response();
    };
    let mut response = Response::new(body.into());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// A request that arrived.
struct Arrived {
    parts: Parts,
    form: Form,
    /// Given back when the answer is there.
    _place: OwnedSemaphorePermit,
}

impl Edge {
    /// Receives a request, in the order of the module's description.
    async fn form_arrived(&self, request: Request) -> Result<Arrived, OAuthRefusal> {
        let (parts, body) = request.into_parts();
        let ClientAddress(address) = parts.extensions.get().copied().ok_or(EdgeRefusal::Internal)?;
        let known = may_be_known(&parts, self)? || client::has_known_secret(&parts, self);
        let class = if known { RateClass::Evaluation } else { RateClass::Query };
        self.throttle.count(class, address)?;
        let text = self.receiving_short(MAX_BODY).bytes_of(&parts, body, FORM).await?;
        let form = Form::parse(&text)?;
        let place = self.place()?;
        Ok(Arrived { parts, form, _place: place })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_has_only_what_the_standard_allows() {
        assert_eq!(description_of("a \"b\" \\ c\u{e4}\n"), "a 'b' ' c??");
        assert_eq!(description_of(&"x".repeat(1000)).len(), 400);
    }
}

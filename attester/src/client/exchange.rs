//! One request and its answer: a connection of its own, bounded in time and size.
//!
//! There is no connection pool. In steady state there is one request per attestation, minutes apart: an idle
//! connection would cost the verifier memory for each machine, and an open one would outlive what it was judged by. Tokens,
//! of which workloads fetch many, come over a connection that is kept: `kept.rs`.

use std::io;
use std::time::Duration;

use http::header::{ACCEPT, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rootbound_common::wire::v1::Problem;
use serde::de::{DeserializeOwned, IgnoredAny};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::stream::{MAX_EVENTS, PACE};
use super::{ControlStream, Refusal, VerifierUrl};
use crate::tpm::TpmError;

/// Bytes of an answer. The largest, a credential with its chain and bundle, takes some KB.
pub(super) const MAX_ANSWER: usize = 1024 * 1024;

/// How long one of several addresses may take to let us in before the next is tried.
const ADDRESS_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest pause that the verifier can impose.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);

/// What was being waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Addresses of the host.
    Lookup,
    /// A TCP connection.
    Connect,
    /// The end of the TLS handshake.
    Handshake,
    /// The head of the answer.
    Answer,
    /// The body of the answer.
    Body,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Lookup => "the name lookup",
            Self::Connect => "the connection",
            Self::Handshake => "the TLS handshake",
            Self::Answer => "the answer",
            Self::Body => "the rest of the answer",
        })
    }
}

/// Why there is no answer to a request.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The host has no address.
    #[error("cannot find the address of {host}")]
    Lookup {
        /// The host.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody there lets us in.
    #[error("cannot connect to {url}")]
    Connect {
        /// Where.
        url: String,
        /// Why, at the last address.
        source: io::Error,
    },
    /// The TLS handshake failed: nobody that we trust, or a key of ours that the TPM does not let us use.
    #[error("cannot agree with {url} on TLS")]
    Handshake {
        /// Where.
        url: String,
        /// Why; holds a [`rustls::Error`] where it is not the connection that failed.
        source: io::Error,
    },
    /// Time is up.
    #[error("time is up, waiting for {stage}")]
    Timeout {
        /// What was being waited for.
        stage: Stage,
    },
    /// The connection broke, or what came over it is not HTTP.
    #[error("the HTTP exchange broke off")]
    Http(#[source] hyper::Error),
    /// The answer is too long.
    #[error("the answer is over the limit of {MAX_ANSWER} bytes")]
    TooLarge,
    /// A stream has more to say than anybody has who means it.
    #[error("more than {MAX_EVENTS} events came within {} s", PACE.as_secs())]
    TooOften,
    /// The answer is of another kind than what was asked for.
    #[error("the answer (status {status}) is not JSON")]
    ContentType {
        /// HTTP status.
        status: u16,
    },
    /// The answer is not the message that it should be. What it is instead is not said: it is a peer's text.
    #[error("the answer does not fit version 1 of the protocol (line {line}, column {column})")]
    Shape {
        /// Where.
        line: usize,
        /// Where.
        column: usize,
    },
    /// An answer that is no problem document, with a status that is not success.
    #[error("the answer has status {status}")]
    Status {
        /// HTTP status.
        status: u16,
        /// How long to wait at least, where the answer says so.
        retry_after: Option<Duration>,
    },
    /// The verifier says no.
    #[error(transparent)]
    Refused(Refusal),
}

impl RequestError {
    /// What the TPM said, where it was our TPM that did not sign the handshake.
    #[must_use]
    pub fn tpm(&self) -> Option<&TpmError> {
        let Self::Handshake { source, .. } = self else { return None };
        match source.get_ref()?.downcast_ref::<rustls::Error>()? {
            rustls::Error::Other(other) => other.0.downcast_ref(),
            _ => None,
        }
    }
}

/// What to ask.
pub(super) struct Question {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) body: Option<Vec<u8>>,
}

/// Asks over a new connection; all of it within `limit`.
pub(super) async fn exchange<A: DeserializeOwned>(
    url: &VerifierUrl,
    tls: TlsConnector,
    question: Question,
    limit: Duration,
) -> Result<A, RequestError> {
    let deadline = Instant::now() + limit;
    converse(url, reach(url, deadline).await?, tls, question, deadline).await
}

/// Asks over a connection that is good for this one request.
pub(super) async fn converse<S, A>(
    url: &VerifierUrl,
    stream: S,
    tls: TlsConnector,
    question: Question,
    deadline: Instant,
) -> Result<A, RequestError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    A: DeserializeOwned,
{
    let (mut sender, _connection) = connect(url, stream, tls, deadline).await?;
    let Answer { status, headers, body } =
        hear(sender.send_request(request(url, question)), deadline).await?;
    judge(status, &headers, &body)
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// Hears the answer to a request that is being sent, all of it, in time.
pub(super) async fn hear(
    sending: impl Future<Output = hyper::Result<Response<Incoming>>>,
    deadline: Instant,
) -> Result<Answer, RequestError> {
    let response = timeout_at(deadline, sending)
        .await
        .map_err(|_| RequestError::Timeout { stage: Stage::Answer })?
        .map_err(RequestError::Http)?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = timeout_at(deadline, read(response))
        .await
        .map_err(|_| RequestError::Timeout { stage: Stage::Body })??;
    Ok(Answer { status, headers, body })
}

/// TLS and HTTP over a stream. The connection ends where the second of what this returns is dropped.
async fn connect<S>(
    url: &VerifierUrl,
    stream: S,
    tls: TlsConnector,
    deadline: Instant,
) -> Result<(SendRequest<Full<Bytes>>, AbortOnDropHandle<Result<(), hyper::Error>>), RequestError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = timeout_at(deadline, tls.connect(url.server_name(), stream))
        .await
        .map_err(|_| RequestError::Timeout { stage: Stage::Handshake })?
        .map_err(|source| RequestError::Handshake { url: url.to_string(), source })?;
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .max_headers(64)
        .max_buf_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(RequestError::Http)?;
    Ok((sender, AbortOnDropHandle::new(tokio::spawn(connection))))
}

/// Opens a stream of events; its head is there within `limit`.
pub(super) async fn stream(
    url: &VerifierUrl,
    tls: TlsConnector,
    path: &'static str,
    limit: Duration,
) -> Result<ControlStream, RequestError> {
    let deadline = Instant::now() + limit;
    listen(url, reach(url, deadline).await?, tls, path, deadline).await
}

/// Opens a stream of events over a connection that is good for it alone.
pub(super) async fn listen<S>(
    url: &VerifierUrl,
    stream: S,
    tls: TlsConnector,
    path: &'static str,
    deadline: Instant,
) -> Result<ControlStream, RequestError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    const EVENTS: &str = "text/event-stream";
    let (mut sender, connection) = connect(url, stream, tls, deadline).await?;
    let mut request = request(url, Question { method: Method::GET, path, body: None });
    request.headers_mut().insert(ACCEPT, HeaderValue::from_static(EVENTS));
    let response = timeout_at(deadline, sender.send_request(request))
        .await
        .map_err(|_| RequestError::Timeout { stage: Stage::Answer })?
        .map_err(RequestError::Http)?;
    let (status, headers) = (response.status(), response.headers().clone());
    if status.is_success() && is(&headers, EVENTS) {
        return Ok(ControlStream::new(response.into_body(), connection));
    }
    let body = timeout_at(deadline, read(response))
        .await
        .map_err(|_| RequestError::Timeout { stage: Stage::Body })??;
    match judge::<IgnoredAny>(status, &headers, &body) {
        Err(error) => Err(error),
        Ok(IgnoredAny) => Err(RequestError::ContentType { status: status.as_u16() }),
    }
}

/// A TCP connection, by then.
pub(super) async fn reach(url: &VerifierUrl, deadline: Instant) -> Result<TcpStream, RequestError> {
    let tcp = timeout_at(deadline, try_addresses(url))
        .await
        .map_err(|_| RequestError::Timeout { stage: Stage::Connect })??;
    // Without it each exchange waits for a delayed ACK, 40 ms and more.
    tcp.set_nodelay(true).map_err(|source| RequestError::Connect { url: url.to_string(), source })?;
    Ok(tcp)
}

/// Tries the addresses of the host in turn.
async fn try_addresses(url: &VerifierUrl) -> Result<TcpStream, RequestError> {
    let lookup = |source| RequestError::Lookup { host: url.host().to_owned(), source };
    let addresses = timeout(ADDRESS_TIMEOUT, lookup_host((url.host(), url.port())))
        .await
        .map_err(|_| RequestError::Timeout { stage: Stage::Lookup })?
        .map_err(lookup)?;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in addresses {
        match timeout(ADDRESS_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::from(io::ErrorKind::TimedOut),
        }
    }
    Err(RequestError::Connect { url: url.to_string(), source: last })
}

/// What the attester calls itself.
pub(super) const AGENT: &str = concat!("rootbound-attester/", env!("CARGO_PKG_VERSION"));

fn request(url: &VerifierUrl, question: Question) -> Request<Full<Bytes>> {
    let has_body = question.body.is_some();
    let mut request = Request::new(question.body.map_or_else(Full::default, Full::from));
    *request.method_mut() = question.method;
    *request.uri_mut() = Uri::from_static(question.path);
    let headers = request.headers_mut();
    headers.insert(HOST, url.host_header());
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
    headers.insert(CONNECTION, HeaderValue::from_static("close"));
    if has_body {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    request
}

async fn read(response: Response<Incoming>) -> Result<Bytes, RequestError> {
    let announced = response.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok());
    if announced
        .and_then(|length| length.parse().ok())
        .is_some_and(|length: u64| usize::try_from(length).is_ok_and(|length| length > MAX_ANSWER))
    {
        return Err(RequestError::TooLarge);
    }
    match Limited::new(response.into_body(), MAX_ANSWER).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => Err(match error.downcast::<hyper::Error>() {
            Ok(error) => RequestError::Http(*error),
            Err(error) => {
                debug_assert!(error.is::<LengthLimitError>(), "a limited body fails in two ways");
                RequestError::TooLarge
            }
        }),
    }
}

pub(crate) fn judge<A: DeserializeOwned>(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<A, RequestError> {
    let shape = |error: serde_json::Error| RequestError::Shape { line: error.line(), column: error.column() };
    let retry_after = retry_after(headers);
    if status.is_success() {
        if !is(headers, "application/json") {
            return Err(RequestError::ContentType { status: status.as_u16() });
        }
        return serde_json::from_slice(body).map_err(shape);
    }
    if !is(headers, "application/problem+json") {
        return Err(RequestError::Status { status: status.as_u16(), retry_after });
    }
    let problem: Problem = serde_json::from_slice(body).map_err(shape)?;
    Err(RequestError::Refused(Refusal::of_problem(&problem, status.as_u16(), retry_after)))
}

/// Whether the body is said to be of this media type, parameters aside.
pub(crate) fn is(headers: &HeaderMap, media_type: &str) -> bool {
    let stated = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = stated.split_once(';').map_or(stated, |(essence, _)| essence);
    essence.trim().eq_ignore_ascii_case(media_type)
}

/// Retry-After in seconds (RFC 9110, 10.2.3); the form with a date is not used by the verifier.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY_AFTER))
}

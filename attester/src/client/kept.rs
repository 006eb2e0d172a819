//! A connection that is kept: HTTP/2, so that one TLS handshake, and so one signature of the TPM, serves many requests at once.

use std::sync::Arc;

use http::header::{ACCEPT, USER_AGENT};
use http::{HeaderValue, Request};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

use super::exchange::{AGENT, Answer, hear, reach};
use super::{RequestError, Stage, VerifierUrl};

/// Requests at once, until the verifier says otherwise: as many as it takes.
pub(crate) const AT_ONCE: usize = 8;
/// Bytes of the head of an answer.
const MAX_HEAD: u32 = 16 * 1024;
/// Bytes in flight of one answer, and of all.
const WINDOWS: (u32, u32) = (64 * 1024, 256 * 1024);

/// A connection to the verifier. It ends on drop.
#[derive(Debug)]
pub(crate) struct Kept {
    sender: SendRequest<Full<Bytes>>,
    /// `https://`, and the verifier's host and port.
    origin: String,
    connection: AbortOnDropHandle<Result<(), hyper::Error>>,
}

impl Kept {
    /// Connects.
    pub(super) async fn open(
        url: &VerifierUrl,
        tls: ClientConfig,
        deadline: Instant,
    ) -> Result<Self, RequestError> {
        Self::over(url, reach(url, deadline).await?, tls, deadline).await
    }

    /// TLS and HTTP/2 over a stream.
    pub(super) async fn over<S>(
        url: &VerifierUrl,
        stream: S,
        mut tls: ClientConfig,
        deadline: Instant,
    ) -> Result<Self, RequestError>
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        const HTTP_2: &[u8] = b"h2";
        tls.alpn_protocols = vec![HTTP_2.to_vec()];
        let connector = TlsConnector::from(Arc::new(tls));
        let handshake = |source| RequestError::Handshake { url: url.to_string(), source };
        let stream = timeout_at(deadline, connector.connect(url.server_name(), stream))
            .await
            .map_err(|_| RequestError::Timeout { stage: Stage::Handshake })?
            .map_err(handshake)?;
        if stream.get_ref().1.alpn_protocol() != Some(HTTP_2) {
            return Err(handshake(std::io::Error::other("the server does not speak HTTP/2")));
        }
        let (sender, connection) = Builder::new(TokioExecutor::new())
            .initial_max_send_streams(AT_ONCE)
            .max_header_list_size(MAX_HEAD)
            .initial_stream_window_size(WINDOWS.0)
            .initial_connection_window_size(WINDOWS.1)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(RequestError::Http)?;
        let connection = AbortOnDropHandle::new(tokio::spawn(connection));
        Ok(Self { sender, origin: url.to_string(), connection })
    }

    /// Whether it has ended. One that has not may end at any moment.
    pub(crate) fn has_ended(&self) -> bool {
        self.sender.is_closed() || self.connection.is_finished()
    }

    /// Asks for a path, by a request that has everything else.
    pub(crate) async fn ask(
        &self,
        path: &str,
        mut request: Request<Full<Bytes>>,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        // Ours: a path of this program, behind a host that was read as one.
        *request.uri_mut() = format!("{}{path}", self.origin).parse().unwrap_or_default();
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
        hear(self.sender.clone().send_request(request), deadline).await
    }
}

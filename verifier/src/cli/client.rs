//! Speaks to the running daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rootbound_common::wire::v1::Problem;
use tokio::net::UnixStream;

use crate::http::admin;
use crate::http::admin::message::{Command, Reply};

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or we may not.
    #[error("cannot reach the daemon at {}: {source} (does it run, and do you run this as its user?)", socket.display())]
    Unreachable {
        /// The socket.
        socket: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It said no.
    #[error("{} ({})", .0.detail, .0.code)]
    Refused(Box<Problem>),
    /// It answered something else.
    #[error("the daemon's answer cannot be used: {0}")]
    Answer(String),
}

/// A whole inventory, or every reference set: larger than any, and not without end.
const MAX_ANSWER: usize = 256 * 1024 * 1024;
/// A fleet of a million nodes is appraised again within it.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Says one thing, from a program that does nothing else.
pub(super) fn ask_once(socket: &Path, command: &Command) -> Result<Reply, ClientError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| ClientError::Answer(error.to_string()))?;
    runtime.block_on(ask(socket, command))
}

/// Says one thing to the daemon that listens on `socket`, and hears its answer.
pub async fn ask(socket: &Path, command: &Command) -> Result<Reply, ClientError> {
    let unreachable = |source| ClientError::Unreachable { socket: socket.to_owned(), source };
    let stream = UnixStream::connect(socket).await.map_err(unreachable)?;
    match tokio::time::timeout(TIMEOUT, converse(stream, command)).await {
        Ok(Err(Unheard::GoneAway)) => {
            let words = "it went away before it answered; what it was told may be done all the same";
            Err(unreachable(std::io::Error::new(std::io::ErrorKind::ConnectionReset, words)))
        }
        Ok(Err(Unheard::Client(error))) => Err(error),
        Ok(Ok(reply)) => Ok(reply),
        Err(_) => Err(ClientError::Answer("it took too long".to_owned())),
    }
}

/// Why a conversation came to no reply.
enum Unheard {
    /// The daemon ended it without an answer: it stops.
    GoneAway,
    /// Another reason.
    Client(ClientError),
}

impl From<ClientError> for Unheard {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

async fn converse(stream: UnixStream, command: &Command) -> Result<Reply, Unheard> {
    let unusable = |error: &dyn std::fmt::Display| ClientError::Answer(error.to_string());
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| unusable(&error))?;
    // Ends with the sender.
    tokio::spawn(connection);
    let body = serde_json::to_vec(command).map_err(|error| unusable(&error))?;
    let request = Request::post(admin::PATH)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::<Bytes>::from(body))
        .map_err(|error| unusable(&error))?;
    let response = sender.send_request(request).await.map_err(|_| Unheard::GoneAway)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| unusable(&error))?.to_bytes();
    if status == StatusCode::OK {
        return Ok(serde_json::from_slice(&body).map_err(|error| unusable(&error))?);
    }
    let problem: Problem = serde_json::from_slice(&body).map_err(|error| unusable(&error))?;
    if status.is_client_error() {
        Err(ClientError::Refused(Box::new(problem)).into())
    } else {
        Err(ClientError::Answer(problem.detail).into())
    }
}

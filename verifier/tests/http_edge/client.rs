//! HTTP over TLS, with everything in the test's hands.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::pki::{ClientTime, Leaf, shown};
use super::stage::Stage;

/// Longer than anything that is tested takes; what hangs fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// Null where the body is no JSON.
    pub(crate) body: Value,
    pub(crate) bytes: Bytes,
}

impl Answer {
    /// The `code` of a problem document; its status must agree.
    pub(crate) fn code(&self) -> &str {
        assert_eq!(self.headers["content-type"], "application/problem+json", "{self:?}");
        assert_eq!(self.body["status"], self.status.as_u16());
        self.body["code"].as_str().unwrap()
    }
}

pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what} hangs"))
}

/// A client's TLS configuration, with rustls' defaults for resumption.
pub(crate) fn config(stage: &Stage, leaf: Option<&Leaf>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(stage.ca.certificate()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_details(provider, Arc::new(ClientTime(stage.clock.clone())))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    Arc::new(match shown(leaf) {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    })
}

pub(crate) async fn tcp(stage: &Stage) -> TcpStream {
    TcpStream::connect(stage.address()).await.unwrap()
}

pub(crate) async fn tls_with(stage: &Stage, config: Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    tls_to(stage.address(), config).await
}

pub(crate) async fn tls_to(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    TlsConnector::from(config).connect(ServerName::try_from("localhost").unwrap(), stream).await
}

pub(crate) async fn tls(stage: &Stage) -> TlsStream<TcpStream> {
    tls_with(stage, config(stage, None)).await.unwrap()
}

/// A connection that speaks HTTP/1.1.
pub(crate) struct Http(SendRequest<Full<Bytes>>);

impl Http {
    pub(crate) async fn connect(stage: &Stage, leaf: Option<&Leaf>) -> Result<Self, String> {
        let stream = tls_with(stage, config(stage, leaf)).await.map_err(|error| error.to_string())?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Result<Answer, String> {
        let exchange = async {
            self.0.ready().await?;
            let response = self.0.send_request(request).await?;
            let (parts, body) = response.into_parts();
            Ok::<_, hyper::Error>((parts, body.collect().await?.to_bytes()))
        };
        let (parts, body) = in_time("a request", exchange).await.map_err(|error| error.to_string())?;
        let json = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Ok(Answer { status: parts.status, headers: parts.headers, body: json, bytes: body })
    }
}

/// One request on a connection of its own.
pub(crate) async fn request(
    stage: &Stage,
    leaf: Option<&Leaf>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    Http::connect(stage, leaf).await?.send(request).await
}

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path).header("host", "localhost").body(Full::default()).unwrap()
}

pub(crate) fn post(path: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let request = Request::post(path).header("host", "localhost").header("content-type", "application/json");
    request.body(Full::new(body.into())).unwrap()
}

/// A request without a certificate, which must be answered.
pub(crate) async fn ask(stage: &Stage, message: Request<Full<Bytes>>) -> Answer {
    request(stage, None, message).await.unwrap()
}

/// Waits until the other side ends the connection; what it sends before counts as nothing.
pub(crate) async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut heard = Vec::new();
    // However it ends: orderly, by a reset, or by TLS without its close_notify.
    let _ = in_time("a connection that should be cut off", stream.read_to_end(&mut heard)).await;
    heard
}

pub(crate) async fn write(stream: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) {
    stream.write_all(bytes).await.unwrap();
    stream.flush().await.unwrap();
}

/// The same, where the server may cut the connection before it has heard everything.
pub(crate) async fn write_in_vain(stream: &mut (impl tokio::io::AsyncWrite + Unpin), bytes: &[u8]) {
    let _ = stream.write_all(bytes).await;
    let _ = stream.flush().await;
}

/// Begins a request whose body of `length` bytes is still to come; returns when the server waits for it.
pub(crate) async fn begin(stage: &Stage, path: &str, length: usize) -> TlsStream<TcpStream> {
    let mut stream = tls(stage).await;
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\nexpect: 100-continue\r\n\r\n"
    );
    write(&mut stream, head.as_bytes()).await;
    let mut heard = [0; b"HTTP/1.1 100 Continue\r\n\r\n".len()];
    in_time("100 Continue", stream.read_exact(&mut heard)).await.unwrap();
    assert_eq!(&heard, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

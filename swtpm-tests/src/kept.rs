//! A connection to a verifier that is kept, with one request under way at a time: for whoever measures.

use std::net::SocketAddr;
use std::sync::Arc;

use http::header::HOST;
use http::request::Builder;
use http::{HeaderMap, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What was answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The header fields.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// Such a connection. It ends when it is dropped.
#[derive(Debug)]
pub struct Kept(SendRequest<Full<Bytes>>);

impl Kept {
    /// Connects to a verifier on this machine.
    ///
    /// # Panics
    /// Where there is none that speaks to whoever this configuration is of.
    pub async fn open(address: SocketAddr, tls: ClientConfig) -> Self {
        let stream = TcpStream::connect(address).await.expect("a verifier that listens");
        stream.set_nodelay(true).expect("a socket");
        let name = ServerName::from(address.ip());
        let stream = TlsConnector::from(Arc::new(tls)).connect(name, stream).await.expect("TLS");
        let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
        // Ends with the sender.
        tokio::spawn(connection);
        Self(sender)
    }

    /// Sends a request with this body, and waits for the answer.
    ///
    /// # Panics
    /// Where it is no request, or there is no answer.
    pub async fn send(&mut self, request: Builder, body: Bytes) -> Answer {
        let request = request.header(HOST, "127.0.0.1").body(Full::from(body)).expect("a request");
        self.0.ready().await.expect("a connection that is kept");
        let response = self.0.send_request(request).await.expect("an answer");
        let (head, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }
}

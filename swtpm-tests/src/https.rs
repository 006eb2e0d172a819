//! Requests that the attester's client would not send, over TLS, byte by byte.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use rootbound_attester::client::{Client, ClientIdentity, client_config, client_config_with_tpm_identity};
use rootbound_common::crypto::subject_public_key_info;
use rootbound_common::wire::v1::Problem;
use rustls::crypto::aws_lc_rs;
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, SignatureAlgorithm, SignatureScheme, StreamOwned,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Serialize;

use crate::certificate_request::ecdsa_signature;
use crate::gateway::Gateway;
use crate::software_tpm::SoftwareKey;

/// A way to a verifier; each request goes over a connection of its own.
#[derive(Clone)]
pub struct Https {
    authority: String,
    name: ServerName<'static>,
    trust_anchors: Arc<RootCertStore>,
    tls: Arc<ClientConfig>,
}

/// What came back.
#[derive(Debug)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The status line and the header fields.
    pub head: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Reply {
    /// The code of a problem document.
    ///
    /// # Panics
    /// Where the body is none.
    #[must_use]
    pub fn code(&self) -> String {
        let problem: Problem = serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)));
        assert_eq!(problem.status, self.status);
        problem.code
    }

    /// A header field.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

impl Https {
    /// Where this client goes, without a certificate.
    #[must_use]
    pub fn to(client: &Client) -> Self {
        let trust_anchors = client.trust_anchors();
        let tls = client_config(Arc::clone(&trust_anchors)).expect("TLS 1.3");
        let url = client.url();
        Self {
            authority: format!("{}:{}", url.host(), url.port()),
            name: url.server_name(),
            trust_anchors,
            tls: Arc::new(tls),
        }
    }

    /// The same with a client certificate whose key is in a TPM.
    #[must_use]
    pub fn as_machine(&self, identity: ClientIdentity) -> Self {
        let tls = client_config_with_tpm_identity(Arc::clone(&self.trust_anchors), identity);
        Self { tls: Arc::new(tls.expect("TLS 1.3")), ..self.clone() }
    }

    /// The same with a client certificate whose key is in software.
    ///
    /// # Panics
    /// Where the chain is no PEM.
    #[must_use]
    pub fn as_simulated(&self, certificate_chain: &str, key: SoftwareKey) -> Self {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate_chain.as_bytes()).collect();
        let certified = CertifiedKey::new(chain.expect("PEM"), Arc::new(TlsKey(Arc::new(key))));
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(Arc::clone(&self.trust_anchors))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
        Self { tls: Arc::new(tls), ..self.clone() }
    }

    /// The same as a relying party.
    #[must_use]
    pub fn as_gateway(&self, gateway: &Gateway) -> Self {
        Self { tls: Arc::new(gateway.tls(Arc::clone(&self.trust_anchors))), ..self.clone() }
    }

    /// The same with a certificate and its key in PEM.
    ///
    /// # Panics
    /// Where they are none.
    #[must_use]
    pub fn as_relying_party(&self, chain: &str, key: &str) -> Self {
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a private key in PEM");
        let tls = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(Arc::clone(&self.trust_anchors))
            .with_client_auth_cert(chain.expect("PEM"), key)
            .expect("a certificate and its key");
        Self { tls: Arc::new(tls), ..self.clone() }
    }

    /// Posts a message as JSON.
    pub async fn post(&self, path: &str, message: &impl Serialize) -> Reply {
        self.post_bytes(path, &serde_json::to_vec(message).expect("JSON")).await
    }

    /// Posts bytes and calls them JSON.
    pub async fn post_bytes(&self, path: &str, body: &[u8]) -> Reply {
        let length = format!("Content-Length: {}", body.len());
        self.send("POST", path, &["Content-Type: application/json", &length], body).await
    }

    /// Gets a path.
    pub async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], &[]).await
    }

    /// Opens a stream of events and reads its beginning; it lasts until it is dropped. Blocks.
    pub fn hold(&self, path: &str) -> io::Result<HeldStream> {
        let tcp = TcpStream::connect(&self.authority)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), self.name.clone());
        let mut stream = StreamOwned::new(tls.map_err(io::Error::other)?, tcp);
        let host = &self.authority;
        let head = format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nAccept: text/event-stream\r\n\r\n");
        stream.write_all(head.as_bytes())?;
        let (mut heard, mut piece) = (Vec::new(), [0; 1024]);
        while !heard.windows(6).any(|window| window == b": held") {
            match stream.read(&mut piece)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => heard.extend_from_slice(&piece[..length]),
            }
        }
        Ok(HeldStream(stream))
    }

    /// Sends a request with exactly these fields, and whatever body, which need not be what the fields say.
    ///
    /// # Panics
    /// Where no answer comes.
    pub async fn send(&self, method: &str, path: &str, fields: &[&str], body: &[u8]) -> Reply {
        let mut request = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n", self.authority);
        for field in ["Connection: close"].iter().chain(fields) {
            request += field;
            request += "\r\n";
        }
        let request = [request.as_bytes(), b"\r\n", body].concat();
        let this = self.clone();
        // The handshake blocks, while a TPM signs for instance.
        let answer = tokio::task::spawn_blocking(move || this.exchange(&request)).await;
        answer.expect("a thread that ends").expect("an answer")
    }

    fn exchange(&self, request: &[u8]) -> io::Result<Reply> {
        let tcp = TcpStream::connect(&self.authority)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
        let tls = ClientConnection::new(Arc::clone(&self.tls), self.name.clone());
        let mut stream = StreamOwned::new(tls.map_err(io::Error::other)?, tcp);
        let mut answer = Vec::new();
        // Whoever refuses by the head need not take the body. The answer says itself whether it is whole.
        let end = match stream.write_all(request).and_then(|()| stream.flush()) {
            Ok(()) => stream.read_to_end(&mut answer).map(drop),
            Err(_) => read_only(&mut stream, &mut answer),
        };
        parse(&answer).ok_or_else(|| end.err().unwrap_or(io::ErrorKind::InvalidData.into()))
    }
}

/// Reads to the end of a stream that takes nothing any more.
fn read_only(stream: &mut StreamOwned<ClientConnection, TcpStream>, answer: &mut Vec<u8>) -> io::Result<()> {
    while stream.conn.read_tls(&mut stream.sock)? > 0 {
        stream.conn.process_new_packets().map_err(io::Error::other)?;
        match stream.conn.reader().read_to_end(answer) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error),
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

fn parse(answer: &[u8]) -> Option<Reply> {
    let head_end = answer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = std::str::from_utf8(&answer[..head_end]).ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    })?;
    let body = answer.get(head_end..head_end.checked_add(length)?)?.to_vec();
    Some(Reply { status, head: head.to_owned(), body })
}

/// A stream of events that is open.
#[derive(Debug)]
pub struct HeldStream(
    #[expect(dead_code, reason = "it is held, not read")] StreamOwned<ClientConnection, TcpStream>,
);

/// A software key that signs handshakes.
#[derive(Clone)]
struct TlsKey(Arc<SoftwareKey>);

impl fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SigningKey for TlsKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let signer: Box<dyn Signer> = Box::new(self.clone());
        offered.contains(&self.scheme()).then_some(signer)
    }

    fn public_key(&self) -> Option<rustls_pki_types::SubjectPublicKeyInfoDer<'_>> {
        subject_public_key_info(&self.0.public()).ok().map(Into::into)
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for TlsKey {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        Ok(ecdsa_signature(&self.0.sign_ecdsa(message)))
    }

    fn scheme(&self) -> SignatureScheme {
        SignatureScheme::ECDSA_NISTP256_SHA256
    }
}

//! The attester's side of the protocol: HTTPS requests to one verifier.
//!
//! TLS 1.3 only, trust anchors from one file only, no session resumption, each request on a connection of its own (but those
//! for tokens) and within one deadline. [`ClientIdentity`] adds a client certificate whose private key is in the TPM.

mod exchange;
mod kept;
mod refusal;
mod stream;
mod tpm_key;
mod trust;
mod url;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use http::Method;
use rootbound_common::wire::v1::{
    ActivateRequest, ActivateResponse, Challenge, ChallengeRequest, ControlState, EnrollRequest,
    EnrollResponse, EvidenceRequest, EvidenceResponse, WhoamiResponse,
};
use rustls::{ClientConfig, RootCertStore};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::time::{Duration, Instant};
use tokio_rustls::TlsConnector;

use crate::within::Within;
use exchange::Question;
pub(crate) use exchange::{Answer, is, judge, retry_after};
pub use exchange::{RequestError, Stage};
pub(crate) use kept::Kept;
pub use refusal::{Code, Refusal, Remedy, printable, word};
pub(crate) use stream::words;
pub use stream::{ControlStream, Told};
pub use tpm_key::{ClientIdentity, TlsError, client_config, client_config_with_tpm_identity};
pub use trust::{TrustError, read_trust_anchors};
pub use url::{UrlError, VerifierUrl};

/// Section `[verifier]`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VerifierConfig {
    /// Where it is.
    pub url: VerifierUrl,
    /// The certificates that its certificate must lead to, PEM.
    pub ca_file: PathBuf,
    /// How long a request may take, from the name lookup to the last byte of the answer.
    #[serde(default)]
    pub request_timeout: RequestTimeout,
}

/// How long a request may take. A TPM signature in the handshake takes half a second on a slow TPM; the rest is for a slow
/// network.
pub type RequestTimeout = Within<1, 300, 15>;

/// Asks one verifier.
#[derive(Debug)]
pub struct Client {
    config: VerifierConfig,
    /// Read anew after a handshake has failed: operators replace the file while the attester runs.
    trust_anchors: Mutex<Arc<RootCertStore>>,
}

impl Client {
    /// Reads the trust anchors; does not connect.
    pub fn new(config: VerifierConfig) -> Result<Self, TrustError> {
        let trust_anchors = Mutex::new(read_trust_anchors(&config.ca_file)?);
        Ok(Self { config, trust_anchors })
    }

    /// Where the verifier is.
    #[must_use]
    pub fn url(&self) -> &VerifierUrl {
        &self.config.url
    }

    /// The certificates that the verifier's certificate must lead to.
    #[must_use]
    pub fn trust_anchors(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.trust_anchors.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `POST /v1/enrollments`
    pub async fn enroll(&self, request: &EnrollRequest) -> Result<EnrollResponse, RequestError> {
        self.post("/v1/enrollments", request).await
    }

    /// `POST /v1/enrollments/activate`
    pub async fn activate(&self, request: &ActivateRequest) -> Result<ActivateResponse, RequestError> {
        self.post("/v1/enrollments/activate", request).await
    }

    /// `POST /v1/challenges`
    pub async fn challenge(&self, request: &ChallengeRequest) -> Result<Challenge, RequestError> {
        self.post("/v1/challenges", request).await
    }

    /// `POST /v1/evidence`
    pub async fn evidence(&self, request: &EvidenceRequest) -> Result<EvidenceResponse, RequestError> {
        self.post("/v1/evidence", request).await
    }

    /// `GET /v1/whoami`, with the credential whose key is in the TPM.
    ///
    /// Blocks a worker thread while the TPM signs: call it on a multi-thread runtime.
    pub async fn whoami(&self, identity: ClientIdentity) -> Result<WhoamiResponse, RequestError> {
        let question = Question { method: Method::GET, path: "/v1/whoami", body: None };
        self.ask(question, Some(identity)).await
    }

    /// `GET /v1/control`, as a stream, with the credential whose key is in the TPM: what the verifier wishes from now on.
    ///
    /// Blocks a worker thread while the TPM signs.
    pub async fn control_stream(&self, identity: ClientIdentity) -> Result<ControlStream, RequestError> {
        let connector = self.connector(Some(identity))?;
        let stream =
            exchange::stream(&self.config.url, connector, "/v1/control", self.config.request_timeout.get())
                .await;
        self.noted(stream)
    }

    /// `GET /v1/control`, once: what the verifier wishes now.
    pub async fn control_state(&self, identity: ClientIdentity) -> Result<ControlState, RequestError> {
        let question = Question { method: Method::GET, path: "/v1/control", body: None };
        self.ask(question, Some(identity)).await
    }

    /// A connection that is kept, with the credential whose key is in the TPM.
    ///
    /// Blocks a worker thread while the TPM signs.
    pub(crate) async fn keep(
        &self,
        identity: ClientIdentity,
        deadline: Instant,
    ) -> Result<Kept, RequestError> {
        let tls = client_config_with_tpm_identity(self.trust_anchors(), identity);
        let kept = Kept::open(&self.config.url, self.tls(tls)?, deadline).await;
        self.noted(kept)
    }

    /// How long a request may take.
    pub(crate) fn request_timeout(&self) -> Duration {
        self.config.request_timeout.get()
    }

    async fn post<Q: Serialize, A: DeserializeOwned>(
        &self,
        path: &'static str,
        request: &Q,
    ) -> Result<A, RequestError> {
        let body = serde_json::to_vec(request)
            .map_err(|error| RequestError::Shape { line: error.line(), column: error.column() })?;
        self.ask(Question { method: Method::POST, path, body: Some(body) }, None).await
    }

    async fn ask<A: DeserializeOwned>(
        &self,
        question: Question,
        identity: Option<ClientIdentity>,
    ) -> Result<A, RequestError> {
        let connector = self.connector(identity)?;
        let answer =
            exchange::exchange(&self.config.url, connector, question, self.config.request_timeout.get())
                .await;
        self.noted(answer)
    }

    fn connector(&self, identity: Option<ClientIdentity>) -> Result<TlsConnector, RequestError> {
        let trust_anchors = self.trust_anchors();
        let tls = match identity {
            Some(identity) => client_config_with_tpm_identity(trust_anchors, identity),
            None => client_config(trust_anchors),
        };
        Ok(TlsConnector::from(Arc::new(self.tls(tls)?)))
    }

    fn tls(&self, config: Result<ClientConfig, TlsError>) -> Result<ClientConfig, RequestError> {
        config.map_err(|error| RequestError::Handshake {
            url: self.config.url.to_string(),
            source: std::io::Error::other(error),
        })
    }

    fn noted<A>(&self, answer: Result<A, RequestError>) -> Result<A, RequestError> {
        if matches!(answer, Err(RequestError::Handshake { .. })) {
            self.reread_trust_anchors();
        }
        answer
    }

    /// For the next request. A file that is being written is no reason to forget what was in it.
    fn reread_trust_anchors(&self) {
        match read_trust_anchors(&self.config.ca_file) {
            Ok(anchors) => *self.trust_anchors.lock().unwrap_or_else(PoisonError::into_inner) = anchors,
            Err(error) => tracing::warn!(%error, "the trust anchors of before stay in use"),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;

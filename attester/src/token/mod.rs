//! Tokens for workloads on this machine: bound to the key of the credential, which the TPM holds, and fetched as often as they
//! are needed.
//!
//! - [`Tokens`]: one connection, one proof for as long as the verifier takes it, any number of tokens
//! - [`wish`]: what a token is to be; [`answer`]: what came back
//! - [`proof`]: DPoP proofs, for the verifier and for services; `reuse`: how long one serves
//!
//! The TPM signs once for each connection, and once for each proof. To the verifier, a proof counts again over a connection that
//! its very key has signed, for one to two minutes; to a service it counts once.

pub mod answer;
pub mod proof;
mod reuse;
pub mod wish;

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, Request};
use http_body_util::Full;
use hyper::body::Bytes;
use rootbound_common::clock::Clock;
use tokio::sync::{Mutex, Semaphore};
use tokio::time::{Instant, timeout_at};

use self::answer::{Endpoint, Outcome, PATH};
pub use self::answer::{Implausible, OtherKind, Token, TokenText, TokenType};
pub use self::proof::{Call, Nonce, NotP256, Prover, TargetUrl};
use self::reuse::{Proof, Proofs};
pub use self::wish::{TokenWish, Wished};
use crate::client::{Answer, Client, ClientIdentity, Kept, RequestError, Stage};
use crate::tpm::TpmError;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The verifier refused, or could not be asked.
    #[error(transparent)]
    Request(#[from] RequestError),
    /// The TPM does not sign: the machine is in another state than the one that the credential is for, for instance.
    #[error("the TPM makes no proof: {0}")]
    Tpm(#[from] TpmError),
    /// The verifier says of itself what cannot be.
    #[error(transparent)]
    Metadata(#[from] Implausible),
    /// The token is not what was asked for.
    #[error(transparent)]
    Kind(#[from] OtherKind),
}

impl FetchError {
    /// What the TPM said, where it was our TPM that did not sign.
    #[must_use]
    pub fn tpm(&self) -> Option<&TpmError> {
        match self {
            Self::Tpm(error) => Some(error),
            Self::Request(error) => error.tpm(),
            Self::Metadata(_) | Self::Kind(_) => None,
        }
    }
}

/// Fetches tokens with one credential. For the next credential there is another of these.
///
/// May be asked for many tokens at once: they share a connection and a proof. Needs a multi-thread runtime, since a worker
/// blocks while the TPM signs a handshake.
pub struct Tokens {
    client: Client,
    identity: ClientIdentity,
    prover: Prover,
    clock: Arc<dyn Clock>,
    connection: Mutex<Option<Arc<Connection>>>,
    proofs: Proofs,
    places: Semaphore,
}

impl std::fmt::Debug for Tokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tokens").field("verifier", self.client.url()).finish_non_exhaustive()
    }
}

/// A connection, and what the verifier at its end calls its token endpoint.
struct Connection {
    kept: Kept,
    endpoint: Endpoint,
}

impl Tokens {
    /// Requests at once. More wait; the verifier takes eight of a connection.
    const AT_ONCE: usize = 8;

    /// With a credential. Does not connect yet.
    pub fn new(client: Client, identity: ClientIdentity, clock: Arc<dyn Clock>) -> Result<Self, NotP256> {
        Ok(Self {
            client,
            prover: Prover::new(identity.clone())?,
            identity,
            clock,
            connection: Mutex::default(),
            proofs: Proofs::default(),
            places: Semaphore::new(Self::AT_ONCE),
        })
    }

    /// Fetches a token, within the time that a request may take; what the TPM takes for a proof comes on top.
    ///
    /// A connection that has ended is made anew once, and the verifier's wish for another nonce is followed once. Whoever
    /// stops waiting may leave a token behind that nobody has.
    pub async fn fetch(&self, wish: &TokenWish) -> Result<Token, FetchError> {
        let mut deadline = Instant::now() + self.client.request_timeout();
        let waiting = |_| RequestError::Timeout { stage: Stage::Answer };
        // It is never closed.
        let _place = timeout_at(deadline, self.places.acquire()).await.map_err(waiting)?;
        let (mut refused, mut connected_anew) = (None, false);
        loop {
            let (connection, is_new) = self.connection(deadline).await?;
            let proof = if wish.takes_proof() {
                let before = Instant::now();
                let proof = self.proof(&connection, refused.as_ref(), deadline).await?;
                deadline += before.elapsed();
                Some(proof)
            } else {
                None
            };
            let header = proof.as_deref().map(Proof::as_str);
            let answer = match self.ask(&connection, wish.form(), header, deadline).await {
                // The verifier ends connections that are old or idle; one may end just when it is used.
                Err(RequestError::Http(_)) if !is_new && !connected_anew => {
                    connected_anew = true;
                    self.give_up(&connection).await;
                    continue;
                }
                answer => answer?,
            };
            match answer::outcome(&answer)? {
                Outcome::Token(token) => {
                    token.is_as_wished(wish)?;
                    return Ok(token);
                }
                Outcome::UseNonce(_) if proof.is_some() && refused.is_none() => refused = proof,
                Outcome::UseNonce(refusal) => return Err(RequestError::Refused(refusal).into()),
            }
        }
    }

    /// A proof for one call of a service, with a token that [`Self::fetch`] gave: a signature of the TPM each time.
    pub async fn proof_for(&self, call: &Call<'_>) -> Result<String, TpmError> {
        self.prover.proof(call, self.clock.now()).await
    }

    /// The connection, and whether it was made for this.
    async fn connection(&self, deadline: Instant) -> Result<(Arc<Connection>, bool), FetchError> {
        let waiting = |_| RequestError::Timeout { stage: Stage::Connect };
        // Held while it is made, so that all who wait share one.
        let mut connection = timeout_at(deadline, self.connection.lock()).await.map_err(waiting)?;
        if let Some(connection) = connection.as_ref().filter(|connection| !connection.kept.has_ended()) {
            return Ok((Arc::clone(connection), false));
        }
        let kept = self.client.keep(self.identity.clone(), deadline).await?;
        let request = Request::new(Full::default());
        let metadata = kept.ask("/.well-known/oauth-authorization-server", request, deadline).await?;
        let endpoint = Endpoint::read(&metadata)??;
        let made = Arc::new(Connection { kept, endpoint });
        *connection = Some(Arc::clone(&made));
        Ok((made, true))
    }

    /// Has the next who asks connect anew, unless somebody did already.
    async fn give_up(&self, broken: &Arc<Connection>) {
        let mut connection = self.connection.lock().await;
        if connection.as_ref().is_some_and(|connection| Arc::ptr_eq(connection, broken)) {
            *connection = None;
        }
    }

    /// A proof that the verifier takes, as far as is known.
    async fn proof(
        &self,
        connection: &Connection,
        refused: Option<&Arc<Proof>>,
        deadline: Instant,
    ) -> Result<Arc<Proof>, FetchError> {
        let endpoint = &connection.endpoint;
        let make = async |nonce: Option<Nonce>| {
            let nonce = match nonce {
                Some(nonce) => Some(nonce),
                None => self.first_nonce(connection, deadline).await?,
            };
            let text = self.prover.for_tokens(endpoint.as_str(), nonce.as_ref(), self.clock.now()).await?;
            Ok(Proof::new(text, endpoint.clone(), nonce))
        };
        self.proofs.find_or_make(endpoint, refused, make).await
    }

    /// A nonce, before there is any proof. A proof without a nonce would be refused for that alone (RFC 9449, 8), after the
    /// TPM has signed it; this is none at all, and is refused as well, with the nonce.
    async fn first_nonce(
        &self,
        connection: &Connection,
        deadline: Instant,
    ) -> Result<Option<Nonce>, RequestError> {
        let answer = self.ask(connection, "grant_type=client_credentials", Some("none"), deadline).await?;
        Ok(answer::nonce(&answer.headers))
    }

    async fn ask(
        &self,
        connection: &Connection,
        form: &str,
        proof: Option<&str>,
        deadline: Instant,
    ) -> Result<Answer, RequestError> {
        let mut request = Request::new(Full::from(Bytes::copy_from_slice(form.as_bytes())));
        *request.method_mut() = Method::POST;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        if let Some(proof) = proof.and_then(|proof| HeaderValue::from_str(proof).ok()) {
            headers.insert("dpop", proof);
        }
        let answer = connection.kept.ask(PATH, request, deadline).await?;
        if let Some(nonce) = answer::nonce(&answer.headers) {
            self.proofs.note(nonce);
        }
        Ok(answer)
    }
}

#[cfg(test)]
mod tests;

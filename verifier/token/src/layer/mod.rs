//! A layer that lets a request through to a service only with a token that counts for it now.
//!
//! Established when the service is called, in this order: the request shows one token, by the scheme `DPoP` or `Bearer` ·
//! [`AccessToken::verify`] · whoever shows it has what it is bound to: the key of a proof that was never used, the certificate
//! in TLS, or both; a token that is bound to a key is taken with the scheme `DPoP` only (RFC 9449, 7.2), one that is bound to nothing only
//! where the service says so · it has the scope that the service asks for · [`Introspect`] says that it counts as things
//! stand now. The service finds the [`VerifiedAccessToken`] in the request's extensions.
//!
//! The layer has to see the path that the client asked for: it belongs around the router, not into a nested one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use rootbound_common::clock::Clock;
use tower::{Layer, Service};

use crate::access::{AccessToken, Expected, ExpectedAudience, TokenError, VerifiedAccessToken};
use crate::claim::Binding;
use crate::dpop::{DpopError, DpopProof, ExpectedProof, GoesWith};
use crate::jwk::{CertificateThumbprint, JwkSet};
use crate::nonce::Nonces;
use crate::replay::{ReplayError, Replays};
use crate::target_uri::{TargetUri, TargetUriError};

const DPOP: HeaderName = HeaderName::from_static("dpop");
const DPOP_NONCE: HeaderName = HeaderName::from_static("dpop-nonce");

/// How a token's subject stands now: the verifier is asked, at each request.
pub trait Introspect: Send + Sync + 'static {
    /// Whether the token counts now. What could not be found out is [`Posture::Unknown`].
    fn introspect(&self, text: &str, token: &VerifiedAccessToken) -> impl Future<Output = Posture> + Send;
}

/// What was said of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Posture {
    /// It counts.
    Active,
    /// It was revoked or spent, or its subject stands otherwise than when it was minted.
    Inactive,
    /// Nobody could say: the request is refused.
    Unknown,
}

/// The certificate that the peer showed in TLS: put into the extensions of a request by whoever ended TLS, and by nobody
/// else.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PeerCertificate(pub CertificateThumbprint);

/// What is done with a token that is bound to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum BearerTokens {
    /// It is refused.
    #[default]
    Refused,
    /// It is taken, whoever shows it.
    Taken,
}

/// What a service asks for.
pub struct Enforcement<I> {
    /// The issuer of its tokens.
    pub issuer: String,
    /// Its own name, which a token must be for.
    pub audience: String,
    /// `https://host`, perhaps with a port: how clients reach it. Proofs are for this and the path of the request.
    pub origin: String,
    /// The issuer's keys, which the caller fetches, and fetches anew.
    pub keys: Arc<ArcSwap<JwkSet>>,
    /// How far clocks may be apart.
    pub leeway: Duration,
    /// What is done with a token that is bound to nothing.
    pub bearer_tokens: BearerTokens,
    /// A scope that every token must have, where there is one.
    pub scope: Option<String>,
    /// The nonces of proofs.
    pub nonces: Nonces,
    /// The proofs that were seen.
    pub replays: Replays,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Who says how subjects stand.
    pub introspect: I,
}

/// Why a request does not come through: in the extensions of the answer, for whoever keeps the service's log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It shows no token.
    #[error("the request has no token")]
    NoToken,
    /// It shows several, or one in no form that there is.
    #[error("the request's Authorization is not one token by the scheme DPoP or Bearer")]
    Malformed,
    /// The token says nothing here.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The path of the request is none that a proof could be for.
    #[error("the request's path is refused: {0}")]
    Path(TargetUriError),
    /// The proof proves nothing here.
    #[error(transparent)]
    Proof(#[from] DpopError),
    /// The proof was used before, or cannot be remembered.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// A token that is bound to a key, shown as if it were not.
    #[error("the token is bound to a key, and was shown as Bearer")]
    ShownAsBearer,
    /// The token is bound to a certificate that the peer does not have.
    #[error("the token is bound to another certificate than the peer's")]
    Certificate,
    /// The token is bound to nothing.
    #[error("the token is bound to nothing")]
    Unbound,
    /// The token does not have the scope.
    #[error("the token does not have the scope")]
    Scope,
    /// The token counts no more.
    #[error("the token counts no more")]
    Inactive,
    /// Nobody could say whether it counts.
    #[error("nobody could say whether the token counts")]
    PostureUnknown,
}

impl Refusal {
    /// The status (RFC 6750, 3.1), and the error of `WWW-Authenticate`, where one is told.
    fn told(&self) -> (StatusCode, Option<&'static str>) {
        match self {
            // Whoever showed nothing is told what to show, and no error (RFC 6750, 3.1).
            Self::NoToken => (StatusCode::UNAUTHORIZED, None),
            Self::Malformed | Self::Path(_) => (StatusCode::BAD_REQUEST, Some("invalid_request")),
            Self::Token(_) | Self::ShownAsBearer | Self::Certificate | Self::Unbound | Self::Inactive => {
                (StatusCode::UNAUTHORIZED, Some("invalid_token"))
            }
            Self::Proof(error) => (StatusCode::UNAUTHORIZED, Some(error.oauth_error())),
            Self::Replay(ReplayError::Full) | Self::PostureUnknown => (StatusCode::SERVICE_UNAVAILABLE, None),
            Self::Replay(error) => (StatusCode::UNAUTHORIZED, Some(error.oauth_error())),
            Self::Scope => (StatusCode::FORBIDDEN, Some("insufficient_scope")),
        }
    }

    fn response<B: Default>(self, nonce: Option<HeaderValue>) -> Response<B> {
        let (status, error) = self.told();
        let mut response = Response::new(B::default());
        *response.status_mut() = status;
        let challenge = match error {
            None => r#"DPoP algs="ES256""#.to_owned(),
            Some(error) => format!(r#"DPoP error="{error}", algs="ES256""#),
        };
        if status != StatusCode::SERVICE_UNAVAILABLE
            && let Ok(challenge) = HeaderValue::try_from(challenge)
        {
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response.extensions_mut().insert(self);
        with_nonce(response, nonce)
    }
}

/// Every answer brings the nonce of its time (RFC 9449, 8.2), so that nobody has to ask twice.
fn with_nonce<B>(mut response: Response<B>, nonce: Option<HeaderValue>) -> Response<B> {
    if let Some(nonce) = nonce {
        response.headers_mut().insert(DPOP_NONCE, nonce);
    }
    response
}

/// How a token was shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scheme {
    Dpop,
    Bearer,
}

/// The one token of a request.
fn shown(headers: &HeaderMap) -> Result<(Scheme, &str), Refusal> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let field = fields.next().ok_or(Refusal::NoToken)?;
    if fields.next().is_some() {
        return Err(Refusal::Malformed);
    }
    let (scheme, token) =
        field.to_str().ok().and_then(|text| text.split_once(' ')).ok_or(Refusal::Malformed)?;
    if scheme.eq_ignore_ascii_case("DPoP") {
        Ok((Scheme::Dpop, token))
    } else if scheme.eq_ignore_ascii_case("Bearer") {
        Ok((Scheme::Bearer, token))
    } else {
        Err(Refusal::Malformed)
    }
}

impl<I: Introspect> Enforcement<I> {
    /// All checks but the last: of what the request shows, without asking anybody.
    fn verify<B>(&self, request: &Request<B>) -> Result<(String, VerifiedAccessToken), Refusal> {
        let now = self.clock.now();
        let (scheme, text) = shown(request.headers())?;
        let audience = ExpectedAudience::Named(&self.audience);
        let expected = Expected { issuer: &self.issuer, audience, leeway: self.leeway };
        let token = AccessToken::verify(text, &self.keys.load(), &expected, now)?;
        let binding = token.claims().binding;
        match scheme {
            Scheme::Dpop => {
                let uri = TargetUri::parse(&format!("{}{}", self.origin, request.uri().path()));
                let uri = uri.map_err(Refusal::Path)?;
                // What is no text is no proof either: it is counted, and refused as one.
                let proofs = request.headers().get_all(DPOP);
                let proofs: Vec<_> = proofs.iter().map(|proof| proof.to_str().unwrap_or_default()).collect();
                let method = request.method().as_str();
                let expected = ExpectedProof { method, uri: &uri, goes_with: GoesWith::Token(&token) };
                let proof = DpopProof::verify(&proofs, &expected, &self.nonces, now)?;
                self.replays.take(proof)?;
            }
            Scheme::Bearer if binding.key().is_some() => return Err(Refusal::ShownAsBearer),
            Scheme::Bearer => {}
        }
        let peer = request.extensions().get::<PeerCertificate>().map(|PeerCertificate(peer)| peer);
        match (binding, self.bearer_tokens) {
            (Binding::Certificate(certificate) | Binding::Both { certificate, .. }, _) => {
                if peer != Some(&certificate) {
                    return Err(Refusal::Certificate);
                }
            }
            (Binding::Key(_), _) | (Binding::Bearer, BearerTokens::Taken) => {}
            (Binding::Bearer, BearerTokens::Refused) => return Err(Refusal::Unbound),
        }
        if let Some(scope) = &self.scope
            && !token.claims().scope.as_ref().is_some_and(|granted| granted.contains(scope))
        {
            return Err(Refusal::Scope);
        }
        Ok((text.to_owned(), token))
    }
}

/// The layer.
pub struct EnforceLayer<I>(Arc<Enforcement<I>>);

impl<I> EnforceLayer<I> {
    /// A layer that asks for this.
    pub fn new(enforcement: Enforcement<I>) -> Self {
        Self(Arc::new(enforcement))
    }
}

impl<I> Clone for EnforceLayer<I> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<S, I> Layer<S> for EnforceLayer<I> {
    type Service = Enforced<S, I>;

    fn layer(&self, service: S) -> Enforced<S, I> {
        Enforced { service, enforcement: Arc::clone(&self.0) }
    }
}

/// A service behind the layer.
pub struct Enforced<S, I> {
    service: S,
    enforcement: Arc<Enforcement<I>>,
}

impl<S: Clone, I> Clone for Enforced<S, I> {
    fn clone(&self) -> Self {
        Self { service: self.service.clone(), enforcement: Arc::clone(&self.enforcement) }
    }
}

impl<S, I, B, R> Service<Request<B>> for Enforced<S, I>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    I: Introspect,
    B: Send + 'static,
    R: Default,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The one that was found ready is called; its copy waits for the next request.
        let copy = self.service.clone();
        let mut service = std::mem::replace(&mut self.service, copy);
        let enforcement = Arc::clone(&self.enforcement);
        let nonce = HeaderValue::try_from(enforcement.nonces.issue(enforcement.clock.now())).ok();
        let verified = enforcement.verify(&request);
        Box::pin(async move {
            let (text, token) = match verified {
                Ok(verified) => verified,
                Err(refusal) => return Ok(refusal.response(nonce)),
            };
            match enforcement.introspect.introspect(&text, &token).await {
                Posture::Active => {}
                Posture::Inactive => return Ok(Refusal::Inactive.response(nonce)),
                Posture::Unknown => return Ok(Refusal::PostureUnknown.response(nonce)),
            }
            request.extensions_mut().insert(token);
            Ok(with_nonce(service.call(request).await?, nonce))
        })
    }
}

#[cfg(test)]
mod tests;
